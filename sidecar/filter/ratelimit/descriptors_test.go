package ratelimit

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func spec(max, perFill uint32) tokenbucket.Spec {
	return tokenbucket.Spec{Max: max, PerFill: perFill, Interval: time.Hour}
}

// byHeader describes a request by one header, key and name alike.
func byHeader(name string) route.RateLimit {
	return route.RateLimit{Actions: []route.RateLimitAction{{Kind: route.LimitRequestHeader, Key: name, Name: name}}}
}

func descriptor(key, value string, b tokenbucket.Spec) Descriptor {
	return Descriptor{Entries: []Entry{{key, value}}, Bucket: b}
}

func filterOf(t *testing.T, c *Config) *Filter {
	t.Helper()
	c.Enabled, c.Enforced = route.All, route.All
	f, err := New(c, Place{Source: "here"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func passes(f *Filter, headers ...string) bool {
	return f.Request(&filtertest.New("GET", "/", headers...).Context).Continues()
}

// TestHits: a request takes as many tokens of its descriptor's bucket as is said, and one of the
// default bucket.
func TestHits(t *testing.T) {
	all := spec(5, 1)
	three, one := byHeader("three"), byHeader("user")
	three.Hits, three.Actions[0].Key = new(uint32(3)), "user"
	f := filterOf(t, &Config{Bucket: &all, RateLimits: []route.RateLimit{three, one}, Descriptors: []Descriptor{descriptor("user", "a", spec(4, 1))}})
	for i, step := range []struct {
		header string
		passes bool
	}{{"three", true}, {"three", false}, {"user", true}, {"user", false}, {"other", true}, {"other", true}, {"other", true}, {"other", false}} {
		if got := passes(f, step.header, "a"); got != step.passes {
			t.Errorf("%d: %s passes: %v", i, step.header, got)
		}
	}
}

// TestHitsOfARequest: a request may say how many tokens it takes, or gives back; one that says no
// number has no descriptor.
func TestHitsOfARequest(t *testing.T) {
	all := spec(10, 1)
	says, back := byHeader("user"), byHeader("back")
	says.HitsFormat = "%REQ(cost)%"
	back.HitsFormat, back.Refund, back.Actions[0].Key = "%REQ(cost)%", true, "user"
	f := filterOf(t, &Config{Bucket: &all, RateLimits: []route.RateLimit{says, back}, Descriptors: []Descriptor{descriptor("user", "a", spec(4, 1))}})
	for i, step := range []struct {
		header, cost string
		passes       bool
	}{
		{"user", "3", true}, {"user", "2", false}, {"back", "1", true}, {"user", "2.9", true}, {"user", "1", false},
		{"user", "x", true}, {"user", "0x1", false}, {"user", "0x_1", true}, {"user", "-1", true}, {"user", "NaN", false}, {"user", "0.5", false}, {"user", "1000000001", true}, {"user", "0", false},
		{"back", "1000000000", true}, {"user", "5", false}, {"user", "4", true}, {"other", "", true}, {"other", "", false},
	} {
		if got := passes(f, step.header, "a", "cost", step.cost); got != step.passes {
			t.Errorf("%d: %s of %s passes: %v", i, step.cost, step.header, got)
		}
	}
}

// TestSharedLimit: of the limits of a local cluster each host has an equal share, whatever becomes of
// their number.
func TestSharedLimit(t *testing.T) {
	bucket, members := spec(12, 1), 3
	c := &Config{Bucket: &bucket, Shared: true, Enabled: route.All, Enforced: route.All}
	if _, err := New(c, Place{}, nil); err == nil {
		t.Error("a limit is shared with nobody")
	}
	f, err := New(c, Place{Members: func() int { return members }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		members int
		passes  bool
	}{{3, true}, {6, true}, {6, false}, {1, true}, {0, true}, {3, false}, {1, true}, {1, false}} {
		members = step.members
		if got := passes(f); got != step.passes {
			t.Errorf("%d: with %d members passes: %v", i, members, got)
		}
	}
}

func TestDescriptors(t *testing.T) {
	all := spec(3, 1)
	for _, spare := range []bool{false, true} {
		f := filterOf(t, &Config{
			Bucket: &all, DefaultForUnmatched: spare, RateLimits: []route.RateLimit{byHeader("user")},
			Descriptors: []Descriptor{descriptor("user", "ann", spec(2, 1))},
		})
		for i, want := range []struct {
			user   string
			passes bool
		}{{"ann", true}, {"ann", true}, {"ann", false}, {"bob", true}, {"bob", spare}, {"", spare}, {"", false}} {
			var h []string
			if want.user != "" {
				h = []string{"User", want.user}
			}
			if got := passes(f, h...); got != want.passes {
				t.Errorf("spare %v: request %d of %q passes: %v", spare, i, want.user, got)
			}
		}
	}
}

// A request that the slower bucket refuses costs the faster one nothing.
func TestSlowerFirst(t *testing.T) {
	f := filterOf(t, &Config{
		RateLimits:  []route.RateLimit{byHeader("fast"), byHeader("slow")},
		Descriptors: []Descriptor{descriptor("fast", "a", spec(2, 100)), descriptor("slow", "a", spec(1, 1))},
	})
	for i, want := range []bool{true, false, false} {
		if passes(f, "Fast", "a", "Slow", "a") != want {
			t.Errorf("request %d passes: %v", i, !want)
		}
	}
	if !passes(f, "Fast", "a") || passes(f, "Fast", "a") {
		t.Error("the faster bucket has not one token left")
	}
	if !passes(f, "Fast", "b") {
		t.Error("no bucket, and refused")
	}
}

// Of the values that a descriptor leaves open only the last few have buckets.
func TestDynamicDescriptors(t *testing.T) {
	f := filterOf(t, &Config{
		RateLimits: []route.RateLimit{byHeader("user")}, MaxDynamic: 2,
		Descriptors: []Descriptor{descriptor("user", "", spec(1, 1)), descriptor("user", "ann", spec(2, 1))},
	})
	for i, want := range []struct {
		user   string
		passes bool
	}{{"ann", true}, {"ann", true}, {"ann", false}, {"one", true}, {"one", false}, {"two", true}, {"one", false}, {"three", true}, {"one", false}, {"two", true}} {
		if got := passes(f, "User", want.user); got != want.passes {
			t.Errorf("request %d of %s passes: %v", i, want.user, got)
		}
	}
	if n := len(f.limit.shared.wildcards[0].members); n != 2 || f.limit.shared.wildcards[0].recent.Len() != n {
		t.Errorf("%d buckets, want 2", n)
	}
}

// Of a long value a client has no more kept than of a short one.
func TestLongDescriptors(t *testing.T) {
	f := filterOf(t, &Config{
		RateLimits: []route.RateLimit{byHeader("user")}, MaxDynamic: 10,
		Descriptors: []Descriptor{descriptor("user", "", spec(1, 1))},
	})
	long := strings.Repeat("x", 60<<10)
	for i, want := range []struct {
		user   string
		passes bool
	}{{long + "a", true}, {long + "b", true}, {long + "a", false}, {long[:116], true}, {long[:117], true}, {long[:116], false}, {long[:117], false}} {
		if passes(f, "User", want.user) != want.passes {
			t.Errorf("request %d passes: %v", i, !want.passes)
		}
	}
	for key := range f.limit.shared.wildcards[0].members {
		if len(key) > 128 {
			t.Errorf("%d bytes are kept", len(key))
		}
	}
}

// A bucket of no size never has a token, of a descriptor and of the filter.
func TestNoTokens(t *testing.T) {
	none := spec(0, 1)
	f := filterOf(t, &Config{RateLimits: []route.RateLimit{byHeader("user")}, Descriptors: []Descriptor{descriptor("user", "a", none)}})
	if passes(f, "User", "a") || !passes(f, "User", "b") {
		t.Error("a descriptor")
	}
	if f = filterOf(t, &Config{Bucket: &none}); passes(f) {
		t.Error("the filter's own")
	}
}

// A request that only shadows would have refused counts as limited, and not as enforced.
func TestShadowIsCounted(t *testing.T) {
	m := telemetry.NewMetrics()
	of := func(event string) *telemetry.Counter { return m.FilterEvents.With("limit", event) }
	d := descriptor("user", "a", spec(1, 1))
	d.Shadow = true
	all := spec(2, 1)
	f, err := New(&Config{
		Enabled: route.All, Enforced: route.All, Bucket: &all,
		RateLimits: []route.RateLimit{byHeader("user")}, Descriptors: []Descriptor{d},
	}, Place{Source: "here"}, of)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		passes(f, "User", "a")
	}
	for event, want := range map[string]uint64{"enabled": 3, "ok": 1, "rate_limited": 2, "shadow_mode": 1, "enforced": 1} {
		if n := of(event).Value(); uint64(n) != want {
			t.Errorf("%s is %d, want %d", event, n, want)
		}
	}
}

func TestDynamicDescriptorsConcurrently(t *testing.T) {
	const clients, users, each = 4, 8, 200
	f := filterOf(t, &Config{
		RateLimits: []route.RateLimit{byHeader("user")}, MaxDynamic: users,
		Descriptors: []Descriptor{descriptor("user", "", spec(each, 1))},
	})
	var wg sync.WaitGroup
	var passed [clients]int
	for c := range clients {
		wg.Go(func() {
			for i := range users * each {
				if passes(f, "User", fmt.Sprint(i%users)) {
					passed[c]++
				}
			}
		})
	}
	wg.Wait()
	if n := passed[0] + passed[1] + passed[2] + passed[3]; n != users*each {
		t.Errorf("%d requests passed, want %d", n, users*each)
	}
}

func TestShadow(t *testing.T) {
	d := descriptor("user", "ann", spec(1, 1))
	d.Shadow = true
	f := filterOf(t, &Config{RateLimits: []route.RateLimit{byHeader("user")}, Descriptors: []Descriptor{d}, XRateLimit: true})
	for i, left := range []string{"0", "0"} {
		x := filtertest.New("GET", "/", "User", "ann")
		if !f.Request(&x.Context).Continues() {
			t.Errorf("request %d: a shadow refuses", i)
		}
		if got, _ := x.Answered(f, 200).Header("x-ratelimit-remaining"); got != left {
			t.Errorf("request %d: %q left", i, got)
		}
	}
}

// A shadow that is over the limit switches off neither the descriptors nor the default
// bucket after it.
func TestShadowBesideOthers(t *testing.T) {
	shadow := descriptor("shadow", "a", spec(1, 1))
	shadow.Shadow = true
	all := spec(4, 100)
	f := filterOf(t, &Config{
		Bucket: &all, RateLimits: []route.RateLimit{byHeader("shadow"), byHeader("fast")},
		Descriptors: []Descriptor{shadow, descriptor("fast", "a", spec(2, 10))},
	})
	for i, want := range []bool{true, true, false} {
		if passes(f, "Shadow", "a", "Fast", "a") != want {
			t.Errorf("request %d beside an enforced descriptor passes: %v", i, !want)
		}
	}
	for i, want := range []bool{true, true, false} {
		if passes(f, "Shadow", "a") != want {
			t.Errorf("request %d beside the default bucket passes: %v", i, !want)
		}
	}
}

// What a client is told is the bucket that decided; a descriptor may say otherwise
// whether it is told.
func TestTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := spec(9, 9)
		quiet, loud := byHeader("quiet"), byHeader("loud")
		quiet.Headers, loud.Headers = route.RateLimitHeadersOff, route.RateLimitHeadersOn
		for _, filterTells := range []bool{false, true} {
			f := filterOf(t, &Config{
				Bucket: &all, XRateLimit: filterTells, RateLimits: []route.RateLimit{quiet, loud, byHeader("user")},
				Descriptors: []Descriptor{descriptor("quiet", "a", spec(3, 1)), descriptor("loud", "a", spec(4, 1)), descriptor("user", "a", spec(5, 1))},
			})
			for _, c := range []struct {
				header, limit, reset string
				told                 bool
			}{{"quiet", "3", "0", false}, {"loud", "4", "0", true}, {"user", "5", "0", filterTells}, {"other", "9", "0", filterTells}} {
				x := filtertest.New("GET", "/", c.header, "a")
				f.Request(&x.Context)
				resp := x.Answered(f, 200)
				limit, told := resp.Header("x-ratelimit-limit")
				reset, _ := resp.Header("x-ratelimit-reset")
				if told != c.told || told && (limit != c.limit || reset != c.reset) {
					t.Errorf("filter %v, %s: told %v of %q, reset %q", filterTells, c.header, told, limit, reset)
				}
			}
		}
	})
}

// Routes describe requests by stage, unless the filter does.
func TestRoutesDescribe(t *testing.T) {
	staged := byHeader("user")
	staged.Stage = 1
	for _, c := range []struct {
		name   string
		config Config
		want   bool // the second request passes
	}{
		{"stage", Config{Stage: 1}, false},
		{"another stage", Config{}, true},
		{"its own", Config{Stage: 0, RateLimits: []route.RateLimit{byHeader("other")}}, true},
		{"its own, which have no stage", Config{Stage: 1, RateLimits: []route.RateLimit{byHeader("user")}}, false},
		{"per connection", Config{Stage: 1, PerConnection: true}, true},
	} {
		c.config.Descriptors = []Descriptor{descriptor("user", "a", spec(1, 1))}
		f := filterOf(t, &c.config)
		for i, want := range []bool{true, c.want} {
			x := filtertest.New("GET", "/", "User", "a")
			x.Selected.Route.Forward.RateLimits, x.Selected.VirtualHost = []route.RateLimit{staged}, &route.VirtualHost{}
			if f.Request(&x.Context).Continues() != want {
				t.Errorf("%s: request %d passes: %v", c.name, i, !want)
			}
		}
	}
}

func TestDescriptorsRefuse(t *testing.T) {
	for want, c := range map[string]*Config{
		`local rate limit: descriptor a="1" is there twice`:              {Descriptors: []Descriptor{descriptor("a", "1", spec(1, 1)), descriptor("a", "1", spec(2, 1))}},
		`local rate limit: descriptor a="": a token bucket needs a fill`: {Descriptors: []Descriptor{descriptor("a", "", spec(1, 0))}},
	} {
		if _, err := New(c, Place{}, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDescriptorsAllocateNothing(t *testing.T) {
	all := spec(1<<30, 1)
	action := func(a route.RateLimitAction) route.RateLimit {
		return route.RateLimit{Actions: []route.RateLimitAction{a}}
	}
	f := filterOf(t, &Config{
		Bucket: &all, XRateLimit: true, MaxDynamic: 5,
		RateLimits: []route.RateLimit{
			byHeader("user"), byHeader("dynamic"), byHeader("long"), byHeader("unknown"), byHeader("missing"),
			action(route.RateLimitAction{Kind: route.LimitRemoteAddress, Key: "a"}),
			action(route.RateLimitAction{Kind: route.LimitQueryParameter, Key: "q", Name: "q"}),
		},
		Descriptors: []Descriptor{descriptor("user", "a", all), descriptor("dynamic", "", all), descriptor("long", "", all), descriptor("q", "a b", all)},
	})
	x := filtertest.New("GET", "/?q=a%20b", "User", "a", "Dynamic", "b", "Long", strings.Repeat("x", 60<<10), "Unknown", "c")
	f.Request(&x.Context)
	x.Answered(f, 200)
	if n := testing.AllocsPerRun(100, func() {
		*x.State = filter.State{}
		f.Request(&x.Context)
		x.Response.Reset()
		f.Response(&x.Context)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
