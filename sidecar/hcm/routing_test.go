package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// mirror answers with the request as it came.
func reflectOrigin(t testing.TB) string {
	return httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Inner", "secret")
		fmt.Fprintf(w, "%s %s host=%s\n", r.Method, r.RequestURI, r.Host)
		_ = r.Header.Write(w)
	})
}

func substitution(t testing.TB, pattern, template string) *route.Substitution {
	t.Helper()
	s, err := route.NewSubstitution(pattern, template)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leg makes the route a split with one leg.
func (b *bed) leg(w route.WeightedCluster) {
	f := b.route().Forward
	w.Cluster, w.Weight = f.Cluster, 1
	f.Cluster, f.Weighted = "", []route.WeightedCluster{w}
}

func (b *bed) vhost() *route.VirtualHost { return &b.cfg.Routes.VirtualHosts[0] }

// what an upstream gets, and a client, under a route.
func TestRequestIsChanged(t *testing.T) {
	for _, tc := range []struct {
		name     string
		change   func(*bed)
		raw      string
		want     []string // lines that the upstream got, "!x" for a beginning that no line has
		response map[string]string
	}{
		{name: "prefix", change: func(b *bed) {
			b.route().Match.Prefix, b.route().Forward.Rewrite = ptr("/a/"), &route.Rewrite{Prefix: "/"}
		},
			raw: "GET /a/b?c HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"GET /b?c host=h", "X-Envoy-Original-Path: /a/b?c"}},
		{name: "regex", change: func(b *bed) {
			b.route().Forward.Rewrite = &route.Rewrite{Regex: substitution(t, "^/(.)(.*)", `/\2/\1`)}
		},
			raw: "GET /abc?q HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"GET /bc/a?q host=h"}},
		{name: "host", change: func(b *bed) { b.route().Forward.Rewrite = &route.Rewrite{Host: "other:1"} },
			raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"GET / host=other:1", "X-Envoy-Original-Host: h", "!X-Forwarded-Host"}},
		{name: "forwarded host", change: func(b *bed) {
			b.route().Forward.Rewrite, b.route().Forward.AppendForwardedHost = &route.Rewrite{Host: "o"}, true
		},
			raw: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: edge\r\n\r\n", want: []string{"GET / host=o", "X-Forwarded-Host: edge,h"}},
		{name: "forwarded host is there", change: func(b *bed) {
			b.route().Forward.Rewrite, b.route().Forward.AppendForwardedHost = &route.Rewrite{Host: "o"}, true
		},
			raw: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: h\r\n\r\n", want: []string{"X-Forwarded-Host: h"}},
		{name: "leg's host", change: func(b *bed) {
			b.leg(route.WeightedCluster{HostRewrite: "leg"})
			b.route().Forward.AppendForwardedHost = true
			b.vhost().Headers = &route.HeaderMutations{RequestAdd: []route.HeaderAdd{{Name: "X-Sees", Value: "%REQ(:authority)%"}}}
		}, raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"GET / host=leg", "X-Sees: leg", "!X-Forwarded-Host", "!X-Envoy-Original-Host"}},
		{name: "leg's host and the route's", change: func(b *bed) {
			b.leg(route.WeightedCluster{HostRewrite: "leg"})
			b.route().Forward.Rewrite, b.route().Forward.AppendForwardedHost = &route.Rewrite{Host: "o"}, true
		}, raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"GET / host=o", "X-Forwarded-Host: leg", "X-Envoy-Original-Host: leg"}},
		{name: "levels", change: func(b *bed) {
			add := func(v string) *route.HeaderMutations {
				return &route.HeaderMutations{
					RequestAdd:  []route.HeaderAdd{{Name: "X-Level", Value: v, Action: route.OverwriteIfExistsOrAdd}},
					ResponseAdd: []route.HeaderAdd{{Name: "X-Answer", Value: v}}, ResponseRemove: []string{"x-inner"},
				}
			}
			b.route().Headers, b.vhost().Headers, b.cfg.Routes.Headers = add("route"), add("host"), add("config")
		}, raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"X-Level: config"}, response: map[string]string{"X-Answer": "route,host,config", "X-Inner": ""}},
		{name: "format", change: func(b *bed) {
			b.route().Headers = &route.HeaderMutations{RequestAdd: []route.HeaderAdd{{Name: "X-Was", Value: "%REQ(:authority)% %REQ(x-none)%"}, {Name: "X-None", Value: "%REQ(x-none)%"}}}
		}, raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"X-Was: h", "!X-None"}},
		{name: "attempts", change: func(b *bed) { b.vhost().AttemptCountInRequest, b.vhost().AttemptCountInResponse = true, true },
			raw: "GET / HTTP/1.1\r\nHost: h\r\nX-Envoy-Attempt-Count: 9\r\n\r\n", want: []string{"X-Envoy-Attempt-Count: 1"}, response: map[string]string{"X-Envoy-Attempt-Count": "1"}},
		{name: "timeout", raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"X-Envoy-Expected-Rq-Timeout-Ms: 5000"}},
		{name: "no headers of ours", change: func(b *bed) {
			b.cfg.SuppressEnvoyHeaders, b.route().Forward.Rewrite = true, &route.Rewrite{Host: "o", Prefix: "/b/"}
		}, raw: "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"GET /b/a host=o", "!X-Envoy-"}, response: map[string]string{"X-Envoy-Upstream-Service-Time": ""}},
		{name: "attempt's timeout", change: func(b *bed) { b.route().Forward.Retry = &route.RetryPolicy{PerTryTimeout: time.Second} },
			raw: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", want: []string{"X-Envoy-Expected-Rq-Timeout-Ms: 1000"}},
		{name: "grpc-timeout", change: func(b *bed) { b.route().Forward.GRPCLimit = &route.GRPCLimit{Max: 2 * time.Second} },
			raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 10S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 2000m", "X-Envoy-Expected-Rq-Timeout-Ms: 2000"}},
		{name: "grpc-timeout within the stream's duration", change: func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{GRPCMax: ptr(10 * time.Second)}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 9000m"}},
		{name: "grpc-timeout beyond it", change: func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{GRPCMax: ptr(5 * time.Second)}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 5000m"}},
		{name: "grpc-timeout less an offset", change: func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{GRPCMax: ptr(time.Duration(0)), GRPCOffset: time.Second}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 8000m"}},
		{name: "grpc-timeout that the route sets", change: func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{Max: ptr(3 * time.Second)}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 3000m"}},
		{name: "grpc-timeout that is not told of", change: func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{Max: ptr(time.Duration(0))}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 9S"}},
		{name: "grpc-timeout of no gRPC", change: func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{Max: ptr(3 * time.Second)}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 9S"}},
		{name: "grpc-timeout of the manager", change: func(b *bed) {
			b.cfg.MaxStreamDuration = 4 * time.Second
			b.route().Forward.StreamDuration = &route.StreamDuration{}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"Grpc-Timeout: 4000m"}},
		{name: "grpc-timeout where the route lifts the manager's limit", change: func(b *bed) {
			b.cfg.MaxStreamDuration = 4 * time.Second
			b.route().Forward.StreamDuration = &route.StreamDuration{Max: ptr(time.Duration(0))}
		}, raw: "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 9S\r\nContent-Length: 0\r\n\r\n", want: []string{"!Grpc-Timeout"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, reflectOrigin(t))
			if tc.change != nil {
				tc.change(b)
			}
			b.start()
			resp, body := b.dial().do(tc.raw)
			if resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			lines := strings.Split(strings.ReplaceAll(body, "\r", ""), "\n")
			for _, w := range tc.want {
				found := false
				for _, l := range lines {
					found = found || l == w || w[0] == '!' && strings.HasPrefix(l, w[1:])
				}
				if found == (w[0] == '!') {
					t.Errorf("%q in the upstream's request is %v:\n%s", w, found, body)
				}
			}
			for name, w := range tc.response {
				if got := strings.Join(resp.Header.Values(name), ","); got != w {
					t.Errorf("%s is %q, want %q", name, got, w)
				}
			}
		})
	}
}

func TestAutoHostRewrite(t *testing.T) {
	b := newBed(t)
	origin := reflectOrigin(t)
	a := endpoints("origin", origin)
	a.Localities[0].Endpoints[0].Hostname = "backend.example.com"
	cfg := *b.clusters.Get("origin").Config()
	cfg.Endpoints = a
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.route().Forward.AutoHostRewrite = true
	b.start()
	if _, body := b.dial().do(simpleGet); !strings.HasPrefix(body, "GET /x host=backend.example.com\n") {
		t.Errorf("%s", body)
	}
}

func TestRouteAnswers(t *testing.T) {
	for _, tc := range []struct {
		name     string
		change   func(*bed)
		raw      string
		status   int
		location string
		body     string
		log      string
	}{
		{name: "redirect", change: func(b *bed) {
			b.route().Forward, b.route().Redirect = nil, &route.Redirect{Scheme: "https", Code: 308, Port: 8443}
		}, raw: "GET /x?y HTTP/1.1\r\nHost: h:80\r\n\r\n", status: 308, location: "https://h:8443/x?y", log: "308 - direct_response"},
		{name: "https for all", change: func(b *bed) { b.vhost().RequireTLS = route.TLSForAll }, raw: "GET /x?y HTTP/1.1\r\nHost: h:80\r\n\r\n", status: 301, location: "https://h:80/x?y"},
		{name: "https is there", change: func(b *bed) { b.vhost().RequireTLS, b.route().Match.Prefix = route.TLSForAll, ptr("/none") }, raw: "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n", status: 404},
		{name: "created", change: func(b *bed) {
			b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 201, Body: []byte("made")}
		}, raw: simpleGet, status: 201, location: "http://h/x", body: "made"},
		{name: "no cluster by header", change: func(b *bed) {
			b.route().Forward.Cluster, b.route().Forward.ClusterHeader, b.route().Forward.NotFoundStatus = "", "x-to", 404
		}, raw: simpleGet, status: 404, log: "404 NC cluster_not_found"},
		{name: "cluster by header", change: func(b *bed) { b.route().Forward.Cluster, b.route().Forward.ClusterHeader = "", "x-to" },
			raw: "GET /x HTTP/1.1\r\nHost: h\r\nX-To: origin\r\n\r\n", status: 200},
		{name: "grpc", change: func(b *bed) { b.route().Forward.Cluster = "gone" },
			raw: "POST /x HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc+proto\r\nContent-Length: 0\r\n\r\n", status: 200, log: "200 NC cluster_not_found"},
		{name: "upgrade taken back", change: func(b *bed) {
			b.cfg.Upgrades, b.route().Forward.Upgrades = []route.Upgrade{{Type: "websocket"}}, []route.Upgrade{{Type: "WebSocket", Disabled: true}}
		}, raw: "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", status: 403, log: "403 - upgrade_failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, reflectOrigin(t))
			tc.change(b)
			b.start()
			resp, body := b.dial().do(tc.raw)
			if resp.StatusCode != tc.status || resp.Header.Get("Location") != tc.location || tc.body != "" && body != tc.body {
				t.Errorf("%d %q %q", resp.StatusCode, resp.Header.Get("Location"), body)
			}
			if tc.name == "grpc" && (resp.Header.Get("Grpc-Status") != "14" || resp.Header.Get("Content-Type") != "application/grpc") {
				t.Errorf("%v", resp.Header)
			}
			if tc.log != "" {
				b.wantLog(tc.log)
			}
		})
	}
}

// TestTimes: each of the times that a request may take ends it with its own reason.
func TestTimes(t *testing.T) {
	hang := func(t testing.TB) string {
		return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r); _, _ = r.ReadByte() })
	}
	const grpc = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 50m\r\nContent-Length: 0\r\n\r\n"
	for _, tc := range []struct {
		name   string
		change func(*bed)
		raw    string
		status int
		log    string
		grpc   string
	}{
		{"stream duration of the route", func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{Max: ptr(50 * time.Millisecond)}
		}, simpleGet, 504, "504 DT max_duration_timeout", ""},
		{"stream duration of the manager", func(b *bed) { b.cfg.MaxStreamDuration = 50 * time.Millisecond }, simpleGet, 504, "504 DT max_duration_timeout", ""},
		{"grpc-timeout as duration", func(b *bed) {
			b.route().Forward.StreamDuration = &route.StreamDuration{GRPCMax: ptr(time.Duration(0))}
		}, grpc, 200, "200 DT max_duration_timeout", "4"},
		{"grpc-timeout as timeout", func(b *bed) { b.route().Forward.GRPCLimit = &route.GRPCLimit{} }, grpc, 200, "200 UT response_timeout", "14"},
		{"idle attempt", func(b *bed) {
			b.route().Forward.Retry = &route.RetryPolicy{PerTryIdleTimeout: 50 * time.Millisecond}
		}, simpleGet, 504, "504 UT upstream_per_try_idle_timeout", ""},
		{"idle attempt is tried again", func(b *bed) {
			b.route().Forward.Retry = &route.RetryPolicy{On: route.RetryReset, NumRetries: 1, BackOffBase: 1, PerTryIdleTimeout: 50 * time.Millisecond}
		}, simpleGet, 504, "retries=1", ""},
		{"the body does not come", func(b *bed) { b.cfg.MaxStreamDuration = 50 * time.Millisecond },
			"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n", 408, "408 DT max_duration_timeout", ""},
	} {
		t.Run(tc.name, bubble(func(t *testing.T) {
			b := newBed(t, hang(t))
			tc.change(b)
			b.start()
			resp, _ := b.dial().do(tc.raw)
			if resp.StatusCode != tc.status {
				t.Errorf("status %d", resp.StatusCode)
			}
			if s := resp.Header.Get("Grpc-Status"); s != tc.grpc {
				t.Errorf("grpc-status %q, want %q", s, tc.grpc)
			}
			b.wantLog(tc.log)
		}))
	}
}

// TestRetriesAsAsked: what a response says decides over the retry and its time.
func TestRetriesAsAsked(t *testing.T) {
	for _, tc := range []struct {
		name    string
		policy  route.RetryPolicy
		headers string
		least   time.Duration
		seen    int32
	}{
		{"header", route.RetryPolicy{On: route.RetryHeaders, Headers: []route.HeaderMatch{{Name: "x-again", Present: ptr(true)}}}, "200 OK\r\nX-Again: 1", 0, 2},
		{"grpc status", route.RetryPolicy{On: route.RetryGRPCUnavailable}, "200 OK\r\nGrpc-Status: 14", 0, 2},
		{"rate limited", route.RetryPolicy{On: route.RetryRateLimited, RateLimited: &route.RateLimitedBackOff{Headers: []route.ResetHeader{{Name: "retry-after"}}}},
			"429 Too Many Requests\r\nX-Envoy-Ratelimited: true\r\nRetry-After: 1", time.Second, 2},
		{"rate limited, not asked", route.RetryPolicy{On: route.Retry5xx}, "503 No\r\nX-Envoy-Ratelimited: true", 0, 1},
	} {
		t.Run(tc.name, bubble(func(t *testing.T) {
			var seen atomic.Int32
			origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				for {
					if _, _, err := readRequest(r); err != nil {
						return
					}
					head := "200 OK"
					if seen.Add(1) == 1 {
						head = tc.headers
					}
					_, _ = io.WriteString(c, "HTTP/1.1 "+head+"\r\nContent-Length: 0\r\n\r\n")
				}
			})
			b := newBed(t, origin)
			tc.policy.NumRetries, tc.policy.BackOffBase = 1, 1
			b.route().Forward.Retry = &tc.policy
			b.start()
			start := time.Now()
			b.dial().do(simpleGet)
			if seen.Load() != tc.seen || time.Since(start) < tc.least {
				t.Errorf("the origin saw %d requests in %v", seen.Load(), time.Since(start))
			}
		}))
	}
}

// TestBufferLimit: a body beyond the route's limit is not kept for another attempt.
func TestBufferLimit(t *testing.T) {
	for _, tc := range []struct {
		limit uint64
		seen  int32
	}{{4, 1}, {5, 2}} {
		var seen atomic.Int32
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if seen.Add(1) == 1 {
				w.WriteHeader(503)
			}
		}))
		b.route().Forward.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}
		b.vhost().BufferLimit = &tc.limit
		b.start()
		b.dial().do("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
		if seen.Load() != tc.seen {
			t.Errorf("limit %d: the origin saw %d requests", tc.limit, seen.Load())
		}
	}
}

// TestCallersTimeout: a caller of the mesh says how long it waits, and where the
// configuration has it so that is the time for the upstream.
func TestCallersTimeout(t *testing.T) {
	for respect, want := range map[bool]string{true: "3000", false: "5000"} {
		front, back, _ := twoHops(t, reflectOrigin(t), apiID)
		front.route().Forward.Timeout = 3 * time.Second
		cfg := *back.cfg
		cfg.RespectExpectedTimeout = respect
		back.cfg = &cfg
		to := *front.clusters.Get("origin").Config()
		to.Endpoints = endpoints("origin", back.start().addr)
		if err := front.clusters.Update(&to); err != nil {
			t.Fatal(err)
		}
		front.start()
		if _, body := front.dial().do(simpleGet); !strings.Contains(body, "X-Envoy-Expected-Rq-Timeout-Ms: "+want) {
			t.Errorf("respected %v: the upstream got\n%s", respect, body)
		}
	}
}
