//go:build e2e

package floods

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer speaks HTTP/2 in frames, to say what no honest one would. It writes on until it
// is sent GOAWAY or its connection ends, and reads what is sent to it all the while.
type peer struct {
	c     net.Conn
	ended atomic.Bool
	heads atomic.Int64  // that were read
	lost  atomic.Int64  // streams that were reset, or answered with a failure
	read  chan struct{} // closed when all was read

	// Of what was read, once read is closed.
	goaways  []http2.ErrCode
	resets   map[http2.ErrCode]int
	statuses map[int]int
	err      error
}

func newPeer(c net.Conn) *peer {
	return &peer{c: c, read: make(chan struct{}), resets: map[http2.ErrCode]int{}, statuses: map[int]int{}}
}

// newClient begins a connection with the sidecar.
func newClient(c net.Conn, settings ...http2.Setting) *peer {
	p := newPeer(c)
	_, _ = io.WriteString(c, http2.ClientPreface)
	p.write(frames(func(w *http2.Framer) { _ = w.WriteSettings(settings...); _ = w.WriteSettingsAck() }))
	return p
}

// listen reads what is sent until the end.
func (p *peer) listen() {
	defer close(p.read)
	r := http2.NewFramer(io.Discard, p.c)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := r.ReadFrame()
		if err != nil {
			p.err = err
			p.ended.Store(true)
			return
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			var n int
			_, _ = fmt.Sscan(f.PseudoValue("status"), &n)
			p.statuses[n]++
			p.heads.Add(1)
			if n >= 500 {
				p.lost.Add(1)
			}
		case *http2.RSTStreamFrame:
			p.resets[f.ErrCode]++
			p.lost.Add(1)
		case *http2.GoAwayFrame:
			p.goaways = append(p.goaways, f.ErrCode)
			p.ended.Store(true)
			_ = p.c.SetWriteDeadline(time.Now())
			_ = p.c.(*net.TCPConn).CloseWrite()
		}
	}
}

// write is false once the sidecar wants no more.
func (p *peer) write(b []byte) bool {
	_, err := p.c.Write(b)
	return err == nil && !p.ended.Load()
}

// endless writes the same again and again.
func (p *peer) endless(b []byte) {
	if n := 4096 / len(b); n > 1 {
		b = bytes.Repeat(b, n)
	}
	for p.write(b) {
	}
}

// streams writes what a stream is to have, for stream after stream.
func (p *peer) streams(from uint32, each func(w *http2.Framer, id uint32)) {
	for id := from; ; {
		if !p.write(frames(func(w *http2.Framer) {
			for range 32 {
				each(w, id)
				id += 2
			}
		})) {
			return
		}
	}
}

// frames are the bytes of frames.
func frames(f func(w *http2.Framer)) []byte {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	w.AllowIllegalWrites = true
	f(w)
	return b.Bytes()
}

// block encodes fields, given as name, value, name, value… No field enters the dynamic table.
func block(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true})
	}
	return b.Bytes()
}

func request(method, path string, more ...string) []byte {
	return block(append([]string{":method", method, ":scheme", "http", ":authority", "h", ":path", path}, more...)...)
}

// head is a whole block in one frame.
func head(id uint32, end bool, fields []byte) http2.HeadersFrameParam {
	return http2.HeadersFrameParam{StreamID: id, BlockFragment: fields, EndHeaders: true, EndStream: end}
}

// A verdict is what becomes of a peer.
type verdict func(p *peer) error

// goneAway: GOAWAY says so, and the connection ends.
func goneAway(code http2.ErrCode) verdict {
	return func(p *peer) error {
		if len(p.goaways) == 0 || p.goaways[len(p.goaways)-1] != code {
			return fmt.Errorf("GOAWAY %v, want %v (%v; resets %v, statuses %v)", p.goaways, code, p.err, p.resets, p.statuses)
		}
		return over(p.c)
	}
}

// cutOff: the connection ends.
func cutOff(p *peer) error {
	if ne := net.Error(nil); errors.As(p.err, &ne) && ne.Timeout() {
		return fmt.Errorf("the connection stays open: %w", p.err)
	}
	return nil
}

// TestPeer: a verdict of these tests can be another.
func TestPeer(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_, _ = b.Write(frames(func(w *http2.Framer) { _ = w.WriteRSTStream(1, http2.ErrCodeCancel) }))
		_ = b.Close()
	}()
	p := newPeer(a)
	p.listen()
	if err := goneAway(http2.ErrCodeEnhanceYourCalm)(p); err == nil || p.resets[http2.ErrCodeCancel] != 1 {
		t.Errorf("%v, %+v", err, p)
	}
}
