package listener

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
)

// TestLimitsSurviveUpdates: an update gives nobody room that was not there: the count of
// connections goes on, also under another limit, and so do the tokens of a bucket that is
// as it was.
func TestLimitsSurviveUpdates(t *testing.T) {
	bounded := func(most int64) func(*FilterChain) {
		return func(c *FilterChain) { c.ConnectionLimits = []ConnectionLimit{{StatPrefix: "x", Max: most}} }
	}
	rated := func(most uint32) func(*FilterChain) {
		return func(c *FilterChain) {
			c.RateLimits = []RateLimit{{StatPrefix: "x", Bucket: tokenbucket.Spec{Max: most, PerFill: 1, Interval: time.Hour}}}
		}
	}
	unnamed := func(with func(*FilterChain)) func(*FilterChain) {
		return func(c *FilterChain) { with(c); c.Name = "" }
	}
	for name, test := range map[string]struct {
		chains []func(*FilterChain) // of one update after the other
		served []bool               // whether the connection after each is
	}{
		"connections":             {[]func(*FilterChain){bounded(1), bounded(1)}, []bool{true, false}},
		"without a name":          {[]func(*FilterChain){unnamed(bounded(1)), unnamed(bounded(1))}, []bool{true, false}},
		"another limit":           {[]func(*FilterChain){bounded(1), bounded(2), bounded(2)}, []bool{true, true, false}},
		"tokens":                  {[]func(*FilterChain){rated(1), rated(1)}, []bool{true, false}},
		"another bucket":          {[]func(*FilterChain){rated(1), rated(2), rated(2), rated(2)}, []bool{true, true, true, false}},
		"a chain of another name": {[]func(*FilterChain){bounded(1), func(c *FilterChain) { bounded(1)(c); c.Name = "other" }}, []bool{true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestManager(t, nil)
			for i, change := range test.chains {
				cfg := echoConfig("in")
				change(&cfg.Chains[0])
				mustApply(t, m, cfg)
				if err := roundTrip(dial(t, m, "in")); (err == nil) != test.served[i] {
					t.Errorf("connection %d: %v, want it served: %v", i, err, test.served[i])
				}
			}
		})
	}
}

// TestHeritageIsNotShared: no two chains go on with the counts of one.
func TestHeritageIsNotShared(t *testing.T) {
	m := newTestManager(t, nil)
	config := func(ports ...uint16) *Config {
		cfg := echoConfig("in")
		cfg.Chains = nil
		for _, p := range ports {
			cfg.Chains = append(cfg.Chains, FilterChain{Name: "c", Match: Match{DestinationPort: p}, TCP: &tcp.Config{Cluster: "x"},
				ConnectionLimits: []ConnectionLimit{{StatPrefix: "x", Max: 1}}})
		}
		return cfg
	}
	one, err := m.compile(config(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer one.release()
	two, err := m.compile(config(1, 2), one)
	if err != nil {
		t.Fatal(err)
	}
	defer two.release()
	a, b, c := one.chains[0].limits[0].open, two.chains[0].limits[0].open, two.chains[1].limits[0].open
	if a != b || b == c {
		t.Error("the counts are not of one chain each")
	}
}

// TestDenialsWait: whom a filter denies is held as long as that filter says, nothing of it is
// passed on meanwhile, and no listener's end waits for it.
func TestDenialsWait(t *testing.T) {
	slow, others := denyAll(), denyAll()
	slow.DenyDelay, others.DenyDelay = 30*time.Millisecond, time.Hour
	others.Rules.Policies[0].Principals = []authz.Principal{{Not: &authz.Principal{Any: true}}}
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l", others, slow))
	began := time.Now()
	if err := roundTrip(dial(t, m, "l")); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < 30*time.Millisecond {
		t.Errorf("a denied connection: %v after %v", err, time.Since(began))
	}

	slow.DenyDelay = time.Hour
	mustApply(t, m, echoConfig("l", slow))
	held := dial(t, m, "l")
	_ = held.SetDeadline(time.Now().Add(20 * time.Millisecond))
	if err := roundTrip(held); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that waits for its end: %v", err)
	}
	_ = held.SetDeadline(time.Now().Add(5 * time.Second))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the listener: %v", err)
	}
}

// TestSharedRates: chains of two listeners take from one bucket where both its name and what it is are
// the same, and it goes on while one of them has it.
func TestSharedRates(t *testing.T) {
	rated := func(name, share string, most uint32) *Config {
		cfg := echoConfig(name)
		cfg.Chains[0].RateLimits = []RateLimit{{StatPrefix: name, Share: share, Bucket: tokenbucket.Spec{Max: most, PerFill: 1, Interval: time.Hour}}}
		return cfg
	}
	for name, tc := range map[string]struct {
		second *Config
		served bool
	}{
		"the same":       {rated("b", "s", 1), false},
		"another name":   {rated("b", "other", 1), true},
		"another bucket": {rated("b", "s", 2), true},
		"of its own":     {rated("b", "", 1), true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestManager(t, nil)
			mustApply(t, m, rated("a", "s", 1))
			mustApply(t, m, tc.second)
			if err := roundTrip(dial(t, m, "a")); err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(dial(t, m, "b")); (err == nil) != tc.served {
				t.Errorf("served: %t, want %t", err == nil, tc.served)
			}
		})
	}
}

// TestSharedRatesGoOn: a bucket that chains share is not filled by an update of one of them, nor where
// one goes and comes back, also where memory that nobody has is taken meanwhile.
func TestSharedRatesGoOn(t *testing.T) {
	rated := func(name, prefix string) *Config {
		cfg := echoConfig(name)
		cfg.Chains[0].RateLimits = []RateLimit{{StatPrefix: prefix, Share: "s", Bucket: tokenbucket.Spec{Max: 1, PerFill: 1, Interval: time.Hour}}}
		return cfg
	}
	m := newTestManager(t, nil)
	mustApply(t, m, rated("a", "a"))
	mustApply(t, m, rated("b", "b"))
	served := func(name string) bool { return roundTrip(dial(t, m, name)) == nil }
	if !served("a") {
		t.Fatal("the first is not served")
	}
	for _, step := range []struct {
		what, ask string
		change    func()
		served    bool
	}{
		{"an update", "a", func() { mustApply(t, m, rated("a", "other")) }, false},
		{"the other after it", "b", func() {}, false},
		{"one removed", "b", func() { m.Remove("a") }, false},
		{"it is back", "a", func() { mustApply(t, m, rated("a", "a")) }, false},
	} {
		step.change()
		runtime.GC()
		if got := served(step.ask); got != step.served {
			t.Errorf("%s: served %t, want %t", step.what, got, step.served)
		}
	}
}

// TestRateLimitsSurviveUpdates: a bucket of requests that is as it was goes on, whatever else an update
// changes, whether it is the filter's or a route's.
func TestRateLimitsSurviveUpdates(t *testing.T) {
	limit := func(most uint32) *ratelimit.Config {
		return &ratelimit.Config{Bucket: &tokenbucket.Spec{Max: most, PerFill: 1, Interval: time.Hour}, Enabled: route.All, Enforced: route.All}
	}
	config := func(most uint32, ofRoute bool) *Config {
		cfg := guarded(true, authz.Permission{Any: true})
		h := cfg.Chains[0].HTTP
		f := hcm.HTTPFilter{Name: "limit", Config: limit(most)}
		if ofRoute {
			f.Config = &ratelimit.Config{}
			h.Routes.VirtualHosts[0].Routes[0].Filters = []route.FilterOverride{{Name: "limit", Config: limit(most)}}
		}
		h.Filters = append(h.Filters, f)
		return cfg
	}
	for _, ofRoute := range []bool{false, true} {
		m := newHTTPManager(t)
		mustApply(t, m, config(1, ofRoute))
		c := dial(t, m, "l")
		for i, step := range []struct {
			most  uint32
			first bool // the filter stands before the rules
			want  int
		}{{1, false, 200}, {1, true, 429}, {2, true, 200}, {2, false, 200}, {2, false, 429}} {
			cfg := config(step.most, ofRoute)
			if step.first {
				slices.Reverse(cfg.Chains[0].HTTP.Filters)
			}
			mustApply(t, m, cfg)
			if status, _ := get(c); status != step.want {
				t.Errorf("a route's %v, step %d: %d, want %d", ofRoute, i, status, step.want)
			}
		}
	}
}
