package cluster

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// share draws n times and fails unless each number comes as often as its weight
// says, give or take tolerance percent of all.
func share(t *testing.T, what string, weights []float64, n int, tolerance float64, next func() int) {
	t.Helper()
	got, sum := make([]float64, len(weights)), 0.0
	for range n {
		got[next()]++
	}
	for _, w := range weights {
		sum += w
	}
	for i, w := range weights {
		if d := 100 * math.Abs(got[i]/float64(n)-w/sum); d > tolerance {
			t.Errorf("%s: %d came %v times of %d with weight %v of %v", what, i, got[i], n, w, sum)
		}
	}
}

func TestWheel(t *testing.T) {
	thousand := make([]float64, 1001)
	for i := range thousand {
		thousand[i] = 1
	}
	thousand[1000] = 10000
	for name, tc := range map[string]struct {
		weights   []float64
		tolerance float64
	}{
		"equal": {[]float64{5, 5, 5}, 0.1}, "one": {[]float64{3}, 0}, "whole": {[]float64{1, 2, 7}, 0.2},
		"common divisor": {[]float64{4000, 8000}, 0.2}, "broken": {[]float64{0.3, 1.7, 1}, 0.5},
		"long round": {[]float64{99991, 60013, 75037}, 0.5}, "skewed": {thousand, 0.5},
	} {
		w := spin(tc.weights)
		share(t, name, tc.weights, 100000, tc.tolerance, w.next)
		a := newAlias(tc.weights)
		share(t, name+", at random", tc.weights, 100000, 1, a.pick)
	}
	// Earliest deadline first: no block of one host's turns.
	w := spin([]float64{2, 1, 1})
	w.seq.Store(0)
	if got := [8]int{w.next(), w.next(), w.next(), w.next(), w.next(), w.next(), w.next(), w.next()}; got != [8]int{0, 0, 1, 2, 0, 0, 1, 2} {
		t.Errorf("the order is %v", got)
	}
}

func FuzzWheel(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add([]byte{255, 1, 1, 1, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 100 {
			return
		}
		weights := make([]float64, len(b))
		for i, x := range b {
			weights[i] = float64(x)/3 + 0.1
		}
		w := spin(weights)
		for range 1000 {
			if n := w.next(); n < 0 || n >= len(weights) {
				t.Fatalf("%d is no number of %d", n, len(weights))
			}
		}
	})
}

// TestSpread has the examples of Envoy's documentation on priorities, panic and
// degraded hosts.
func TestSpread(t *testing.T) {
	level := func(healthy, degraded, all int) census {
		return census{hosts: all, healthy: healthy, degraded: degraded, overprovisions: 140}
	}
	for name, tc := range map[string]struct {
		levels            []census
		threshold         float64
		healthy, degraded []int
		panics            []bool
	}{
		"all":                   {[]census{level(100, 0, 100), level(100, 0, 100)}, 50, []int{100, 0}, []int{0, 0}, []bool{false, false}},
		"72 percent":            {[]census{level(72, 0, 100), level(100, 0, 100)}, 50, []int{100, 0}, []int{0, 0}, []bool{false, false}},
		"71 percent":            {[]census{level(71, 0, 100), level(100, 0, 100)}, 50, []int{99, 1}, []int{0, 0}, []bool{false, false}},
		"50 percent":            {[]census{level(50, 0, 100), level(100, 0, 100)}, 50, []int{70, 30}, []int{0, 0}, []bool{false, false}},
		"both low":              {[]census{level(25, 0, 100), level(25, 0, 100)}, 50, []int{50, 50}, []int{0, 0}, []bool{true, true}},
		"none":                  {[]census{level(0, 0, 100), level(0, 0, 100)}, 50, []int{50, 50}, []int{0, 0}, []bool{true, true}},
		"none and no panic":     {[]census{level(0, 0, 100), level(0, 0, 100)}, 0, []int{100, 0}, []int{0, 0}, []bool{false, false}},
		"third level":           {[]census{level(5, 0, 100), level(0, 0, 100), level(65, 0, 100)}, 0, []int{8, 0, 92}, []int{0, 0, 0}, []bool{false, false, false}},
		"one panics":            {[]census{level(5, 0, 100), level(65, 0, 100)}, 50, []int{8, 92}, []int{0, 0}, []bool{true, false}},
		"degraded after all":    {[]census{level(50, 50, 100), level(20, 0, 100)}, 50, []int{70, 28}, []int{2, 0}, []bool{false, false}},
		"degraded alone":        {[]census{level(0, 100, 100)}, 50, []int{0}, []int{100}, []bool{false}},
		"documented":            {[]census{level(7, 15, 100), level(15, 7, 100), level(7, 0, 100)}, 0, nil, nil, []bool{false, false, false}},
		"panic by host numbers": {[]census{level(0, 0, 3), level(0, 0, 1)}, 50, []int{75, 25}, []int{0, 0}, []bool{true, true}},
		"an empty level":        {[]census{level(0, 0, 0), level(2, 0, 2)}, 50, []int{0, 100}, []int{0, 0}, []bool{false, false}},
	} {
		l, panics := spread(tc.levels, tc.threshold)
		parts := func(of []int, from int) []int {
			out := make([]int, len(of))
			for i, reach := range of {
				out[i], from = reach-from, reach
			}
			return out
		}
		healthy, degraded := make([]int, len(tc.levels)), make([]int, len(tc.levels))
		if healthy[0] = 100; l.healthy != nil {
			healthy = parts(l.healthy, 0)
			degraded = parts(l.degraded, l.healthy[len(l.healthy)-1])
		}
		sum := 0
		for i := range healthy {
			sum += healthy[i] + degraded[i]
		}
		if sum != 100 {
			t.Errorf("%s: the shares make %d", name, sum)
		}
		for i := range tc.levels {
			if tc.healthy != nil && (healthy[i] != tc.healthy[i] || degraded[i] != tc.degraded[i]) || panics[i] != tc.panics[i] {
				t.Errorf("%s: level %d: %d healthy, %d degraded, panic %v", name, i, healthy[i], degraded[i], panics[i])
			}
		}
	}
	weighted := level(1, 0, 2)
	weighted.weighted = true
	weighted.weight.hosts, weighted.weight.healthy = 100, 99
	if healthy, _ := weighted.available(); healthy != 100 {
		t.Errorf("by weight %d percent", healthy)
	}
	unchecked := level(1, 0, 2)
	unchecked.excluded = 1
	if healthy, _ := unchecked.available(); healthy != 100 || unchecked.panics(100) {
		t.Errorf("without the excluded %d percent", healthy)
	}
}

func TestFailOnPanic(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", FailOnPanic: true, Endpoints: hosts("c", "10.0.0.1", "10.0.0.2 unhealthy", "10.0.0.3 unhealthy")})
	if _, err := c.Pick(nil); err == nil {
		t.Error("a host was found in panic")
	}
}

func localities(weights map[string]uint32, specs ...[]Endpoint) *Assignment {
	a := &Assignment{Cluster: "c"}
	for i, eps := range specs {
		zone := string(rune('a' + i))
		a.Localities = append(a.Localities, Locality{Zone: zone, Weight: weights[zone], Endpoints: eps})
	}
	return a
}

func ep(host string, health Health) Endpoint { return Endpoint{Host: host, Port: 80, Health: health} }

func zones(t *testing.T, c *Cluster, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		h, err := c.PickFor(&PickContext{})
		if err != nil {
			t.Fatal(err)
		}
		got[h.locality.Zone]++
	}
	return got
}

func TestLocalityWeights(t *testing.T) {
	a := func(health Health) *Assignment {
		return localities(map[string]uint32{"a": 1, "b": 3},
			[]Endpoint{ep("10.0.0.1", Healthy)}, []Endpoint{ep("10.0.1.1", Healthy), ep("10.0.1.2", health)}, []Endpoint{ep("10.0.2.1", Healthy)})
	}
	m := newManager(t, Options{})
	for _, lb := range []LB{RoundRobin, LeastRequest, Random, RingHash, Maglev} {
		c := mustUpdate(t, m, &Config{Name: "c", LB: lb, LocalityWeighted: true, Endpoints: a(Healthy)})
		if got := zones(t, c, 4000); got["a"] < 700 || got["a"] > 1300 || got["c"] != 0 {
			t.Errorf("policy %d: %v, where a weighs 1, b 3 and c nothing", lb, got)
		}
	}
	// Half of b's hosts bear 70 % of its weight: 2.1 of 3.1.
	c := mustUpdate(t, m, &Config{Name: "c", LocalityWeighted: true, Endpoints: a(Unhealthy)})
	if got := zones(t, c, 4000); got["a"] < 1190 || got["a"] > 1390 {
		t.Errorf("with half of b unhealthy: %v", got)
	}
	// A quarter of them bears 35 %, and what a has to spare does not count: 1 of 1.35.
	quarter := localities(map[string]uint32{"a": 1, "b": 1}, []Endpoint{ep("10.0.0.1", Healthy)},
		[]Endpoint{ep("10.0.1.1", Healthy), ep("10.0.1.2", Unhealthy), ep("10.0.1.3", Unhealthy), ep("10.0.1.4", Unhealthy)})
	none := 0.0
	c = mustUpdate(t, m, &Config{Name: "c", LocalityWeighted: true, PanicThreshold: &none, Endpoints: quarter})
	if got := zones(t, c, 4000); got["a"] < 2840 || got["a"] > 3080 {
		t.Errorf("with three quarters of b unhealthy: %v", got)
	}
	// Without the policy each host counts alike.
	c = mustUpdate(t, m, &Config{Name: "c", Endpoints: a(Healthy)})
	if got := zones(t, c, 4000); got["a"] != 1000 || got["c"] != 1000 {
		t.Errorf("without weights: %v", got)
	}
	// Where no locality has weight, the hosts are taken together.
	c = mustUpdate(t, m, &Config{Name: "c", LocalityWeighted: true, Endpoints: localities(nil, []Endpoint{ep("10.0.0.1", Healthy)}, []Endpoint{ep("10.0.1.1", Healthy)})})
	if got := zones(t, c, 100); got["a"] != 50 {
		t.Errorf("with no weights at all: %v", got)
	}
}

func TestLeastRequestWeights(t *testing.T) {
	m := newManager(t, Options{})
	for _, n := range []int{2, 40} {
		a := ports(100, 99+n)
		a.Localities[0].Endpoints[0].Weight = 3
		weights := make([]float64, n)
		for i := range weights {
			weights[i] = 1
		}
		weights[0] = 3
		pick := func(c *Cluster) func() int {
			return func() int { h, _ := c.Pick(nil); return h.Endpoint().Port - 100 }
		}
		c := mustUpdate(t, m, &Config{Name: "c", LB: LeastRequest, Endpoints: a})
		share(t, "idle", weights, 40000, 1.5, pick(c))
		// Two active requests on the heavy host make it weigh 3/(2+1).
		heavy := c.hosts()[0]
		heavy.Begin()
		heavy.Begin()
		if n == 2 {
			weights[0] = 1
			share(t, "busy", weights, 40000, 1.5, pick(c))
			none, square := 0.0, 2.0
			c = mustUpdate(t, m, &Config{Name: "c", LB: LeastRequest, ActiveRequestBias: &none, Endpoints: a})
			weights[0] = 3
			share(t, "no bias", weights, 40000, 1.5, pick(c))
			c = mustUpdate(t, m, &Config{Name: "c", LB: LeastRequest, ActiveRequestBias: &square, Endpoints: a})
			weights[0] = 3. / 9
			share(t, "bias 2", weights, 40000, 1.5, pick(c))
		}
		m.Remove("c")
	}
}

func TestLeastRequestFullScan(t *testing.T) {
	c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", LB: LeastRequest, FullScan: true, Endpoints: ports(100, 149)})
	idle := map[*Host]bool{}
	for i, h := range c.hosts() {
		if i == 20 || i == 30 {
			idle[h] = true
		} else {
			h.Begin()
		}
	}
	got := map[*Host]int{}
	for range 1000 {
		h, _ := c.Pick(nil)
		if !idle[h] {
			t.Fatalf("%s is busy", h.Address())
		}
		got[h]++
	}
	for h, n := range got {
		if n < 400 {
			t.Errorf("chance does not decide between equals: %s %d", h.Address(), n)
		}
	}
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		cfg := &Config{Name: "c", Type: EDS, SlowStart: &SlowStart{Window: 100 * time.Second, Aggression: 1, MinPercent: 10}}
		if err := m.Update(cfg); err != nil {
			t.Fatal(err)
		}
		c := m.Get("c")
		_ = m.SetEndpoints(hosts("c", "10.0.0.1"))
		time.Sleep(200 * time.Second)
		_ = m.SetEndpoints(hosts("c", "10.0.0.1", "10.0.0.2"))
		synctest.Wait()
		newcomer := func() float64 {
			return 100 * float64(count1(t, c, 10000)["10.0.0.2"]) / 10000
		}
		near := func(want float64) {
			t.Helper()
			if got := newcomer(); math.Abs(got-want) > 1 {
				t.Errorf("it gets %.1f %%, not %.1f", got, want)
			}
		}
		near(100 * 0.1 / 1.1) // the least
		time.Sleep(50*time.Second + time.Millisecond)
		synctest.Wait()
		near(100 * 0.5 / 1.5)
		time.Sleep(52 * time.Second)
		synctest.Wait()
		near(50)
		if c.warming != nil {
			t.Error("the set is still made anew, though no host starts")
		}
		// A curve: after half of the time, 0.5 to the power of 1/0.5.
		cfg = &Config{Name: "c", Type: EDS, SlowStart: &SlowStart{Window: 100 * time.Second, Aggression: 0.5, MinPercent: 10}}
		_ = m.Update(cfg)
		_ = m.SetEndpoints(hosts("c", "10.0.0.1", "10.0.0.3"))
		time.Sleep(50*time.Second + time.Millisecond)
		synctest.Wait()
		if got := 100 * float64(count1(t, c, 10000)["10.0.0.3"]) / 10000; math.Abs(got-20) > 1 {
			t.Errorf("with aggression it gets %.1f %%", got)
		}
	})
}

// TestPanicThresholdIsTruncated as Envoy's is, which divides before it multiplies.
func TestPanicThresholdIsTruncated(t *testing.T) {
	for threshold, healthy := range map[float64]int{29: 28, 57: 56, 58: 57, 50: 50, 30.9: 30, 100: 100} {
		for n, panics := range map[int]bool{healthy: false, healthy - 1: true} {
			specs := make([]string, 100)
			for i := range specs {
				specs[i] = fmt.Sprintf("10.0.0.%d", i)
				if i >= n {
					specs[i] += " unhealthy"
				}
			}
			c := mustUpdate(t, newManager(t, Options{}), &Config{Name: "c", PanicThreshold: &threshold, FailOnPanic: true, Endpoints: hosts("c", specs...)})
			// One level that has 71 % of its hosts never panics.
			if want := panics && n*defaultOverprovisioning < 100*100; served(c) == want {
				t.Errorf("threshold %v, %d of 100 healthy: panic is not %v", threshold, n, want)
			}
		}
	}
}
