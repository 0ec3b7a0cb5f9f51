package cluster

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/big"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Envoy's sizes of the tables.
const (
	defaultMinRing   = 1024
	defaultMaxRing   = 8 << 20
	defaultTableSize = 65537
)

// hashTable gives each hash a host, such that few hashes move when a host comes
// or goes. It places hosts exactly as Envoy does, so that sidecars of both kinds
// agree. Immutable.
type hashTable struct {
	hosts  []*Host
	shares []float64 // of the requests, by host; the sum is 1
	// ring are the points of a ring hash, in order, and owner their hosts; a maglev
	// table has only owner, by slot.
	ring    []uint64
	owner   []uint32
	balance uint64 // percent, 0 for no bound
}

// newHashTable makes the table of hosts with these shares.
func newHashTable(hosts []*Host, shares []float64, s *settings) *hashTable {
	terms := s.Hash
	if terms == nil {
		terms = &HashTable{}
	}
	t := &hashTable{hosts: hosts, shares: shares, balance: uint64(terms.BalanceFactor)}
	if len(hosts) == 0 {
		return t
	}
	if s.LB == Maglev {
		t.fill(terms)
	} else {
		t.draw(terms)
	}
	return t
}

// hashKey is what a host is placed by.
func (h *Host) hashKey(o *HashTable) string {
	e := h.Endpoint()
	if key, ok := e.Metadata[lbNamespace]["hash_key"].(string); ok {
		return key
	}
	if o.UseHostname {
		return e.Hostname
	}
	return h.key
}

// draw makes a ketama ring. Each host gets points in proportion to its share, so
// many that the least one has a whole number of them; the running sums keep the
// ring stable where the numbers are not whole.
func (t *hashTable) draw(o *HashTable) {
	least := slices.Min(t.shares)
	lower, upper := cmp.Or(o.MinRing, defaultMinRing), cmp.Or(o.MaxRing, defaultMaxRing)
	scale := min(math.Ceil(least*float64(lower))/least, float64(upper))
	type point struct {
		hash  uint64
		owner uint32
	}
	points := make([]point, 0, int(math.Ceil(scale)))
	have, want := 0.0, 0.0
	var key []byte
	for i, h := range t.hosts {
		key = append(append(key[:0], h.hashKey(o)...), '_')
		stem := len(key)
		want += scale * t.shares[i]
		for n := uint64(0); have < want; n++ {
			key = strconv.AppendUint(key[:stem], n, 10)
			hash := xxhash.Sum64(key)
			if o.Murmur2 {
				hash = murmur2(key)
			}
			points = append(points, point{hash, uint32(i)})
			have++
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	t.ring, t.owner = make([]uint64, len(points)), make([]uint32, len(points))
	for i, p := range points {
		t.ring[i], t.owner[i] = p.hash, p.owner
	}
}

// fill makes a maglev table (Eisenbud and others, NSDI 2016, 3.4). In each
// iteration a host takes the next free slot of its own permutation, one of less
// than the greatest share only in some iterations.
func (t *hashTable) fill(o *HashTable) {
	size := cmp.Or(o.TableSize, defaultTableSize)
	type entry struct {
		key                string
		host               uint32
		offset, skip, next uint64
		share, target      float64
	}
	entries := make([]entry, len(t.hosts))
	for i, h := range t.hosts {
		key := h.hashKey(o)
		var seeded xxhash.Digest
		seeded.ResetWithSeed(1)
		_, _ = seeded.WriteString(key)
		entries[i] = entry{
			key: key, host: uint32(i), share: t.shares[i],
			offset: xxhash.Sum64String(key) % size, skip: seeded.Sum64()%(size-1) + 1,
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	const free = math.MaxUint32
	t.owner = make([]uint32, size)
	for i := range t.owner {
		t.owner[i] = free
	}
	most := slices.Max(t.shares)
	filled := uint64(0)
	for iteration := 1.0; ; iteration++ {
		for i := range entries {
			e := &entries[i]
			if iteration*e.share < e.target {
				continue
			}
			e.target += most
			slot := (e.offset + e.skip*e.next) % size
			for t.owner[slot] != free {
				e.next++
				slot = (e.offset + e.skip*e.next) % size
			}
			e.next++
			t.owner[slot] = e.host
			if filled++; filled == size {
				return
			}
		}
	}
}

// find is the host of a hash. A higher attempt gives another host, mostly.
func (t *hashTable) find(hash uint64, attempt int) *Host {
	if len(t.hosts) == 0 {
		return nil
	}
	i := t.index(hash, attempt)
	if t.balance == 0 || t.load(i) <= 1 {
		return t.hosts[i]
	}
	return t.spill(hash, i)
}

func (t *hashTable) index(hash uint64, attempt int) uint32 {
	if t.ring == nil {
		if attempt > 0 {
			hash ^= -uint64(attempt)
		}
		return t.owner[hash%uint64(len(t.owner))]
	}
	i, _ := slices.BinarySearch(t.ring, hash)
	return t.owner[(i+attempt)%len(t.owner)]
}

// load is how far a host is towards its bound: above 1 it has more active
// requests than BalanceFactor allows it.
func (t *hashTable) load(i uint32) float64 {
	h := t.hosts[i]
	slots := (uint64(max(0, h.cluster.activeRequests())+1)*t.balance + 99) / 100
	own := max(1, math.Ceil(float64(slots)*t.shares[i]))
	return float64(h.active.Load()) / own
}

// spill finds a host below its bound in an order that the hash decides, so that
// the same hash goes to the same one; else the one that is least above.
func (t *hashTable) spill(hash uint64, first uint32) *Host {
	n := uint64(len(t.hosts))
	best, least := first, t.load(first)
	step := 1 + (hash>>32)%n
	for gcd(step, n) != 1 {
		step++
	}
	for k, at := uint64(0), hash%n; k < n; k, at = k+1, (at+step)%n {
		load := t.load(uint32(at))
		if load <= 1 {
			return t.hosts[at]
		}
		if load < least {
			best, least = uint32(at), load
		}
	}
	return t.hosts[best]
}

// Prime tells whether n is a prime: what the size of a maglev table must be.
func Prime(n uint64) bool { return new(big.Int).SetUint64(n).ProbablyPrime(0) }

// murmur2 is MurmurHash64A with the seed of libstdc++'s std::hash, as Envoy has it.
func murmur2(key []byte) uint64 {
	const mul = 0xc6a4a7935bd1e995
	mix := func(v uint64) uint64 { return v ^ v>>47 }
	h := 0xc70f6907 ^ uint64(len(key))*mul
	for ; len(key) >= 8; key = key[8:] {
		h = (h ^ mix(binary.LittleEndian.Uint64(key)*mul)*mul) * mul
	}
	if len(key) > 0 {
		var rest uint64
		for i, b := range key {
			rest |= uint64(b) << (8 * i)
		}
		h = (h ^ rest) * mul
	}
	return mix(mix(h) * mul)
}
