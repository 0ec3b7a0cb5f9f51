package downstream

import (
	"context"
	"log/slog"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

// Owner is told when one of its connections is finished.
type Owner interface{ Finished(*Conn) }

// Carrier is the owner of a connection whose streams are connections of their own.
type Carrier interface {
	Owner
	// Carry lets one more in, or says why not. Owner.Finished is called for each that is
	// let in, with nil where nothing came of it. Safe for concurrent use.
	Carry() (*Carried, Refusal)
	// Refuse tells of a stream that is no connection, and why. Safe for concurrent use.
	Refuse(reason string)
}

// Carried is how a connection that is let in is served.
type Carried struct {
	Handler Handler
	Place   *Place
	Owner   Owner
}

// Refusal is why a connection is not let in.
type Refusal uint8

// The refusals.
const (
	Admitted  Refusal = iota
	Busy              // there is no room
	Elsewhere         // nothing new comes over this connection; another one may be made
)

// Carry asks the connection's owner, a Carrier, to let one more in.
func (c *Conn) Carry() (*Carried, Refusal) { return c.owner.(Carrier).Carry() }

// Refuse tells its owner, a Carrier, of a stream that is no connection.
func (c *Conn) Refuse(reason string) { c.owner.(Carrier).Refuse(reason) }

// Server serves connections: what those of a filter chain have in common. Immutable, and
// shared by them.
type Server struct {
	Handler Handler
	// Context is ServeStream's.
	Context context.Context
	// Poller waits for connections that are parked; where it is nil they are served again
	// at once.
	Poller *stream.Poller
	// Workers serve connections that were parked, and what runs beside one that is served;
	// without them each is given a goroutine.
	Workers *workers.Pool
}

// With returns a server that differs in its handler.
func (s *Server) With(h Handler) *Server {
	other := *s
	other.Handler = h
	return &other
}

// Attach says who serves the connection, and who is told of its end. It comes before
// anyone else knows of the connection.
func (c *Conn) Attach(s *Server, owner Owner) {
	c.server, c.owner = s, owner
	c.watch.Owner = c
}

// Server is who serves the connection.
func (c *Conn) Server() *Server { return c.server }

// Serve serves the connection here and, once it has been parked, on other goroutines,
// until it is finished and its owner has been told. It is called once.
func (c *Conn) Serve() { c.serve() }

func (c *Conn) serve() {
	defer panics.Contain(panics.Connection, c, c.abandon)
	p := c.server.Poller
	for {
		c.Finish()
		if p != nil {
			p.Reset(&c.watch)
		}
		c.handle()
		if !c.watch.IsSet() {
			c.owner.Finished(c)
			return
		}
		if p != nil && p.Await(&c.watch) {
			return
		}
	}
}

// handle has the handler serve the connection. A fault of it finishes the connection.
func (c *Conn) handle() {
	defer panics.Contain(panics.Connection, c, c.Finish)
	c.server.Handler.ServeStream(c.server.Context, c)
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
func (c *Conn) Park(streams ...stream.Stream) { c.watch.Set(streams...) }

// Finish undoes a Park.
func (c *Conn) Finish() { c.watch.Set() }

// Wake has a parked connection served again: something other than its streams
// needs its attention. A connection that is being served is only kept from being
// parked before it has been served once more. Safe for concurrent use.
func (c *Conn) Wake() {
	if p := c.server.Poller; p != nil && p.Cancel(&c.watch) {
		c.resume()
	}
}

// Woken implements stream.WatchOwner.
func (c *Conn) Woken(*stream.Watch) { c.resume() }

// resume has the connection served again, beside the caller.
func (c *Conn) resume() { c.Beside((*serving)(c)) }

// Beside has t done beside the caller, and does not wait for it. What must not outlive the
// connection, its handler waits for.
func (c *Conn) Beside(t workers.Task) { c.server.Workers.Run(t) }

// serving is a connection as what a worker does.
type serving Conn

// Run implements workers.Task.
func (c *serving) Run() { (*Conn)(c).serve() }
