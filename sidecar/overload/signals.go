package overload

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// Signals are what connections look at; where nothing is done each is one atomic load. A nil
// Signals says that all is well.
type Signals struct {
	// active has a bit for each kind of which any share is done.
	active atomic.Uint32
	known  uint32               // those that are configured; it does not change
	short  atomic.Bool          // of memory, so that every request is refused
	shares [kinds]atomic.Uint32 // of saturated
	counts [kinds]atomic.Uint64 // what was done
	// pressure is that of each resource, as bits of a float64.
	pressure [resources]atomic.Uint64
}

const saturated = math.MaxUint32

// set says how much of a kind is done, and tells whether it was otherwise whether anything is.
// One goroutine calls it.
func (s *Signals) set(k Kind, share float64) (changed bool) {
	s.shares[k].Store(uint32(share * saturated))
	was, bit := s.active.Load(), uint32(1)<<k
	if share > 0 {
		s.active.Store(was | bit)
	} else {
		s.active.Store(was &^ bit)
	}
	return was&bit > 0 != (share > 0)
}

// is tells whether anything of a kind is to be done at all.
func (s *Signals) is(k Kind) bool { return s != nil && s.active.Load()>>k&1 > 0 }

// any tells whether anything of several kinds is, which are bits.
func (s *Signals) any(of uint32) bool { return s != nil && s.active.Load()&of > 0 }

// draw tells whether it is to be done this time, and counts that.
func (s *Signals) draw(k Kind) bool {
	if !s.is(k) {
		return false
	}
	if share := s.shares[k].Load(); share < saturated && rand.Uint32() >= share {
		return false
	}
	s.counts[k].Add(1)
	return true
}

// DisableKeepAlive tells whether a connection is to end with its request. It is asked once
// for each.
func (s *Signals) DisableKeepAlive() bool {
	return s.any(1<<DisableKeepAlive|1<<ShedGoAway) && (s.draw(DisableKeepAlive) || s.draw(ShedGoAway))
}

// RefuseRequest tells whether a request is to be answered with 503. It is asked once for each.
func (s *Signals) RefuseRequest() bool {
	return s.any(1<<RefuseRequests|1<<ShedHeaders) && (s.draw(RefuseRequests) || s.draw(ShedHeaders))
}

// RefuseUpstream tells whether a request is to be answered with 503 in the place of its cluster. It
// is asked once for each.
func (s *Signals) RefuseUpstream() bool { return s.draw(ShedUpstream) }

// RefusePooled tells whether a pool is not to make a connection. It is asked once for each.
func (s *Signals) RefusePooled() bool { return s.draw(ShedConnections) }

// RefuseCodec tells whether a connection is to end with the first that its client sends.
func (s *Signals) RefuseCodec() bool { return s.draw(ShedCodec) }

// AbortHTTP1 tells whether what a client of HTTP/1 has sent is to be refused unread, and its
// connection to end. It is asked for each piece.
func (s *Signals) AbortHTTP1() bool { return s.draw(ShedHTTP1) }

// JudgesHTTP2 tells whether the configuration has anything that connections of HTTP/2 ask for with what
// arrives.
func (s *Signals) JudgesHTTP2() bool {
	return s != nil && s.known&(1<<ShedCodec|1<<ShedGoAway|1<<ShedGoAwayAndClose) > 0
}

// WatchesHTTP2 tells whether a connection of HTTP/2 has to ask anything of what follows.
func (s *Signals) WatchesHTTP2() bool { return s.any(1<<ShedGoAway | 1<<ShedGoAwayAndClose) }

// AbortHTTP2 tells whether a connection of HTTP/2 is to end at once. It is asked for each piece
// that has arrived on it.
func (s *Signals) AbortHTTP2() bool { return s.draw(ShedGoAwayAndClose) }

// GoAway tells whether one is to drain. It is asked for each piece until it does.
func (s *Signals) GoAway() bool { return s.draw(ShedGoAway) }

// RefusesRequests tells whether any request is.
func (s *Signals) RefusesRequests() bool { return s.any(1<<RefuseRequests | 1<<ShedHeaders) }

// MemoryIsShort tells whether every request is refused because of the process's memory: with a lesser share those that
// are let in get all that they need, and what is short otherwise is not relieved by what they are denied.
func (s *Signals) MemoryIsShort() bool { return s != nil && s.short.Load() }
