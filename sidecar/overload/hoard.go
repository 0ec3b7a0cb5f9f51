package overload

import (
	"math"
	"slices"
)

// Hoard is a stream, and the bytes that are held for it.
type Hoard struct {
	Bytes int
	Reset func() bool // false where it is over
}

const (
	// buckets are how many sizes of hoards there are, each twice the one before; the last
	// has no end.
	buckets = 8
	// resetAtMost is how many streams end at a time: what they held shows at the next look.
	resetAtMost = 50
)

// resetStreams ends streams that hold more than others, the greatest first: with a small
// share those of the last bucket alone, with all of it those of every bucket.
func (m *Manager) resetStreams(share float64) (n int) {
	least := m.cfg.LeastHoard
	if first := buckets - min(int(share*buckets)+1, buckets); first > 0 {
		if least > math.MaxInt>>first { // more than can be held
			return 0
		}
		least <<= first
	}
	hoards := m.opts.Hoards(least)
	slices.SortFunc(hoards, func(a, b Hoard) int { return b.Bytes - a.Bytes })
	for _, h := range hoards {
		if n == resetAtMost {
			break
		}
		if h.Reset() {
			n++
		}
	}
	return n
}
