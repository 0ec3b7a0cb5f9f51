package cluster

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// ports makes an assignment of 127.0.0.1 with these ports, in one locality.
func ports(from, to int) *Assignment {
	var eps []Endpoint
	for p := from; p <= to; p++ {
		eps = append(eps, Endpoint{Host: "127.0.0.1", Port: p, Hostname: fmt.Sprint(p)})
	}
	return &Assignment{Localities: []Locality{{Endpoints: eps}}}
}

func portOf(t testing.TB, c *Cluster, hash uint64) int {
	t.Helper()
	h, err := c.PickFor(&PickContext{Hash: hash, HasHash: true})
	if err != nil {
		t.Fatal(err)
	}
	return h.Endpoint().Port
}

// The points and slots are those of Envoy's own tests, so that both place alike.
func TestPlacesAsEnvoy(t *testing.T) {
	type point struct {
		hash uint64
		port int
	}
	const top = math.MaxUint64
	for name, tc := range map[string]struct {
		hosts *Assignment
		hash  HashTable
		want  []point
	}{
		"xxhash": {ports(90, 95), HashTable{MinRing: 12}, []point{
			{0, 94}, {top, 94}, {833437586790550860, 94}, {833437586790550861, 92}, {928266305478181109, 90},
			{3551244743356806947, 95}, {3551244743356806948, 93}, {5583722120771150861, 91}, {6311230543546372928, 91},
			{13144177310400110813, 95}, {13444792449719432967, 92}, {15516499411664133160, 94}, {16117243373044804880, 90},
		}},
		"murmur": {ports(80, 85), HashTable{MinRing: 12, Murmur2: true}, []point{
			{0, 85}, {top, 85}, {1358027074129602068, 85}, {1358027074129602069, 83}, {4361834613929391115, 84},
			{7701421856454313576, 81}, {10150910876324007730, 82}, {15427156902705414897, 80}, {17613279263364193813, 80},
		}},
		"hostname": {ports(90, 95), HashTable{MinRing: 12, UseHostname: true}, []point{
			{0, 95}, {top, 95}, {7225015537174310577, 92}, {6803900775736438537, 93}, {15364271037087512980, 94},
		}},
	} {
		c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: RingHash, Hash: &tc.hash, Endpoints: tc.hosts})
		if n := len(c.set.Load().whole.levels[0].healthy.table.ring); n != 12 {
			t.Errorf("%s: a ring of %d", name, n)
		}
		for _, p := range tc.want {
			if got := portOf(t, c, p.hash); got != p.port {
				t.Errorf("%s: %d is on %d, not %d", name, p.hash, got, p.port)
			}
		}
	}
	for name, tc := range map[string]struct {
		hash HashTable
		want []int
	}{
		"address":  {HashTable{TableSize: 7}, []int{92, 94, 90, 91, 95, 90, 93}},
		"hostname": {HashTable{TableSize: 7, UseHostname: true}, []int{92, 95, 90, 93, 94, 91, 90}},
	} {
		c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: Maglev, Hash: &tc.hash, Endpoints: ports(90, 95)})
		var got []int
		for i := range uint64(7) {
			got = append(got, portOf(t, c, i+7))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("maglev by %s: %v, not %v", name, got, tc.want)
		}
	}
}

func TestHashKeyOfMetadata(t *testing.T) {
	a := ports(90, 95)
	for i := range a.Localities[0].Endpoints {
		e := &a.Localities[0].Endpoints[i]
		e.Metadata = map[string]map[string]any{"envoy.lb": {"hash_key": e.Hostname}}
	}
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: Maglev, Hash: &HashTable{TableSize: 7}, Endpoints: a})
	if got := portOf(t, c, 1); got != 95 {
		t.Errorf("placed by %d", got)
	}
}

// Few hashes move when a host goes, and shares follow the weights.
func TestHashesStay(t *testing.T) {
	for _, lb := range []LB{RingHash, Maglev} {
		m := newManager(t, Options{})
		all := ports(90, 99)
		all.Localities[0].Endpoints[3].Weight = 3
		c := mustUpdate(t, m, &Config{Name: "c", LB: lb, Hash: &HashTable{MinRing: 12000}, Endpoints: all})
		const n = 12000
		before, share := map[uint64]int{}, map[int]int{}
		for i := range uint64(n) {
			hash := i * 0x9e3779b97f4a7c15
			before[hash] = portOf(t, c, hash)
			share[before[hash]]++
		}
		if s := share[93]; s < n*3/12*8/10 || s > n*3/12*12/10 {
			t.Errorf("policy %d: weight 3 of 12 got %d of %d", lb, s, n)
		}
		less := ports(90, 99)
		less.Localities[0].Endpoints = slices.Delete(less.Localities[0].Endpoints, 5, 6)
		less.Localities[0].Endpoints[3].Weight = 3
		mustUpdate(t, m, &Config{Name: "c", LB: lb, Hash: &HashTable{MinRing: 12000}, Endpoints: less})
		moved := 0
		for hash, port := range before {
			if now := portOf(t, c, hash); port != 95 && now != port {
				moved++
			}
		}
		// A ring has the same number of points for fewer hosts: the new ones take over
		// about as much as the host that left.
		if most := n * 9 / 100; moved > most {
			t.Errorf("policy %d: %d of %d moved that need not", lb, moved, n)
		}
	}
}

func TestHashAvoids(t *testing.T) {
	for _, lb := range []LB{RingHash, Maglev} {
		c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: lb, Endpoints: ports(90, 92)})
		table, moved := c.set.Load().whole.levels[0].healthy.table, 0
		for hash := range uint64(300) {
			if table.index(hash*0x9e3779b97f4a7c15, 1) != table.index(hash*0x9e3779b97f4a7c15, 0) {
				moved++
			}
		}
		if moved < 120 {
			t.Errorf("policy %d: another attempt leads elsewhere for %d of 300 hashes", lb, moved)
		}
		pc := &PickContext{Hash: 7, HasHash: true}
		seen := map[int]bool{}
		for range 3 {
			h, err := c.PickFor(pc)
			if err != nil || seen[h.Endpoint().Port] {
				t.Fatalf("policy %d: %v again after %v (%v)", lb, h, seen, err)
			}
			seen[h.Endpoint().Port] = true
			pc.Avoid = append(pc.Avoid, h)
		}
	}
}

func TestBoundedLoad(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: Maglev, Hash: &HashTable{BalanceFactor: 150}, Endpoints: ports(90, 93)})
	got := map[*Host]int{}
	for range 100 {
		h, err := c.PickFor(&PickContext{Hash: 42, HasHash: true})
		if err != nil {
			t.Fatal(err)
		}
		h.Begin()
		c.StartRequest(0)
		got[h]++
	}
	// The average is 25; a host may take 1.5 times that, and one more.
	for h, n := range got {
		if n > 39 {
			t.Errorf("%s has %d of 100", h.Address(), n)
		}
	}
	if len(got) < 3 {
		t.Errorf("only %d hosts took what was too much for one", len(got))
	}
	// The same hash spills to the same host.
	first, _ := c.PickFor(&PickContext{Hash: 42, HasHash: true})
	for range 20 {
		if h, _ := c.PickFor(&PickContext{Hash: 42, HasHash: true}); h != first {
			t.Fatal("it wanders")
		}
	}
}

// A request without a hash goes anywhere.
func TestHashless(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: RingHash, Endpoints: ports(90, 93)})
	got := map[int]int{}
	for range 4000 {
		h, _ := c.Pick(nil)
		got[h.Endpoint().Port]++
	}
	for port := 90; port <= 93; port++ {
		if got[port] < 600 || got[port] > 1400 {
			t.Errorf("not at random: %v", got)
		}
	}
}
