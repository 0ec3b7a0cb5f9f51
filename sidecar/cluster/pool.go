package cluster

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// pool holds the connections to one host that were opened for one source
// identity, for requests of one priority. An idle connection needs no goroutine: it is looked at before it is
// used again, and once a second by the manager.
type pool struct {
	host     *Host
	source   string
	priority Priority

	mu sync.Mutex
	// idle is used from its end, so that surplus connections grow old.
	idle    []*Conn
	all     map[*Conn]struct{}
	dialing int
	// apart are those among them that are for a byte stream.
	apart int
	// unclaimed are those among them that their requests left, and that waiters may have.
	unclaimed int
	waiting   []*waiter
	// emptySince is when it was found to have nothing, 0 for never since it had something, and below 0 that
	// it is not its host's any more.
	emptySince int64

	multiplexed multiplexed

	// own is nil where any request may have its connections.
	own *particular
}

// Conn is an upstream connection. It is a stream; its owner either gives it back
// with Release or ends it with Close. With HTTP2 set it is shared: whoever acquired
// it opens a stream on HTTP2, uses nothing else of it, and gives it back.
type Conn struct {
	stream.Stream
	HTTP2 *http2.ClientConn
	// Exchanger is the stream's faster way, nil when it has none.
	Exchanger stream.Exchanger

	pool       *pool
	prober     stream.Prober
	generation uint64  // of the TLS context that verified the peer
	aimed      *target // where it was to go
	idleSince  int64
	unasked    bool // nobody has looked whether its peer is quiet since it was idle
	uses       atomic.Uint64
	carries    atomic.Int64 // requests that have a shared connection, and so a stream of it
	until      int64        // when it has lived long enough, 0 for never
	closed     atomic.Bool
	unused     bool // the request it was made for did not wait for it
	opening    Opening
	// carrier is the shared connection that a tunnel is a stream of.
	carrier *Conn
	// bytes: it was made for a byte stream, and no request has a use for it.
	bytes bool
	// relayed: it carries what somebody relays, and counts as a request of its host's.
	relayed atomic.Bool
	// uncounted: it is not against the limit on connections.
	uncounted bool
	// condemned: in use when it was found to be unwanted, not to be pooled.
	condemned atomic.Bool
	// ours: the sidecar ends it, whatever its peer does meanwhile.
	ours atomic.Bool
}

// Ours notes that the sidecar is about to end the connection, whatever its peer does meanwhile.
func (c *Conn) Ours() { c.ours.Store(true) }

// Opening is when a connection was opened.
type Opening struct {
	Began     time.Time
	Connected time.Time // the transport was there
	Secured   time.Time // and the TLS handshake done; zero without TLS
}

// Opening tells when the connection was opened; that of a tunnel is not known.
func (c *Conn) Opening() Opening { return c.opening }

// Host is the connection's host.
func (c *Conn) Host() *Host { return c.pool.host }

// Source is the workload the connection was opened for.
func (c *Conn) Source() string { return c.pool.source }

// Reused tells whether an exchange was made on the connection before, or it waited for its
// first; the peer may close such a connection just when a request is sent on it.
func (c *Conn) Reused() bool { return c.uses.Load() > 1 || c.unused }

// Early tells whether the connection is shared and its peer has not told yet how many
// streams it admits: it may refuse one for that alone.
func (c *Conn) Early() bool {
	if c.HTTP2 == nil {
		return false
	}
	_, settled := c.HTTP2.Capacity()
	return !settled
}

// Gone tells whether the peer has closed the connection.
func (c *Conn) Gone() bool { return c.prober != nil && c.prober.Gone() }

// Unread tells whether something that the peer has said waits, or its end. Nobody may be reading.
func (c *Conn) Unread() bool { return c.prober != nil && !c.prober.Quiet() }

// Acquire returns a connection to the host for the workload source: an idle one,
// a new one, or, at the connection limit, one that another exchange gives back.
// Where the host speaks HTTP/2 it is one with room for another stream. clientHTTP2
// says that the client does, which decides for SpeakDownstream. ctx is asked for only
// when it has to wait. now is a reading of the clock that the caller has: a connection that was idle
// for too long by then, or has lived long enough, is not used. s is the caller's counter
// shard. t are the request's own terms, nil for none. An idle connection may be one whose peer has left, or spoken: see Sure.
func (h *Host) Acquire(ctx func() (context.Context, context.CancelFunc), source string, t *Terms, clientHTTP2 bool, priority Priority, now int64, s telemetry.Shard) (*Conn, error) {
	var p *pool
	if t == nil {
		p = h.pool(source, priority)
	} else {
		p = h.enter(source, priority, t, now)
		defer p.leave()
	}
	if p.multiplexes(h.cluster.cfg.Load(), clientHTTP2) {
		if c := p.takeShared(now); c != nil {
			return c, nil
		}
		within, cancel := ctx()
		defer cancel()
		if c, err := p.connectShared(within, protocolHTTP2, s); c != nil || err != nil {
			return c, err
		}
	}
	if c := p.takeIdle(now); c != nil {
		return c, nil
	}
	return p.connect(ctx, s)
}

// breaker is what limits the pool, and what is in use of it.
func (p *pool) breaker() (*breaker, *Limits) { return p.host.cluster.breakerOf(p.priority) }

// uncount takes a connection off what is in use.
func (p *pool) uncount() {
	b, _ := p.breaker()
	b.conns.Add(-1)
}

// takeIdle returns the idle connection used last, if it is still good now.
func (p *pool) takeIdle(now int64) *Conn {
	limit := p.host.cluster.cfg.Load().idleTimeout
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if now-c.idleSince < limit && !c.old(now) && c.fit() {
			c.uses.Add(1)
			return c
		}
		_ = c.CloseUnused()
	}
}

// Sure tells whether the peer has neither closed the connection nor spoken. Whoever writes
// a request by other means than Exchange, which looks for itself where Unasked says that
// nobody has, asks first: what the peer sent is not to be taken for an answer.
func (c *Conn) Sure() bool { return !c.unasked || c.quiet() }

// Unasked tells whether the connection was acquired without a look at its peer.
func (c *Conn) Unasked() bool { return c.unasked }

func (c *Conn) quiet() bool {
	c.unasked = false
	return c.prober == nil || c.prober.Quiet()
}

func (p *pool) connect(ctxOf func() (context.Context, context.CancelFunc), s telemetry.Shard) (*Conn, error) {
	ctx, cancel := ctxOf()
	defer cancel()
	c := p.host.cluster
	b, limits := p.breaker()
	if err := p.makePool(limits, s); err != nil {
		return nil, err
	}
	n := b.pending.Add(1)
	defer b.pending.Add(-1)
	if exceeds(n, limits.MaxPendingRequests) {
		if c.metrics != nil {
			c.metrics.Use().OverflowPending.Inc(s)
		}
		return nil, &Error{Kind: OverflowPending, Cluster: c.name, Host: p.host.key}
	}
	var was *waiter // which keeps its place, whoever took what it was woken for
	for {
		p.makeRoom(protocolHTTP1)
		conn, w := p.reserve(limits.MaxConnections, s, was)
		if conn != nil {
			return conn, nil
		}
		if w == nil {
			conn, err := p.dialFor(ctx, s, protocolHTTP1, func(error) {})
			if err != nil || conn.apt() {
				return conn, err
			}
			conn.leave()
			continue
		}
		if was = w; !protocolHTTP1.configured(c.cfg.Load()) { // after whoever changed that told those that wait
			p.giveUp(w)
			return nil, p.failed(Outdated, nil)
		}
		select {
		case conn := <-w.ready:
			switch {
			case conn != nil && conn.fit():
				conn.uses.Add(1)
				return conn, nil
			case conn != nil:
				_ = conn.CloseUnused()
			case w.err != nil:
				return nil, w.err
			}
		case <-ctx.Done():
			p.giveUp(w)
			return nil, p.canceled(ctx, s)
		}
	}
}

// reserve takes an idle connection, the right to dial (nil, nil), or a place in
// the queue, that of was where it is not nil.
func (p *pool) reserve(limit int, s telemetry.Shard, was *waiter) (*Conn, *waiter) {
	for {
		conn, w := p.tryReserve(limit, s, was)
		if conn == nil || conn.fit() {
			return conn, w
		}
		_ = conn.CloseUnused() // which makes room for another
	}
}

// current tells whether the TLS context that verified the peer is the one in force, and the
// peer's address the host's. Both may have changed while the connection was made.
func (c *Conn) current() bool { return c.currentIn(c.pool.host.cluster.cfg.Load()) }

func (c *Conn) currentIn(s *settings) bool {
	return c.generation == s.tlsGeneration && c.aimed == c.pool.host.target.Load()
}

// apt tells whether a connection that was just made is for the request that it was made for.
// It is current, or its host left meanwhile, as a member of which it had no other terms: those
// of who took its place are not for it, and the request is as one that was sent before.
// Whether its identity or trust was withdrawn is another question, and asked before.
func (c *Conn) apt() bool {
	h := c.pool.host
	return c.current() || h.gone.Load() && c.generation == h.terms.Load() && c.aimed == h.target.Load()
}

// fit tells whether an idle connection may be used: it is current, and its peer has neither closed it nor spoken without being asked
// (which would be taken for the answer to the next request). Where the stream can, that
// is left to the moment at which the request is written.
func (c *Conn) fit() bool {
	if !c.current() {
		return false
	}
	c.unasked = c.Exchanger != nil
	return c.unasked || c.quiet()
}

func (p *pool) tryReserve(limit int, s telemetry.Shard, was *waiter) (*Conn, *waiter) {
	c := p.host.cluster
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dismissed() {
		return nil, p.refused()
	}
	if p.unclaimed > len(p.waiting) && len(p.idle) == 0 {
		return nil, p.queue(was) // a connection is being made that nobody waits for
	}
	b, _ := p.breaker()
	n := b.conns.Add(1)
	if p.room(n, limit) || p.spared(false, s) {
		p.dialing++
		return nil, nil
	}
	b.conns.Add(-1)
	if k := len(p.idle); k > 0 {
		// One came back meanwhile.
		conn := p.idle[k-1]
		p.idle[k-1] = nil
		p.idle = p.idle[:k-1]
		conn.uses.Add(1)
		return conn, nil
	}
	if c.metrics != nil {
		c.metrics.Use().OverflowConnections.Inc(s)
	}
	return nil, p.queue(was)
}

func (p *pool) dialReserved(ctx context.Context, s telemetry.Shard, want protocol) (*Conn, error) {
	m := p.host.cluster.m
	u, cuts := m.dials.begin(), p.host.cuts.Load()
	conn, err := p.dial(ctx, s, want)
	if err == nil { // before it is among all: it may be closed at once
		p.host.gained()
		if m := p.host.cluster.metrics; m != nil {
			m.Use().ConnectionsOpen.Add(s, 1)
		}
		if want == protocolTunnel && conn.HTTP2 != nil {
			p.uncount()
			conn.uncounted = true
		}
	}
	p.mu.Lock()
	p.dialing--
	if want == protocolBytes {
		p.apart--
	}
	if err == nil {
		p.all[conn] = struct{}{}
	}
	p.mu.Unlock()
	if withdrawn := m.dials.end(u); err == nil && covers(withdrawn, p.source, conn.Info()) {
		_ = conn.CloseUnused()
		return nil, p.failed(TLSFailure, errWithdrawn)
	}
	if err == nil && (want == protocolBytes || want == protocolTunnel) && p.host.cuts.Load() != cuts {
		_ = conn.CloseUnused()
		return nil, p.failed(ConnectRefused, errFailing)
	}
	if err != nil {
		p.uncount()
		if want == protocolHTTP1 || want == protocolBytes { // the others tell all that wait for them
			p.roomFreed()
		}
		if e, ok := err.(*Error); ok && e.Kind != Canceled && e.Kind != Shed { // who waits may be let through
			p.purge(e)
		} else {
			p.wake()
		}
		return nil, err
	}
	switch {
	case conn.HTTP2 != nil:
		p.share(conn)
		if want == protocolHTTP1 {
			p.wakeAll() // it comes back to none of them
		}
	case want == protocolHTTP2 || want == protocolTunnel:
		p.multiplexed.declined.Store(true)
	}
	return conn, nil
}

// Release gives the connection back after an exchange that left it clean: the
// next request may use it.
func (c *Conn) Release() {
	if c.HTTP2 != nil {
		c.releaseShared()
		return
	}
	c.ReleaseRead(monotonic())
}

// ReleaseRead is Release of a connection that is not shared, where the last of the answer
// was read at a time in the terms of package clock.
func (c *Conn) ReleaseRead(at int64) {
	p := c.pool
	c.idleSince = at
	p.mu.Lock()
	// Under the lock: whoever makes it unwanted looks among the idle ones after that.
	if c.unwanted() || c.spent(p.host.cluster.cfg.Load(), at) {
		p.mu.Unlock()
		_ = c.CloseUnused()
		return
	}
	if len(p.waiting) > 0 {
		p.handOver(c)
	} else {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
}

// unwanted tells that the connection is not to be pooled: it was condemned, or it is to where its
// host is not, or with terms that are in force no more. pool.mu is held.
func (c *Conn) unwanted() bool {
	return c.condemned.Load() || !c.pool.host.usable() || !c.current()
}

// Close ends the connection, on which a request, or bytes, may be under way.
func (c *Conn) Close() error { return c.end(true) }

// CloseUnused is Close of one on which nothing is under way.
func (c *Conn) CloseUnused() error { return c.end(false) }

func (c *Conn) end(busy bool) error {
	if c.closed.Swap(true) {
		return nil
	}
	c.endRelay()
	if c.carrier != nil {
		err := c.Stream.Close()
		c.pool.uncount()
		c.carrier.Release()
		return err
	}
	p := c.pool
	p.mu.Lock()
	delete(p.all, c)
	p.mu.Unlock()
	p.host.lost()
	if !c.uncounted {
		p.uncount()
	}
	if m := p.host.cluster.metrics; m != nil {
		m.Use().ConnectionsOpen.Add(0, -1)
	}
	var err error
	var byPeer bool
	if c.HTTP2 != nil {
		p.unshare(c)
		c.HTTP2.Close()
		byPeer, busy = c.HTTP2.Ended()
	} else {
		if p.host.cluster.metrics != nil && !c.ours.Load() {
			prober, ok := c.Stream.(stream.Prober)
			byPeer = ok && prober.Gone()
		}
		err = stream.CloseNow(c.Stream) // a request may wait for it, or a withdrawal
	}
	p.host.cluster.metrics.ConnectionEnded(byPeer, busy)
	// There is room for another connection, of whichever protocol.
	p.wake()
	p.roomFreed()
	return err
}

func (p *pool) idleCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

func (p *pool) closeIdle() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.CloseUnused()
	}
	p.drainShared(func(*Conn) bool { return true })
}

// sweep closes idle connections that are too old or that the peer has left.
func (p *pool) sweep(now, limit int64) {
	p.drainShared(func(c *Conn) bool {
		return c.idleFor(now) >= limit || c.old(now)
	})
	settled := min(1e9, limit) // younger ones are about to be used or swept next time
	p.mu.Lock()
	// Release appends, so the oldest are in front.
	n := 0
	for n < len(p.idle) && now-p.idle[n].idleSince > settled {
		n++
	}
	if n == 0 {
		p.mu.Unlock()
		return
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.mu.Unlock()

	keep := old[:0]
	for _, c := range old {
		if now-c.idleSince >= limit || c.old(now) || !c.quiet() {
			_ = c.CloseUnused()
		} else {
			keep = append(keep, c)
		}
	}
	if len(keep) == 0 {
		return
	}
	p.mu.Lock()
	// Whoever made some unwanted meanwhile, or waits since, did not find them among the idle ones.
	good, unwanted := keep[:0], []*Conn(nil)
	for _, c := range keep {
		switch {
		case c.unwanted():
			unwanted = append(unwanted, c)
		case len(p.waiting) > 0:
			p.handOver(c)
		default:
			good = append(good, c)
		}
	}
	p.idle = slices.Insert(p.idle, 0, good...)
	p.mu.Unlock()
	for _, c := range unwanted {
		_ = c.CloseUnused()
	}
}
