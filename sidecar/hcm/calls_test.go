package hcm

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// callCounter is a stream that has all of its input at once, and counts the calls.
type callCounter struct {
	stream.Stream
	in            *bytes.Reader
	reads, writes int
	largest       int // write
}

func (c *callCounter) Read(p []byte) (int, error) { c.reads++; return c.in.Read(p) }
func (c *callCounter) Write(p []byte) (int, error) {
	c.writes++
	c.largest = max(c.largest, len(p))
	return len(p), nil
}

// countedClient is an exchange with an HTTP/1 client.
func countedClient() (*exchange, *callCounter) {
	peer := &callCounter{}
	x := &exchange{dog: &watchdog{}, resp: &message.Response{}, m: &Manager{cfg: &Config{}}}
	x.req, x.complete = &x.request, true
	x.dog.timer.at.Store(noDeadline) // armed, though nothing here waits
	x.req.Method, x.req.Version = "GET", message.HTTP11
	x.client, x.h1.c = &x.h1, &http1Conn{m: x.m, d: downstream.New(downstream.Facts{Stream: peer}, nil)}
	return x, peer
}

// TestCallsOfAnAnswer: an answer of 16 KB that has arrived is read with one call and
// written with one, its head included.
func TestCallsOfAnAnswer(t *testing.T) {
	const size = 16 << 10
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Long: %s\r\nContent-Length: %d\r\n\r\n", bytes.Repeat([]byte("x"), 2<<10), size)
	host := &callCounter{in: bytes.NewReader(append([]byte(head), make([]byte, size)...))}
	x, peer := countedClient()
	u := &http1Upstream{c: &cluster.Conn{Stream: host}, dog: x.dog}
	if err := u.head(&attempt{x: x, resp: x.resp}); err != nil {
		t.Fatal(err)
	}
	if err := x.client.head(x, true); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < size; {
		data, _, err := u.Next()
		if err != nil {
			t.Fatal(err)
		}
		got += len(data)
		if err := x.client.data(x, data, got == size, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.client.flush(x); err != nil {
		t.Fatal(err)
	}
	if host.reads != 1 || peer.writes != 1 {
		t.Errorf("%d reads, %d writes", host.reads, peer.writes)
	}
	if _, err := host.in.ReadByte(); err != io.EOF {
		t.Error("something was left")
	}
}

// TestEndlessAnswer: what a host sends without a pause, in pieces of any size, is not
// gathered for longer than one write is worth.
func TestEndlessAnswer(t *testing.T) {
	for _, length := range []int64{message.UnknownLength, 64 << 20} {
		for _, piece := range []int{1, 4 << 10, directWrite, upstreamBuffer} {
			x, peer := countedClient()
			x.resp.Status, x.resp.ContentLength = 200, length
			if err := x.client.head(x, true); err != nil {
				t.Fatal(err)
			}
			for sent := 0; sent < 16*upstreamBuffer; sent += piece {
				if err := x.client.data(x, make([]byte, piece), false, nil); err != nil {
					t.Fatal(err)
				}
			}
			if most := 2*upstreamBuffer + 1<<10; peer.largest > most || cap(x.h1.out.b) > 2*most {
				t.Errorf("length %d, pieces of %d: a write of %d, memory of %d", length, piece, peer.largest, cap(x.h1.out.b))
			}
		}
	}
}

// pausing is a stream that has nothing at first, and waits as one that is readable does.
type pausing struct {
	stream.Stream
	in   *responseBuffer
	held bool // memory, while it waited
}

func (p *pausing) ReadReady(b stream.Buffers) (int, error) {
	b.TakeBuffer()
	b.DropBuffer()
	p.held = p.in.lent != nil
	return copy(b.TakeBuffer(), "event"), nil
}

// asked is a host's connection that waits, and then breaks.
type asked struct {
	stream.Stream
	u    *http1Upstream
	said string
	held bool // memory of the request, while the answer was waited for
}

func (a *asked) Exchange(out []byte, in stream.Buffers, _ bool) (written, n int, err error) {
	a.said = string(out)
	in.DropBuffer()
	a.held = a.u.out.lent != nil || a.u.in.lent != nil
	return len(out), 0, io.ErrUnexpectedEOF
}

func (a *asked) Write(p []byte) (int, error) {
	a.said, a.held = string(p), false
	return len(p), nil
}

// TestRequestHoldsNoMemory: once a request was written nothing is left of the copy that was
// written, whether it was the whole or a piece.
func TestRequestHoldsNoMemory(t *testing.T) {
	for name, complete := range map[string]bool{"whole": true, "in pieces": false} {
		x := exchanges.New().(*exchange)
		u := &x.attempt.h1
		x.req.Method, x.req.Path, x.req.Authority = "POST", "/", "a"
		x.req.Body, x.req.ContentLength = u, 4
		x.payload, x.complete = []byte("body"), complete
		host := &asked{u: u, held: true}
		u.c = &cluster.Conn{Stream: host, Exchanger: host}
		x.d, x.attempt.info = &downstream.Conn{}, &stream.Info{}
		x.d.Info = x.attempt.info
		err := u.send(x.attempt)
		if complete && err != io.ErrUnexpectedEOF || !complete && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasPrefix(host.said, "POST / HTTP/1.1\r\n") || !strings.HasSuffix(host.said, "\r\n\r\nbody") {
			t.Errorf("%s: %q", name, host.said)
		}
		if host.held || u.out.lent != nil || u.out.b != nil {
			t.Errorf("%s: memory is held", name)
		}
	}
}

// TestWaitingHoldsNoMemory: a host that has begun to answer, or that a tunnel leads to, is
// waited for without a buffer.
func TestWaitingHoldsNoMemory(t *testing.T) {
	events, tunnel := &http1Upstream{framing: http1.UntilClose, dog: &watchdog{}}, &bytesUpstream{dog: &watchdog{}}
	events.decoder.Start(http1.UntilClose, 0, http1.Limits{}.WithDefaults())
	for name, tc := range map[string]struct {
		body message.Body
		in   *responseBuffer
		c    **cluster.Conn
	}{"events": {events, &events.in, &events.c}, "tunnel": {tunnel, &tunnel.in, &tunnel.c}} {
		s := &pausing{in: tc.in, held: true}
		*tc.c = &cluster.Conn{Stream: s}
		for range 2 {
			if data, last, err := tc.body.Next(); string(data) != "event" || last || err != nil || s.held {
				t.Errorf("%s: %q, %t, %v, memory held: %t", name, data, last, err, s.held)
			}
		}
	}
}

// TestWaitingOverTLSHoldsNoMemory: so it is over TLS, where what a host sends has no length;
// it may be silent for hours after its first words.
func TestWaitingOverTLSHoldsNoMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		framing http1.Framing
		words   string
	}{"events": {http1.Chunked, "5\r\nwords\r\n"}, "until the end": {http1.UntilClose, "words"}, "tunnel": {http1.UntilClose, "words"}} {
		t.Run(name, func(t *testing.T) {
			addr := rawOrigin(t, func(_ int, c net.Conn, _ *bufio.Reader) {
				s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate(t, apiID)}})
				_, _ = io.WriteString(s, tc.words)
				_, _ = c.Read(make([]byte, 1)) // until the client leaves
			})
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			s, err := stream.ClientTLS(nc.(*net.TCPConn), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Handshake(t.Context()); err != nil {
				t.Fatal(err)
			}
			u, tunnel := &http1Upstream{c: &cluster.Conn{Stream: s}, framing: tc.framing, dog: &watchdog{}}, &bytesUpstream{c: &cluster.Conn{Stream: s}, dog: &watchdog{}}
			u.decoder.Start(tc.framing, message.UnknownLength, http1.Limits{})
			body, in := message.Body(u), &u.in
			if name == "tunnel" {
				body, in = tunnel, &tunnel.in
			}
			if got, _, err := body.Next(); string(got) != "words" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, _, err := body.Next(); !stream.IsTimeout(err) || in.lent != nil {
				t.Errorf("%v, memory held: %t", err, in.lent != nil)
			}
		})
	}
}
