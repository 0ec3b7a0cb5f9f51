package hcm

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// connectPost has POST, but not CONNECT, open a connection of bytes.
func connectPost(t *testing.T) *bed {
	b := newBed(t, upperOrigin(t))
	b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Disabled: true, Terminate: true, Post: true}}
	b.cfg.HTTP2 = http2.Default()
	return b.start()
}

// TestPostEndsHere: the content of a POST, and nothing else, is the host's as it is; what the host
// says is the answer's, while the request goes on.
func TestPostEndsHere(t *testing.T) {
	b := connectPost(t)
	c := b.dial()
	c.send("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
	resp, err := http.ReadResponse(c.r, &http.Request{Method: "POST"})
	if err != nil || resp.StatusCode != 200 || len(resp.TransferEncoding) == 0 {
		t.Fatal(resp, err)
	}
	buf := make([]byte, 5)
	for _, word := range []string{"EARLY", " LATE"} {
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != word {
			t.Fatalf("%q %v", buf, err)
		}
		if word == "EARLY" {
			c.send("5\r\n late\r\n0\r\n\r\n")
		}
	}
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	c = b.dial()
	long := strings.Repeat("a", 100_000)
	for _, body := range []string{"", "all", long} {
		c.send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
		if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != strings.ToUpper(body) {
			t.Errorf("%d, %d bytes of %d", resp.StatusCode, len(got), len(body))
		}
	}
	b.wantLog("POST /p 200 - via_upstream")
	if resp, _ := b.dial().do("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"); resp.StatusCode == 200 {
		t.Error("CONNECT is let through")
	}

	s, err := b.http2Dial().Open(&message.Request{Method: "POST", Scheme: "http", Authority: "h", Path: "/p", ContentLength: message.UnknownLength}, false)
	if err != nil {
		t.Fatal(err)
	}
	var head message.Response
	if _, err := s.ReadHead(&head); err != nil || head.Status != 200 {
		t.Fatal(head.Status, err)
	}
	tunnel := http2.NewTunnel(s, nil)
	_, _ = io.WriteString(tunnel, "hello")
	if _, err := io.ReadFull(tunnel, buf); err != nil || string(buf) != "HELLO" {
		t.Fatalf("%q %v", buf, err)
	}
	_ = tunnel.CloseWrite()
	if _, err := tunnel.Read(buf); err != io.EOF {
		t.Error(err)
	}
	_ = tunnel.Close()
}

// TestPostOfBytesIsNotHedged: another attempt would be a request of HTTP to a host of bytes.
func TestPostOfBytesIsNotHedged(t *testing.T) {
	x := &exchange{req: &message.Request{Method: "POST"}, complete: true, keep: true}
	x.sel.Hedge, x.sel.Retry = &route.HedgePolicy{OnPerTryTimeout: true}, &route.RetryPolicy{On: route.Retry5xx}
	x.timeouts.PerTry = time.Second
	if !x.hedges() {
		t.Fatal("no POST is")
	}
	x.terminate = true
	if x.hedges() {
		t.Error("it is")
	}
}

// TestPostOfBytesIsNotReadAhead: where attempts may run side by side content is read as a whole
// first; here none do, and the host's first words may have to come before the rest.
func TestPostOfBytesIsNotReadAhead(t *testing.T) {
	x := &exchange{req: &message.Request{Method: "POST", ContentLength: 5}, keepUpTo: 100}
	x.sel.Hedge = &route.HedgePolicy{OnPerTryTimeout: true}
	if !x.hedgesWhole() {
		t.Fatal("no POST is")
	}
	x.terminate = true
	if x.hedgesWhole() {
		t.Error("it is")
	}
}

// TestPostOfBytesThatAsksForMore: an upgrade would be a request of HTTP to a host of bytes.
func TestPostOfBytesThatAsksForMore(t *testing.T) {
	b := newBed(t, upperOrigin(t))
	b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true, Post: true}}
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.start()
	resp, _ := b.dial().do("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if resp.StatusCode != 403 {
		t.Error(resp.StatusCode)
	}
}

// TestPostOfBytesIsCounted: what the host got at once is counted as what comes later is.
func TestPostOfBytesIsCounted(t *testing.T) {
	b := connectPost(t)
	b.dial().do("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
	b.logged(1)
	b.eventually("5 bytes are counted each way", func() bool {
		return strings.Count(b.counted("hauberk_upstream_bytes_total"), "} 5") == 2
	})
}

// TestPostOfBytesBreaksOff: content without its end has no end at the host either, however it broke.
func TestPostOfBytesBreaksOff(t *testing.T) {
	for _, how := range []string{"reset", "left", "malformed", "too short"} {
		t.Run(how, func(t *testing.T) {
			came, ended := make(chan bool), make(chan error, 1)
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _ = r.Peek(5)
				close(came)
				_, err := io.Copy(io.Discard, r)
				ended <- err
			}))
			b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true, Post: true}}
			b.start()
			c, framing := b.dial(), "Transfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n"
			if how == "too short" {
				framing = "Content-Length: 100\r\n\r\nearly"
			}
			c.send("POST /p HTTP/1.1\r\nHost: h\r\n" + framing)
			<-came
			switch how {
			case "reset":
				resetConn(c.Conn)
			case "malformed":
				c.send("zz\r\n")
			default:
				_ = c.Conn.Close()
			}
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the host sees %v", err)
			}
		})
	}
}

// TestPostOfBytesMayRest: it is a conversation, and no body that keeps to a rate.
func TestPostOfBytesMayRest(t *testing.T) {
	for _, terminate := range []bool{true, false} {
		x := &exchange{m: &Manager{patience: Patience{BodyRate: 1}}, req: &message.Request{Method: "POST"}, dog: &watchdog{}, terminate: terminate}
		if x.startPace(); (x.dog.pace == nil) != terminate {
			t.Errorf("bytes: %v; a rate is kept: %v", terminate, x.dog.pace != nil)
		}
	}
}
