package healthcheck

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/filtertest"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

func ptr[T any](v T) *T { return &v }

var onPath = []route.HeaderMatch{{Name: ":path", Value: &route.StringMatch{Exact: ptr("/healthz")}}}

func TestAnswers(t *testing.T) {
	healthy := func(name string) (int, int, bool) {
		switch name {
		case "half":
			return 1, 2, true
		case "empty":
			return 0, 0, true
		}
		return 0, 0, false
	}
	for _, c := range []struct {
		name   string
		config Config
		path   string
		drains bool
		want   int
	}{
		{"healthy", Config{}, "/healthz", false, 200},
		{"another path", Config{}, "/", false, 0},
		{"draining", Config{}, "/healthz", true, 503},
		{"enough", Config{MinHealthy: map[string]float64{"half": 50.9}}, "/healthz", false, 200},
		{"too few", Config{MinHealthy: map[string]float64{"half": 51}}, "/healthz", false, 503},
		{"empty", Config{MinHealthy: map[string]float64{"empty": 1}}, "/healthz", false, 503},
		{"empty is enough", Config{MinHealthy: map[string]float64{"empty": 0}}, "/healthz", false, 200},
		{"no such cluster", Config{MinHealthy: map[string]float64{"gone": 0}}, "/healthz", false, 503},
		{"passed through", Config{PassThrough: true}, "/healthz", false, 0},
		{"passed through, draining", Config{PassThrough: true}, "/healthz", true, 503},
	} {
		c.config.Headers = onPath
		f, err := New(&c.config, healthy, "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		x := filtertest.New("GET", c.path)
		x.Drains = c.drains
		got := 0
		if r := f.Request(&x.Context).Reply(); r != nil {
			got = r.Status
		}
		if is := c.path == "/healthz"; is != (x.Checks == 1) {
			t.Errorf("%s: noted as a health check %d times", c.name, x.Checks)
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		resp := x.Answered(f, 200)
		if v, _ := resp.Header("x-envoy-upstream-healthchecked-cluster"); (v == "svc") != (c.path == "/healthz") {
			t.Errorf("%s: the response names %q", c.name, v)
		}
	}
}

func TestOthersLearnOfTheDrain(t *testing.T) {
	f, _ := New(&Config{Headers: onPath}, nil, "", nil)
	x := filtertest.New("GET", "/")
	x.Drains = true
	f.Request(&x.Context)
	if v, _ := x.Answered(f, 200).Header("x-envoy-immediate-health-check-fail"); v != "true" {
		t.Errorf("the header is %q", v)
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := New(&Config{PassThrough: true, CacheTime: time.Second, Headers: onPath}, nil, "", nil)
		ask := func(upstream int) int {
			x := filtertest.New("GET", "/healthz")
			if r := f.Request(&x.Context).Reply(); r != nil {
				x.Answered(f, r.Status)
				return r.Status
			}
			x.Answered(f, upstream)
			return -upstream
		}
		for i, c := range []struct {
			upstream, want int
			after          time.Duration
		}{{500, -500, 0}, {200, 500, 900 * time.Millisecond}, {200, -200, 200 * time.Millisecond}, {500, 200, 500 * time.Millisecond}} {
			time.Sleep(c.after)
			if got := ask(c.upstream); got != c.want {
				t.Errorf("question %d: %d, want %d", i, got, c.want)
			}
		}
	})
}

// TestCacheOfADegradedHost: the answer that is kept says what the host's said of itself.
func TestCacheOfADegradedHost(t *testing.T) {
	for _, degraded := range []bool{true, false} {
		f, err := New(&Config{PassThrough: true, CacheTime: time.Minute, Headers: onPath}, nil, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		x := filtertest.New("GET", "/healthz")
		f.Request(&x.Context)
		x.Response = &message.Response{Status: 200}
		x.Response.Fields.Add("x-envoy-other", "1")
		if degraded {
			x.Response.Fields.Add(degradedHeader, "true")
		}
		f.Response(&x.Context)
		y := filtertest.New("GET", "/healthz")
		r := f.Request(&y.Context).Reply()
		if r == nil {
			t.Fatal("nothing is kept")
		}
		if _, says := y.Replied(f, r).Fields.Get(degradedHeader); says != degraded {
			t.Errorf("degraded %v: %v", degraded, says)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []Config{{CacheTime: 1}, {PassThrough: true, MinHealthy: map[string]float64{"a": 1}}} {
		if _, err := New(&c, nil, "", nil); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
