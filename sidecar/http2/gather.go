package http2

import (
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// gatherer learns how many batches are worth waiting for before a connection is written to.
// A batch is what the reader of one connection passes on at a time; where several readers
// have something at about the same time, again and again, what they pass on goes out
// together: that costs one call of the kernel and one record of TLS, and its peer as much
// less. Where they do not, one try of many is what a message waits for in vain. It is
// guarded by the connection's lock.
type gatherer struct {
	known   int  // how many batches came again and again
	want    int  // and are waited for: one more, when that is tried; less than 2 is not to wait
	run     int  // how often in a row as many came
	excused bool // too few came, for once, and not often enough since
	since   int  // how often was written since more were tried
	every   int  // and how often is to be until more are

	source uint32 // whose the last batch is: a connection's number
	mixed  bool   // not all since more were tried were of one connection
	held   bool   // a leader releases it
	waits  int64  // since when it is waited for more batches, on the clock; 0 where it is not
}

const (
	// heldBytes is what waits for no more than the round: it would save little. fullBytes does
	// not wait at all.
	heldBytes, fullBytes = 4 << 10, 16 << 10
	// As many batches as proven in a row are no accident.
	proven = 8
	// Who comes later, in nanoseconds, was not worth waiting for: there is time between messages, and
	// nobody gains by fewer calls of the kernel what all of them wait.
	late = 50_000
	// More are tried after so many writes: the more often in vain, the fewer tries.
	triedSoon, triedRarely = 8, 1024
)

// batch notes one.
func (g *gatherer) batch(source uint32) {
	g.mixed = g.mixed || g.source != source && g.source != 0
	g.source = source
}

// enough tells whether what waits is to be written, since so many nanoseconds. With last no more
// comes.
func (g *gatherer) enough(batches int, waited int64, last bool) bool {
	if batches < g.want && !last {
		return false
	}
	switch came := batches >= g.want && waited <= late; {
	case g.want < 2:
	case came:
		if g.run++; g.run == proven && g.want > g.known {
			g.known, g.every = g.want, triedSoon
		}
		g.excused = g.excused && g.run < proven
	case g.want > g.known:
		g.want, g.every = g.known, min(2*g.every, triedRarely)
	case !g.excused:
		g.excused, g.run = true, 0
	default:
		g.known = min(batches, g.known-1)
		g.want, g.every = g.known, triedSoon
	}
	if g.since++; g.since >= max(g.every, triedSoon) && g.want <= g.known+1 {
		g.more()
	}
	return true
}

// more tries whether one more comes.
func (g *gatherer) more() {
	g.since = 0
	g.known, g.every = max(g.known, 1), max(g.every, triedSoon)
	if g.mixed && g.want <= g.known {
		g.want, g.run, g.excused, g.mixed = g.known+1, 0, false, false
	}
}

// waited is how long what was passed on has waited, in nanoseconds.
func (g *gatherer) waited() int64 {
	if g.waits == 0 {
		return 0
	}
	return clock.Now() - g.waits
}

// numbers tell connections apart.
var numbers atomic.Uint32

// Release implements stream.Held: what was passed on to the connection is written, unless
// more is worth waiting for.
func (c *conn) Release(last bool) (kept, awaits bool) {
	defer panics.Contain(panics.HTTP2Writer, c, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gather.held = false
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n := c.w.batches; {
	case n == 0 || c.err != nil:
	case n < c.gather.want && c.w.pending() >= heldBytes:
	case !c.gather.enough(n, c.gather.waited(), last):
		if c.gather.waits == 0 {
			c.gather.waits = clock.Now()
		}
		return true, false
	}
	c.gather.held, c.gather.waits = false, 0
	awaits = c.others.first != nil || c.senders.first != nil
	c.flush(false)
	return false, awaits || c.w.writing || c.err != nil
}
