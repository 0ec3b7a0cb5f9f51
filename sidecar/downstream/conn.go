// Package downstream is an accepted connection as the terminal filters see it:
// who is at its ends, which listener and filter chain it came through, what it is
// authorized for now, and whether it is to be drained. The listener makes and
// owns it; the HTTP connection manager and the TCP proxy serve it.
package downstream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Handler serves connections until they end: a filter chain's terminal filter.
type Handler interface {
	// ServeStream returns when the connection is finished, or has been parked. The
	// context ends when the listener must end; a connection closed by itself shows
	// as an error of its stream. The listener closes the stream of a finished
	// connection, and calls ServeStream again for a parked one.
	ServeStream(ctx context.Context, c *Conn)
}

// Drainer is told once that its connection is to finish. Drain must not block: a
// handler that waits for the next request sets a read deadline in the past, one
// that is busy looks at Conn.Draining when it is done.
type Drainer interface {
	Drain()
}

// Place is where connections come in: what all connections of a filter chain have
// in common. Immutable, and shared by them.
type Place struct {
	Listener, Chain string
	Direction       telemetry.Direction
	// Workload is the SPIFFE ID whose listener this is, Service its service and
	// Upstream, outbound, the service that the listener leads to.
	Workload, Service, Upstream string
	// ListenerMetadata and ChainMetadata are what access logs may show of both.
	ListenerMetadata, ChainMetadata map[string]map[string]any
	// Metrics are the service's handles.
	Metrics *telemetry.ServiceMetrics
	// Overload says what the process cannot afford now; nil says nothing.
	Overload *overload.Signals
	// Exempt: connections are not refused because others have too much, nor make room for others.
	Exempt bool
}

// MetricsOf are the handles of the verified peer, or of the service that the listener leads to.
func (p *Place) MetricsOf(info *stream.Info) *telemetry.PeerMetrics {
	switch {
	case p.Metrics == nil:
		return nil
	case p.Direction == telemetry.Outbound && p.Upstream != "":
		return p.Metrics.Peer(p.Upstream)
	}
	return p.Metrics.Peer(telemetry.PeerName(info.PeerID))
}

// Facts are what the listener knows of a connection. Immutable.
type Facts struct {
	ID     uint64
	Stream stream.Stream
	// Peer is who is at the other end, and where the client wanted to go.
	authz.Peer
	*Place
	Accepted time.Time
	// PeerMetrics are the handles of the verified peer.
	PeerMetrics *telemetry.PeerMetrics
	// Decision is what the network filters decided when it was accepted; nil where
	// there are none.
	Decision *authz.Decision
	// Shard is the one this connection counts on.
	Shard telemetry.Shard
}

// Conn is one connection. Facts never change; authorization and drain state do.
type Conn struct {
	Facts

	// Held is the handler's own, from one call of ServeStream to the next. What it leaves there of
	// a finished connection, the listener's log shows if it is an Outcome.
	Held any
	// Received and Sent are all bytes of a plain connection; its handler sets them
	// when it is finished.
	Received, Sent int64

	// cutOff: a request was under way when it ended.
	cutOff atomic.Bool
	// side is who ended it, as far as its handler knows.
	side   atomic.Uint32
	server *Server
	owner  Owner
	watch  stream.Watch

	policy atomic.Pointer[Policy]
	ended  atomic.Pointer[Ending]
	// parent carries this connection as one of its streams; nil for one of its own.
	parent     *Conn
	kept       atomic.Pointer[keeper]
	draining   atomic.Bool
	superseded atomic.Bool

	mu      sync.Mutex
	drainer Drainer
}

// Outcome is what a handler knows of a connection that it has served and that is no exchange.
type Outcome interface{ Show(*telemetry.Record) }

// Ending is why the sidecar, not the peer, ended a connection.
type Ending struct {
	Flags  telemetry.Flags
	Reason string // a few words without spaces, for %CONNECTION_TERMINATION_DETAILS%
	Rule   string // the policy that decided, if one did
}

// Policy decides over requests: the filters of a chain, with the rules among them and
// what routes say of each, as one thing. A Handler that serves requests makes it, and no
// other type looks into it. Immutable.
type Policy struct{ Held any }

// New returns the connection of these facts. p decides over its requests; with nil its
// handler does.
func New(f Facts, p *Policy) *Conn {
	c := new(Conn)
	c.Init(f, p)
	return c
}

// Init is New for a connection that is a part of something else.
func (c *Conn) Init(f Facts, p *Policy) {
	if f.Place == nil {
		f.Place = &Place{}
	}
	c.Facts = f
	c.policy.Store(p)
}

// Policy decides over requests now; nil leaves it to the handler. After a listener
// update it is the new chain's, also for connections older than it.
func (c *Conn) Policy() *Policy { return c.policy.Load() }

// SetPolicy replaces what decides over requests.
func (c *Conn) SetPolicy(p *Policy) { c.policy.Store(p) }

// Draining reports whether the connection is to end after what it is doing now.
func (c *Conn) Draining() bool {
	return c.draining.Load() || c.parent != nil && c.parent.Draining()
}

// Supersede notes that the listener has been updated since: the handler that serves the
// connection is not the one that new connections get.
func (c *Conn) Supersede() { c.superseded.Store(true) }

// Superseded reports whether that has happened.
func (c *Conn) Superseded() bool {
	return c.superseded.Load() || c.parent != nil && c.parent.Superseded()
}

// OnDrain registers who is told of a drain; at once when it has begun. nil
// unregisters.
func (c *Conn) OnDrain(d Drainer) {
	c.mu.Lock()
	c.drainer = d
	c.mu.Unlock()
	if d != nil && c.draining.Load() {
		d.Drain()
	}
}

// StartDrain asks the handler to finish.
func (c *Conn) StartDrain() {
	if c.draining.Swap(true) {
		return
	}
	c.mu.Lock()
	d := c.drainer
	c.mu.Unlock()
	if d != nil {
		d.Drain()
	}
}

// End closes the connection and records why; the first reason stays, and first tells whether
// it is this one. No peer can delay the end of the next; where policy ends it the transport is
// reset.
func (c *Conn) End(e Ending) (first bool) {
	first = c.ended.CompareAndSwap(nil, &e)
	if a, ok := c.Stream.(stream.Aborter); ok && e.Flags&telemetry.FlagPolicyClosed != 0 {
		a.Abort()
	} else {
		_ = stream.CloseNow(c.Stream)
	}
	c.Wake()
	return first
}

// Child returns the connection that one of c's streams stands for: it has c's facts, but
// comes in at a place of its own, and what ends c ends it. It is attached, to wait for its
// peer where c does.
func (c *Conn) Child(s stream.Stream, place *Place, server *Server, owner Owner) *Conn {
	f := c.Facts
	f.Stream, f.Place, f.Accepted = s, place, time.Now()
	f.PeerMetrics = place.MetricsOf(c.Info) // c's place may be of an older configuration
	child := &Conn{Facts: f, parent: c}
	child.policy.Store(c.policy.Load())
	child.Attach(server, owner)
	return child
}

// CutOff notes that a request was under way when the connection ended.
func (c *Conn) CutOff() { c.cutOff.Store(true) }

// WasCutOff tells whether that is so.
func (c *Conn) WasCutOff() bool { return c.cutOff.Load() }

// Who ended a connection.
const (
	sideUnknown = iota
	sidePeer
	sideOurs
)

// EndedBy notes whether the peer ended the connection or the sidecar did; what was noted first stays. A
// handler that closes the stream itself, or hears of its end, notes it before.
func (c *Conn) EndedBy(peer bool) {
	side := uint32(sideOurs)
	if peer {
		side = sidePeer
	}
	c.side.CompareAndSwap(sideUnknown, side)
}

// Side tells whether the peer ended the connection; known is false where nobody has noted it.
func (c *Conn) Side() (peer, known bool) {
	side := c.side.Load()
	return side == sidePeer, side != sideUnknown
}

// Ended says why the sidecar closed the connection, nil when it did not.
func (c *Conn) Ended() *Ending {
	if e := c.ended.Load(); e != nil || c.parent == nil {
		return e
	}
	return c.parent.Ended()
}

// NewRecord returns a record with everything that is known of the connection;
// the caller adds the exchange and releases it.
func (c *Conn) NewRecord() *telemetry.Record {
	r := telemetry.NewRecord()
	r.Start, r.Type = c.Accepted, telemetry.LogConnectionEnd
	r.Direction, r.Listener, r.Chain = c.Direction, c.Listener, c.Chain
	r.Workload, r.Service, r.ConnectionID = c.Workload, c.Service, c.ID
	info := c.Info
	r.DownstreamRemote, r.DownstreamDirect, r.DownstreamLocal = info.Remote, info.Direct, info.Local
	if r.DownstreamDirect == nil {
		r.DownstreamDirect = info.Remote
	}
	r.Noted, r.SNI = info.Noted, info.SNI // which a client may have told without TLS that ends here
	if info.TLS {
		r.PeerID, r.OwnID = info.PeerID, info.OwnID
		r.PeerCertHash, r.Peer, r.Own = info.PeerCertHash, info.Peer, info.Own()
		r.TLSVersion, r.CipherSuite, r.TLSGroup = info.TLSVersion, info.CipherSuite, info.Group
	}
	r.Destination = c.Destination
	if d := c.Decision; d != nil {
		r.Denied, r.Rule = !d.Allowed, d.Rule
		r.ShadowDenied, r.ShadowRule = d.ShadowDenied, d.ShadowRule
	}
	c.Conclude(r)
	return r
}

// Conclude puts into a record why the sidecar ended the connection, if it did: that
// stands above what was decided when the exchange began.
func (c *Conn) Conclude(r *telemetry.Record) {
	e := c.Ended()
	if e == nil {
		return
	}
	r.Flags |= e.Flags
	r.ConnectionTermination, r.LocalClose = e.Reason, e.Reason
	if e.Rule != "" {
		r.Denied, r.Rule = true, e.Rule
	}
}

// Authorize puts a decision over a request into its record.
func Authorize(r *telemetry.Record, d authz.Decision) {
	r.Denied = !d.Allowed
	if d.Rule != "" {
		r.Rule = d.Rule
	}
	r.ShadowDenied, r.ShadowRule = d.ShadowDenied, d.ShadowRule
}
