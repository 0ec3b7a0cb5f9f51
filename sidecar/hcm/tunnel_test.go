package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// upgradeOrigin switches to an echo that shouts, and says goodbye at the end of what
// it was sent.
func upgradeOrigin(t testing.TB) string {
	return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		switch {
		case req.Method == "CONNECT":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello ")
		case req.Header.Get("Upgrade") == "websocket" && req.Header.Get("Connection") == "Upgrade" && req.URL.Path == "/ws":
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello ")
		case req.URL.Path == "/other":
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n")
		case req.URL.Path == "/folds":
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: web\u017focket\r\nConnection: upgrade\r\n\r\n")
			return
		default:
			_, _ = io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		buf := make([]byte, 64)
		for {
			n, err := r.Read(buf)
			_, _ = io.WriteString(c, strings.ToUpper(string(buf[:n])))
			if err != nil {
				_, _ = io.WriteString(c, " bye")
				return
			}
		}
	})
}

// TestEarlyConnectData: who may not speak before CONNECT was answered is refused, whether it is said
// with the head or while the host is asked.
func TestEarlyConnectData(t *testing.T) {
	for name, c := range map[string]struct {
		refuses   bool
		with      string // the head
		meanwhile string
		status    int
		asked     bool
	}{
		"with the head":            {true, "early", "", 400, false},
		"while the host is asked":  {true, "", "early", 400, true},
		"nothing":                  {true, "", "", 200, true},
		"with the head, as it may": {false, "early", "", 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			asked, answer := make(chan struct{}, 1), make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				asked <- struct{}{}
				<-answer
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhi")
			}))
			b.cfg.Upgrades = []route.Upgrade{{Type: "CONNECT"}}
			b.route().Match = route.Match{Connect: true}
			b.cfg.RejectEarlyConnect = c.refuses
			b.start()
			client := b.dial()
			client.send("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n" + c.with)
			if c.asked {
				<-asked
				client.send(c.meanwhile)
			}
			close(answer)
			resp, err := http.ReadResponse(client.r, &http.Request{Method: "CONNECT"})
			if err != nil || resp.StatusCode != c.status {
				t.Fatalf("%v, %v", resp, err)
			}
			if c.status == 400 && !strings.Contains(b.logged(1)[0], " 400 - early_connect_data ") {
				t.Errorf("log: %s", b.logged(1)[0])
			}
			if !c.asked && len(asked) > 0 {
				t.Error("the host was asked")
			}
		})
	}
}

func TestTunnels(t *testing.T) {
	for _, test := range []struct{ name, head, status string }{
		{"websocket", "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n", "101"},
		{"no content", "POST /ws HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n", "101"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t, upgradeOrigin(t))
			b.cfg.Upgrades = []route.Upgrade{{Type: "WEBSOCKET"}, {Type: "CONNECT"}}
			b.start()
			c := b.dial()
			// What comes right behind the head belongs to the tunnel too.
			c.send(test.head + "early ")
			resp, err := http.ReadResponse(c.r, &http.Request{Method: "CONNECT"})
			if err != nil || fmt.Sprint(resp.StatusCode) != test.status {
				t.Fatal(resp, err)
			}
			if test.name == "websocket" && (resp.Header.Get("Upgrade") != "WebSocket" || resp.Header.Get("Connection") != "Upgrade") {
				t.Errorf("%v", resp.Header)
			}
			want := func(s string) {
				t.Helper()
				buf := make([]byte, len(s))
				if _, err := io.ReadFull(c.r, buf); err != nil || string(buf) != s {
					t.Fatalf("%q %v, want %q", buf, err, s)
				}
			}
			want("hello EARLY ")
			for _, word := range []string{"one", "two"} {
				c.send(word)
				want(strings.ToUpper(word))
			}
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			want(" bye")
			c.closed()
			b.wantLog(test.status + " - via_upstream")
			b.wantLog("rx=12 tx=22")
		})
	}
}

// TestTunnelRefused: whatever does not become a tunnel is answered, and ends the
// connection, because the client may have sent what is not HTTP already.
func TestTunnelRefused(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	for _, test := range []struct {
		path   string
		allow  []route.Upgrade
		status int
		log    string
	}{
		{"/refused", []route.Upgrade{{Type: "websocket"}}, 426, "426 - via_upstream"},
		{"/other", []route.Upgrade{{Type: "websocket"}}, 502, "502 UPE "},
		{"/folds", []route.Upgrade{{Type: "websocket"}}, 502, "502 UPE "},
		{"/ws", nil, 403, "403 - upgrade_failed"},
		{"/ws", []route.Upgrade{{Type: "websocket", Disabled: true}}, 403, "403 - upgrade_failed"},
	} {
		b := newBed(t, upgradeOrigin(t))
		b.cfg.Upgrades = test.allow
		b.start()
		c := b.dial()
		c.send("GET " + test.path + head)
		if resp, _ := c.answer("GET"); resp.StatusCode != test.status {
			t.Errorf("%+v: %d", test, resp.StatusCode)
		}
		if test.allow != nil && !test.allow[0].Disabled {
			c.closed()
		}
		b.wantLog(test.log)
	}
}

// TestTunnelOfARouteWithoutAHost: a route that leads to no host lets through what the
// connection manager does, and answers it as it answers others; where there is no route
// that is told. Each such answer ends the connection, as what follows may be the tunnel's.
func TestTunnelOfARouteWithoutAHost(t *testing.T) {
	websocket := func(path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	}
	const connect = "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h:80\r\n\r\n"
	redirect, direct := route.Redirect{Path: "/there"}, route.DirectResponse{Status: 200, Body: []byte("hi")}
	for _, tc := range []struct {
		name, send string
		route      *route.Route
		https      bool
		allowed    bool
		want       string
		location   string
		log        string
	}{
		{"no route", websocket("/none"), nil, false, false, "404 ", "", "404 NR route_not_found"},
		{"no route, though allowed", websocket("/none"), nil, false, true, "404 ", "", "404 NR route_not_found"},
		{"redirect", websocket("/"), &route.Route{Redirect: &redirect}, false, false, "403 ", "", "403 - upgrade_failed"},
		{"redirect that is allowed", websocket("/"), &route.Route{Redirect: &redirect}, false, true, "301 ", "http://h/there", "301 - direct_response"},
		{"direct response", websocket("/"), &route.Route{Direct: &direct}, false, false, "403 ", "", "403 - upgrade_failed"},
		{"direct response that is allowed", websocket("/"), &route.Route{Direct: &direct}, false, true, "200 hi", "", "200 - direct_response"},
		{"TLS alone", websocket("/"), nil, true, false, "403 ", "", "403 - upgrade_failed"},
		{"TLS alone, allowed", websocket("/"), nil, true, true, "301 ", "https://h/", "301 - direct_response"},
		{"CONNECT, no route", connect, nil, false, false, "404 ", "", "404 NR route_not_found"},
		{"CONNECT and TLS alone", connect, nil, true, false, "403 ", "", "403 - upgrade_failed"},
		{"CONNECT and TLS alone, allowed", connect, nil, true, true, "301 ", "", "301 - direct_response"},
		{"CONNECT and redirect", connect, &route.Route{Redirect: &redirect}, false, false, "403 ", "", "403 - upgrade_failed"},
		{"CONNECT and redirect that is allowed", connect, &route.Route{Redirect: &redirect}, false, true, "301 ", "", "301 - direct_response"},
		{"CONNECT and direct response that is allowed", connect, &route.Route{Direct: &direct}, false, true, "200 hi", "", "200 - direct_response"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, "127.0.0.1:1")
			vh := &b.cfg.Routes.VirtualHosts[0]
			vh.Routes[0].Match = route.Match{Prefix: ptr("/smuggled")}
			if tc.route != nil {
				r := *tc.route
				r.Match = route.Match{Prefix: ptr("/")}
				if tc.send == connect {
					r.Match = route.Match{Connect: true}
				}
				vh.Routes = append(vh.Routes, r)
			}
			if tc.https {
				vh.RequireTLS = route.TLSForAll
			}
			if tc.allowed {
				b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}, {Type: "CONNECT"}}
			}
			b.start()
			c := b.dial()
			c.send(tc.send)
			method, _, _ := strings.Cut(tc.send, " ")
			resp, body := c.answer(method)
			if got := fmt.Sprint(resp.StatusCode, " ", body); got != tc.want || resp.Header.Get("Location") != tc.location {
				t.Errorf("%q, location %q", got, resp.Header.Get("Location"))
			}
			if method == "CONNECT" && resp.StatusCode == 200 && resp.ContentLength != -1 {
				t.Errorf("content of %d bytes in a tunnel", resp.ContentLength)
			}
			c.closed()
			if lines := b.logged(1); len(lines) != 1 || !strings.Contains(lines[0], tc.log) {
				t.Errorf("%q", lines)
			}
		})
	}
}

// TestWebSocketBridges: a WebSocket from HTTP/1 over two hops of HTTP/2 to HTTP/1, and
// one from HTTP/2.
func TestWebSocketBridges(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != "GET" {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			acceptOf(req.Header.Get("Sec-WebSocket-Key")))
		buf := make([]byte, 64)
		for {
			n, err := r.Read(buf)
			_, _ = io.WriteString(c, strings.ToUpper(string(buf[:n])))
			if err != nil {
				return
			}
		}
	})
	hop := func(to string, up int) *bed {
		b := newBed(t, to)
		b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
		b.cfg.HTTP2 = http2.Default()
		b.cfg.HTTP2.AllowConnect = true
		if up == 2 {
			b.http2Cluster()
		}
		return b.start()
	}
	last := hop(origin, 1)
	first := hop(hop(last.addr, 2).addr, 2)

	c := first.dial()
	c.send("GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != acceptOf("abc") || resp.Header.Get("Upgrade") != "websocket" {
		t.Fatal(resp, err)
	}
	buf := make([]byte, 5)
	for _, word := range []string{"hello", "there"} {
		c.send(word)
		if _, err := io.ReadFull(c.r, buf); err != nil || string(buf) != strings.ToUpper(word) {
			t.Fatalf("%q %v", buf, err)
		}
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.closed()
	for _, method := range []string{"POST", "HEAD"} { // an extended CONNECT has no method to keep
		c := first.dial()
		c.send(method + " /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\nhello")
		if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
			t.Fatal(method, resp, err)
		}
		if _, err := io.ReadFull(c.r, buf); err != nil || string(buf) != "HELLO" {
			t.Fatalf("%s: %q %v", method, buf, err)
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		c.closed()
	}
	for i, line := range first.logged(3) {
		if want := []string{"GET", "POST", "HEAD"}[i] + " /chat 101 - via_upstream"; !strings.HasPrefix(line, want) {
			t.Errorf("%q, want %q", line, want)
		}
	}
	last.wantLog("101 - via_upstream")

	// A client of HTTP/2 has no key; the last hop makes one and takes it away again.
	cc := last.http2Client()
	if err := cc.AwaitSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/chat", Upgrade: "websocket", ContentLength: message.UnknownLength}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var head message.Response
	if _, err := st.ReadHead(&head); err != nil || head.Status != 101 {
		t.Fatal(head.Status, err)
	}
	if _, ok := head.Fields.Get(websocketAccept); ok {
		t.Error("the answer to a key that the client did not send")
	}
	tunnel := http2.NewTunnel(st, nil)
	_, _ = io.WriteString(tunnel, "hello")
	if _, err := io.ReadFull(tunnel, buf); err != nil || string(buf) != "HELLO" {
		t.Fatalf("%q %v", buf, err)
	}
}

// http2Client is a connection of HTTP/2 to the bed.
func (b *bed) http2Client() *http2.ClientConn {
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

// TestSuccessThatIsNoSwitch: to a client of HTTP/2 any 2xx means that the host took its
// upgrade (RFC 8441 5). A host of HTTP/1 that answers the request as if it had asked for none
// did not: the client must not take its content for the other protocol. What the host says
// of itself otherwise is passed on.
func TestSuccessThatIsNoSwitch(t *testing.T) {
	for path, want := range map[string]int{"/200": 502, "/204": 502, "/404": 404, "/302": 302} {
		t.Run(path, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				code, _ := strconv.Atoi(path[1:])
				w.WriteHeader(code)
			}))
			b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
			b.cfg.HTTP2 = http2.Default()
			b.cfg.HTTP2.AllowConnect = true
			cc := b.start().http2Client()
			if err := cc.AwaitSettings(t.Context()); err != nil {
				t.Fatal(err)
			}
			st, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: path, Upgrade: "websocket", ContentLength: message.UnknownLength}, false)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			_ = st.Flush()
			var head message.Response
			if _, err := st.ReadHead(&head); err != nil || head.Status != want {
				t.Fatal(head.Status, err)
			}
			b.wantLog(strconv.Itoa(want) + map[int]string{502: " - upgrade_not_supported_by_host", 302: " - websocket_handshake_unsuccessful", 404: " - via_upstream"}[want])
		})
	}
}

// TestIgnoredWebSocket: what a host of HTTP/1 says instead of switching was not asked for; only what
// it says of a fault is told. Without a client's key there is none to be verified.
func TestIgnoredWebSocket(t *testing.T) {
	for _, tc := range []struct{ path, key, body, log string }{
		{"/200", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "", "websocket_handshake_unsuccessful"},
		{"/302", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "", "websocket_handshake_unsuccessful"},
		{"/200", "", "", "websocket_handshake_unsuccessful"},
		{"/404", "", "said", "via_upstream"},
	} {
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Sec-WebSocket-Key"); (got == "") != (tc.key == "") {
				t.Errorf("the host sees the key %q", got)
			}
			code, _ := strconv.Atoi(tc.path[1:])
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "said")
		}))
		b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
		b.start()
		resp, body := b.dial().do("GET " + tc.path + " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + tc.key + "\r\n")
		if "/"+strconv.Itoa(resp.StatusCode) != tc.path || body != tc.body {
			t.Errorf("%s: %d %q", tc.path, resp.StatusCode, body)
		}
		b.wantLog(tc.path[1:] + " - " + tc.log)
	}
}

// TestSwitchesAreNotRepaired: what a host of HTTP/1 leaves out of its consent is not made up: its
// proof is missing to the client too, and without the option in Connection it has switched to nothing.
func TestSwitchesAreNotRepaired(t *testing.T) {
	for fields, want := range map[string]int{
		"Upgrade: websocket\r\nConnection: Upgrade\r\n": 101,
		"Upgrade: websocket\r\n":                        502,
		"Connection: Upgrade\r\n":                       502,
	} {
		b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			if _, err := http.ReadRequest(r); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+fields+"\r\n")
			}
		}))
		b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
		b.start()
		c := b.dial()
		c.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if proof := resp.Header.Get("Sec-WebSocket-Accept"); resp.StatusCode != want || proof != "" {
			t.Errorf("%q: %d, proof %q", fields, resp.StatusCode, proof)
		}
	}
}
