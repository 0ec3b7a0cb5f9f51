package fault

import (
	"math"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func ptr[T any](v T) *T { return &v }

func TestFaults(t *testing.T) {
	abort := func(status int) *Abort { return &Abort{Status: status, Share: route.All} }
	for _, c := range []struct {
		name    string
		config  Config
		headers []string
		wait    time.Duration
		status  int // 0 for none
		grpc    int
	}{
		{"nothing", Config{}, nil, 0, 0, 0},
		{"abort", Config{Abort: abort(503)}, nil, 0, 503, filter.NoGRPC},
		{"grpc", Config{Abort: &Abort{GRPC: ptr(uint32(14)), Share: route.All}}, nil, 0, 200, 14},
		{"no share", Config{Abort: &Abort{Status: 503}}, nil, 0, 0, 0},
		{"delay", Config{Delay: &Delay{Fixed: time.Second, Share: route.All}}, nil, time.Second, 0, 0},
		{"delay, then abort", Config{Delay: &Delay{Fixed: time.Second, Share: route.All}, Abort: abort(500)}, nil, time.Second, 500, filter.NoGRPC},
		{"other cluster", Config{Abort: abort(503), Cluster: "d"}, nil, 0, 0, 0},
		{"this cluster", Config{Abort: abort(503), Cluster: "c"}, nil, 0, 503, filter.NoGRPC},
		{"header missing", Config{Abort: abort(503), Headers: []route.HeaderMatch{{Name: "x-a", Present: ptr(true)}}}, nil, 0, 0, 0},
		{"header", Config{Abort: abort(503), Headers: []route.HeaderMatch{{Name: "x-a", Present: ptr(true)}}}, []string{"X-A", "1"}, 0, 503, filter.NoGRPC},
		{"by header", Config{Abort: &Abort{FromHeader: true, Share: route.All}}, []string{abortHeader, "418"}, 0, 418, filter.NoGRPC},
		{"by header, none", Config{Abort: &Abort{FromHeader: true, Share: route.All}}, nil, 0, 0, 0},
		{"by header, no status", Config{Abort: &Abort{FromHeader: true, Share: route.All}}, []string{abortHeader, "700"}, 0, 0, 0},
		{"by header, grpc", Config{Abort: &Abort{FromHeader: true, Share: route.All}}, []string{abortGRPCHeader, "5"}, 0, 200, 5},
		{"by header, grpc status of its own", Config{Abort: &Abort{FromHeader: true, Share: route.All}}, []string{abortGRPCHeader, "1000"}, 0, 200, 1000},
		{"by header, share lowered", Config{Abort: &Abort{FromHeader: true, Share: route.All}}, []string{abortHeader, "418", abortShareHeader, "0"}, 0, 0, 0},
		{"by header, share not raised", Config{Abort: &Abort{FromHeader: true}}, []string{abortHeader, "418", abortShareHeader, "100"}, 0, 0, 0},
		{"delay by header", Config{Delay: &Delay{FromHeader: true, Share: route.All}}, []string{delayHeader, "250"}, 250 * time.Millisecond, 0, 0},
		{"delay by header, bounded", Config{Delay: &Delay{FromHeader: true, Share: route.All}}, []string{delayHeader, "9000000000000000000"}, time.Hour, 0, 0},
		{"delay by header, no number", Config{Delay: &Delay{FromHeader: true, Share: route.All}}, []string{delayHeader, "-1"}, 0, 0, 0},
		{"headers without asking", Config{Abort: &Abort{Status: 503}}, []string{abortHeader, "418", abortShareHeader, "100"}, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := New(&c.config, nil)
			if err != nil {
				t.Fatal(err)
			}
			x := filtertest.New("GET", "/", c.headers...)
			v := f.Request(&x.Context)
			if x.Waited != c.wait || (x.Flags&telemetry.FlagDelayInjected != 0) != (c.wait > 0) {
				t.Errorf("waited %v with flags %v, want %v", x.Waited, x.Flags, c.wait)
			}
			switch r := v.Reply(); {
			case r == nil && c.status != 0, r != nil && (r.Status != c.status || r.GRPC != c.grpc || r.Flags != telemetry.FlagFaultInjected):
				t.Errorf("reply %+v, want %d", r, c.status)
			}
			if f.End(&x.Context); f.active.Load() != 0 {
				t.Errorf("%d faults are still active", f.active.Load())
			}
		})
	}
}

// TestRates: which answers are slowed, and how much.
func TestRates(t *testing.T) {
	all := Rate{KiB: 7, Share: route.All}
	byHeader := Rate{FromHeader: true, Share: route.All}
	for _, c := range []struct {
		name    string
		rate    Rate
		most    *uint32
		headers []string
		want    uint32
	}{
		{"fixed", all, nil, nil, 7},
		{"of nobody", Rate{KiB: 7}, nil, nil, 0},
		{"one too many", all, ptr(uint32(0)), nil, 0},
		{"by header", byHeader, nil, []string{rateHeader, "9"}, 9},
		{"by no header", byHeader, nil, nil, 0},
		{"by a header that is none", byHeader, nil, []string{rateHeader, "x"}, 0},
		{"by a header of nothing", byHeader, nil, []string{rateHeader, "0"}, 0},
		{"by a large header", byHeader, nil, []string{rateHeader, "9000000000000000000"}, math.MaxUint32},
		{"share lowered", byHeader, nil, []string{rateHeader, "9", rateShareHeader, "0"}, 0},
	} {
		f, err := New(&Config{Rate: &c.rate, MaxActive: c.most}, nil)
		if err != nil {
			t.Fatal(err)
		}
		x := filtertest.New("GET", "/", c.headers...)
		if !f.Request(&x.Context).Continues() {
			t.Errorf("%s: the request is answered", c.name)
		}
		x.Answered(f, 200)
		if x.Slowed != c.want {
			t.Errorf("%s: %d", c.name, x.Slowed)
		}
		if f.End(&x.Context); f.active.Load() != 0 {
			t.Errorf("%s: %d faults are still active", c.name, f.active.Load())
		}
	}
}

// TestShareOfAHeader: its number counts in the unit of the configured share.
func TestShareOfAHeader(t *testing.T) {
	for _, c := range []struct {
		configured, unit route.Share
		header           string
		want             route.Share
	}{
		{route.All, 0, "50", route.All / 2},
		{route.All, route.All / 100, "50", route.All / 2},
		{route.All, route.All / 10_000, "50", route.All / 200},
		{route.All, 1, "50", 50},
		{route.All, 1, "99999999999", route.All},
		{route.All / 10, route.All / 10_000, "5000", route.All / 10},
		{route.All / 10, 0, "x", route.All / 10},
	} {
		x := filtertest.New("GET", "/", delayShareHeader, c.header)
		if got := share(x.Request, c.configured, c.unit, true, delayShareHeader); got != c.want {
			t.Errorf("%s in units of %d below %d: %d, want %d", c.header, c.unit, c.configured, got, c.want)
		}
	}
}

func TestClientLeaves(t *testing.T) {
	f, _ := New(&Config{Delay: &Delay{Fixed: time.Second, Share: route.All}, Abort: &Abort{Status: 503, Share: route.All}}, nil)
	x := filtertest.New("GET", "/")
	x.Left = true
	if v := f.Request(&x.Context); v.Continues() || v.Reply() != nil {
		t.Errorf("verdict %+v", v)
	}
}

func TestMaxActive(t *testing.T) {
	f, _ := New(&Config{Abort: &Abort{Status: 503, Share: route.All}, MaxActive: ptr(uint32(1))}, nil)
	first, second := filtertest.New("GET", "/"), filtertest.New("GET", "/")
	if f.Request(&first.Context).Continues() {
		t.Error("the first request has no fault")
	}
	if !f.Request(&second.Context).Continues() {
		t.Error("the second request has a fault too")
	}
	f.End(&second.Context)
	f.End(&first.Context)
	if f.Request(&second.Context).Continues() {
		t.Error("after the first request the next one has no fault")
	}
}

// TestMaxActiveOfAnUpdate: those that an update finds count for the bound of the filter that it brings.
func TestMaxActiveOfAnUpdate(t *testing.T) {
	cfg := &Config{Abort: &Abort{Status: 503, Share: route.All}, MaxActive: ptr(uint32(1))}
	before, _ := New(cfg, nil)
	now, _ := New(cfg, nil)
	first, second := filtertest.New("GET", "/"), filtertest.New("GET", "/")
	before.Request(&first.Context)
	now.Inherit(before)
	if !now.Request(&second.Context).Continues() {
		t.Error("there are two faults")
	}
	before.End(&first.Context)
	if now.Request(&second.Context).Continues() {
		t.Error("after the first request the next one has no fault")
	}
}

// TestOverflow: who is to have no fault is none too many, and each fault that is not made
// counts.
func TestOverflow(t *testing.T) {
	m := telemetry.NewMetrics()
	count := func(event string) *telemetry.Counter { return m.FilterEvents.With("fault", event) }
	f, _ := New(&Config{Abort: &Abort{FromHeader: true, Share: route.All}, Delay: &Delay{FromHeader: true, Share: route.All}, MaxActive: ptr(uint32(0))}, count)
	for _, c := range []struct {
		headers []string
		want    uint64
	}{{nil, 0}, {[]string{delayHeader, "1"}, 1}, {[]string{delayHeader, "1", abortHeader, "503"}, 3}} {
		x := filtertest.New("GET", "/", c.headers...)
		if !f.Request(&x.Context).Continues() {
			t.Errorf("%v: there is a fault", c.headers)
		}
		if got := count("overflow").Value(); got != c.want {
			t.Errorf("%v: %d faults were not made so far, want %d", c.headers, got, c.want)
		}
	}
}

func TestOverride(t *testing.T) {
	f, _ := New(&Config{Abort: &Abort{Status: 503, Share: route.All}}, nil)
	x := filtertest.New("GET", "/")
	if err := x.With(f, &Config{Abort: &Abort{Status: 404, Share: route.All, Body: "gone"}}); err != nil {
		t.Fatal(err)
	}
	if r := f.Request(&x.Context).Reply(); r == nil || r.Status != 404 || r.Body != "gone" {
		t.Errorf("%+v", r)
	}
	for _, bad := range []any{"x", &Config{Abort: &Abort{}}, &Config{Abort: &Abort{Status: 1, FromHeader: true}}} {
		if _, err := f.Override(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestNothingCostsNothing(t *testing.T) {
	f, _ := New(&Config{Abort: &Abort{Status: 503}, Delay: &Delay{Fixed: 1}, Headers: []route.HeaderMatch{{Name: "x", Present: ptr(true)}}}, nil)
	x := filtertest.New("GET", "/")
	if n := testing.AllocsPerRun(100, func() { f.Request(&x.Context) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
