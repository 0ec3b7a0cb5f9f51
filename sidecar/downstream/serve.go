package downstream

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Owner is told when one of its connections is finished.
type Owner interface{ Finished(*Conn) }

// serving is how a connection is served, from Attach to the end.
type serving struct {
	ctx     context.Context
	handler Handler
	owner   Owner
	poller  *stream.Poller
	watch   stream.Watch
	woken   atomic.Bool
	conn    *Conn
}

// Attach says who serves the connection, in which context, and who is told of its
// end. It comes before anyone else knows of the connection. With a nil poller a
// connection that is parked is served again at once.
func (c *Conn) Attach(ctx context.Context, h Handler, owner Owner, poller *stream.Poller) {
	c.run.ctx, c.run.handler, c.run.owner, c.run.poller, c.run.conn = ctx, h, owner, poller, c
	c.run.watch.Owner = &c.run
}

// Serve serves the connection here and, once it has been parked, on goroutines of
// its own, until it is finished and its owner has been told. It is called once.
func (c *Conn) Serve() { c.serve() }

func (c *Conn) serve() {
	defer panics.Contain(panics.Connection, c, c.abandon)
	r := &c.run
	for {
		c.parked = [2]stream.Stream{}
		r.woken.Store(false)
		c.handle()
		streams := c.parkedOn()
		if len(streams) == 0 {
			r.owner.Finished(c)
			return
		}
		if r.poller == nil || !r.poller.Watch(&r.watch, streams...) {
			continue
		}
		if r.woken.Load() && r.poller.Cancel(&r.watch) {
			continue // woken before there was a wait to end
		}
		return
	}
}

// handle has the handler serve the connection. A fault of it finishes the connection.
func (c *Conn) handle() {
	defer panics.Contain(panics.Connection, c, c.Finish)
	c.run.handler.ServeStream(c.run.ctx, c)
}

// abandon ends a connection that cannot even be finished.
func (c *Conn) abandon() { _ = c.Stream.Close() }

// LogValue implements slog.LogValuer.
func (c *Conn) LogValue() slog.Value {
	v := []slog.Attr{slog.String("listener", c.Listener), slog.String("service", c.Service)}
	if c.Info != nil {
		v = append(v, slog.Any("src", c.Info.Remote), slog.String("src_id", c.Info.PeerID))
	}
	return slog.GroupValue(v...)
}

// Park keeps the connection without a goroutine, and so without a stack, once
// ServeStream has returned: it is called again when one of the streams, at least
// one and at most two, can be read or has ended, or after Wake.
func (c *Conn) Park(streams ...stream.Stream) {
	c.parked = [2]stream.Stream{}
	copy(c.parked[:], streams)
}

// Finish undoes a Park.
func (c *Conn) Finish() { c.parked = [2]stream.Stream{} }

func (c *Conn) parkedOn() []stream.Stream {
	switch {
	case c.parked[0] == nil:
		return nil
	case c.parked[1] == nil:
		return c.parked[:1]
	}
	return c.parked[:]
}

// Wake has a parked connection served again: something other than its streams
// needs its attention. A connection that is being served is only kept from being
// parked before it has been served once more. Safe for concurrent use.
func (c *Conn) Wake() {
	c.run.woken.Store(true)
	if p := c.run.poller; p != nil && p.Cancel(&c.run.watch) {
		go c.serve()
	}
}

// Woken implements stream.WatchOwner.
func (r *serving) Woken(*stream.Watch) { go r.conn.serve() }
