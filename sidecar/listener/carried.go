package listener

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// carrier is a handler that may serve a connection stream by stream, each as a connection
// of its own by the inner handler; *tunnel.Handler is one.
type carrier interface {
	Carries(info *stream.Info) bool
	Inner() downstream.Handler
}

// carries tells whether the chain serves a connection stream by stream.
func (c *chain) carries(info *stream.Info) bool {
	k, ok := c.handler.(carrier)
	return ok && k.Carries(info)
}

// inner is who serves what a carrier brings.
func (c *chain) inner() downstream.Handler {
	if k, ok := c.handler.(carrier); ok {
		return k.Inner()
	}
	return c.handler
}

// carried is a connection that came as a stream of another one. It keeps the chain that
// serves it open, and has a place in limits of its own.
type carried struct {
	t       *tracked // the carrier
	snap    *snapshot
	limited *chain // in whose limits it is
}

var _ downstream.Carrier = (*tracked)(nil)

// Carry implements downstream.Carrier: a connection that begins now is served by the
// chain that is in force now, within its limits, as one with a handshake of its own.
func (t *tracked) Carry() (*downstream.Carried, downstream.Refusal) {
	l := t.l
	now := time.Now()
	if end := t.conn.Info.PeerNotAfter; !end.IsZero() && now.After(end) {
		return nil, downstream.Elsewhere
	}
	l.mu.Lock()
	if l.removed || l.ctx.Err() != nil || !t.ends.IsZero() {
		l.mu.Unlock()
		return nil, downstream.Elsewhere
	}
	c, snap := t.chain, t.chain.snap
	exempt := snap.exempt()
	refused := ""
	if !exempt.Actions && !l.m.opts.Overload.Accepting() {
		refused = "overload"
	} else {
		refused = l.m.opts.Overload.Admit(l.name, l.open, exempt)
	}
	if refused != "" {
		snap.refs.Add(1) // an update may have it closed before the log has the line
		l.mu.Unlock()
		t.refuseExcess(c, excess{reason: refused})
		snap.release()
		return nil, downstream.Busy
	}
	if e := t.enter(c); e.reason != "" {
		l.m.opts.Overload.Leave(exempt)
		snap.refs.Add(1) // an update may have it closed before the log has the line
		l.mu.Unlock()
		t.refuseExcess(c, e)
		snap.release()
		return nil, downstream.Busy
	}
	l.open++
	snap.refs.Add(1)
	l.mu.Unlock()
	return &downstream.Carried{Handler: c.inner(), Place: c.place, Owner: &carried{t: t, snap: snap, limited: c}}, downstream.Admitted
}

// Refuse implements downstream.Carrier. The log is that of t's own chain, which is open until t
// has finished: the one that has taken its place may be closed.
func (t *tracked) Refuse(reason string) { t.refuseExcess(t.own, excess{reason: reason}) }

// enter takes a place in the limits of a chain for a connection that t brings. The first
// one has that which was taken before the handshake, or where another chain has replaced
// that one's, a place there in exchange: a token of the rates was taken then, too. The
// listener's lock is held.
func (t *tracked) enter(c *chain) excess {
	switch {
	case !t.placed:
		return c.enter()
	case t.own == c:
		t.placed = false
		return excess{}
	}
	t.placed = false
	t.own.leave()
	return c.takePlaces()
}

// refuseExcess logs a stream that the chain refuses, as by a limit. The caller holds the chain's
// snapshot.
func (t *tracked) refuseExcess(c *chain, e excess) {
	r := t.conn.NewRecord()
	r.Start, r.Duration, r.Metadata = time.Now(), 0, t.conn.Announced.Said()
	e.note(r)
	c.log.Log(r)
	c.snap.logConnection(r)
	c.snap.refused.Log(r)
	r.Release()
	t.l.countRefused(e.reason)
}

// countRefused counts a connection that was not let in.
func (l *listener) countRefused(reason string) {
	if m := l.m.opts.Metrics; m != nil {
		m.Refused(l.name, reason)
	}
}

// countEnd counts a connection that is over, before it is closed: where its handler has not told whose
// doing that is, it shows then.
func (l *listener) countEnd(c *downstream.Conn) {
	m := l.m.opts.Metrics
	if m == nil {
		return
	}
	byPeer, known := c.Side()
	if c.Ended() != nil {
		byPeer = false
	} else if !known {
		prober, ok := c.Stream.(stream.Prober)
		byPeer = ok && prober.Gone()
	}
	m.ConnectionEnded(l.name, byPeer, c.WasCutOff())
}

// Finished implements downstream.Owner.
func (k *carried) Finished(c *downstream.Conn) {
	if c != nil {
		c.PeerMetrics.ConnectionClosed(c.Shard, time.Since(c.Accepted))
		logEnd(c, k.snap)
	}
	k.limited.leave()
	l := k.t.l
	l.mu.Lock()
	l.open--
	l.mu.Unlock()
	l.m.opts.Overload.Leave(k.snap.exempt())
	k.snap.release()
}

// logEnd writes the line that a listener has of each connection.
func logEnd(c *downstream.Conn, s *snapshot) {
	if s.log == nil {
		return
	}
	r := c.NewRecord()
	r.Metadata, r.Duration = c.Announced.Said(), time.Since(c.Accepted)
	r.BytesReceived, r.BytesSent = c.Received, c.Sent
	if o, ok := c.Held.(downstream.Outcome); ok {
		o.Show(r)
	}
	s.logConnection(r)
	r.Release()
}
