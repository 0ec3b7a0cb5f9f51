package hcm

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	bodybuffer "github.com/hauberk-mesh/hauberk/sidecar/filter/buffer"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/cors"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/headermutation"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/healthcheck"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

func (b *bed) filter(name string, config any) {
	b.cfg.Filters = append(b.cfg.Filters, HTTPFilter{Name: name, Config: config})
}

// allowing is an RBAC filter that lets requests with a header pass.
func (b *bed) allowing(header, value string) {
	b.rbac(*allowing(header, value))
}

// rbac adds an RBAC filter.
func (b *bed) rbac(f authz.HTTPFilter) {
	b.filter(fmt.Sprintf("rbac%d", len(b.cfg.RBAC)), RBACFilter{})
	b.cfg.RBAC = append(b.cfg.RBAC, f)
}

func allowing(header, value string) *authz.HTTPFilter {
	return &authz.HTTPFilter{Rules: &authz.Rules{Policies: []authz.Policy{{
		Name:        header + " is " + value,
		Permissions: []authz.Permission{{Header: &route.HeaderMatch{Name: header, Value: &route.StringMatch{Exact: &value}}}},
		Principals:  []authz.Principal{{Any: true}},
	}}}}
}

func addHeader(v string) *headermutation.Config {
	add := []route.HeaderMutation{{Add: &route.HeaderAdd{Name: "x-who", Value: v, Action: route.OverwriteIfExistsOrAdd}}}
	return &headermutation.Config{Request: add, Response: add}
}

func override(name string, config any) []route.FilterOverride {
	return []route.FilterOverride{{Name: name, Config: config}}
}

var abort503 = &fault.Config{Abort: &fault.Abort{Status: 503, Share: route.All}}

func TestFilters(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*bed)
		raw    string
		status int
		log    string
		header map[string]string
	}{
		{name: "fault", change: func(b *bed) { b.filter("f", abort503) }, status: 503, log: "503 FI fault_filter_abort"},
		{name: "fault of the route", change: func(b *bed) {
			b.filter("f", &fault.Config{})
			b.route().Filters = override("f", &fault.Config{Abort: &fault.Abort{Status: 418, Share: route.All}})
		}, status: 418},
		{name: "the route wins over the host", change: func(b *bed) {
			b.filter("f", abort503)
			b.route().Filters = override("f", &fault.Config{})
			b.vhost().Filters = override("f", abort503)
		}, status: 200},
		{name: "off for the route", change: func(b *bed) {
			b.filter("f", abort503)
			b.route().Filters = []route.FilterOverride{{Name: "f", Disabled: true}}
		}, status: 200},
		{name: "off for the host, on for the route", change: func(b *bed) {
			b.filter("f", abort503)
			b.vhost().Filters = []route.FilterOverride{{Name: "f", Disabled: true}}
			b.route().Filters = []route.FilterOverride{{Name: "f"}}
		}, status: 503},
		{name: "off by default", change: func(b *bed) {
			b.filter("f", abort503)
			b.cfg.Filters[0].Disabled = true
		}, status: 200},
		{name: "off by default, on for all routes", change: func(b *bed) {
			b.filter("f", abort503)
			b.cfg.Filters[0].Disabled = true
			b.cfg.Routes.Filters = []route.FilterOverride{{Name: "f"}}
		}, status: 503},
		{name: "the leg's", change: func(b *bed) {
			b.filter("f", &fault.Config{})
			b.route().Forward.Cluster = ""
			b.route().Forward.Weighted = []route.WeightedCluster{{Cluster: "origin", Weight: 1, Filters: override("f", abort503)}}
		}, status: 503},
		{name: "another filter's", change: func(b *bed) {
			b.filter("f", &fault.Config{})
			b.route().Filters = override("g", abort503)
		}, status: 200},
		{name: "fault to a gRPC client", change: func(b *bed) {
			b.filter("f", &fault.Config{Abort: &fault.Abort{GRPC: ptr(uint32(8)), Share: route.All, Body: "100% gone"}})
		}, raw: "POST /x HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n", status: 200,
			log: "200 FI ", header: map[string]string{"Grpc-Status": "8", "Grpc-Message": "100%25 gone"}},
		{name: "fault by header", change: func(b *bed) {
			b.filter("f", &fault.Config{Abort: &fault.Abort{FromHeader: true, Share: route.All}})
		}, raw: "GET /x HTTP/1.1\r\nHost: h\r\nX-Envoy-Fault-Abort-Request: 418\r\n\r\n", status: 418},
		{name: "changes are undone in reverse", change: func(b *bed) {
			b.filter("a", addHeader("a"))
			b.filter("b", addHeader("b"))
		}, status: 200, header: map[string]string{"X-Who": "a", "X-Saw": "b"}},
		{name: "local replies pass the filters too", change: func(b *bed) {
			b.filter("a", addHeader("a"))
			b.filter("f", abort503)
			b.filter("b", addHeader("b"))
		}, status: 503, header: map[string]string{"X-Who": "a"}},
		{name: "local replies of earlier filters too", change: func(b *bed) {
			b.allowing("x-pass", "yes")
			b.filter("a", addHeader("a"))
		}, status: 403, header: map[string]string{"X-Who": "a"}},
		{name: "and of the manager", change: func(b *bed) {
			b.filter("a", addHeader("a"))
			b.filter("c", CORSFilter{})
			b.filter("l", &ratelimit.Config{Enabled: route.All, Enforced: route.All, XRateLimit: true})
			b.cfg.EscapedSlashes = RejectEscaped
		}, raw: "GET /a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n", status: 400, header: map[string]string{"X-Who": "a"}},
		{name: "and to what is no request", change: func(b *bed) { b.filter("a", addHeader("a")) },
			raw: "GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", status: 400, header: map[string]string{"X-Who": "a"}},
		{name: "with the route's changes", change: func(b *bed) {
			b.allowing("x-pass", "yes")
			b.filter("a", addHeader("a"))
			b.route().Filters = override("a", addHeader("route"))
		}, status: 403, header: map[string]string{"X-Who": "route"}},
		{name: "unless the route is without", change: func(b *bed) {
			b.allowing("x-pass", "yes")
			b.filter("a", addHeader("a"))
			b.route().Filters = []route.FilterOverride{{Name: "a", Disabled: true}}
		}, status: 403, header: map[string]string{"X-Who": ""}},
		{name: "RBAC sees what was changed before", change: func(b *bed) {
			b.filter("a", addHeader("friend"))
			b.allowing("x-who", "friend")
		}, status: 200, log: "rule=x-who is friend"},
		{name: "RBAC does not see what is changed after", change: func(b *bed) {
			b.allowing("x-who", "friend")
			b.filter("a", addHeader("friend"))
		}, status: 403, log: "403 - rbac_access_denied"},
		{name: "RBAC in two places", change: func(b *bed) {
			b.allowing("host", "h")
			b.filter("a", addHeader("friend"))
			b.allowing("x-who", "enemy")
		}, status: 403, log: "rule=default deny"},
		{name: "RBAC of the route", change: func(b *bed) {
			b.allowing("x-who", "friend")
			b.route().Filters = override("rbac0", allowing("host", "h"))
		}, status: 200, log: "rule=host is h"},
		{name: "RBAC of the route denies", change: func(b *bed) {
			b.allowing("host", "h")
			b.route().Filters = override("rbac0", allowing("x-who", "friend"))
		}, status: 403},
		{name: "RBAC off for the route", change: func(b *bed) {
			b.allowing("x-who", "friend")
			b.route().Filters = []route.FilterOverride{{Name: "rbac0", Disabled: true}}
		}, status: 200},
		{name: "no rules for the route", change: func(b *bed) {
			b.allowing("x-who", "friend")
			b.route().Filters = override("rbac0", &authz.HTTPFilter{})
		}, status: 200},
		{name: "denied comes before not found", change: func(b *bed) {
			b.allowing("x-who", "friend")
			b.route().Match.Prefix = ptr("/none")
		}, status: 403},
		{name: "cors", change: func(b *bed) {
			b.filter("c", CORSFilter{})
			b.vhost().Filters = override("c", &cors.Policy{Origins: []route.StringMatch{{Exact: ptr("https://a")}}, Methods: "GET"})
		}, raw: "OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\nAccess-Control-Request-Method: GET\r\n\r\n", status: 200,
			log: "200 - cors_response", header: map[string]string{"Access-Control-Allow-Origin": "https://a", "Access-Control-Allow-Methods": "GET"}},
		{name: "cors, deprecated field", change: func(b *bed) {
			b.filter("c", CORSFilter{})
			b.vhost().Filters = override(DeprecatedCORS, &cors.Policy{Origins: []route.StringMatch{{Exact: ptr("https://a")}}})
		}, raw: "GET /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\n\r\n", status: 200, header: map[string]string{"Access-Control-Allow-Origin": "https://a"}},
		{name: "cors off by default, deprecated field", change: func(b *bed) {
			b.filter("c", CORSFilter{})
			b.cfg.Filters[0].Disabled = true
			b.vhost().Filters = override(DeprecatedCORS, &cors.Policy{Origins: []route.StringMatch{{Exact: ptr("https://a")}}})
		}, raw: "GET /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\n\r\n", status: 200, header: map[string]string{"Access-Control-Allow-Origin": ""}},
		{name: "cors off for the host, deprecated field of the route", change: func(b *bed) {
			b.filter("c", CORSFilter{})
			b.vhost().Filters = []route.FilterOverride{{Name: "c", Disabled: true}}
			b.route().Filters = override(DeprecatedCORS, &cors.Policy{Origins: []route.StringMatch{{Exact: ptr("https://a")}}})
		}, raw: "GET /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\n\r\n", status: 200, header: map[string]string{"Access-Control-Allow-Origin": ""}},
		{name: "cors on for the route, deprecated field beside", change: func(b *bed) {
			b.filter("c", CORSFilter{})
			b.cfg.Filters[0].Disabled = true
			b.route().Filters = append([]route.FilterOverride{{Name: "c"}},
				override(DeprecatedCORS, &cors.Policy{Origins: []route.StringMatch{{Exact: ptr("https://a")}}})...)
		}, raw: "GET /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\n\r\n", status: 200, header: map[string]string{"Access-Control-Allow-Origin": "https://a"}},
		{name: "health check", change: func(b *bed) {
			b.filter("h", &healthcheck.Config{Headers: []route.HeaderMatch{{Name: ":path", Value: &route.StringMatch{Exact: ptr("/x")}}}, MinHealthy: map[string]float64{"origin": 100}})
		}, status: 200, log: "200 - health_check_ok_cluster_healthy"},
		{name: "health check of what is not there", change: func(b *bed) {
			b.filter("h", &healthcheck.Config{Headers: []route.HeaderMatch{{Name: ":path", Value: &route.StringMatch{Exact: ptr("/x")}}}, MinHealthy: map[string]float64{"gone": 1}})
		}, status: 503, log: "503 LH health_check_failed_no_cluster_found"},
		{name: "buffer", change: func(b *bed) { b.filter("b", &bodybuffer.Config{MaxBytes: 5}) },
			raw: "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", status: 200, header: map[string]string{"X-Length": "5"}},
		{name: "buffer, too long", change: func(b *bed) { b.filter("b", &bodybuffer.Config{MaxBytes: 4}) },
			raw: "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", status: 413, log: "413 - request_payload_too_large"},
		{name: "buffer, length too long", change: func(b *bed) { b.filter("b", &bodybuffer.Config{MaxBytes: 4}) },
			raw: "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", status: 413},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("X-Saw", r.Header.Get("X-Who"))
				w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			}))
			tc.change(b)
			b.start()
			if tc.raw == "" {
				tc.raw = simpleGet
			}
			resp, _ := b.dial().do(tc.raw)
			if resp.StatusCode != tc.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.status)
			}
			for name, want := range tc.header {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if tc.log != "" {
				b.wantLog(tc.log)
			}
		})
	}
}

// TestDelay: the request is held back, and a client that leaves meanwhile is noticed.
func TestDelay(t *testing.T) {
	bubble(func(t *testing.T) {
		var seen atomic.Int32
		b := newBed(t, httpOrigin(t, func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
		b.filter("f", &fault.Config{Delay: &fault.Delay{Fixed: 300 * time.Millisecond, Share: route.All}})
		b.start()
		start := time.Now()
		if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 200 || time.Since(start) < 300*time.Millisecond {
			t.Errorf("%d after %v", resp.StatusCode, time.Since(start))
		}
		c := b.dial()
		c.send(simpleGet)
		_ = c.Close()
		if lines := b.logged(2); !strings.Contains(lines[0], "200 DI") || !strings.Contains(lines[1], "DI,DC") || seen.Load() != 1 {
			t.Errorf("the origin saw %d:\n%s", seen.Load(), strings.Join(lines, "\n"))
		}
	})(t)
}

// bodyReader is a filter that reads the body of each request.
type bodyReader struct {
	reading chan struct{}
	active  chan int64 // when the watchdog saw something move last
}

// Request implements filter.Filter.
func (r *bodyReader) Request(c *filter.Context) filter.Verdict {
	x := c.Exchange.(*exchange)
	close(r.reading)
	_, v := x.ReadBody(1 << 20)
	r.active <- x.dog.progress.Load()
	return v
}

// Response implements filter.Filter.
func (r *bodyReader) Response(*filter.Context) {}

// TestBodyIsNoIdleness: what comes of a body that a filter waits for is progress.
func TestBodyIsNoIdleness(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int) {
		b := newBed(t, httpOrigin(t, echo))
		f := &bodyReader{make(chan struct{}), make(chan int64, 1)}
		b.change = func(m *Manager) { m.policy.chain.links = []link{{name: "reader", filter: f}} }
		b.start()
		body, send := io.Pipe()
		defer send.Close()
		go func() {
			<-f.reading
			_, _ = io.WriteString(send, "hello")
			_ = send.Close()
		}()
		before := monotonic()
		req, _ := http.NewRequest("POST", "http://"+b.addr+"/", body)
		resp, err := b.httpClient(version).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if at := <-f.active; resp.StatusCode != 200 || at < before {
			t.Errorf("%d, nothing had moved for %v when the body was whole", resp.StatusCode, time.Duration(before-at))
		}
	})
}

// TestDecisionBeforeAFilterThatAnswers: what RBAC decided is counted, whatever a filter
// after it does with the request.
func TestDecisionBeforeAFilterThatAnswers(t *testing.T) {
	b := newBed(t)
	b.allowing("host", "h")
	b.filter("f", abort503)
	b.start()
	if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 503 {
		t.Fatal(resp.Status)
	}
	b.eventually("the decision is counted", func() bool {
		return b.metric(`hauberk_authz_decisions_total{decision="allow",rule="host is h"} 1`)
	})
}

func TestRateLimit(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	b.filter("l", &ratelimit.Config{
		Bucket: &tokenbucket.Spec{Max: 2, PerFill: 1, Interval: time.Hour}, Enabled: route.All, Enforced: route.All, PerConnection: true, XRateLimit: true,
	})
	b.start()
	for range 2 {
		c := b.dial()
		for i, want := range []int{200, 200, 429} {
			resp, _ := c.do(simpleGet)
			if left := resp.Header.Get("X-Ratelimit-Remaining"); resp.StatusCode != want || left != fmt.Sprint(max(1-i, 0)) {
				t.Errorf("request %d: %d with %s left", i, resp.StatusCode, left)
			}
		}
	}
	if lines := b.logged(6); !strings.Contains(lines[5], "429 RL local_rate_limited") {
		t.Errorf("the access log says\n%s", lines[5])
	}
	var text strings.Builder
	_ = b.metrics.Registry.WritePrometheus(&text)
	if want := `hauberk_http_filter_events_total{filter="l",event="rate_limited"} 2`; !strings.Contains(text.String(), want) {
		t.Errorf("the metrics lack %s", want)
	}
}

// TestBucketsOfAConnection: those of the first limit that it met, a filter's or a route's,
// are for all, and a connection that goes on under new rules has new ones.
func TestBucketsOfAConnection(t *testing.T) {
	limit := func(n uint32) *ratelimit.Config {
		return &ratelimit.Config{Bucket: &tokenbucket.Spec{Max: n, PerFill: 1, Interval: time.Hour}, Enabled: route.All, Enforced: route.All, PerConnection: true}
	}
	b := newBed(t, httpOrigin(t, echo))
	b.filter("l", limit(1))
	routes := &b.cfg.Routes.VirtualHosts[0].Routes
	own := (*routes)[0]
	own.Match, own.Filters = route.Match{Prefix: ptr("/own")}, override("l", limit(2))
	*routes = append([]route.Route{own}, *routes...)
	b.start()
	c := b.dial()
	ask := func(want ...string) {
		t.Helper()
		for _, w := range want {
			path, status, _ := strings.Cut(w, " ")
			if resp, _ := c.do("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"); fmt.Sprint(resp.StatusCode) != status {
				t.Errorf("%s: %d", w, resp.StatusCode)
			}
		}
	}
	ask("/x 200", "/own 429", "/x 429")
	cfg := *b.cfg
	cfg.AccessLog = nil
	newer, err := New(&cfg, Options{Clusters: b.clusters})
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	b.mu.Lock()
	b.conns[0].SetPolicy(newer.Policy())
	b.mu.Unlock()
	ask("/own 200", "/x 200", "/own 429", "/x 429")
}

// TestTableDoesNotFit: overrides that a filter cannot take make inline routes fail
// at once, and a table that comes later serve nothing.
func TestTableDoesNotFit(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	b.filter("f", &fault.Config{})
	b.route().Filters = override("f", &bodybuffer.Config{})
	if _, err := New(b.cfg, Options{Clusters: b.clusters}); err == nil || !strings.Contains(err.Error(), `virtual_hosts[0].routes[0].typed_per_filter_config["f"]: fault: the route's configuration is a *buffer.Config`) {
		t.Errorf("%v", err)
	}
	table, err := route.Compile(b.cfg.Routes)
	if err != nil {
		t.Fatal(err)
	}
	b.cfg.Routes, b.cfg.RouteName, b.cfg.AccessLog = nil, "r", nil
	b.table = table
	b.start()
	if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 500 {
		t.Errorf("status %d", resp.StatusCode)
	}
	_ = b.clusters.Close()
}

// TestHealthWhileDraining: health checks fail, and answers tell others, while the process
// drains. A connection that is to end for reasons of its own says nothing of the host.
func TestHealthWhileDraining(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	b.filter("hc", &healthcheck.Config{Headers: []route.HeaderMatch{{Name: ":path", Value: &route.StringMatch{Exact: ptr("/healthz")}}}})
	b.cfg.DrainTimeout = time.Minute
	trigger, watcher := drain.New()
	b.options.Drain = watcher
	b.start()
	const check = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
	ask := func(c *testClient, raw string, status int, fail string) {
		t.Helper()
		resp, _ := c.do(raw)
		if got := resp.Header.Get("X-Envoy-Immediate-Health-Check-Fail"); resp.StatusCode != status || got != fail {
			t.Errorf("%d, x-envoy-immediate-health-check-fail %q; want %d and %q", resp.StatusCode, got, status, fail)
		}
	}
	one, other, third, fourth := b.dial(), b.dial(), b.dial(), b.dial()
	for _, c := range []*testClient{one, other, third, fourth} {
		ask(c, simpleGet, 200, "")
	}
	b.mu.Lock()
	for _, d := range b.conns {
		d.StartDrain() // as where the peer's certificate has expired
	}
	b.mu.Unlock()
	ask(one, simpleGet, 200, "")
	ask(other, check, 200, "")
	trigger.Drain(time.Time{})
	ask(third, simpleGet, 200, "true")
	ask(fourth, check, 503, "")
}

func TestChainRefuses(t *testing.T) {
	b := newBed(t)
	for want, filters := range map[string][]HTTPFilter{
		"there is no filter for a string": {{Name: "a", Config: "x"}},
		"1 places in the chain":           {{Name: "a", Config: RBACFilter{}}},
		"are the most":                    make([]HTTPFilter, maxFilters+1),
	} {
		b.cfg.Filters = filters
		if _, err := New(b.cfg, Options{Clusters: b.clusters}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_ = b.clusters.Close()
}

// TestHealthChecksAreNoRequests: what the health check filter takes for its own is no request in
// any metric and has no span that is sampled, whoever answers it; the access log knows it.
func TestHealthChecksAreNoRequests(t *testing.T) {
	for _, through := range []bool{false, true} {
		var parent atomic.Value
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { parent.Store(r.Header.Get("traceparent")) }))
		b.filter("hc", &healthcheck.Config{PassThrough: through, Headers: []route.HeaderMatch{{Name: ":path", Value: &route.StringMatch{Exact: ptr("/healthz")}}}})
		b.trace(&tracing.Config{Sampling: tracing.Sampling{Random: tracing.Percent(100), Overall: tracing.Percent(100)}})
		b.cfg.GenerateRequestID = true
		c := b.start().dial()
		for range 2 {
			if resp, _ := c.do("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
				t.Fatal(resp.StatusCode)
			}
		}
		b.logged(2)
		for _, metric := range []string{"hauberk_requests_total", "hauberk_request_duration_seconds_count", "hauberk_upstream_requests_total", "hauberk_upstream_request_duration_seconds_count"} {
			if got := b.counted(metric); got != "" {
				t.Errorf("passed through %v: %s", through, got)
			}
		}
		if got := b.counted("hauberk_http_filter_events_total"); got != `hauberk_http_filter_events_total{filter="hc",event="health_check"} 2` {
			t.Errorf("passed through %v: %s", through, got)
		}
		if got, _ := parent.Load().(string); through && !strings.HasSuffix(got, "-00") {
			t.Errorf("the host got a trace that is sampled: %s", got)
		}
		c.do(simpleGet)
		b.logged(3)
		if got := b.counted("hauberk_requests_total"); !strings.HasSuffix(got, " 1") {
			t.Errorf("the next request is counted as %s", got)
		}
		if got, _ := parent.Load().(string); !strings.HasSuffix(got, "-01") {
			t.Errorf("the next request has the trace %s", got)
		}
		const traced = `hauberk_traced_requests_total{reason="`
		b.eventually("a request that is traced, and two checks that are not", func() bool {
			return b.counted("hauberk_traced_requests_total") == traced+`not_traceable"} 2 `+traced+`random_sampling"} 1`
		})
	}
}
