package cluster

import (
	"context"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

// dialFor makes a connection for a request, which has reserved it. The connection has the
// cluster's connect timeout, not what is left of the request's time, so a goroutine of its
// own makes it: a request that gives up leaves it to those that wait, or to the next. ended
// is called once, before the request gets the connection or the error.
func (p *pool) dialFor(ctx context.Context, s telemetry.Shard, want protocol, ended func(error)) (*Conn, error) {
	m := p.host.cluster.m
	if !m.dials.enter() {
		conn, err := p.dialReserved(m.ctx, s, want) // which has ended
		ended(err)
		return conn, err
	}
	d := &dialing{pool: p, shard: s, want: want, ended: ended, got: make(chan dialed), left: make(chan struct{})}
	m.dials.workers.Run(d)
	select {
	case r := <-d.got:
		return r.conn, r.err
	case <-ctx.Done():
		if want == protocolHTTP1 {
			p.mu.Lock()
			p.unclaimed++
			p.mu.Unlock()
		}
		close(d.left)
		return nil, p.canceled(ctx, s)
	}
}

// dialing is a connection that is being made for a request, as what a worker does.
type dialing struct {
	pool  *pool
	shard telemetry.Shard
	want  protocol
	ended func(error)
	got   chan dialed
	left  chan struct{} // closed by the request when it gives up
}

type dialed struct {
	conn *Conn
	err  error
}

// Run implements workers.Task.
func (d *dialing) Run() {
	p := d.pool
	m := p.host.cluster.m
	defer m.dials.wg.Done()
	defer panics.Contain(panics.Dial, p.host, nil)
	r := dialed{nil, p.failed(ConnectRefused, errPanicked)}
	defer func() {
		d.ended(r.err)
		select {
		case d.got <- r:
		case <-d.left:
			p.inherit(r.conn, r.err, d.want)
		}
	}()
	r.conn, r.err = p.dialReserved(m.ctx, d.shard, d.want)
}

// inherit takes the connection that a request left, or tells of the failure that nobody else
// tells of: a host to which no connection can be made is to be found out, however little
// time its requests have.
func (p *pool) inherit(conn *Conn, err error, want protocol) {
	if want == protocolHTTP1 {
		p.mu.Lock()
		p.unclaimed--
		p.mu.Unlock()
	}
	e, failed := err.(*Error)
	switch {
	case failed:
		if e.OfHost() {
			p.host.Report(OutcomeConnect)
		}
		p.wake() // whoever counted on it
	case conn.HTTP2 == nil && (want == protocolBytes || want == protocolTunnel):
		_ = conn.CloseUnused() // bytes were to be said on it, and by nobody else
	default:
		if conn.HTTP2 == nil {
			conn.unused = true
			conn.uses.Store(0)
		}
		conn.Release()
		switch {
		case conn.HTTP2 != nil && want == protocolHTTP1:
			p.wakeAll() // who counted on it is not told of places on a shared one
		case conn.closed.Load():
			p.wake()
		}
	}
}

// failed is the error of a connection that could not be made.
func (p *pool) failed(kind Kind, err error) *Error {
	return &Error{Kind: kind, Cluster: p.host.cluster.name, Host: p.host.key, Err: err}
}

// canceled is the error of who gives up before a connection is there, and counts that.
func (p *pool) canceled(ctx context.Context, s telemetry.Shard) *Error {
	p.host.cluster.metrics.Abandoned(s, telemetry.AbandonedPending)
	return p.failed(Canceled, context.Cause(ctx))
}

// dials are the connections that are being made. Their peers may be verified before a
// withdrawal, and they are known to their pools only after it. The zero value is empty.
type dials struct {
	mu    sync.Mutex
	under map[*underway]struct{}
	ended bool
	wg    sync.WaitGroup // of those that are made beside their requests

	workers workers.Pool // make them
}

// enter counts another; false when there may be none any more.
func (d *dials) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.wg.Add(1)
	}
	return !d.ended
}

// close waits until all have been made, or have failed.
func (d *dials) close() {
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.wg.Wait()
	d.workers.Close()
}

// underway is a connection that is being made, and what was withdrawn meanwhile.
type underway struct{ withdrawn []withdrawal }

// begin comes before anything is verified, and end when the connection is known or has
// failed.
func (d *dials) begin() *underway {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := &underway{}
	if d.under == nil {
		d.under = map[*underway]struct{}{}
	}
	d.under[u] = struct{}{}
	return u
}

// end returns the withdrawals since begin; a later one finds the connection itself.
func (d *dials) end(u *underway) []withdrawal {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.under, u)
	return u.withdrawn
}

func (d *dials) withdraw(w withdrawal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for u := range d.under {
		u.withdrawn = append(u.withdrawn, w)
	}
}
