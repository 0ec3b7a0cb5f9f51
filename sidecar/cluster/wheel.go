package cluster

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// wheel deals out the numbers below n in proportion to weights, without a lock.
// Immutable but for its position.
type wheel struct {
	n uint64
	// One of the three is set unless all weights are equal: order is a whole round,
	// earliest deadline first as Envoy's scheduler deals it; strides (the weights
	// scaled to maxStride) stand in where a round would be too long, and chance
	// where most of a round would be spent on passing over.
	order   []uint16
	strides []uint32
	chance  *alias

	seq atomic.Uint64
}

const (
	maxStride = 1 << 16
	maxRound  = 4096
)

// spin returns a wheel for weights, which are above 0. It starts at random, so
// that many sidecars do not begin with the same host.
func spin(weights []float64) *wheel {
	w := &wheel{n: uint64(len(weights))}
	w.seq.Store(rand.Uint64() >> 1)
	if len(weights) == 0 || slices.Min(weights) == slices.Max(weights) {
		return w
	}
	if w.order = round(weights); w.order != nil {
		return w
	}
	sum, most := 0.0, slices.Max(weights)
	for _, x := range weights {
		sum += x
	}
	if most*float64(len(weights)) > 4*sum {
		w.chance = newAlias(weights)
		return w
	}
	for _, x := range weights {
		w.strides = append(w.strides, uint32(max(1, math.Round(x*maxStride/most))))
	}
	return w
}

// next is the number whose turn it is.
func (w *wheel) next() int {
	switch {
	case w.order != nil:
		return int(w.order[(w.seq.Add(1)-1)%uint64(len(w.order))])
	case w.chance != nil:
		return w.chance.pick()
	case w.strides == nil:
		return int((w.seq.Add(1) - 1) % w.n)
	}
	// In each round a number is passed over as often as its weight is below the
	// greatest; the rounds of different numbers are shifted so that a round's picks
	// do not come in a block.
	for {
		seq := w.seq.Add(1) - 1
		i, turn := seq%w.n, seq/w.n
		x := uint64(w.strides[i])
		if (x*turn+i*maxStride/2)%maxStride >= maxStride-x {
			return int(i)
		}
	}
}

// round lists each number as often as its weight says, nil where the weights are
// not whole or the round would be longer than maxRound.
func round(weights []float64) []uint16 {
	whole := make([]uint64, len(weights))
	var divisor, sum uint64
	for i, x := range weights {
		if x != math.Trunc(x) || x > math.MaxUint32 {
			return nil
		}
		whole[i] = uint64(x)
		divisor = gcd(divisor, whole[i])
		sum += whole[i]
	}
	if sum /= divisor; sum > maxRound {
		return nil
	}
	// The k-th turn of a number is due at k/weight.
	type turn struct{ k, weight, i uint64 }
	turns := make([]turn, 0, sum)
	for i, x := range whole {
		x /= divisor
		for k := range x {
			turns = append(turns, turn{k + 1, x, uint64(i)})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.k*b.weight, b.k*a.weight), cmp.Compare(a.i, b.i))
	})
	out := make([]uint16, sum)
	for i, t := range turns {
		out[i] = uint16(t.i)
	}
	return out
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// alias draws numbers at random in proportion to weights in constant time
// (Vose's alias method). Immutable.
type alias struct {
	keep  []uint32 // chance, of 1<<32, to keep the slot's own number
	other []uint32
}

func newAlias(weights []float64) *alias {
	n := len(weights)
	a := &alias{keep: make([]uint32, n), other: make([]uint32, n)}
	sum := 0.0
	for _, x := range weights {
		sum += x
	}
	scaled := make([]float64, n)
	var small, large []int
	for i, x := range weights {
		scaled[i] = x * float64(n) / sum
		if scaled[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.keep[s], a.other[s] = uint32(scaled[s]*(1<<32)), uint32(l)
		if scaled[l] -= 1 - scaled[s]; scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		a.keep[i], a.other[i] = math.MaxUint32, uint32(i)
	}
	return a
}

func (a *alias) pick() int { return a.at(uint32(rand.Uint64())) }

// at is the number that the random number r draws. Few hosts leave enough of its
// bits to decide between the two numbers of a slot.
func (a *alias) at(r uint32) int {
	x := uint64(r) * uint64(len(a.keep))
	slot := x >> 32
	if uint32(x) < a.keep[slot] {
		return int(slot)
	}
	return int(a.other[slot])
}
