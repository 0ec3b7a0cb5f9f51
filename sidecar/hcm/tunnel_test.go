package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
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

func TestTunnels(t *testing.T) {
	for _, test := range []struct{ name, head, status string }{
		{"websocket", "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n", "101"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t, upgradeOrigin(t))
			b.cfg.Upgrades = []Upgrade{{Type: "WEBSOCKET"}, {Type: "CONNECT"}}
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
		allow  []Upgrade
		status int
		log    string
	}{
		{"/refused", []Upgrade{{Type: "websocket"}}, 426, "426 - via_upstream"},
		{"/other", []Upgrade{{Type: "websocket"}}, 502, "502 UPE "},
		{"/ws", nil, 403, "403 - upgrade_failed"},
		{"/ws", []Upgrade{{Type: "websocket", Disabled: true}}, 403, "403 - upgrade_failed"},
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
