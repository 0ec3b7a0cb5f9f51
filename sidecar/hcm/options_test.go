package hcm

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// http2Dial is an HTTP/2 client connection of our own to the bed.
func (b *bed) http2Dial() *http2.ClientConn {
	b.t.Helper()
	s, err := stream.NewSocket(b.connect(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	cc := http2.NewClient(s, nil)
	done := make(chan struct{})
	go func() { _ = cc.Run(); close(done) }()
	b.t.Cleanup(func() { cc.Close(); <-done })
	return cc
}

func (b *bed) get(cc *http2.ClientConn) error {
	s, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/x"}, true)
	if err != nil {
		return err
	}
	defer s.Close()
	var head message.Response
	if _, err = s.ReadHead(&head); err == nil && head.Status != 200 {
		err = fmt.Errorf("status %d", head.Status)
	}
	return err
}

func plain(b *bed) *bed {
	b.route().Forward, b.route().Direct = nil, &route.DirectResponse{Status: 200, Body: []byte("ok")}
	return b
}

// TestMaxRequests: a connection ends with its last request, and loses none.
func TestMaxRequests(t *testing.T) {
	b := plain(newBed(t))
	b.cfg.MaxRequests = 2
	b.start()
	c := b.dial()
	if resp, _ := c.do(simpleGet); resp.Close {
		t.Error("closed after the first")
	}
	if resp, _ := c.do(simpleGet); !resp.Close {
		t.Error("open after the second")
	}
	c.closed()
	cc := b.http2Dial()
	n := 0
	for ; n < 100; n++ {
		if err := b.get(cc); err != nil {
			if !errors.Is(err, http2.ErrRefused) {
				t.Error(err)
			}
			break
		}
	}
	if n < 2 || n > 5 {
		t.Errorf("%d requests on one connection", n)
	}
}

// TestMaxConnectionDuration: a connection that is too old says so at its next answer,
// and ends without one when the drain time is over too.
func TestMaxConnectionDuration(t *testing.T) {
	aged := func(age time.Duration) *bed {
		b := plain(newBed(t))
		b.cfg.MaxConnectionDuration, b.cfg.DrainTimeout, b.age = time.Hour, time.Hour, age
		return b.start()
	}
	for _, tc := range []struct {
		age time.Duration
		old bool
	}{{0, false}, {61 * time.Minute, true}} {
		b := aged(tc.age)
		c := b.dial()
		if resp, _ := c.do(simpleGet); resp.StatusCode != 200 || resp.Close != tc.old {
			t.Errorf("after %v: status %d, the last one: %v", tc.age, resp.StatusCode, resp.Close)
		}
		if tc.old {
			c.closed()
		} else if resp, _ := c.do(simpleGet); resp.StatusCode != 200 {
			t.Errorf("after %v: the second request got %d", tc.age, resp.StatusCode)
		}
		cc := b.http2Dial()
		if tc.old {
			// It is told as soon as it is looked at; what it sent before that is answered.
			for {
				err := b.get(cc)
				if errors.Is(err, http2.ErrRefused) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		for range 3 {
			if err := b.get(cc); err != nil {
				t.Errorf("after %v, by HTTP/2: %v", tc.age, err)
			}
		}
	}
	// The moment comes while the connection waits.
	aged(2*time.Hour - 50*time.Millisecond).dial().closed()
	b := aged(time.Hour - 50*time.Millisecond)
	cc := b.http2Dial()
	for cc.Usable() {
		runtime.Gosched()
	}
}

// TestSafeMaxDuration: an idle connection stays, and says at its next answer that it
// was the last.
func TestSafeMaxDuration(t *testing.T) {
	b := plain(newBed(t))
	b.cfg.MaxConnectionDuration, b.cfg.SafeMaxDuration, b.cfg.DrainTimeout = 20*time.Millisecond, true, 1
	b.start()
	c := b.dial()
	time.Sleep(150 * time.Millisecond)
	if resp, _ := c.do(simpleGet); resp.StatusCode != 200 || !resp.Close {
		t.Error(resp.StatusCode, resp.Close)
	}
	c.closed()
}

// TestDelayedClose: how long a client that does not close holds a connection that has
// ended.
func TestDelayedClose(t *testing.T) {
	bubble(func(t *testing.T) {
		for _, d := range []time.Duration{0, 300 * time.Millisecond} {
			b := plain(newBed(t))
			b.cfg.DelayedClose = &d
			b.start()
			c := b.dial()
			c.send("GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n")
			if resp, _ := c.answer("GET"); resp.StatusCode != 400 {
				t.Error(resp.StatusCode)
			}
			begin := time.Now()
			for range 500 { // until the other side has gone altogether
				if _, err := io.WriteString(c.Conn, "x"); err != nil {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if took := time.Since(begin); took < d-50*time.Millisecond || took > d+time.Second {
				t.Errorf("%v: %v", d, took)
			}
		}
	})(t)
}

// TestFlushTimeout: a client that does not take the end of its response is not waited
// for as long as a stream may be idle.
func TestFlushTimeout(t *testing.T) {
	bubble(func(t *testing.T) {
		big := make([]byte, 32<<20)
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			_, _ = w.Write(big)
		}))
		b.route().Forward.Timeout = 0
		b.cfg.FlushTimeout, b.cfg.StreamIdleTimeout = ptr(50*time.Millisecond), 500*time.Millisecond
		b.start()
		c := b.dial()
		c.send(simpleGet)
		b.wantLog("SI stream_idle_timeout")
	})(t)
}

func TestHTTP1Options(t *testing.T) {
	b := newBed(t, httpOrigin(t, told))
	b.cfg.HTTP1 = HTTP1{AcceptHTTP10: true, DefaultHost: "old.example", ProperCase: true}
	b.cfg.IgnoreUpgrade = []route.StringMatch{{Prefix: ptr("noise")}}
	b.cfg.ProxyContinue = false
	b.start()
	c := b.dial()
	c.send("GET / HTTP/1.0\r\n\r\n")
	raw, _ := io.ReadAll(c.r)
	if s := string(raw); !strings.HasPrefix(s, "HTTP/1.1 200 OK\r\n") || !strings.Contains(s, "host: old.example") || !strings.Contains(s, "X-Envoy-Upstream-Service-Time: ") {
		t.Errorf("%s", s)
	}
	c = b.dial()
	if resp, _ := c.do("FETCH / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 400 {
		t.Error(resp.StatusCode)
	}
	c = b.dial()
	if resp, body := c.do("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: noise/1\r\n\r\n"); resp.StatusCode != 200 || strings.Contains(body, "upgrade") {
		t.Error(resp.StatusCode, body)
	}
	if resp, _ := c.do("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n"); resp.StatusCode != 403 {
		t.Error(resp.StatusCode)
	}
	c.closed()
	c = b.dial()
	// The manager answers 100 itself, and the upstream hears nothing of it.
	c.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 100 {
		t.Fatal(resp.StatusCode)
	}
	if resp, body := c.do("hi"); resp.StatusCode != 200 || strings.Contains(body, "expect:") {
		t.Error(resp.StatusCode, body)
	}
}

// TestTrailersAreDropped: as Envoy does over HTTP/1 unless it is told otherwise, and
// never over HTTP/2.
func TestTrailersAreDropped(t *testing.T) {
	for _, tc := range []struct {
		listener, cluster bool
		down, up          int
		request, response bool // trailers arrive
	}{
		{false, false, 1, 1, false, false},
		{true, false, 1, 1, false, false},
		{false, true, 1, 1, false, false},
		{true, true, 1, 1, true, true},
		{true, false, 1, 2, true, true},
		{false, true, 2, 1, true, true},
		{false, false, 2, 2, true, true},
	} {
		b := versionedBed(t, tc.down, tc.up, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if got := r.Trailer.Get("X-End"); (got == "yes") != tc.request {
				t.Errorf("%+v: the request's trailer is %q", tc, got)
			}
			w.Header().Set("Trailer", "X-Done")
			_, _ = io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Done", "yes")
		})
		b.cfg.EnableTrailers = tc.listener
		cfg := *b.clusters.Get("origin").Config()
		cfg.HTTP.HTTP1.EnableTrailers = tc.cluster
		if err := b.clusters.Update(&cfg); err != nil {
			t.Fatal(err)
		}
		b.start()
		req, _ := http.NewRequest("POST", "http://"+b.addr+"/", io.MultiReader(strings.NewReader("x"), strings.NewReader("y")))
		req.Trailer = http.Header{"X-End": {"yes"}}
		req.Header.Set("TE", "trailers")
		resp, err := b.httpClient(tc.down).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if got := resp.Trailer.Get("X-Done"); (got == "yes") != tc.response {
			t.Errorf("%+v: the response's trailer is %q", tc, got)
		}
	}
}

func TestUpstreamHTTP1Options(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		line, _ := r.ReadString('\n')
		var names []string
		for {
			field, err := r.ReadString('\n')
			if name, _, ok := strings.Cut(field, ":"); ok {
				names = append(names, name)
			}
			if err != nil || field == "\r\n" {
				break
			}
		}
		text := strings.TrimSpace(line) + " " + strings.Join(names, ",")
		_, _ = fmt.Fprintf(c, "HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	})
	b := newBed(t, origin)
	cfg := *b.clusters.Get("origin").Config()
	cfg.HTTP.HTTP1.FullURL, cfg.HTTP.HTTP1.ProperCase = true, true
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.start()
	if _, body := b.dial().do("GET /p?q HTTP/1.1\r\nhost: h.example\r\nx-one-2two: a\r\n\r\n"); !strings.HasPrefix(body, "GET http://h.example/p?q HTTP/1.1 Host,X-One-2two,X-Forwarded-Proto") {
		t.Error(body)
	}
	if _, body := b.dial().do("GET /p HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); !strings.HasPrefix(body, "GET http://h.example/p HTTP/1.1 Host,") {
		t.Error(body)
	}
}

func TestLocalReplyRules(t *testing.T) {
	bothVersions(t, func(t *testing.T, version int) {
		b := newBed(t)
		b.cfg.LocalReplies = &LocalReplies{
			Mappers: []ReplyMapper{
				{Filter: route.HeaderFilter{Match: route.HeaderMatch{Name: "x-json", Present: ptr(true)}},
					Format: &telemetry.BodyFormat{Format: telemetry.AccessLogConfig{JSON: true, Fields: map[string]any{"code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%"}}}},
				{Filter: telemetry.All{telemetry.StatusFilter{Op: telemetry.Equal, Value: 503}, telemetry.FlagsFilter{Flags: telemetry.FlagNoHealthyUpstream}},
					Status: 502, Body: ptr("nobody \"there\""), Add: []route.HeaderAdd{{Name: "x-why", Value: "%RESPONSE_FLAGS%", Action: route.OverwriteIfExistsOrAdd}}},
			},
			Body: &telemetry.BodyFormat{Format: telemetry.AccessLogConfig{Format: "%LOCAL_REPLY_BODY% (%RESPONSE_CODE%) %REQ(:PATH)%\n"}, ContentType: "text/x"},
		}
		b.start()
		resp, body := b.ask(version)
		if resp.StatusCode != 502 || body != "nobody \"there\" (502) /x\n" || resp.Header.Get("X-Why") != "UH" || resp.Header.Get("Content-Type") != "text/x" || resp.ContentLength != int64(len(body)) {
			t.Error(resp.StatusCode, resp.Header, body)
		}
		b.wantLog("502 UH no_healthy_upstream")
		resp, body = b.ask(version, "X-Json: 1")
		if resp.StatusCode != 503 || body != `{"code":503,"text":"no healthy upstream"}`+"\n" || resp.Header.Get("Content-Type") != "application/json" {
			t.Error(resp.StatusCode, resp.Header, body)
		}
		resp, body = b.ask(version, "Content-Type: application/grpc")
		if resp.StatusCode != 200 || body != "" || resp.Header.Get("Grpc-Status") != "14" || resp.Header.Get("Grpc-Message") != "nobody \"there\" (502) /x%0A" {
			t.Error(resp.StatusCode, resp.Header, body)
		}
		resp, _ = b.ask(version, "Content-Type: application/grpc", "X-Json: 1")
		if resp.Header.Get("Grpc-Message") != `{"code":503,"text":"no healthy upstream"}` {
			t.Error(resp.Header)
		}
	})
}

// TestLogOccasions: a request is logged when it begins and when its tunnel stands, too,
// and filters choose.
func TestLogOccasions(t *testing.T) {
	b := newBed(t, upperOrigin(t))
	b.cfg.LogOptions = LogOptions{LogStart: true, LogTunnels: true, LogInterval: 50 * time.Millisecond}
	b.cfg.AccessLog = []telemetry.AccessLogConfig{{Path: b.logPath, Format: "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %BYTES_RECEIVED% %UPSTREAM_CLUSTER%\n",
		Filter: telemetry.TypeFilter{Types: 1 << telemetry.LogEnd, Exclude: true}}}
	b.route().Match = route.Match{Connect: true}
	b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}}
	b.start()
	c := b.dial()
	c.send("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	c.send("abc")
	lines := b.logged(4)
	if lines[0] != "DownstreamStart 0 0 origin" || lines[1] != "DownstreamTunnelSuccessfullyEstablished 200 0 origin" || lines[2] != "DownstreamPeriodic 200 3 origin" || lines[3] != lines[2] {
		t.Errorf("%q", lines)
	}
	_ = c.Close()
}

// upperOrigin answers bytes with their capitals.
func upperOrigin(t testing.TB) string {
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			b, err := r.ReadByte()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(strings.ToUpper(string(b))))
		}
	})
}

// TestConnectEndsHere: what follows a CONNECT is the host's as it is, both ways, and each
// side's end is passed on.
func TestConnectEndsHere(t *testing.T) {
	setUp := func() *bed {
		b := newBed(t, upperOrigin(t))
		b.route().Match = route.Match{Connect: true}
		b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}}
		b.cfg.HTTP2 = http2.Default()
		b.cfg.StripPort = StripAnyPort
		return b.start()
	}
	b := setUp()
	c := b.dial()
	c.send("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nearly") // before the answer
	if resp, err := http.ReadResponse(c.r, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	c.send(" late")
	buf := make([]byte, 10)
	if _, err := io.ReadFull(c.r, buf); err != nil || string(buf) != "EARLY LATE" {
		t.Fatalf("%q %v", buf, err)
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.closed()
	b.wantLog("CONNECT - 200 - via_upstream")

	b = setUp()
	cc := b.http2Dial()
	s, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "h:1", ContentLength: message.UnknownLength}, false)
	if err != nil {
		t.Fatal(err)
	}
	var head message.Response
	if _, err := s.ReadHead(&head); err != nil || head.Status != 200 {
		t.Fatal(head.Status, err)
	}
	tunnel := http2.NewTunnel(s, nil)
	_, _ = io.WriteString(tunnel, "hello")
	if _, err := io.ReadFull(tunnel, buf[:5]); err != nil || string(buf[:5]) != "HELLO" {
		t.Fatalf("%q %v", buf, err)
	}
	_ = tunnel.CloseWrite()
	if _, err := tunnel.Read(buf); err != io.EOF {
		t.Error(err)
	}
	_ = tunnel.Close()

	b = newBed(t, deadAddr(t))
	b.route().Match = route.Match{Connect: true}
	b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}}
	b.start()
	if resp, _ := b.dial().do("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"); resp.StatusCode != 503 {
		t.Error(resp.StatusCode)
	}
	b.wantLog("503 UF ")
}

// TestResetCodeIsPassedOn: a client of HTTP/2 learns why the host reset its stream.
func TestResetCodeIsPassedOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		s, _ := stream.NewSocket(nc.(*net.TCPConn), nil)
		_ = http2.NewServer(s, nil, resetter{}).Serve(t.Context())
	}()
	b := newBed(t, l.Addr().String())
	b.http2Cluster()
	b.start()
	t.Cleanup(func() { _ = l.Close(); _ = b.clusters.Close(); <-done })
	cc := b.http2Dial()
	s, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/x"}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var head message.Response
	if _, err = s.ReadHead(&head); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = s.Next()
	}
	var se *http2.StreamError
	if !errors.As(err, &se) || se.Code != http2.EnhanceYourCalm {
		t.Error(err)
	}
	b.wantLog("200 UR upstream_reset_after_response_started{remote_reset}")
}

type resetter struct{}

func (resetter) ServeStream(s *http2.Stream) {
	_ = s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false)
	_ = s.WriteData([]byte("half"), false)
	_ = s.Flush()
	time.Sleep(50 * time.Millisecond)
	s.Reset(http2.EnhanceYourCalm)
}

// TestPeerChainIsKept: over a real handshake, when it is asked for and only then.
func TestPeerChainIsKept(t *testing.T) {
	origin := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Client-Cert"))
	})
	for _, subject := range []bool{false, true} {
		b := newBed(t, origin)
		b.tls = &tls.Config{Certificates: []tls.Certificate{certificate(t, apiID)}, ClientAuth: tls.RequireAnyClientCert}
		b.cfg.ForwardClientCert, b.cfg.ClientCert = SanitizeSet, ClientCert{Subject: subject, URI: true}
		b.start()
		nc, err := tls.Dial("tcp", b.addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate(t, webID)}})
		if err != nil {
			t.Fatal(err)
		}
		c := &testClient{t, nc, bufio.NewReader(nc)}
		if _, body := c.do(simpleGet); strings.Contains(body, "Subject=") != subject || !strings.HasSuffix(body, ";URI="+webID) {
			t.Error(body)
		}
		_ = nc.Close()
	}
}

// TestOldConnectionsLeave: after an update of the listener took a cluster away, the
// connections that would use it end; before, they only answer.
func TestOldConnectionsLeave(t *testing.T) {
	b := newBed(t)
	b.route().Forward.Cluster = "gone"
	b.start()
	c := b.dial()
	if resp, _ := c.do(simpleGet); resp.StatusCode != 503 || resp.Close {
		t.Error(resp.StatusCode, resp.Close)
	}
	cc := b.http2Dial()
	_ = b.get(cc)
	b.mu.Lock()
	for _, d := range b.conns {
		d.Supersede()
	}
	b.mu.Unlock()
	if resp, _ := c.do(simpleGet); resp.StatusCode != 503 || !resp.Close {
		t.Error(resp.StatusCode, resp.Close)
	}
	c.closed()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if err = b.get(cc); errors.Is(err, http2.ErrRefused) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error(err)
}
