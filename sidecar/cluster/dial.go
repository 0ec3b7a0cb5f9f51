package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// dial makes a connection for the pool, handshake included, within the connect
// timeout. It needs a deep stack, so it runs on a goroutine that ends after it.
func (p *pool) dial(ctx context.Context, s telemetry.Shard, want protocol) (conn *Conn, failure error) {
	h := p.host
	defer panics.Contain(panics.Dial, h, func() {
		conn, failure = nil, &Error{Kind: ConnectRefused, Cluster: h.cluster.name, Host: h.key, Err: errPanicked}
	})
	cfg := h.cluster.cfg.Load()
	if p.outdated(cfg) || !want.configured(cfg) {
		return nil, p.failed(Outdated, nil)
	}
	if shed := h.cluster.m.opts.Shed; shed != nil && shed() {
		return nil, p.failed(Shed, ErrShed)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.connectTimeout)
	defer cancel()
	h.connects.Add(1)
	h.cluster.trafficked.Store(true)
	start, aimed := time.Now(), h.target.Load()
	opening := Opening{Began: start}
	st, kind, err := p.open(ctx, cfg, want, &opening)
	m := h.cluster.metrics
	if err != nil {
		if errors.Is(err, context.Canceled) {
			kind = Canceled // which says nothing of the host
		} else if kind == OverflowConnections {
			return nil, p.overflowed(s, err)
		} else if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			kind = ConnectTimeout
		}
		if m != nil && kind != Canceled {
			countFailure(m, s, kind, err)
			m.ConnectionEnded(kind == ConnectRefused || kind == TLSFailure, false)
		}
		return nil, &Error{Kind: kind, Cluster: h.cluster.name, Host: h.key, Err: err}
	}
	if m != nil {
		m.Use().ConnectOK.Inc(s)
		m.Use().ConnectDuration.Observe(s, time.Since(start))
	}
	if telemetry.Wanted()&telemetry.WantConnectionIDs != 0 {
		st.Info().Noted = &stream.Noted{ID: connectionIDs.Add(1)}
	}
	c := &Conn{Stream: st, pool: p, generation: cfg.tlsGeneration, aimed: aimed, until: cfg.lifetime(), opening: opening}
	c.uses.Store(1)
	c.carries.Store(1)
	if want.settle(cfg, st.Info()) {
		terms := cfg.HTTP.http2()
		if want == protocolTunnel {
			terms = http2.ForTunnels()
		}
		p.host.cluster.count(terms, want == protocolTunnel)
		c.HTTP2 = http2.NewClient(st, terms)
		return c, nil
	}
	c.bytes = want == protocolBytes || want == protocolTunnel
	c.Exchanger, _ = st.(stream.Exchanger)
	c.prober, _ = st.(stream.Prober)
	return c, nil
}

// ErrShed is why a connection is not made that is shed.
var ErrShed = errors.New("no connections are made")

// connectionIDs numbers the process's connections to hosts, where somebody shows numbers.
var connectionIDs atomic.Uint64

// overflowed is a connection that was not made, as descriptors are short: that too is a limit
// of ours, and says nothing of the host.
func (p *pool) overflowed(s telemetry.Shard, err error) *Error {
	c := p.host.cluster
	if c.metrics != nil {
		c.metrics.Use().OverflowConnections.Inc(s)
	}
	return &Error{Kind: OverflowConnections, Cluster: c.name, Host: p.host.key, Err: err}
}

func countFailure(m *telemetry.ClusterMetrics, s telemetry.Shard, kind Kind, err error) {
	switch {
	case kind == ConnectTimeout:
		m.Use().ConnectTimeout.Inc(s)
	case kind == TLSFailure, kind == WrongName:
		m.Use().ConnectTLS.Inc(s)
		m.TLSFailure("handshake")
	case errors.Is(err, syscall.ECONNREFUSED):
		m.Use().ConnectRefused.Inc(s)
	default:
		m.Use().ConnectError.Inc(s)
	}
}

func (p *pool) open(ctx context.Context, cfg *settings, want protocol, at *Opening) (stream.Stream, Kind, error) {
	h := p.host
	nc, err := h.connect(ctx, cfg)
	if isShort(err) {
		return nil, OverflowConnections, err
	}
	if err != nil {
		return nil, ConnectRefused, err
	}
	at.Connected = time.Now()
	conn, ok := nc.(stream.Conn)
	if !ok {
		_ = nc.Close()
		return nil, ConnectRefused, fmt.Errorf("dialer returned a %T, which is not a socket", nc)
	}
	if a := h.announcement(cfg); a != 0 {
		if err := a.announce(ctx, conn, p.terms()); err != nil {
			_ = conn.Close()
			return nil, ConnectRefused, err
		}
	}
	t := h.tls(cfg)
	if t == nil {
		st, err := stream.NewSocket(conn, nil)
		if err != nil {
			_ = conn.Close()
			return nil, ConnectRefused, err
		}
		return st, 0, nil
	}
	st, err := p.handshake(ctx, conn, cfg, t, want)
	if err == nil {
		err = want.agreed(cfg, st.Info())
	}
	if err != nil {
		_ = conn.Close()
		if wrong := (*nameError)(nil); errors.As(err, &wrong) {
			return nil, WrongName, err
		}
		return nil, TLSFailure, err
	}
	at.Secured = time.Now()
	return st, 0, nil
}

// errPanicked is why a connection fails that met a fault of the program.
var errPanicked = errors.New("panic")

// handshake is bounded by ctx.
func (p *pool) handshake(ctx context.Context, conn stream.Conn, cfg *settings, t *TLS, want protocol) (*stream.TLS, error) {
	tc, own, err := p.host.cluster.m.opts.TLS.ClientTLS(p.source, cfg.Name, t)
	if err != nil {
		return nil, err
	}
	if tc.NextProtos = want.offered(tc.NextProtos); len(tc.NextProtos) == 0 {
		tc.NextProtos = want.alpn(cfg)
	}
	if t.AutoHostSNI {
		if name := p.host.Authority(); name != "" {
			tc.ServerName = name
		}
	}
	if t := p.terms(); t != nil {
		t.demand(tc)
	}
	st, err := stream.ClientTLS(conn, tc)
	if err != nil {
		return nil, err
	}
	if telemetry.Wanted()&telemetry.WantCertificates != 0 {
		st.KeepPeerChain()
	}
	if err := st.Handshake(ctx); err != nil {
		return nil, err
	}
	st.SetOwn(own)
	return st, nil
}

// Open makes a connection of its own to a host of the cluster, for a byte stream:
// it is never pooled, and Close ends it. Hosts in avoid are taken only when there
// is no other. The error is an *Error; a failure to connect was counted against the host
// that it names.
func (c *Cluster) Open(ctx context.Context, source string, avoid []*Host, s telemetry.Shard) (*Conn, error) {
	return c.OpenFor(ctx, source, &PickContext{Avoid: avoid}, &Asker{}, s)
}

// OpenFor is Open with all that the choice of a host may depend on, for asker.
func (c *Cluster) OpenFor(ctx context.Context, source string, pc *PickContext, asker *Asker, s telemetry.Shard) (*Conn, error) {
	h, err := c.PickFor(pc)
	if err != nil {
		return nil, err
	}
	conn, err := h.onTerms(asker, func(t *Terms) (*Conn, error) { return h.OpenBytes(ctx, source, t, s) })
	if err == nil {
		conn.beginRelay()
		h.Report(200)
	} else if e, ok := err.(*Error); ok && e.Kind != OverflowConnections {
		e.Addr, e.Name = h.Addr(), h.Hostname()
		if e.OfHost() {
			h.Report(OutcomeConnect)
		}
	}
	return conn, err
}

// beginRelay has a connection count, until it is closed, as a request of its host's does: balancers
// send the next one to hosts that have few, as in Envoy.
func (c *Conn) beginRelay() {
	h := c.pool.host
	h.Begin()
	h.cluster.relayed.Add(1)
	c.relayed.Store(true)
	if c.closed.Load() {
		c.endRelay() // whoever closed it may have come before
	}
}

func (c *Conn) endRelay() {
	if c.relayed.Swap(false) {
		h := c.pool.host
		h.cluster.relayed.Add(-1)
		h.End()
	}
}

// OpenBytes is Cluster.Open to a host that was chosen already, for a stream with the terms t, nil
// for none. How it went is the caller's to report.
func (h *Host) OpenBytes(ctx context.Context, source string, t *Terms, s telemetry.Shard) (*Conn, error) {
	own := h.cluster
	var p *pool
	if t == nil {
		p = h.pool(source, DefaultPriority)
	} else {
		p = h.enter(source, DefaultPriority, t, monotonic())
		defer p.leave()
	}
	p.makeRoom(protocolBytes)
	if exceeds(own.conns.Add(1), own.cfg.Load().Limits.MaxConnections) {
		return nil, p.noRoom(s, &Error{Kind: OverflowConnections, Cluster: own.name})
	}
	return p.openBytes(ctx, s)
}

// noRoom takes a byte stream off what is in use that is refused, and counts that.
func (p *pool) noRoom(s telemetry.Shard, e *Error) *Error {
	p.uncount()
	if m := p.host.cluster.metrics.Use(); m != nil {
		m.OverflowConnections.Inc(s)
	}
	return e
}

// tunnels tells whether byte streams are to share a connection to the host.
func (p *pool) tunnels() bool {
	if socket := p.host.socket; socket != nil {
		return socket.TLS != nil && slices.Contains(socket.TLS.ALPN, TunnelALPN)
	}
	return p.host.cluster.cfg.Load().tunnels
}

// openBytes makes a connection, or a stream of one, for which the host's limit does not count. It is
// counted against the cluster's already.
func (p *pool) openBytes(ctx context.Context, s telemetry.Shard) (*Conn, error) {
	if p.tunnels() {
		conn, err := p.openTunnel(ctx, s)
		if conn != nil || err != nil {
			return conn, err
		}
	}
	conn, err := p.dialBytes(ctx, s)
	switch {
	case err != nil:
		return nil, err
	case conn.Info().ALPN == TunnelALPN && p.tunnels():
		// It had declined, and does not any more: what is said on this one would be taken for frames.
		p.multiplexed.declined.Store(false)
	case conn.apt():
		conn.condemned.Store(true) // Release would close it too
		return conn, nil
	}
	_ = conn.CloseUnused()
	return p.host.OpenBytes(ctx, p.source, p.terms(), s)
}

// dialBytes makes a connection for a byte stream, which waits for it as a request does.
func (p *pool) dialBytes(ctx context.Context, s telemetry.Shard) (*Conn, error) {
	b, limits := p.breaker()
	n := b.pending.Add(1)
	defer b.pending.Add(-1)
	if exceeds(n, limits.MaxPendingRequests) {
		p.uncount()
		if m := p.host.cluster.metrics.Use(); m != nil {
			m.OverflowPending.Inc(s)
		}
		return nil, p.failed(OverflowPending, nil)
	}
	p.mu.Lock()
	if p.dismissed() {
		p.mu.Unlock()
		p.uncount()
		return nil, p.failed(Outdated, nil)
	}
	if p.hostFull() && !p.sparedBytes(s) {
		p.mu.Unlock()
		return nil, p.noRoom(s, p.failed(OverflowConnections, nil)) // another host may have room
	}
	p.dialing++
	p.apart++
	p.mu.Unlock()
	return p.dialFor(ctx, s, protocolBytes, func(error) {})
}
