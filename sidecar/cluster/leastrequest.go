package cluster

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// weighed is how many hosts least request looks at where weights differ.
const weighed = 8

// leastRequest compares a few hosts that chance offers. It is as good as comparing
// all, and needs no order kept.
func (g *group) leastRequest(s *settings) *Host {
	switch {
	case g.uneven != nil:
		return g.byActiveWeight(s)
	case s.FullScan:
		return g.leastOfAll()
	}
	n := uint64(len(g.hosts))
	var best *Host
	var least int64
	for range s.choices {
		i, _ := bits.Mul64(rand.Uint64(), n)
		h := g.hosts[i]
		if active := h.active.Load(); best == nil || active < least {
			best, least = h, active
		}
	}
	return best
}

// leastOfAll looks at every host; chance decides between equals.
func (g *group) leastOfAll() *Host {
	best, least, equal := g.hosts[0], int64(math.MaxInt64), 0
	for _, h := range g.hosts {
		switch active := h.active.Load(); {
		case active < least:
			best, least, equal = h, active, 1
		case active == least:
			if equal++; rand.IntN(equal) == 0 {
				best = h
			}
		}
	}
	return best
}

// byActiveWeight picks in proportion to weight/(active+1)^bias, which is what
// Envoy's scheduler comes to with such weights in the long run. Of many hosts it
// looks at a sample that was drawn by weight alone.
func (g *group) byActiveWeight(s *settings) *Host {
	var hosts [weighed]*Host
	var reach [weighed]float64
	n, sum := min(len(g.hosts), weighed), 0.0
	sample := len(g.hosts) > weighed
	if sample {
		n = weighed / 2
	}
	var random uint64
	for i := range n {
		at, w := i, 1.0
		if !sample {
			w = g.uneven.weights[i]
		} else {
			if random >>= 32; i%2 == 0 {
				random = rand.Uint64()
			}
			at = g.uneven.chance.at(uint32(random))
		}
		h := g.hosts[at]
		sum += w / discount(h.active.Load(), s.bias)
		hosts[i], reach[i] = h, sum
	}
	at := rand.Float64() * sum
	for i := range n - 1 {
		if at < reach[i] {
			return hosts[i]
		}
	}
	return hosts[n-1]
}

// discount is (active+1)^bias.
func discount(active int64, bias float64) float64 {
	switch {
	case active <= 0 || bias == 0:
		return 1
	case bias == 1:
		return float64(active + 1)
	}
	return math.Pow(float64(active+1), bias)
}
