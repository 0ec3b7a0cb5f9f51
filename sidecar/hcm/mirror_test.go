package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/healthcheck"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// mirrorBed has a cluster "mirror" whose requests arrive on the channel.
func mirrorBed(t *testing.T, mirrors ...route.Mirror) (*bed, chan string) {
	seen := make(chan string, 10)
	b := newBed(t, httpOrigin(t, echo))
	b.cluster("mirror", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s %s %s|%s", r.Method, r.RequestURI, r.Host, r.Header.Get("X-M"), body)
		fmt.Fprint(w, strings.Repeat("nobody reads this ", 1000))
	}))
	for i := range mirrors {
		if mirrors[i].Cluster == "" && mirrors[i].ClusterHeader == "" {
			mirrors[i].Cluster = "mirror"
		}
	}
	b.route().Forward.Mirrors = mirrors
	return b, seen
}

// earlyOrigin begins its answer with a request's head, and tells how long the body was.
func earlyOrigin(t *testing.T) string {
	return httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
}

func get(t *testing.T, seen chan string) string {
	t.Helper()
	select {
	case s := <-seen:
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was mirrored")
	}
	return ""
}

func TestMirror(t *testing.T) {
	b, seen := mirrorBed(t,
		route.Mirror{Share: route.All, Mutations: []route.HeaderMutation{{Add: &route.HeaderAdd{Name: "x-m", Value: "%REQ(:method)%"}}}})
	b.route().Match.Prefix, b.route().Forward.Rewrite = ptr("/a/"), &route.Rewrite{Prefix: "/b/"}
	b.start()
	c := b.dial()
	for _, tc := range []struct{ raw, want, answer string }{
		{"GET /a/x?q HTTP/1.1\r\nHost: h:80\r\n\r\n", "GET /b/x?q h-shadow:80 GET|", "GET|0|"},
		{"GET /a/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET /b/x [::1]:80 GET|", "GET|0|"},
		{"GET /a/x HTTP/1.1\r\nHost: [::1]\r\n\r\n", "GET /b/x [::1] GET|", "GET|0|"},
		{"POST /a/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "POST /b/ h-shadow POST|hello", "POST|5|hello"},
		{"PUT /a/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "PUT /b/ h-shadow PUT|hello", "PUT|5|hello"},
	} {
		if resp, body := c.do(tc.raw); resp.StatusCode != 200 || body != tc.answer {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		if got := get(t, seen); got != tc.want {
			t.Errorf("the mirror saw %q, want %q", got, tc.want)
		}
	}
	// A body that comes in pieces is mirrored when it is whole.
	c.send("PUT /a/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
	time.Sleep(30 * time.Millisecond)
	if len(seen) > 0 {
		t.Error("half a body was mirrored")
	}
	c.send("2\r\nlo\r\n0\r\n\r\n")
	if _, body := c.answer("PUT"); body != "PUT|5|hello" {
		t.Errorf("%q", body)
	}
	if got := get(t, seen); got != "PUT /b/ h-shadow PUT|hello" {
		t.Errorf("the mirror saw %q", got)
	}
}

// TestMirrorHasTheRequestsHost: whenever a copy is made, it is for the host that the request is for, and
// not for the name of the endpoint that an attempt was sent to.
func TestMirrorHasTheRequestsHost(t *testing.T) {
	b, seen := mirrorBed(t, route.Mirror{Share: route.All})
	b.cluster("origin", earlyOrigin(t))
	cfg := *b.clusters.Get("origin").Config()
	at := *cfg.Endpoints
	at.Localities[0].Endpoints[0].Hostname = "backend.example"
	cfg.Endpoints = &at
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.route().Forward.AutoHostRewrite = true
	b.start()
	c := b.dial()
	c.do("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
	whole := get(t, seen)
	c.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
	if _, err := http.ReadResponse(c.r, nil); err != nil { // the attempt was made before the rest came
		t.Fatal(err)
	}
	c.send("2\r\nlo\r\n0\r\n\r\n")
	if pieces := get(t, seen); pieces != whole || whole != "PUT / h-shadow |hello" {
		t.Errorf("the mirror saw %q, and %q of pieces", whole, pieces)
	}
}

// TestMirrorTellsOfAttempts: a copy is told what a first attempt is, however much of the
// request had come when it began.
func TestMirrorTellsOfAttempts(t *testing.T) {
	seen := make(chan string, 1)
	b := newBed(t, httpOrigin(t, echo))
	b.cluster("mirror", httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("X-Envoy-Attempt-Count") + " " + r.Header.Get("X-Envoy-Expected-Rq-Timeout-Ms")
	}))
	b.vhost().AttemptCountInRequest = true
	b.route().Forward.Timeout = 7 * time.Second
	b.route().Forward.Mirrors = []route.Mirror{{Cluster: "mirror", Share: route.All}}
	b.start()
	for _, body := range []string{"\r\n", "Content-Length: 1\r\n\r\nx"} {
		b.dial().do("POST / HTTP/1.1\r\nHost: h\r\n" + body)
		if got := get(t, seen); got != "1 7000" {
			t.Errorf("%q: told %q", body, got)
		}
	}
}

// TestMirrorOfAnEarlyAnswer: a copy is made of the whole body, though the answer began before
// its end.
func TestMirrorOfAnEarlyAnswer(t *testing.T) {
	b, seen := mirrorBed(t, route.Mirror{Share: route.All})
	b.cluster("origin", earlyOrigin(t))
	b.start()
	c := b.dial()
	c.send("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.send("2\r\nlo\r\n0\r\n\r\n")
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "5" {
		t.Errorf("%q %v", body, err)
	}
	if got := get(t, seen); got != "PUT / h-shadow |hello" {
		t.Errorf("the mirror saw %q", got)
	}
}

// TestMirrorsTrace: a copy belongs to the request's trace, sampled as the request is unless
// the policy says otherwise.
func TestMirrorsTrace(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-"
	for unsampled, want := range map[bool]string{false: "-01", true: "-00"} {
		seen := make(chan string, 1)
		b := newBed(t, httpOrigin(t, echo))
		b.cluster("mirror", httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Traceparent") }))
		b.route().Forward.Mirrors = []route.Mirror{{Cluster: "mirror", Share: route.All, Unsampled: unsampled}}
		b.trace(&tracing.Config{Sampling: tracing.Sampling{Random: tracing.Percent(100), Overall: tracing.Percent(100)}})
		b.start()
		if resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\nTraceparent: " + trace + "b7ad6b7169203331-01\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		got := get(t, seen)
		if !strings.HasPrefix(got, trace) || strings.Contains(got, "b7ad6b7169203331") || !strings.HasSuffix(got, want) {
			t.Errorf("unsampled %v: the copy has %q", unsampled, got)
		}
	}
}

func TestMirrorsChosen(t *testing.T) {
	for _, tc := range []struct {
		name   string
		mirror route.Mirror
		limit  *uint64
		want   string
		metric string
	}{
		{"no share", route.Mirror{}, nil, "", ""},
		{"header", route.Mirror{ClusterHeader: "x-mirror", Share: route.All, KeepHost: true}, nil, "POST / h |hello", `{result="answered"} 1`},
		{"header missing", route.Mirror{ClusterHeader: "x-none", Share: route.All}, nil, "", ""},
		{"no such cluster", route.Mirror{Cluster: "gone", Share: route.All}, nil, "", ""},
		{"too large", route.Mirror{Share: route.All}, ptr(uint64(4)), "", `{result="too_large"} 1`},
		{"own host", route.Mirror{Share: route.All, HostRewrite: "m.local"}, nil, "POST / m.local |hello", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, seen := mirrorBed(t, tc.mirror)
			b.route().BufferLimit = tc.limit
			b.start()
			c := b.dial()
			if resp, _ := c.do("POST / HTTP/1.1\r\nHost: h\r\nX-Mirror: mirror\r\nContent-Length: 5\r\n\r\nhello"); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			_ = c.Close()
			<-b.finished // whatever is mirrored is on its way
			b.m.background.Wait()
			got := ""
			if len(seen) > 0 {
				got = <-seen
			}
			if got != tc.want {
				t.Errorf("the mirror saw %q, want %q", got, tc.want)
			}
			var text strings.Builder
			_ = b.metrics.Registry.WritePrometheus(&text)
			if want := "hauberk_mirrored_requests_total" + tc.metric; tc.metric != "" && !strings.Contains(text.String(), want) {
				t.Errorf("the metrics lack %s", want)
			}
		})
	}
}

// TestMirrorHangs: a mirror that does not answer delays nobody, and ends with the
// manager (goleak looks).
func TestMirrorHangs(t *testing.T) {
	asked := make(chan struct{}, 1)
	b, _ := mirrorBed(t, route.Mirror{Cluster: "hanging", Share: route.All})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	b.cluster("hanging", httpOrigin(t, func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-release }))
	b.route().Forward.Timeout = 0
	b.start()
	start := time.Now()
	if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 200 || time.Since(start) > 3*time.Second {
		t.Errorf("%d after %v", resp.StatusCode, time.Since(start))
	}
	<-asked
}

// TestMirrorToTheOriginalDestination: the copy goes where the client meant to connect to,
// though the request itself does not.
func TestMirrorToTheOriginalDestination(t *testing.T) {
	b, seen := mirrorBed(t, route.Mirror{Share: route.All})
	meant := b.clusters.Get("mirror").Config().Endpoints.Localities[0].Endpoints[0]
	b.facts.Destination = netip.MustParseAddrPort(fmt.Sprintf("%s:%d", meant.Host, meant.Port))
	if err := b.clusters.Update(&cluster.Config{Name: "mirror", Type: cluster.OriginalDestination}); err != nil {
		t.Fatal(err)
	}
	b.start()
	if resp, _ := b.dial().do("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	if got := get(t, seen); got != "GET /x h-shadow |" {
		t.Errorf("the mirror saw %q", got)
	}
}

// TestMirrorIsAnsweredEarly: a copy reads while it writes too.
func TestMirrorIsAnsweredEarly(t *testing.T) {
	const size = 24 << 20
	over := make(chan struct{})
	b := newBed(t, httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.cluster("mirror", rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if req, err := http.ReadRequest(r); err == nil {
			_, _ = io.CopyN(io.Discard, req.Body, 10<<10)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
			<-over // it reads no more
		}
	}))
	f := b.route().Forward
	f.Mirrors, f.Timeout = []route.Mirror{{Cluster: "mirror", Share: route.All}}, 2*time.Second
	b.route().BufferLimit = ptr(uint64(32 << 20))
	b.start()
	defer close(over)
	c := b.dial()
	c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size) + strings.Repeat("x", size))
	c.answer("POST")
	for end := time.Now().Add(5 * time.Second); b.counted("hauberk_mirrored_requests_total") == "" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := b.counted("hauberk_mirrored_requests_total"); !strings.Contains(got, `"answered"`) {
		t.Error(got)
	}
	b.atRest()
}

// TestMirroredHealthChecksAreRequests: to the mirror's host a copy of a health check that is passed
// on is a request, as behind Envoy, though there is none of a client; a hedged one is the check itself.
func TestMirroredHealthChecksAreRequests(t *testing.T) {
	b, seen := mirrorBed(t, route.Mirror{Share: route.All})
	b.hedged(5 * time.Second)
	b.route().Forward.Timeout = time.Minute
	b.filter("hc", &healthcheck.Config{PassThrough: true, Headers: []route.HeaderMatch{{Name: ":path", Value: &route.StringMatch{Exact: ptr("/healthz")}}}})
	b.start().dial().do("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
	get(t, seen)
	b.eventually("a copy that is answered", func() bool { return b.counted("hauberk_mirrored_requests_total") != "" })
	if got := b.counted("hauberk_upstream_requests_total"); got != `hauberk_upstream_requests_total{cluster="mirror",code_class="2xx"} 1` {
		t.Errorf("counted %q", got)
	}
}
