package hcm

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// written is a stream that keeps what is written to it.
type written struct {
	stream.Stream
	out bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) { return w.out.Write(p) }
func (w *written) SetDeadline(time.Time) error { return nil }

// brokenBody is a body that has all come, up to where it is malformed.
type brokenBody struct {
	pieces [][]byte
	err    error // nil for one of the message
}

func (b *brokenBody) Ready() bool               { return true }
func (b *brokenBody) Trailers() *message.Fields { return nil }
func (b *brokenBody) Next() ([]byte, bool, error) {
	if len(b.pieces) == 0 {
		return nil, false, cmp.Or(b.err, error(http1.ErrTruncated))
	}
	p := b.pieces[0]
	b.pieces = b.pieces[1:]
	return p, false, nil
}

// TestBrokenBodyIsNotAnsweredAgain: as soon as anything of a response was written, also
// without a flush, a body that breaks off is no reason for an answer of ours, which the
// client would take for more of the body.
func TestBrokenBodyIsNotAnsweredAgain(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	for _, tc := range []struct {
		name   string
		pieces [][]byte
		status int // in the log
		heads  int
	}{
		{"nothing was written", [][]byte{[]byte("short")}, 502, 1},
		{"a piece was written from where it was read", [][]byte{bytes.Repeat([]byte("x"), 2*upstreamBuffer), bytes.Repeat([]byte("y"), directWrite)}, 200, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := new(written)
			x := besides(b)
			aside := x.aside
			defer func() {
				x.aside = aside
				x.leave()
			}()
			x.d = downstream.New(downstream.Facts{Stream: out, Place: x.d.Place}, nil)
			x.h1.c = &http1Conn{m: b.m, d: x.d}
			x.client, x.aside = &x.h1, nil
			x.cluster, x.deadline, x.lifeEnd = b.clusters.Get("origin"), noDeadline, noDeadline
			x.attempt.until, x.attempt.streamBy = noDeadline, noDeadline
			left := 0
			if x.attempt.choose() != responded || !x.attempt.begin() {
				t.Fatal("no host")
			}
			x.attempt.up = ending{left: &left}
			x.complete = true
			x.req.Method, x.status, x.resp.Status, x.resp.ContentLength = "GET", 200, 200, 1<<20
			if err := x.client.head(x, true); err != nil {
				t.Fatal(err)
			}
			x.relayBody(&brokenBody{pieces: tc.pieces})
			if n := strings.Count(out.out.String(), "HTTP/1.1 "); n != tc.heads || x.status != tc.status || left != 1 {
				t.Errorf("%d heads, status %d, left %d times: %.60q", n, x.status, left, out.out.String())
			}
			if begun := tc.status == 200; x.closeAfter != begun || x.flags != telemetry.FlagUpstreamProtocolError {
				t.Errorf("the connection ends: %v, flags %v", x.closeAfter, x.flags)
			}
		})
	}
}

// TestResetBodyIsPassedOnAsFarAsItCame: a host that resets its stream right behind the
// beginning of an answer has answered, and how. The client gets what came, and cannot take
// it for the whole: neither the last chunk nor all of the length is there, and the
// connection ends.
func TestResetBodyIsPassedOnAsFarAsItCame(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	for _, tc := range []struct {
		name    string
		length  int64
		version message.Version
		pieces  [][]byte
		end     string
		code    http2.Code
		flags   telemetry.Flags
	}{
		{"in chunks", message.UnknownLength, message.HTTP11, [][]byte{[]byte("ab")}, "\r\n\r\n2\r\nab\r\n", http2.Cancel, telemetry.FlagUpstreamReset},
		{"of a length", 10, message.HTTP11, [][]byte{[]byte("ab"), []byte("cd")}, "\r\n\r\nabcd", http2.Cancel, telemetry.FlagUpstreamReset},
		{"until the close", message.UnknownLength, message.HTTP10, [][]byte{[]byte("ab")}, "\r\n\r\nab", http2.Cancel, telemetry.FlagUpstreamReset},
		{"no body yet", message.UnknownLength, message.HTTP11, nil, "\r\n\r\n", http2.Cancel, telemetry.FlagUpstreamReset},
		{"of an error of the protocol", message.UnknownLength, message.HTTP11, nil, "\r\n\r\n", http2.ProtocolError, telemetry.FlagUpstreamProtocolError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := new(written)
			x, left := besides(b), 0
			aside := x.aside
			x.d = downstream.New(downstream.Facts{Stream: out, Place: x.d.Place}, nil)
			x.h1.c = &http1Conn{m: b.m, d: x.d}
			x.client, x.aside = &x.h1, nil
			x.cluster, x.deadline, x.lifeEnd = b.clusters.Get("origin"), noDeadline, noDeadline
			x.attempt.until, x.attempt.streamBy = noDeadline, noDeadline
			if x.attempt.choose() != responded || !x.attempt.begin() {
				t.Fatal("no host")
			}
			x.attempt.up = ending{left: &left}
			x.complete = true
			x.req.Method, x.req.Version, x.status, x.resp.Status, x.resp.ContentLength = "GET", tc.version, 200, 200, tc.length
			if err := x.client.head(x, true); err != nil {
				t.Fatal(err)
			}
			x.relayBody(&brokenBody{tc.pieces, &http2.StreamError{Code: tc.code, Remote: true}})
			if got := out.out.String(); strings.Count(got, "HTTP/1.1 ") != 1 || !strings.HasSuffix(got, tc.end) {
				t.Errorf("%q", got)
			}
			if !x.closeAfter || x.responded || x.flags != tc.flags || left != 1 {
				t.Errorf("the connection ends: %v, flags %v, left %d times", x.closeAfter, x.flags, left)
			}
			x.aside = aside
			x.leave()
		})
	}
}

// lateWrites is a stream that notes how often the host had been left when it was written to.
type lateWrites struct {
	stream.Stream
	left *int
	got  []int
}

func (w *lateWrites) Write(p []byte) (int, error) {
	w.got = append(w.got, *w.left)
	return len(p), nil
}

// TestHostIsLeftBeforeTheLastWrite: an answer that has all come keeps no host while its
// client takes it.
func TestHostIsLeftBeforeTheLastWrite(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	piece := strings.Repeat("x", upstreamBuffer*3/4)
	for _, length := range []int64{message.UnknownLength, int64(2 * len(piece))} {
		x, left := besides(b), 0
		aside := x.aside
		out := &lateWrites{left: &left}
		x.d = downstream.New(downstream.Facts{Stream: out, Place: x.d.Place}, nil)
		x.h1.c = &http1Conn{m: b.m, d: x.d}
		x.client, x.aside = &x.h1, nil
		x.cluster, x.deadline, x.lifeEnd = b.clusters.Get("origin"), noDeadline, noDeadline
		x.attempt.until, x.attempt.streamBy = noDeadline, noDeadline
		if x.attempt.choose() != responded || !x.attempt.begin() {
			t.Fatal("no host")
		}
		x.attempt.up = ending{left: &left}
		x.req.Method, x.req.Version, x.resp.Status, x.resp.ContentLength = "GET", message.HTTP11, 200, length
		if err := x.client.head(x, true); err != nil {
			t.Fatal(err)
		}
		x.relayBody(&dripping{bursts: [][]string{{piece, piece}}})
		if want := []int{1}; !slices.Equal(out.got, want) {
			t.Errorf("length %d: writes after the host was left %v times, want %v", length, out.got, want)
		}
		x.aside = aside
		x.leave()
	}
}

// halfHead is what a host sends of a response: the client knows by the interim response
// that the rest was read too.
const halfHead = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nServer: xxxxxxxxxxxxxxxxxxxxxxxxx\r\nX-Foo: bar\r\n"

// TestClientLeavesWithinAHead: of a response whose head did not come whole nothing is logged,
// neither of it nor of an earlier one that lay in the same memory, and whatever filters
// hold is given back.
func TestClientLeavesWithinAHead(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			head, _, err := readRequest(r)
			switch {
			case err != nil:
				return
			case strings.HasPrefix(head, "GET /two"):
				_, _ = io.WriteString(c, halfHead)
				_, _ = r.ReadByte()
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nSet-Cookie: session=another-client's\r\nContent-Length: 0\r\n\r\n")
		}
	})
	b := newBed(t, origin)
	b.cfg.AccessLog[0].Format = "%REQ(:PATH)% foo=%RESP(X-FOO)% server=%RESP(SERVER)% %RESPONSE_CODE% %RESPONSE_FLAGS%\n"
	b.filter("f", &fault.Config{MaxActive: ptr(uint32(1)), Delay: &fault.Delay{Fixed: time.Millisecond, Share: route.All}})
	b.start()
	before := panics.Count(panics.Exchange)
	c := b.dial()
	// Both at once, so that both surely have the same memory.
	c.do("GET /one HTTP/1.1\r\nHost: h\r\n\r\nGET /two HTTP/1.1\r\nHost: h\r\n\r\n")
	if line, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 103") {
		t.Fatalf("%q, %v", line, err)
	}
	_ = c.Close()
	<-b.finished
	b.dial().do("GET /three HTTP/1.1\r\nHost: h\r\n\r\n")
	want := []string{"/one foo=- server=- 200 DI", "/two foo=- server=- 0 DI,DC", "/three foo=- server=- 200 DI"}
	if got := b.logged(3); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if n := panics.Count(panics.Exchange) - before; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// ends counts the exchanges that a filter is told the end of.
type ends struct{ n int }

func (e *ends) End(*filter.Context) { e.n++ }

// TestFaultAtTheEnd: a panic while an exchange is reported keeps nothing of its filters.
func TestFaultAtTheEnd(t *testing.T) {
	panicstest.Expect(t, panics.Exchange, 1)
	b := newBed(t, "127.0.0.1:1").start()
	x := besides(b)
	defer x.leave()
	e := new(ends)
	x.policy, x.asked, x.states = &policy{chain: &chain{links: []link{{ender: e}}}}, 1, make([]filter.State, 1)
	x.d.PeerMetrics = nil // which panics
	x.resp.Fields.Note(message.Server, 0, 6, 8, 4, true)
	x.wreck()
	if e.n != 1 || x.resp.Fields.Len() != 0 {
		t.Errorf("%d ends, %d fields of no response", e.n, x.resp.Fields.Len())
	}
}

// TestBrokenChunkToHTTP10: the same, with a client to whom the end of the connection is the
// end of the body.
func TestBrokenChunkToHTTP10(t *testing.T) {
	origin := rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err != nil {
			return
		}
		head := "HTTP/1.1 200 OK\r\nX-Big: " + strings.Repeat("h", 40000) + "\r\nTransfer-Encoding: chunked\r\n\r\n"
		_, _ = io.WriteString(c, head+"4e20\r\n"+strings.Repeat("x", 0x4e20)+"\r\nzz\r\n")
		_, _ = r.ReadByte()
	})
	b := newBed(t, origin)
	b.cfg.AcceptHTTP10 = true
	b.start()
	c := b.dial()
	c.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n")
	all, err := io.ReadAll(c.r)
	if n := strings.Count(string(all), "HTTP/1.1 "); n > 1 || err == nil && n == 0 {
		t.Errorf("%d heads, then %v", n, err)
	}
}

// deaf is a host that takes nothing more of the request.
type deaf struct{ ending }

func (deaf) write([]byte, bool, *message.Fields) error { return http1.ErrTruncated }

// TestTunnelThatIsResetAtOnce: a host that has switched, has spoken and is gone is heard, also
// where the client's first words do not reach it any more.
func TestTunnelThatIsResetAtOnce(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	for _, complete := range []bool{false, true} {
		out := new(written)
		x, left := besides(b), 0
		aside := x.aside
		x.d = downstream.New(downstream.Facts{Stream: out, Place: x.d.Place}, nil)
		x.h1.c = &http1Conn{m: b.m, d: x.d}
		x.client, x.aside = &x.h1, nil
		x.cluster, x.deadline, x.lifeEnd = b.clusters.Get("origin"), noDeadline, noDeadline
		x.attempt.until, x.attempt.streamBy = noDeadline, noDeadline
		if x.attempt.choose() != responded || !x.attempt.begin() {
			t.Fatal("no host")
		}
		x.attempt.up = deaf{ending{left: &left}}
		x.tunnel, x.complete, x.payload = true, complete, []byte("early")
		x.req.Method, x.req.Upgrade, x.status, x.resp.Status, x.resp.Upgrade = "GET", "x", 101, 101, "x"
		x.resp.Body = &brokenBody{[][]byte{[]byte("ab")}, &http2.StreamError{Code: http2.Cancel, Remote: true}}
		x.relayTunnel()
		if got := out.out.String(); !strings.HasSuffix(got, "\r\n\r\nab") || left != 1 || x.flags != telemetry.FlagUpstreamReset {
			t.Errorf("complete %v: %q, left %d times, flags %v", complete, got, left, x.flags)
		}
		x.aside = aside
		x.leave()
	}
}

// TestBodyCutByAReset: a host of HTTP/1 whose answer is not whole broke the protocol, however its
// connection ended (RFC 9112 8).
func TestBodyCutByAReset(t *testing.T) {
	for name, how := range map[string]int{"reset": 0, "close": -1} {
		for _, framing := range []string{"Content-Length: 9\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"} {
			got := make(chan struct{})
			b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				_, _, _ = readRequest(r)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+framing)
				<-got
				_ = c.(*net.TCPConn).SetLinger(how)
			})).start()
			c := b.dial()
			c.send(simpleGet)
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadFull(resp.Body, make([]byte, 2))
			close(got)
			if _, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("%s: the client took it for whole", name)
			}
			if line := b.logged(1)[0]; !strings.Contains(line, " 200 UPE upstream_reset_after_response_started{protocol_error}") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}
