package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// protocol is what a connection is dialled for.
type protocol uint8

const (
	protocolBytes protocol = iota // whatever its opener says on it
	protocolHTTP1
	protocolHTTP2
	protocolTunnel // bytes, in a stream where the host has that
	protocolCheck  // whatever a check says on it
)

// TunnelALPN is what sidecars agree on that carry byte streams as CONNECT streams of
// one HTTP/2 connection (RFC 9113 8.5). A TLS context that offers it asks for it; a
// host that does not answer with it is spoken to as any other.
const TunnelALPN = names.TunnelALPN

// alpn is what is offered where the TLS context says nothing.
func (p protocol) alpn(cfg *settings) []string {
	switch {
	case p == protocolBytes || p == protocolTunnel || p == protocolCheck:
		return nil
	case cfg.HTTP.Protocol == SpeakAuto:
		return []string{"h2", "http/1.1"}
	case p == protocolHTTP2:
		return []string{"h2"}
	}
	return []string{"http/1.1"}
}

// offered are those of a TLS context's protocols that are offered: tunnels only for byte streams, as
// a peer that agrees takes for frames what is said on any other.
func (p protocol) offered(of []string) []string {
	if p == protocolBytes || p == protocolTunnel || !slices.Contains(of, TunnelALPN) {
		return of
	}
	return slices.DeleteFunc(slices.Clone(of), func(name string) bool { return name == TunnelALPN })
}

// configured tells whether a connection for p is one that requests may still have.
func (p protocol) configured(cfg *settings) bool {
	switch cfg.HTTP.Protocol {
	case SpeakHTTP1:
		return p != protocolHTTP2
	case SpeakHTTP2:
		return p != protocolHTTP1
	}
	return true
}

// settle tells whether HTTP/2 is spoken on a connection that was made for p.
func (p protocol) settle(cfg *settings, info *stream.Info) bool {
	switch {
	case p == protocolTunnel:
		return info.ALPN == TunnelALPN
	case p != protocolBytes && cfg.HTTP.Protocol == SpeakAuto:
		return info.ALPN == "h2"
	}
	return p == protocolHTTP2
}

// agreed refuses a server that chose, by ALPN, what will not be spoken: each side
// would take the other's bytes for something else.
func (p protocol) agreed(cfg *settings, info *stream.Info) error {
	switch {
	case p == protocolBytes || p == protocolCheck || cfg.HTTP.Protocol == SpeakAuto:
		return nil
	case p == protocolHTTP1 && info.ALPN == "h2", p == protocolHTTP2 && info.ALPN == "http/1.1":
		return fmt.Errorf("the server chose %q by ALPN, and another protocol is configured", info.ALPN)
	}
	return nil
}

// multiplexed are the connections of a pool that carry several streams at once.
type multiplexed struct {
	conns atomic.Pointer[[]*Conn] // writers hold the pool's lock
	// dialing is the one connection that is being made, nil without one.
	dialing *sharedDial
	// freed has a value when there may be room for a stream.
	freed chan struct{}
	// began, where somebody waits for it, is closed when a connection begins to be made.
	began chan struct{}
	// declined: the host chose a connection for each when it was last asked.
	declined atomic.Bool
}

// sharedDial is a connection that is being made for all that wait for it.
type sharedDial struct {
	done chan struct{}
	err  *Error // of the host, valid once done is closed; nil where the manager ended
}

// wait is closed when the connection is there, or not; without a dial it never is.
func (d *sharedDial) wait() <-chan struct{} {
	if d == nil {
		return nil
	}
	return d.done
}

// beginDial makes the caller the one that dials. The pool's lock is held.
func (p *pool) beginDial() *sharedDial {
	m := &p.multiplexed
	m.dialing = &sharedDial{done: make(chan struct{})}
	if m.began != nil {
		close(m.began)
		m.began = nil
	}
	p.dialing++
	return m.dialing
}

// endDial tells all that wait for the connection that it is there, or not.
func (p *pool) endDial(d *sharedDial, err error) {
	p.mu.Lock()
	p.multiplexed.dialing = nil
	p.mu.Unlock()
	if e, ok := err.(*Error); ok && e.Kind != Canceled {
		own := *e // each may add to it
		d.err = &own
	}
	close(d.done)
}

// nextDial is closed when a connection begins to be made. The pool's lock is held.
func (p *pool) nextDial() <-chan struct{} {
	m := &p.multiplexed
	if m.began == nil {
		m.began = make(chan struct{})
	}
	return m.began
}

// multiplexes tells whether requests to the host share connections.
func (p *pool) multiplexes(cfg *settings, clientHTTP2 bool) bool {
	switch cfg.HTTP.Protocol {
	case SpeakHTTP2:
		return true
	case SpeakDownstream:
		return clientHTTP2
	case SpeakAuto:
		return p.host.tls(cfg) != nil && !p.multiplexed.declined.Load()
	}
	return false
}

// takeShared returns the connection with the most room, and a place on it; nil when none
// has any.
func (p *pool) takeShared(now int64) *Conn { return p.takeSharedBut(nil, false, now) }

// takeSharedBut is takeShared without those in not. Those that carry tunnels carry nothing else.
func (p *pool) takeSharedBut(not []*Conn, tunnels bool, now int64) *Conn {
	conns := p.multiplexed.conns.Load()
	if conns == nil {
		return nil
	}
	cfg := p.host.cluster.cfg.Load()
	for {
		var best *Conn
		most, carried := 0, int64(0)
		for _, c := range *conns {
			if !c.currentIn(cfg) || c.condemned.Load() || c.uncounted != tunnels || slices.Contains(not, c) {
				continue
			}
			if c.idleFor(now) >= cfg.idleTimeout || c.old(now) {
				p.retire(c)
				continue
			}
			carries := c.carries.Load()
			capacity, _ := c.HTTP2.Capacity()
			if free := capacity - int(carries); free > most {
				best, most, carried = c, free, carries
			}
		}
		if best == nil {
			return nil
		}
		// Those that look at once must not all get the last place.
		if best.carries.CompareAndSwap(carried, carried+1) && best.admit(cfg) {
			return best
		}
	}
}

// admit tells whether a shared connection serves the request that has just taken a place on it, and
// gives the place back where it does not.
func (c *Conn) admit(s *settings) bool {
	if c.condemned.Load() {
		c.releaseShared() // it was retired meanwhile
		return false
	}
	uses, most := c.uses.Add(1), uint64(max(0, s.HTTP.MaxRequestsPerConnection))
	switch {
	case most == 0 || uses < most:
		return true
	case uses == most:
		// This is the last request that it takes.
		c.pool.unshare(c)
		c.condemned.Store(true)
		return true
	}
	// Whoever has the last place is about to say so, or there are fewer places than there were.
	c.pool.retire(c)
	c.releaseShared()
	return false
}

// connectShared waits for room on a connection: on a new one where none is being made
// and the limit allows it. One is made at a time, because it has room for many; where
// that fails it fails for all that waited, or else the last of them would wait for as
// many timeouts as there are. The result is not shared, or nil, where the host declines
// to share.
func (p *pool) connectShared(ctx context.Context, want protocol, s telemetry.Shard) (*Conn, error) {
	c := p.host.cluster
	b, limits := p.breaker()
	if want != protocolTunnel {
		if err := p.makePool(limits, s); err != nil {
			return nil, err
		}
	}
	n := b.pending.Add(1)
	defer b.pending.Add(-1)
	if exceeds(n, limits.MaxPendingRequests) {
		if c.metrics != nil {
			c.metrics.Use().OverflowPending.Inc(s)
		}
		return nil, &Error{Kind: OverflowPending, Cluster: c.name, Host: p.host.key}
	}
	for {
		if !want.configured(c.cfg.Load()) {
			p.roomFreed() // so that the next that waits looks too
			return nil, p.failed(Outdated, nil)
		}
		seen := p.multiplexed.conns.Load()
		// Before the look for room: SETTINGS that arrive after it may have brought some.
		unsettled := p.unsettled()
		if conn := p.takeSharedBut(nil, want == protocolTunnel, monotonic()); conn != nil {
			p.roomFreed() // the next that waits looks, and may dial
			return conn, nil
		}
		if want == protocolHTTP2 && !unsettled {
			p.makeRoom(want)
		}
		p.mu.Lock()
		if p.dismissed() {
			p.mu.Unlock()
			return nil, p.failed(Outdated, nil)
		}
		if p.multiplexed.conns.Load() != seen {
			p.mu.Unlock()
			continue // one was made meanwhile
		}
		dial := p.multiplexed.dialing
		mine := dial == nil && !unsettled && (want == protocolTunnel || p.admits(limits.MaxConnections, s))
		var next <-chan struct{}
		if mine {
			dial = p.beginDial()
		} else if dial == nil {
			next = p.nextDial()
		}
		p.mu.Unlock()
		if mine {
			if want == protocolTunnel {
				b.conns.Add(1) // until it is there: the streams count, not what carries them
			}
			conn, err := p.dialFor(ctx, s, want, func(err error) { p.endDial(dial, err) })
			if err != nil || conn.apt() {
				return conn, err
			}
			conn.leave()
			continue
		}
		select {
		case <-dial.wait():
			if dial.err != nil {
				own := *dial.err // each may add to it
				return nil, &own
			}
		case <-next:
		case <-p.multiplexed.freed:
		case <-ctx.Done():
			return nil, p.canceled(ctx, s)
		}
		if p.declines(want) {
			return nil, nil
		}
	}
}

// declines tells whether the host has declined to share a connection for what is wanted: without
// agreement HTTP/2 is spoken where that is configured, whatever came of tunnels, or before an update.
func (p *pool) declines(want protocol) bool {
	return p.multiplexed.declined.Load() && (want == protocolTunnel || p.host.cluster.cfg.Load().HTTP.Protocol == SpeakAuto)
}

// unsettled tells whether a connection is there whose peer has not told yet how many
// streams it admits: it most likely has room for those that are about to dial.
func (p *pool) unsettled() bool {
	conns := p.multiplexed.conns.Load()
	if conns == nil {
		return false
	}
	cfg := p.host.cluster.cfg.Load()
	return slices.ContainsFunc(*conns, func(c *Conn) bool {
		capacity, settled := c.HTTP2.Capacity()
		return !settled && capacity > 0 && c.currentIn(cfg) && !c.condemned.Load()
	})
}

// admits counts another connection against the limit. The pool's lock is held.
func (p *pool) admits(limit int, s telemetry.Shard) bool {
	c := p.host.cluster
	b, _ := p.breaker()
	n := b.conns.Add(1)
	if p.room(n, limit) || p.spared(true, s) {
		return true
	}
	b.conns.Add(-1)
	if c.metrics != nil {
		c.metrics.Use().OverflowConnections.Inc(s)
	}
	return false
}

func (p *pool) roomFreed() {
	select {
	case p.multiplexed.freed <- struct{}{}:
	default:
	}
}

// share makes a new connection everybody's, unless it is for one request alone, and reads
// it until it ends. One that is drained ends when its last stream does.
func (p *pool) share(c *Conn) {
	p.multiplexed.declined.Store(false)
	c.HTTP2.OnFree(p.roomFreed)
	if c.served(p.host.cluster.cfg.Load()) {
		// The request it was made for is the only one that it takes.
		c.condemned.Store(true)
		go c.carry()
		return
	}
	p.mu.Lock()
	var next []*Conn
	if conns := p.multiplexed.conns.Load(); conns != nil {
		next = slices.Clone(*conns)
	}
	next = append(next, c)
	p.multiplexed.conns.Store(&next)
	p.mu.Unlock()
	if c.closed.Load() {
		p.unshare(c) // its Close may have come before the append
	}
	go c.carry()
	// The host may have been retired meanwhile.
	if !p.host.usable() {
		p.drainShared(func(*Conn) bool { return true })
	}
}

// carry reads a shared connection until it ends.
func (c *Conn) carry() {
	defer panics.Contain(panics.HTTP2Reader, c.pool.host, func() { _ = c.Close() })
	_ = c.HTTP2.Run() // its streams told whoever waits for them
	_ = c.Close()
}

// unshare has no new request find the connection.
func (p *pool) unshare(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.multiplexed.conns.Load()
	if conns == nil || !slices.Contains(*conns, c) {
		return
	}
	next := slices.DeleteFunc(slices.Clone(*conns), func(o *Conn) bool { return o == c })
	p.multiplexed.conns.Store(&next)
}

// releaseShared is Release of a shared connection.
func (c *Conn) releaseShared() {
	p := c.pool
	left := c.carries.Add(-1)
	p.roomFreed()
	cfg := p.host.cluster.cfg.Load()
	if c.condemned.Load() || !p.host.usable() || !c.currentIn(cfg) || !c.HTTP2.Usable() {
		p.unshare(c)
		if left == 0 {
			c.HTTP2.Drain()
		}
	}
}

// retire has a shared connection take no more requests. Those that have a place on it may be
// about to open their streams; it ends when the last has left. Whoever takes a place looks
// after that whether it still may, so that the last to leave is seen here or sees this.
func (p *pool) retire(c *Conn) {
	p.unshare(c)
	c.condemned.Store(true)
	if c.carries.Load() == 0 {
		c.HTTP2.Drain()
	}
}

// leave ends a connection that is not for the request that it was made for. Others may have
// places on it by now: it ends when they have left.
func (c *Conn) leave() {
	if c.HTTP2 == nil {
		_ = c.CloseUnused()
		return
	}
	c.pool.retire(c)
	c.Release()
}

// drainShared retires the connections that match.
func (p *pool) drainShared(match func(*Conn) bool) {
	conns := p.multiplexed.conns.Load()
	if conns == nil {
		return
	}
	for _, c := range *conns {
		if match(c) {
			p.retire(c)
		}
	}
}

// count has a connection's events counted; the streams of one for tunnels are no requests.
func (c *Cluster) count(terms *http2.Config, tunnels bool) {
	all := c.m.opts.Metrics
	if all == nil {
		return
	}
	terms.OnEvent = func(e http2.Event) {
		all.HTTP2Events.With("upstream", e.String()).Inc(0)
		if e == http2.EventResetSent && !tunnels {
			c.metrics.Abandoned(0, telemetry.AbandonedStream)
		}
	}
}

// http2 are the codec's terms.
func (h *HTTP) http2() *http2.Config {
	c := http2.Default()
	if h.HTTP2 != nil {
		own := *h.HTTP2
		c = &own
	}
	if h.MaxResponseHeaders > 0 {
		c.Limits.Fields = h.MaxResponseHeaders
	}
	if h.MaxResponseHeaderKB > 0 {
		c.Limits.HeadBytes = h.MaxResponseHeaderKB << 10
	}
	return c
}
