package http2

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
)

// Glitch is something that a peer does at our cost, and that honest peers do seldom or
// never. Each class is counted; together they are bounded.
type Glitch uint8

// The classes.
const (
	// GlitchMalformed is a message that was refused.
	GlitchMalformed Glitch = iota
	// GlitchStreamError is a frame that made us reset a stream (CVE-2025-8671).
	GlitchStreamError
	// GlitchReset is a stream that a client reset at once, before anything was answered
	// (CVE-2023-44487).
	GlitchReset
	// GlitchRefusedStream is a stream beyond the limit.
	GlitchRefusedStream
	// GlitchClosedStream is a frame on a stream that is over.
	GlitchClosedStream
	// GlitchHeaderSize is a head beyond the limits.
	GlitchHeaderSize
	// GlitchContinuation is a head in too many pieces (CVE-2024-27919).
	GlitchContinuation
	// GlitchEmptyFrame is a frame that carries and ends nothing (CVE-2019-9518).
	GlitchEmptyFrame
	// GlitchSettings is SETTINGS again, or an acknowledgement of none (CVE-2019-9515).
	GlitchSettings
	// GlitchPing is a PING on a connection where nothing else happens (CVE-2019-9512).
	GlitchPing
	// GlitchPriority is PRIORITY beyond the limit (CVE-2019-9513).
	GlitchPriority
	// GlitchWindowUpdate is WINDOW_UPDATE beyond the limit.
	GlitchWindowUpdate
	// GlitchOutboundFrames is a peer that does not read what it makes us send.
	GlitchOutboundFrames
	// GlitchSlowHead is a head that does not become whole in time.
	GlitchSlowHead

	numGlitches
)

var glitchNames = [numGlitches]string{
	"malformed", "stream_error", "reset", "refused_stream", "closed_stream", "header_size", "continuation_flood",
	"empty_frames_flood", "settings", "ping", "priority_flood", "window_update_flood", "outbound_flood", "slow_head",
}

// String is the class as metrics name it.
func (g Glitch) String() string { return glitchNames[g] }

// bucket holds what was used up and refills with time.
type bucket struct {
	used float64
	last time.Time
}

// take uses up one and tells whether there was one.
func (b *bucket) take(size int, perSecond float64) bool {
	now := time.Now()
	if b.used > 0 {
		b.used = max(0, b.used-now.Sub(b.last).Seconds()*perSecond)
	}
	b.last = now
	b.used++
	return b.used <= float64(size)
}

// budget is a connection's account; it is the reader's.
type budget struct {
	glitches, resets bucket
	empty            int // consecutive frames
	pings            int // since anything else happened
	priorities       uint64
	windowUpdates    uint64
	lateResets       uint64
	underWay         int64  // bytes that may still come on streams that we have reset
	endsUnderWay     int64  // and frames that carry none
	answered         uint64 // requests that resets has been given credit for
}

// idlePings is how many PINGs may follow each other before they count: clients that
// measure the bandwidth send one with each burst of data.
const idlePings = 8

func (c *conn) note(g Glitch) {
	if c.cfg.OnGlitch != nil {
		c.cfg.OnGlitch(g)
	}
}

// glitch counts one, and ends the connection when there were too many.
func (c *conn) glitch(g Glitch) *ConnError {
	c.note(g)
	if !c.budget.glitches.take(c.cfg.MaxGlitches, float64(c.cfg.MaxGlitches)/10) {
		return connError(EnhanceYourCalm, "too_many_glitches")
	}
	return nil
}

// flood is a class with a bound of its own that was passed.
func (c *conn) flood(g Glitch) *ConnError {
	c.note(g)
	return connError(EnhanceYourCalm, g.String())
}

// resetBy counts a stream's end by a client's RST_STREAM, or by ours for its fault: both
// leave us with work that nobody waits for. A connection may be shared by many clients, of
// which each gives up a request now and then, so that each request that is answered gives
// back what one of these takes. The lock is held.
func (c *conn) resetBy(g Glitch) *ConnError {
	if c.server == nil {
		return c.glitch(g)
	}
	c.note(g)
	b := &c.budget
	b.resets.used = max(0, b.resets.used-float64(c.opened-b.answered))
	b.answered = c.opened
	if !b.resets.take(c.cfg.ResetBurst, float64(c.cfg.ResetRate)) {
		return connError(EnhanceYourCalm, "too_many_resets")
	}
	return nil
}

// premature is how old a stream is whose reset means nothing. To hold one so long costs
// the client one of its streams meanwhile: that limit bounds what it can have of us.
const premature = time.Second

// prematureReset tells whether a reset by the peer leaves us with work that the client did
// not wait for. What has begun to be answered was waited for: a download may be given up,
// and a tunnel ends that way. The lock is held.
func (s *Stream) prematureReset() bool {
	return s.c.server != nil && !s.answered && clock.Now()-s.since < int64(premature)
}

// lateReset counts RST_STREAM of a stream that is over, which crossed with its end, or
// says that the rest of a request is of no use now that its answer is whole. There is no
// more than one such for a stream. The lock is held.
func (c *conn) lateReset() *ConnError {
	if c.budget.lateResets++; c.budget.lateResets > c.opened {
		return c.glitch(GlitchClosedStream)
	}
	return nil
}

// headsUnderWay is how many heads a peer may have sent of a stream before it hears of our
// reset: of an answer, of interim ones and of trailers.
const headsUnderWay = 4

// resetByUs notes what there may be under way of a stream that we reset: as much as its window
// had left. The lock is held.
func (c *conn) resetByUs(window int64) {
	c.budget.underWay += max(0, window)
	c.budget.endsUnderWay += headsUnderWay
}

// behindReset counts a frame on a stream that we have reset, of which the peer may not have
// heard: it costs nothing as long as there may be such. The lock is held.
func (c *conn) behindReset(bytes int) *ConnError {
	left, n := &c.budget.underWay, int64(bytes)
	if n == 0 {
		left, n = &c.budget.endsUnderWay, 1
	}
	if *left < n {
		return c.glitch(GlitchClosedStream)
	}
	*left -= n
	return nil
}
