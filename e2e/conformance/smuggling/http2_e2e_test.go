//go:build e2e

package smuggling

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// TestHTTP2 sends the requests of HTTP/2 to an origin that speaks HTTP/1. A malformed
// one ends the connection, or its stream where so configured: then a request behind it
// on the same connection is served. A mismatch, DATA that is not what the head announced or
// trailers that must be none, ends its stream in any case.
func TestHTTP2(t *testing.T) {
	o := newOrigin(t)
	strict := bed.Listener{Addr: bed.Addr(t), Options: bed.Mesh + ", codec_type: HTTP2"}
	lenient := bed.Listener{Addr: bed.Addr(t), Options: bed.Mesh + ", codec_type: HTTP2, http2_protocol_options: {override_stream_error_on_invalid_http_message: true}"}
	s := bed.Start(t, o.addr, strict, lenient)
	began := time.Now()
	for _, c := range load(t, "http2") {
		if t.Failed() && time.Since(began) > 30*time.Second {
			t.Fatal("given up")
		}
		for _, l := range []bed.Listener{strict, lenient} {
			if err := o.http2(c, l.Addr, l == lenient); err != nil {
				t.Errorf("%s: %s (%s), by stream: %v: %v", c.where, c.name, c.cite, l == lenient, err)
				s.Alive()
			}
		}
	}
	if n := len(o.strays); n > 0 {
		t.Errorf("the origin saw %d times what nobody sent it: %q", n, o.strays[0])
	}
}

// outcome is what a client of HTTP/2 learns.
type outcome struct {
	status      int           // of stream 1
	reset       http2.ErrCode // of stream 1
	goaway      http2.ErrCode
	closed      bool
	second      int // status of stream 3
	secondReset bool
}

func (o *origin) http2(c *testCase, addr string, lenient bool) error {
	want, partial := slices.Clone(c.origin), ""
	if c.partial {
		partial, want = want[len(want)-1], want[:len(want)-1]
	}
	malformed := c.conn == "malformed" || c.conn == "mismatch"
	survives := lenient || c.conn != "malformed"
	if survives {
		want = append(want, poisonSeen)
	}
	o.expect(want, partial)
	got, err := exchange(c, addr, survives)
	switch {
	case err != nil:
	case !malformed && got.status != c.statuses[0]:
		err = fmt.Errorf("status %d, want %d", got.status, c.statuses[0])
	case !survives && (got.goaway != http2.ErrCodeProtocol || !got.closed):
		err = fmt.Errorf("no GOAWAY with PROTOCOL_ERROR and an end")
	case malformed && survives && got.reset != http2.ErrCodeProtocol && got.status != 400:
		err = fmt.Errorf("neither RST_STREAM with PROTOCOL_ERROR nor 400")
	case survives && got.second != 200:
		err = fmt.Errorf("the next stream was not served")
	}
	if seen := o.verdict(); seen != nil {
		err = errors.Join(err, seen)
	}
	if err != nil {
		return fmt.Errorf("%w; %+v", err, got)
	}
	return nil
}

// exchange sends the case's frames in one write and, when their stream is over, the
// poison on the next.
func exchange(c *testCase, addr string, second bool) (got outcome, err error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return got, err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	w := http2.NewFramer(&out, nil)
	w.AllowIllegalWrites = true
	if err := errors.Join(w.WriteSettings(), writeCase(w, 1, c, nil)); err != nil {
		return got, err
	}
	if _, err := nc.Write(out.Bytes()); err != nil {
		return got, err
	}
	return readOutcome(nc, second)
}

func writePoison(nc net.Conn) error {
	var block bytes.Buffer
	writeBlock(hpack.NewEncoder(&block), ":method: GET | :scheme: http | :authority: poison | :path: /poison")
	return http2.NewFramer(nc, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}

// writeCase writes the case's frames on a stream. The last ends it, unless another did or the
// connection ends instead.
func writeCase(w *http2.Framer, id uint32, c *testCase, pause func()) (err error) {
	ended := c.end
	for i, f := range c.frames {
		if f.kind == 'L' {
			pause()
			continue
		}
		last := f.kind == 'E' || i == len(c.frames)-1 && !ended
		ended = ended || last
		if f.kind == 'D' || f.kind == 'E' {
			err = errors.Join(err, w.WriteData(id, last, []byte(f.text)))
			continue
		}
		var block bytes.Buffer
		writeBlock(hpack.NewEncoder(&block), f.text)
		// A large block goes on in CONTINUATION.
		const most = 16 << 10
		rest := block.Bytes()
		first := rest[:min(most, len(rest))]
		rest = rest[len(first):]
		err = errors.Join(err, w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(rest) == 0, EndStream: last}))
		for len(rest) > 0 {
			piece := rest[:min(most, len(rest))]
			rest = rest[len(piece):]
			err = errors.Join(err, w.WriteContinuation(id, len(rest) == 0, piece))
		}
	}
	return err
}

// writeBlock encodes "name: value | name: value". No field enters the dynamic table, so
// that each block is whole by itself.
func writeBlock(e *hpack.Encoder, fields string) {
	for f := range strings.SplitSeq(fields, " | ") {
		name, value := "", strings.TrimPrefix(f, ": ")
		if !strings.HasPrefix(f, ": ") {
			i := 1 + strings.Index(f[1:], ": ")
			name, value = f[:i], f[i+2:]
		}
		_ = e.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true})
	}
}

// readOutcome reads until both streams, or the connection, are over.
func readOutcome(nc net.Conn, second bool) (got outcome, err error) {
	r := http2.NewFramer(nc, nc)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	over := map[uint32]bool{}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			if got.closed = errors.Is(err, io.EOF); got.closed && got.goaway != 0 {
				return got, nil
			}
			return got, err
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			n, _ := strconv.Atoi(f.PseudoValue("status"))
			if f.StreamID == 1 {
				got.status = n
			} else {
				got.second = n
			}
			over[f.StreamID] = over[f.StreamID] || f.StreamEnded()
		case *http2.DataFrame:
			over[f.StreamID] = over[f.StreamID] || f.StreamEnded()
		case *http2.RSTStreamFrame:
			if f.StreamID == 1 {
				got.reset = f.ErrCode
			} else {
				got.secondReset = true
			}
			over[f.StreamID] = true
		case *http2.GoAwayFrame:
			got.goaway = f.ErrCode
		}
		if over[3] {
			return got, nil
		}
		if second && over[1] {
			second = false
			if err := writePoison(nc); err != nil {
				return got, err
			}
		}
	}
}
