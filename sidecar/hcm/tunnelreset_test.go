package hcm

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestTunnelIsReset: a tunnel whose one end is reset has no end at the other either,
// whether it is passed on to the host or ends here, and whoever was sending.
func TestTunnelIsReset(t *testing.T) {
	for _, terminate := range []bool{false, true} {
		for _, version := range []int{1, 2} {
			for _, busy := range []bool{false, true} {
				testTunnelReset(t, terminate, version, busy)
			}
		}
	}
}

func testTunnelReset(t *testing.T, terminate bool, version int, busy bool) {
	hosts, ends := make(chan net.Conn, 1), make(chan bool)
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if !terminate {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		}
		hosts <- c
		<-ends
	}))
	b.route().Match = route.Match{Connect: true}
	b.cfg.Upgrades = []route.Upgrade{{Type: "CONNECT"}}
	if terminate {
		b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}}
	}
	b.start()
	// open makes a tunnel; resets is how its client resets it.
	open := func() (client io.ReadWriter, resets func()) {
		if version == 1 {
			c := b.dial()
			c.send("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n")
			if resp, err := http.ReadResponse(c.r, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			return c.Conn, func() { resetConn(c.Conn) }
		}
		s, err := b.http2Dial().Open(&message.Request{Method: "CONNECT", Authority: "h:1", ContentLength: message.UnknownLength}, false)
		if err != nil {
			t.Fatal(err)
		}
		var head message.Response
		if _, err = s.ReadHead(&head); err != nil || head.Status != 200 {
			t.Fatal(head.Status, err)
		}
		tunnel := http2.NewTunnel(s, nil)
		return tunnel, tunnel.Abort
	}
	// Who is busy sends until it cannot: the sidecar finds out by a write, or it does.
	flood := func(w io.Writer, failed chan<- error) {
		var err error
		for busy && err == nil {
			_, err = w.Write(make([]byte, 16<<10))
		}
		failed <- err
	}

	client, _ := open()
	host := <-hosts
	failed := make(chan error, 1)
	go flood(client, failed)
	if busy {
		_, _ = io.CopyN(io.Discard, host, 1<<20)
	}
	resetConn(host)
	_, err := io.Copy(io.Discard, client)
	err = errors.Join(err, <-failed)
	var code *http2.StreamError
	if version == 1 && !errors.Is(err, syscall.ECONNRESET) || version == 2 && !(errors.As(err, &code) && code.Remote && code.Code == http2.ConnectError) {
		t.Errorf("terminate=%t HTTP/%d busy=%t: the host reset, the client sees %v", terminate, version, busy, err)
	}
	ends <- true
	b.wantLog("200 UC upstream_reset_after_response_started{connection_termination}")

	client, resets := open()
	host = <-hosts
	go flood(host, failed)
	if busy {
		_, _ = io.CopyN(io.Discard, client, 1<<20)
	}
	resets()
	_, err = io.Copy(io.Discard, host)
	if err = errors.Join(err, <-failed); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("terminate=%t HTTP/%d busy=%t: the client reset, the host sees %v", terminate, version, busy, err)
	}
	ends <- true
	if l := b.logged(2)[1]; !strings.Contains(l, "200 D") {
		t.Errorf("the access log says %q", l)
	}
}

func resetConn(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// TestWebSocketIsCancelled: who has a WebSocket over HTTP/2 whose host resets it sees CANCEL, as RFC 8441 5 has it.
func TestWebSocketIsCancelled(t *testing.T) {
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptOf(req.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
		_, _ = io.ReadFull(r, make([]byte, 1))
		resetConn(c)
	}))
	b.cfg.Upgrades, b.cfg.HTTP2 = []route.Upgrade{{Type: "websocket"}}, http2.Default()
	b.cfg.HTTP2.AllowConnect = true
	cc := b.start().http2Dial()
	if err := cc.AwaitSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/ws", Upgrade: "websocket", ContentLength: message.UnknownLength}, false)
	if err != nil {
		t.Fatal(err)
	}
	var head message.Response
	if _, err = s.ReadHead(&head); err != nil || head.Status != 101 {
		t.Fatal(head.Status, err)
	}
	tunnel := http2.NewTunnel(s, nil)
	_, _ = tunnel.Write([]byte("x"))
	_, err = io.Copy(io.Discard, tunnel)
	var code *http2.StreamError
	if !errors.As(err, &code) || !code.Remote || code.Code != http2.Cancel {
		t.Errorf("the client sees %v", err)
	}
}
