package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestTunnelEndsWithItsRequest: a client of HTTP/2 that ends its half with the head of its
// CONNECT gets what the host says until it ends the other.
func TestTunnelEndsWithItsRequest(t *testing.T) {
	bye := func(head string) string {
		return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			if head != "" {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, head)
			all, _ := io.ReadAll(r)
			fmt.Fprintf(c, "bye%d", len(all))
		})
	}
	for _, tc := range []struct {
		name   string
		origin string
		change func(*bed)
	}{
		{"HTTP/1", bye("HTTP/1.1 200 OK\r\n\r\n"), func(*bed) {}},
		{"bytes", bye(""), func(b *bed) { b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}} }},
		{"HTTP/2", versionedOrigin(t, 2, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			all, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "bye%d", len(all))
		}), (*bed).http2Cluster},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, tc.origin)
			b.cfg.Upgrades = []route.Upgrade{{Type: "CONNECT"}}
			b.route().Match = route.Match{Connect: true}
			tc.change(b)
			b.start()
			cc := b.http2Dial()
			before := panics.Count(panics.Body)
			s, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "h:80", ContentLength: message.UnknownLength}, true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var head message.Response
			if _, err = s.ReadHead(&head); err != nil || head.Status != 200 {
				t.Fatal(head.Status, err)
			}
			if got, err := io.ReadAll(http2.NewTunnel(s, nil)); err != nil || string(got) != "bye0" {
				t.Errorf("%q %v", got, err)
			}
			b.wantLog("CONNECT - 200 - via_upstream")
			if n := panics.Count(panics.Body) - before; n > 0 {
				t.Errorf("%d panics", n)
			}
		})
	}
}

// TestHalfClosedTunnelOfWhoLeaves: a client of HTTP/2 that has ended its half of a tunnel,
// and then resets the stream or loses the connection, ends the tunnel.
func TestHalfClosedTunnelOfWhoLeaves(t *testing.T) {
	for name, tc := range map[string]struct {
		leave func(*frames)
		log   string
	}{
		"stream": {func(f *frames) {
			_ = f.framer.WriteRSTStream(1, xhttp2.ErrCodeCancel)
			f.settle()
		}, "101 DR http2.remote_reset"},
		"connection": {func(f *frames) { _ = f.Close() }, "101 DC downstream_remote_disconnect"},
	} {
		t.Run(name, func(t *testing.T) {
			ended, over := make(chan struct{}), make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
					acceptOf(req.Header.Get("Sec-WebSocket-Key")))
				_, _ = io.Copy(io.Discard, r)
				close(ended)
				<-over // it says nothing that could be found undeliverable
			}))
			defer close(over)
			b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
			b.cfg.HTTP2 = http2.Default()
			b.cfg.HTTP2.AllowConnect = true
			b.start()
			f := b.dialHTTP2()
			f.headers(":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: h", ":path: /")
			if got := f.outcome(); got != "HEADERS 200" {
				t.Fatal(got)
			}
			f.data("")
			f.settle()
			<-ended
			tc.leave(f)
			b.wantLog(tc.log)
			if s := b.clusters.Get("origin").Stats()[0]; s.Active != 0 || s.Connections != 0 {
				t.Errorf("the host's side is still open: %+v", s)
			}
		})
	}
}

// endingOrigin speaks HTTP/2, knows extended CONNECT, and answers every request with a head
// of that status which ends the stream.
func endingOrigin(t *testing.T, status string) string {
	return framesOrigin(t, func(f *xhttp2.Framer, fr xhttp2.Frame) {
		if head, ok := fr.(*xhttp2.HeadersFrame); ok {
			answerFrame(f, head.StreamID, status)
		}
	}, xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: 1})
}

// TestTunnelEndsWithItsAnswer: a host of HTTP/2 that accepts a tunnel and ends it with the
// same frame. The client, of either version, gets the answer and the end. An upgrade of HTTP/1
// is accepted only with 200.
func TestTunnelEndsWithItsAnswer(t *testing.T) {
	for status, upgraded := range map[string]string{"200": "101", "204": "204"} {
		b := newBed(t, endingOrigin(t, status))
		b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}, {Type: "CONNECT"}}
		b.cfg.Routes.VirtualHosts[0].Routes = append(b.cfg.Routes.VirtualHosts[0].Routes, *b.route())
		b.route().Match = route.Match{Connect: true}
		b.http2Cluster()
		b.start()
		c := b.dial()
		c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
		if resp, err := http.ReadResponse(c.r, nil); err != nil || fmt.Sprint(resp.StatusCode) != upgraded {
			t.Fatal(resp, err)
		}
		c.closed()
		cc := b.http2Dial()
		s, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "h:80", ContentLength: message.UnknownLength}, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var head message.Response
		if _, err = s.ReadHead(&head); err != nil || fmt.Sprint(head.Status) != status {
			t.Fatal(head.Status, err)
		}
		if got, err := io.ReadAll(http2.NewTunnel(s, nil)); err != nil || len(got) > 0 {
			t.Errorf("%q %v", got, err)
		}
		lines := b.logged(2)
		if !strings.Contains(lines[0], "GET /ws "+upgraded+" - via_upstream") || !strings.Contains(lines[1], "CONNECT - "+status+" - via_upstream") {
			t.Errorf("the access log says %q", lines)
		}
	}
}

// TestTunnelDuration: the longest duration of a stream is a tunnel's too, however busy it is.
func TestTunnelDuration(t *testing.T) {
	b := newBed(t, upgradeOrigin(t))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.cfg.MaxStreamDuration = 200 * time.Millisecond
	b.start()
	c := b.dial()
	c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	start := time.Now()
	for {
		if _, err := io.WriteString(c.Conn, "x"); err != nil {
			break
		}
		if _, err := c.r.ReadByte(); err != nil {
			break
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it lasted %v", took)
	}
	b.wantLog("101 DT max_duration_timeout")
}

// TestHostWithoutExtendedConnect: an upgrade that a host of HTTP/2 cannot take says nothing
// of its health, and is not sent to it twice.
func TestHostWithoutExtendedConnect(t *testing.T) {
	b := newBed(t, versionedOrigin(t, 2, echo))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.http2Cluster()
	b.start()
	for range 2 { // on a connection of its own, and on one that was used
		c := b.dial()
		c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
		if resp, _ := c.answer("GET"); resp.StatusCode != 502 {
			t.Errorf("%d", resp.StatusCode)
		}
	}
	for _, line := range b.logged(2) {
		if !strings.Contains(line, "502 - upgrade_not_supported_by_host") || !strings.Contains(line, "retries=0") {
			t.Errorf("the access log says %q", line)
		}
	}
	if h := b.clusters.Get("origin").Stats()[0]; h.Failed != 0 || h.ConsecutiveFailures != 0 || h.Active != 0 {
		t.Errorf("%+v", h)
	}
}
