package telemetry

import (
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
)

// Shard picks which copy of a counter a goroutine adds to. A connection takes one
// when it is accepted and keeps it; any value is valid.
type Shard uint32

var (
	shardCount = shardsFor(runtime.GOMAXPROCS(0))
	nextShard  atomic.Uint32
)

// Shards is how many copies of a counter there are, a power of two.
func Shards() int { return shardCount }

func shardsFor(procs int) int {
	n := 1 << bits.Len(uint(procs-1))
	return min(n, 8)
}

// NextShard hands out shards in turn.
func NextShard() Shard { return Shard(nextShard.Add(1)) }

// block is a group of counters that are used together, once per shard. Sharding
// the group instead of each counter keeps cache lines apart between shards at the
// price of 8 bytes a counter and shard. The cells come into being with the first
// that is counted: of ten thousand clusters most are not used for long times.
type block struct {
	cells  int
	shards atomic.Pointer[[][]uint64]
}

func newBlock(cells int) *block { return &block{cells: wholeLines(cells)} }

// wholeLines rounds up to whole cache lines, so that no two shards share one.
func wholeLines(cells int) int { return (cells + 7) &^ 7 }

// of are the cells of a shard.
func (b *block) of(s Shard) []uint64 {
	p := b.shards.Load()
	if p == nil {
		p = b.fill()
	}
	return (*p)[int(s)&(len(*p)-1)]
}

func (b *block) fill() *[][]uint64 {
	made := make([][]uint64, shardCount)
	for i := range made {
		made[i] = make([]uint64, b.cells)
	}
	if b.shards.CompareAndSwap(nil, &made) {
		return &made
	}
	return b.shards.Load()
}

func (b *block) add(s Shard, cell int, n uint64) { atomic.AddUint64(&b.of(s)[cell], n) }

func (b *block) sum(cell int) uint64 {
	p := b.shards.Load()
	if p == nil {
		return 0
	}
	var n uint64
	for _, s := range *p {
		n += atomic.LoadUint64(&s[cell])
	}
	return n
}

// Counter only grows. A nil Counter counts nothing.
type Counter struct {
	b    *block
	cell int
}

// Inc adds one.
func (c *Counter) Inc(s Shard) { c.Add(s, 1) }

// Add adds n.
func (c *Counter) Add(s Shard, n uint64) {
	if c != nil {
		c.b.add(s, c.cell, n)
	}
}

// Value merges the shards.
func (c *Counter) Value() uint64 {
	if c == nil {
		return 0
	}
	return c.b.sum(c.cell)
}

// Gauge goes up and down with Add, or is set with Set; not both. A nil Gauge
// holds nothing.
type Gauge struct {
	b    *block
	cell int
	// set are a float64's bits: 0 before the first Set, which keeps a 0 as -0.
	set atomic.Uint64
}

// Add changes the gauge by n.
func (g *Gauge) Add(s Shard, n int64) {
	if g != nil {
		g.b.add(s, g.cell, uint64(n))
	}
}

// Set replaces the gauge's value.
func (g *Gauge) Set(v float64) {
	if g == nil {
		return
	}
	if v == 0 {
		v = math.Copysign(0, -1)
	}
	g.set.Store(math.Float64bits(v))
}

// Value merges the shards.
func (g *Gauge) Value() float64 {
	if g == nil {
		return 0
	}
	return math.Float64frombits(g.set.Load()) + float64(int64(g.b.sum(g.cell)))
}

// used tells whether the gauge, or one that shares its cells, was ever changed.
func (g *Gauge) used() bool { return g.set.Load() != 0 || g.b.shards.Load() != nil }

// Histogram counts durations in fixed buckets. A nil Histogram counts nothing.
type Histogram struct {
	b *block
	// first is the cell of the first bucket; one cell a bound follows, one for
	// +Inf, and one for the sum, in units of 2^coarse nanoseconds.
	first  int
	bounds []time.Duration
	coarse uint8
}

// coarseFor keeps the sum of long durations from the end of 64 bits: in nanoseconds that are
// 213,503 days together, which connections reach.
func coarseFor(bounds []time.Duration) uint8 {
	if bounds[len(bounds)-1] > time.Hour {
		return 10
	}
	return 0
}

func histogramCells(bounds []time.Duration) int { return len(bounds) + 2 }

// Observe counts one duration.
func (h *Histogram) Observe(s Shard, d time.Duration) {
	if h == nil {
		return
	}
	d = max(d, 0)
	lo, hi := 0, len(h.bounds)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if d <= h.bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	cells := h.b.of(s)[h.first : h.first+len(h.bounds)+2]
	atomic.AddUint64(&cells[lo], 1)
	atomic.AddUint64(&cells[len(cells)-1], uint64(d)>>h.coarse)
}

// Count is the number of observations.
func (h *Histogram) Count() uint64 {
	if h == nil {
		return 0
	}
	var n uint64
	for i := range len(h.bounds) + 1 {
		n += h.b.sum(h.first + i)
	}
	return n
}

// Seconds is the total of all observations.
func (h *Histogram) Seconds() float64 {
	if h == nil {
		return 0
	}
	return float64(h.b.sum(h.first+len(h.bounds)+1)) * float64(uint64(1)<<h.coarse) / 1e9
}
