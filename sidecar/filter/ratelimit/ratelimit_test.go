package ratelimit

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func limited(max uint32) *Config {
	return &Config{Bucket: &tokenbucket.Spec{Max: max, PerFill: 1, Interval: time.Second}, Enabled: route.All, Enforced: route.All}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := limited(2)
		c.ResponseAdd = []route.HeaderAdd{{Name: "x-limited", Value: "yes"}}
		c.RetryAfter, c.XRateLimit = true, true
		f, err := New(c, Place{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			passes           bool
			remaining, reset string
		}{{true, "1", "0"}, {true, "0", "1"}, {false, "0", "1"}} {
			x := filtertest.New("GET", "/")
			v := f.Request(&x.Context)
			if v.Continues() != want.passes {
				t.Fatalf("request %d passes: %v", i, v.Continues())
			}
			var resp *message.Response
			if r := v.Reply(); r != nil {
				resp = x.Replied(f, r)
			} else {
				resp = x.Answered(f, 200)
			}
			for name, w := range map[string]string{"x-ratelimit-limit": "2", "x-ratelimit-remaining": want.remaining, "x-ratelimit-reset": want.reset} {
				if got, _ := resp.Header(name); got != w {
					t.Errorf("request %d: %s is %q, want %q", i, name, got, w)
				}
			}
			_, marked := resp.Header("x-limited")
			after, _ := resp.Header("retry-after")
			if marked == want.passes || (after == "1") == want.passes {
				t.Errorf("request %d: x-limited %v, retry-after %q", i, marked, after)
			}
			if r := v.Reply(); !want.passes && (r.Status != 429 || r.Flags != telemetry.FlagRateLimited || r.GRPC != filter.NoGRPC) {
				t.Errorf("%+v", r)
			}
		}
		time.Sleep(time.Second)
		x := filtertest.New("GET", "/")
		if !f.Request(&x.Context).Continues() {
			t.Error("after a second there is no new token")
		}
		if x = filtertest.New("GET", "/"); f.Request(&x.Context).Continues() {
			t.Error("after a second there are two")
		}
		time.Sleep(time.Hour)
		for range 2 {
			x = filtertest.New("GET", "/")
			if !f.Request(&x.Context).Continues() {
				t.Error("the bucket does not fill")
			}
		}
		if x = filtertest.New("GET", "/"); f.Request(&x.Context).Continues() {
			t.Error("the bucket overflows")
		}
	})
}

func TestShares(t *testing.T) {
	c := limited(1)
	c.Enforced, c.RequestAdd = 0, []route.HeaderAdd{{Name: "x-over", Value: "%REQ(:method)%"}}
	f, _ := New(c, Place{}, nil)
	for i := range 2 {
		x := filtertest.New("GET", "/")
		if !f.Request(&x.Context).Continues() {
			t.Error("a limit that is not enforced refuses")
		}
		if v, _ := x.Request.Header("x-over"); (v == "GET") != (i == 1) {
			t.Errorf("request %d: x-over is %q", i, v)
		}
	}
	c = limited(1)
	c.Enabled = 0
	f, _ = New(c, Place{}, nil)
	for range 3 {
		if x := filtertest.New("GET", "/"); !f.Request(&x.Context).Continues() {
			t.Error("a limit that is not enabled refuses")
		}
	}
}

func TestPerConnection(t *testing.T) {
	c := limited(1)
	c.PerConnection = true
	f, _ := New(c, Place{}, nil)
	a, b := &sync.Map{}, &sync.Map{}
	for i, want := range []struct {
		conn   *sync.Map
		passes bool
	}{{a, true}, {a, false}, {b, true}, {b, false}} {
		x := filtertest.New("GET", "/")
		x.Conn = want.conn
		if f.Request(&x.Context).Continues() != want.passes {
			t.Errorf("request %d: passes %v", i, !want.passes)
		}
	}
}

func TestOverride(t *testing.T) {
	f, _ := New(&Config{Enabled: route.All, Enforced: route.All}, Place{}, nil)
	if x := filtertest.New("GET", "/"); !f.Request(&x.Context).Continues() {
		t.Error("a filter without a bucket limits")
	}
	own, err := f.Override(&Config{
		Bucket: &tokenbucket.Spec{Max: 1, PerFill: 1, Interval: time.Hour}, Enabled: route.All, Enforced: route.All, Status: 503, ResourceExhausted: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		x := filtertest.New("GET", "/")
		x.Overrides = []any{own}
		v := f.Request(&x.Context)
		if v.Continues() != (i == 0) {
			t.Errorf("request %d: %v", i, v)
		}
		if r := v.Reply(); i == 1 && (r.Status != 503 || r.GRPC != 8) {
			t.Errorf("%+v", r)
		}
	}
	for _, bad := range []any{1, &Config{}, &Config{Bucket: &tokenbucket.Spec{}}, &Config{Bucket: &tokenbucket.Spec{Max: 1, PerFill: 1, Interval: 1}, RequestAdd: []route.HeaderAdd{{Name: "a", Value: "%NOSUCH%"}}}} {
		if _, err := f.Override(bad); err == nil || !strings.Contains(err.Error(), "local rate limit") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	c := limited(1 << 30)
	c.XRateLimit = true
	f, _ := New(c, Place{}, nil)
	x := filtertest.New("GET", "/")
	x.Answered(f, 200)
	if n := testing.AllocsPerRun(100, func() {
		f.Request(&x.Context)
		x.Response.Reset()
		f.Response(&x.Context)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
