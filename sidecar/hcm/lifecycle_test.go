package hcm

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestClientLeaves: an exchange whose client has gone is given up.
func TestClientLeaves(t *testing.T) {
	came, gone := make(chan struct{}), make(chan struct{})
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		close(came)
		_, _ = r.ReadByte() // until we close
		close(gone)
	})).start()
	c := b.dial()
	c.send(simpleGet)
	<-came
	_ = c.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream connection is still open")
	}
	b.wantLog(" 0 DC downstream_remote_disconnect")
}

func TestTimeouts(t *testing.T) {
	t.Run("idle connection", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.cfg.IdleTimeout = 100 * time.Millisecond
		b.start()
		c := b.dial()
		c.do(simpleGet)
		c.closed()
	}))
	t.Run("headers", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.cfg.RequestHeadersTimeout = 100 * time.Millisecond
		b.start()
		c := b.dial()
		c.send("GET / HTTP/1.1\r\nHo")
		if resp, _ := c.answer("GET"); resp.StatusCode != 408 {
			t.Fatal(resp.StatusCode)
		}
		c.closed()
	}))
	t.Run("request", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo))
		b.cfg.RequestTimeout = 100 * time.Millisecond
		b.start()
		c := b.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
		if resp, _ := c.answer("POST"); resp.StatusCode != 408 {
			t.Fatal(resp.StatusCode)
		}
		c.closed()
	}))
	t.Run("stream idle", bubble(func(t *testing.T) {
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r); _, _ = r.ReadByte() }))
		b.route().Forward.Timeout = 0
		b.cfg.StreamIdleTimeout = 100 * time.Millisecond
		b.start()
		if resp, body := b.dial().do(simpleGet); resp.StatusCode != 504 || body != "stream timeout" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
		b.wantLog("504 SI stream_idle_timeout")
	}))
	t.Run("in the body", bubble(func(t *testing.T) {
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
			_, _ = r.ReadByte()
		}))
		b.route().Forward.Timeout = 100 * time.Millisecond
		b.start()
		c := b.dial()
		c.send(simpleGet)
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the client took the body for whole")
		}
		b.wantLog("200 UT response_timeout")
	}))
	t.Run("client that does not read", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 1<<20)
			for range 64 {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		}))
		b.route().Forward.Timeout = 0
		b.cfg.StreamIdleTimeout = 200 * time.Millisecond
		b.start()
		b.dial().send(simpleGet)
		b.wantLog("200 SI stream_idle_timeout")
	}))
	t.Run("client that does not read whole answers", bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 8<<10)) }))
		b.cfg.StreamIdleTimeout = 200 * time.Millisecond
		b.start()
		b.dial().send(strings.Repeat(simpleGet, 4000))
		for lines := b.logged(1); !strings.Contains(lines[len(lines)-1], "200 SI stream_idle_timeout"); {
			lines = b.logged(len(lines) + 1)
		}
	}))
}

func TestDrain(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-release
		}
		echo(w, r)
	})).start()
	idle, busy := b.dial(), b.dial()
	idle.do(simpleGet)
	busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-started
	b.mu.Lock()
	for _, d := range b.conns {
		d.StartDrain()
	}
	b.mu.Unlock()
	// A request on its way is still answered.
	if resp, _ := idle.do(simpleGet); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Close)
	}
	idle.closed()
	close(release)
	if resp, _ := busy.answer("GET"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Close)
	}
	busy.closed()
}

func TestDrainEndsIdle(t *testing.T) {
	bubble(func(t *testing.T) {
		b := newBed(t, httpOrigin(t, echo)).start()
		c := b.dial()
		c.do(simpleGet)
		b.mu.Lock()
		b.conns[0].StartDrain()
		b.mu.Unlock()
		c.closed()
	})(t)
}

func TestHeaders(t *testing.T) {
	var head string
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			h, _, err := readRequest(r)
			if err != nil {
				return
			}
			head = h
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nServer: origin\r\nX-Drop: 1\r\nContent-Length: 0\r\n\r\n")
		}
	}))
	b.cfg.UseRemoteAddress, b.cfg.GenerateRequestID, b.cfg.ServerName = true, true, "hauberk"
	b.cfg.NormalizePath, b.cfg.MergeSlashes = true, true
	r := b.route()
	r.Match.Prefix = ptr("/api/")
	r.Forward.Rewrite = &route.Rewrite{Prefix: "/v2/", Host: "origin.internal"}
	r.Headers = &route.HeaderMutations{
		RequestAdd: []route.HeaderAdd{
			{Name: "X-Client", Value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
			{Name: "X-Over", Value: "new", Action: route.OverwriteIfExistsOrAdd},
			{Name: "X-Absent", Value: "new", Action: route.AddIfAbsent},
		},
		RequestRemove:  []string{"x-secret"},
		ResponseAdd:    []route.HeaderAdd{{Name: "X-Code", Value: "c%RESPONSE_CODE%"}},
		ResponseRemove: []string{"x-drop"},
	}
	b.start()
	c := b.dial()
	resp, _ := c.do("GET /a/../api//users?q=1 HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.1\r\nX-Secret: s\r\nX-Over: old\r\nX-Absent: old\r\nX-Forwarded-Client-Cert: forged\r\nx-envoy-internal: true\r\nX-Request-Id: forged\r\n\r\n")
	if resp.Header.Get("X-Code") != "c200" || resp.Header.Get("X-Drop") != "" || resp.Header.Get("Server") != "hauberk" || resp.Header.Get("Date") == "" {
		t.Errorf("%v", resp.Header)
	}
	for _, want := range []string{
		"GET /v2/users?q=1 host=origin.internal", "X-Forwarded-For: 10.0.0.1,127.0.0.1\r\n", "X-Client: 127.0.0.1\r\n",
		"X-Over: new\r\n", "X-Absent: old\r\n", "X-Envoy-Original-Path: /api/users?q=1\r\n", "X-Forwarded-Proto: http\r\n", "X-Request-Id: ",
	} {
		if !strings.Contains(head, want) {
			t.Errorf("%q is not in\n%s", want, head)
		}
	}
	for _, not := range []string{"forged", "X-Secret", "X-Envoy-Internal"} {
		if strings.Contains(head, not) {
			t.Errorf("%q is in\n%s", not, head)
		}
	}
}

// TestPathsAndRules: authorization sees what is forwarded, however it is written.
func TestPathsAndRules(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	b.cfg.NormalizePath, b.cfg.MergeSlashes, b.cfg.EscapedSlashes = true, true, RejectEscaped
	b.cfg.KeepAfterBadRequest = true
	b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
		Name: "no admin", Permissions: []authz.Permission{{URLPath: &route.StringMatch{Prefix: ptr("/admin")}}}, Principals: []authz.Principal{{Any: true}},
	}}}})
	b.start()
	c := b.dial()
	for path, status := range map[string]int{
		"/ok": 200, "/admin": 403, "/x/../admin": 403, "//admin": 403, "/./admin": 403, "/%61dmin": 403, "/x/%2e%2e/admin": 403,
		"/x/..\\admin": 403, "/\\admin": 403, "/x%2f..%2fadmin": 400, "/x%5c..%5cadmin": 400, "/%00": 400, "/%%32e%%32e/admin": 400, "/..//admin/": 403,
		"/%2e/admin": 403, "/a/b/../../admin?x": 403, "/public?x=/admin": 200, "/%41dmin": 200, "/adm%69n": 403,
	} {
		if resp, _ := c.do("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, status)
		}
	}
	b.wantLog("rule=")
}

func TestSplit(t *testing.T) {
	b := newBed(t)
	b.cluster("one", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "one") }))
	b.cluster("two", httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "two") }))
	b.route().Forward = &route.Forward{Weighted: []route.WeightedCluster{{Cluster: "one", Weight: 90}, {Cluster: "two", Weight: 10}}}
	b.start()
	c := b.dial()
	got := map[string]int{}
	for range 1000 {
		_, body := c.do(simpleGet)
		got[body]++
	}
	if got["two"] < 60 || got["two"] > 150 || got["one"]+got["two"] != 1000 {
		t.Errorf("%v", got)
	}
}

// TestDrainingHost: when a host is marked draining, exchanges in flight finish, its
// idle connections close and nothing new reaches it.
func TestDrainingHost(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	old := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-release
		}
		_, _ = io.WriteString(w, "old")
	})
	fresh := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "new") })
	b := newBed(t, old).start()
	slow, c := b.dial(), b.dial()
	slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-started
	c.do(simpleGet)
	a := endpoints("origin", old, fresh)
	a.Localities[0].Endpoints[0].Health = cluster.Draining
	zero := 0.0
	if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: a, PanicThreshold: &zero}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, body := c.do(simpleGet); body != "new" {
			t.Fatal(body)
		}
	}
	stats := b.clusters.Get("origin").Stats()
	if stats[0].Idle != 0 || stats[0].Connections != 1 {
		t.Errorf("%+v", stats[0])
	}
	close(release)
	if _, body := slow.answer("GET"); body != "old" {
		t.Error(body)
	}
	if stats := b.clusters.Get("origin").Stats(); stats[0].Connections != 0 {
		t.Errorf("%+v", stats[0])
	}
}

func TestHTTP10Client(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
		}
	}))
	b.cfg.AcceptHTTP10 = true
	b.start()
	c := b.dial()
	c.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n")
	all, _ := io.ReadAll(c.r)
	if s := string(all); !strings.HasSuffix(s, "\r\n\r\nok") || strings.Contains(s, "chunked") || strings.Contains(s, "103") {
		t.Errorf("%q", s)
	}
}

// TestTimesAfterAFullBuffer: over TLS too the client's times run, whatever the last read
// was: one that fills its buffer may have left some of its record, or nothing.
func TestTimesAfterAFullBuffer(t *testing.T) {
	const start = "GET / HTTP/1.1\r\nHost: h\r\nX-Long: "
	for _, tc := range []struct {
		name, sent, rest string
		status           int
	}{
		{"within a head", start + strings.Repeat("x", 8*firstBuffer-len(start)), "", 408},
		{"after a body that is dropped", "POST /a%2Fb HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", "hello", 400},
	} {
		t.Run(tc.name, bubble(func(t *testing.T) {
			b := newBed(t)
			b.tls = &tls.Config{Certificates: []tls.Certificate{certificate(t, apiID)}}
			b.cfg.EscapedSlashes = RejectEscaped
			b.cfg.RequestHeadersTimeout, b.cfg.IdleTimeout = 100*time.Millisecond, 200*time.Millisecond
			b.start()
			nc := tls.Client(b.dial().Conn, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
			c := &testClient{t, nc, bufio.NewReader(nc)}
			if resp, _ := c.do(tc.sent); resp.StatusCode != tc.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.status)
			}
			c.send(tc.rest)
			c.closed()
		}))
	}
}
