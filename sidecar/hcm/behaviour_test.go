package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// putOnly lets requests be retried whose method is PUT.
var putOnly = []route.HeaderMatch{{Name: ":method", Value: &route.StringMatch{Exact: ptr("PUT")}}}

const simpleGet = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"

// deadAddr is an address where nothing listens.
func deadAddr(t testing.TB) string {
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

func (b *bed) wantLog(part string) {
	b.t.Helper()
	lines := b.logged(1)
	if last := lines[len(lines)-1]; !strings.Contains(last, part) {
		b.t.Errorf("the access log says\n%s\nand not %q", last, part)
	}
}

func TestLocalReplies(t *testing.T) {
	for _, tc := range []struct {
		name   string
		origin func(t *testing.T) string
		change func(*bed)
		raw    string
		status int
		body   string
		log    string
	}{
		{name: "no healthy host", origin: nil, status: 503, body: "no healthy upstream", log: "503 UH no_healthy_upstream"},
		{name: "connect failure", origin: func(t *testing.T) string { return deadAddr(t) }, status: 503,
			body: "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure", log: "503 UF "},
		{name: "no route", change: func(b *bed) { b.route().Match.Prefix = ptr("/other") }, status: 404, log: "404 NR route_not_found"},
		{name: "no cluster", change: func(b *bed) { b.route().Forward.Cluster = "gone" }, status: 503, log: "503 NC cluster_not_found"},
		{name: "connection closed", origin: func(t *testing.T) string {
			return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r) })
		}, status: 503, body: "upstream connect error or disconnect/reset before headers. reset reason: connection termination", log: "503 UC "},
		{name: "protocol error", origin: func(t *testing.T) string {
			return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _, _ = readRequest(r)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
			})
		}, status: 502, log: "502 UPE "},
		{name: "unasked switch of protocols", origin: func(t *testing.T) string {
			return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _, _ = readRequest(r)
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			})
		}, status: 502, log: "502 UPE "},
		{name: "timeout", origin: func(t *testing.T) string {
			return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r); _, _ = r.ReadByte() })
		}, change: func(b *bed) { b.route().Forward.Timeout = 50 * time.Millisecond }, status: 504, body: "upstream request timeout", log: "504 UT response_timeout"},
		{name: "upgrade", raw: "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", status: 403, log: "403 - upgrade_failed"},
		{name: "connect", raw: "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", status: 404, log: "404 NR route_not_found"},
		{name: "direct response", change: func(b *bed) {
			b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 418, Body: []byte("teapot")}
		}, status: 418, body: "teapot", log: "418 - direct_response"},
		{name: "denied", change: func(b *bed) {
			b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}})
		}, status: 403, body: "RBAC: access denied", log: "403 - rbac_access_denied"},
		{name: "CONNECT is not gRPC", change: func(b *bed) {
			b.route().Match = route.Match{Connect: true}
			b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}})
		}, raw: "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Type: application/grpc\r\n\r\n", status: 403, log: "403 - upgrade_failed"},
		{name: "escaped slash", change: func(b *bed) { b.cfg.EscapedSlashes = RejectEscaped }, raw: "GET /a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n", status: 400, log: "400 - path_normalization_failed"},
		{name: "expectation", raw: "POST / HTTP/1.1\r\nHost: h\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", status: 417, log: "417 DPE bad_expect"},
		{name: "bad request", raw: "GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", status: 400, log: "400 DPE bad_field_name"},
		{name: "too large", raw: "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 62<<10) + "\r\n\r\n", status: 431, log: "431 DPE http1.headers_too_large"},
	} {
		t.Run(tc.name, bubble(func(t *testing.T) {
			var origins []string
			if tc.origin != nil {
				origins = append(origins, tc.origin(t))
			}
			b := newBed(t, origins...)
			if tc.change != nil {
				tc.change(b)
			}
			b.start()
			raw := tc.raw
			if raw == "" {
				raw = simpleGet
			}
			resp, body := b.dial().do(raw)
			if resp.StatusCode != tc.status || body != tc.body && tc.body != "" {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			b.wantLog(tc.log)
		}))
	}
}

// TestConnectionSurvives: an answer of our own keeps the connection when the body is
// whole or small.
func TestConnectionSurvives(t *testing.T) {
	b := newBed(t).start()
	c := b.dial()
	for _, raw := range []string{simpleGet, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", simpleGet} {
		if resp, _ := c.do(raw); resp.StatusCode != 503 || resp.Close {
			t.Fatalf("%d %v", resp.StatusCode, resp.Close)
		}
	}
	// The rest of the body comes after the answer.
	b2 := newBed(t)
	b2.route().Forward.Cluster = "gone"
	b2.start()
	c = b2.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc")
	if resp, _ := c.answer("POST"); resp.StatusCode != 503 || resp.Close {
		t.Fatalf("%d %v", resp.StatusCode, resp.Close)
	}
	c.send("def")
	if resp, _ := c.do(simpleGet); resp.StatusCode != 503 {
		t.Fatal(resp.StatusCode)
	}
}

func TestRetries(t *testing.T) {
	policy := func(on route.RetryOn, n uint32) *route.RetryPolicy {
		return &route.RetryPolicy{On: on, NumRetries: n, BackOffBase: time.Millisecond, StatusCodes: []int{418}}
	}
	for _, tc := range []struct {
		name   string
		policy *route.RetryPolicy
		method string
		body   string
		fails  int // how many requests the origin fails
		how    string
		status int
		seen   int
		log    string
	}{
		{"5xx", policy(route.Retry5xx, 2), "GET", "", 2, "503", 200, 3, "retries=2"},
		{"limit", policy(route.Retry5xx, 1), "GET", "", 5, "503", 503, 2, "503 URX via_upstream"},
		{"body is sent again", policy(route.Retry5xx, 1), "POST", "hello", 1, "500", 200, 2, "retries=1"},
		{"not this status", policy(route.RetryGatewayError, 1), "GET", "", 1, "500", 500, 1, "retries=0"},
		{"gateway error", policy(route.RetryGatewayError, 1), "GET", "", 1, "502", 200, 2, "retries=1"},
		{"retriable 4xx", policy(route.RetryRetriable4xx, 1), "GET", "", 1, "409", 200, 2, "retries=1"},
		{"listed status", policy(route.RetryStatusCodes, 1), "GET", "", 1, "418", 200, 2, "retries=1"},
		{"reset", policy(route.RetryReset, 1), "GET", "", 1, "close", 200, 2, "retries=1"},
		{"reset is not connect failure", policy(route.RetryConnectFailure, 1), "GET", "", 1, "close", 503, 1, "503 UC"},
		{"reset of an idempotent request", policy(route.RetryResetIdempotent, 1), "PUT", "hello", 1, "close", 200, 2, "retries=1"},
		{"reset of a POST", policy(route.RetryResetIdempotent, 1), "POST", "hello", 1, "close", 503, 1, "503 UC"},
		{"no policy", nil, "GET", "", 1, "close", 503, 1, "503 UC"},
		{"request headers: POST", &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, RequestHeaders: putOnly}, "POST", "x", 1, "503", 503, 1, "retries=0"},
		{"request headers: PUT", &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, RequestHeaders: putOnly, BackOffBase: 1}, "PUT", "x", 1, "503", 200, 2, "retries=1"},
		{"attempt timeout", &route.RetryPolicy{On: route.RetryReset, NumRetries: 1, PerTryTimeout: 50 * time.Millisecond, BackOffBase: 1}, "GET", "", 1, "hang", 200, 2, "retries=1"},
	} {
		t.Run(tc.name, bubble(func(t *testing.T) {
			var seen atomic.Int32
			origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				for {
					_, body, err := readRequest(r)
					if err != nil {
						return
					}
					if body != tc.body {
						t.Errorf("body %q", body)
					}
					if int(seen.Add(1)) <= tc.fails {
						switch tc.how {
						case "close":
							return
						case "hang":
							_, _ = r.ReadByte()
							return
						}
						fmt.Fprintf(c, "HTTP/1.1 %s Failed\r\nContent-Length: 3\r\n\r\nbad", tc.how)
						continue
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
			b := newBed(t, origin)
			b.route().Forward.Retry = tc.policy
			b.start()
			raw := fmt.Sprintf("%s / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", tc.method, len(tc.body), tc.body)
			resp, _ := b.dial().do(raw)
			if resp.StatusCode != tc.status || int(seen.Load()) != tc.seen {
				t.Errorf("status %d, origin saw %d", resp.StatusCode, seen.Load())
			}
			b.wantLog(tc.log)
		}))
	}
}

// TestRetryGoesElsewhere: the other host is preferred, for any method when no byte
// was sent.
func TestRetryGoesElsewhere(t *testing.T) {
	good := httpOrigin(t, echo)
	b := newBed(t, deadAddr(t), deadAddr(t), good)
	b.route().Forward.Retry = &route.RetryPolicy{On: route.RetryConnectFailure, NumRetries: 2, BackOffBase: 1}
	b.start()
	c := b.dial()
	for range 12 {
		if resp, body := c.do("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"); resp.StatusCode != 200 || body != "POST|2|hi" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
	}
}

// TestStaleConnection: a pooled connection that dies under a request is no failure
// of an idempotent request, and a POST is never sent twice.
func TestStaleConnection(t *testing.T) {
	for _, tc := range []struct {
		method string
		status int
		seen   int32
		log    string // which tells of the attempt that no policy asked for, and was sent
	}{{"GET", 200, 3, "2 0"}, {"POST", 503, 2, "1 0"}} {
		var seen atomic.Int32
		origin := rawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
			for i := 0; ; i++ {
				if _, _, err := readRequest(r); err != nil {
					return
				}
				seen.Add(1)
				if n == 0 && i == 1 {
					return // takes the second request and closes
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		b := newBed(t, origin)
		b.cfg.AccessLog[0].Format = "%UPSTREAM_REQUEST_ATTEMPT_COUNT% %HAUBERK_RETRIES%\n"
		c := b.start().dial()
		c.do(simpleGet)
		resp, _ := c.do(tc.method + " / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		if resp.StatusCode != tc.status || seen.Load() != tc.seen {
			t.Errorf("%s: status %d, origin saw %d", tc.method, resp.StatusCode, seen.Load())
		}
		if line := b.logged(2)[1]; line != tc.log {
			t.Errorf("%s: log %q, want %q", tc.method, line, tc.log)
		}
	}
}

// TestUpstreamCloses: an upstream that closes after each response, with or without
// saying so, costs no request.
func TestUpstreamCloses(t *testing.T) {
	for _, head := range []string{"", "Connection: close\r\n"} {
		left := make(chan error, 1)
		origin := rawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
			if _, _, err := readRequest(r); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"Content-Length: 2\r\n\r\nok")
				left <- leave(c.(*net.TCPConn))
			}
		})
		b := newBed(t, origin).start()
		c := b.dial()
		for range 20 {
			if resp, body := c.do("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"); resp.StatusCode != 200 || body != "ok" {
				t.Fatalf("%d %q", resp.StatusCode, body)
			}
			if err := <-left; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// leave sends a FIN and returns when the peer's kernel has acknowledged it.
func leave(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	for {
		var info *unix.TCPInfo
		var failed error
		if err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		switch info.State {
		case unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_CLOSING:
			runtime.Gosched()
		default:
			return nil
		}
	}
}

// TestUnsolicitedResponse: bytes beyond a response never become another's answer.
func TestUnsolicitedResponse(t *testing.T) {
	origin := rawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		}
	})
	answered, wrote := make(chan bool), make(chan bool)
	late := rawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			<-answered
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			wrote <- true
		}
	})
	for _, o := range []string{origin, late} {
		b := newBed(t, o).start()
		c := b.dial()
		for range 5 {
			if _, body := c.do(simpleGet); body != "ok" {
				t.Fatalf("%q", body)
			}
			if o == late {
				answered <- true
				<-wrote
			}
		}
	}
}

func TestExpectContinue(t *testing.T) {
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403) // without reading
			return
		}
		echo(w, r)
	})).start()
	c := b.dial()
	c.send("POST /yes HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if line, _ := c.r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q", line)
	}
	_, _ = c.r.ReadString('\n')
	c.send("hello")
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "POST|5|hello" {
		t.Fatalf("%d %q", resp.StatusCode, body)
	}
	// The client does not wait.
	if _, body := c.do("POST /yes HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"); body != "POST|5|hello" {
		t.Fatalf("%q", body)
	}
	// A final answer comes first: the connection cannot go on.
	resp, _ := c.do("POST /no HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if resp.StatusCode != 403 || !resp.Close {
		t.Fatalf("%d close=%v", resp.StatusCode, resp.Close)
	}
	c.closed()
}

// TestEarlyHints: interim responses are for the client too (RFC 9110 15.2), but where we
// told it to go on ourselves the host's 100 is no news, and HTTP/1.0 knows none.
func TestEarlyHints(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	for _, tc := range []struct {
		name, send string
		passes     bool
		want       []string
	}{
		{"passed on", simpleGet, true, []string{"100", "103", "200"}},
		{"told by us", simpleGet, false, []string{"103", "200"}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\n\r\n", true, []string{"200"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, origin)
			b.cfg.ProxyContinue, b.cfg.AcceptHTTP10 = tc.passes, true
			c := b.start().dial()
			c.send(tc.send)
			for _, want := range tc.want {
				line, err := c.r.ReadString('\n')
				if !strings.HasPrefix(line, "HTTP/1.1 "+want) {
					t.Fatalf("%q, %v; want %s", line, err, want)
				}
				for line != "\r\n" {
					line, _ = c.r.ReadString('\n')
				}
			}
			if body, _ := c.r.Peek(2); string(body) != "ok" {
				t.Fatalf("%q", body)
			}
		})
	}
}

// TestEarlyResponse: an answer while the body is still coming is relayed at once.
func TestEarlyResponse(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, r)
	})
	b := newBed(t, origin).start()
	c := b.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	if resp, body := c.answer("POST"); resp.StatusCode != 413 || body != "big" || !resp.Close {
		t.Fatalf("%d %q %v", resp.StatusCode, body, resp.Close)
	}
	c.closed()
}

// TestBidirectional: response bytes flow while the request's still do.
func TestBidirectional(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		buf := make([]byte, 64)
		for {
			n, err := req.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(c, "%x\r\n%s\r\n", n, buf[:n])
			}
			if err != nil {
				_, _ = io.WriteString(c, "0\r\n\r\n")
				return
			}
		}
	})
	b := newBed(t, origin).start()
	c := b.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	for _, word := range []string{"ping", "pong", "done"} {
		c.send("4\r\n" + word + "\r\n")
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != word {
			t.Fatalf("%q %v", buf, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Fatalf("%q %v", rest, err)
	}
}

func TestResponseBodies(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 64<<10) // 1 MB
	for _, tc := range []struct{ name, raw, want string }{
		{"until close", "HTTP/1.1 200 OK\r\n\r\n" + big, big},
		{"length", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big), big},
		{"chunked", fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(big), big), big},
		{"extensions are dropped", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;evil=1\r\nok\r\n0\r\n\r\n", "ok"},
		{"old server", "HTTP/1.0 200 OK\r\n\r\nold", "old"},
		{"empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _, _ = readRequest(r)
				_, _ = io.WriteString(c, tc.raw)
			})).start()
			c := b.dial()
			for range 2 {
				if resp, body := c.do(simpleGet); resp.StatusCode != 200 || body != tc.want {
					t.Fatalf("%d, %d bytes", resp.StatusCode, len(body))
				}
			}
		})
	}
}

// TestTruncatedBody: a body that the upstream cut is cut for the client too.
func TestTruncatedBody(t *testing.T) {
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n|zz\r\n",
	} {
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			for part := range strings.SplitSeq(raw, "|") {
				_, _ = io.WriteString(c, part)
				time.Sleep(20 * time.Millisecond)
			}
		})).start()
		c := b.dial()
		c.send(simpleGet)
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q: the client took it for whole", raw)
		}
		lines := b.logged(1)
		if !strings.Contains(lines[0], "200 UC ") && !strings.Contains(lines[0], "200 UPE ") {
			t.Error(lines[0])
		}
	}
}

// TestBrokenBodyAtOnce: a body that is broken where nothing of the response was
// sent yet is a 502 and not a riddle.
func TestBrokenBodyAtOnce(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
	})).start()
	if resp, _ := b.dial().do(simpleGet); resp.StatusCode != 502 {
		t.Error(resp.StatusCode)
	}
	b.wantLog("502 UPE ")
}

func TestTrailers(t *testing.T) {
	seen := make(chan http.Header, 1)
	b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		seen <- r.Trailer
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "42")
	})).start()
	c := b.dial()
	resp, body := c.do("POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: X-Req\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Req: 7\r\nAuthorization: no\r\n\r\n")
	if body != "body" || resp.Trailer.Get("X-Sum") != "42" {
		t.Errorf("%q %v", body, resp.Trailer)
	}
	if h := <-seen; h.Get("Authorization") != "" {
		t.Errorf("trailers upstream: %v", h)
	}
	resp, _ = c.do("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	if <-seen; len(resp.Trailer) != 0 {
		t.Errorf("trailers nobody asked for: %v", resp.Trailer)
	}
}
