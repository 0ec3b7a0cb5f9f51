package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// raw is a peer that speaks in frames, to say what no honest one would.
type raw struct {
	t   testing.TB
	c   net.Conn
	fr  *xhttp2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
	dec *hpack.Decoder
}

func newRaw(t testing.TB, c net.Conn) *raw {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	r := &raw{t: t, c: c, fr: xhttp2.NewFramer(c, c)}
	r.fr.AllowIllegalWrites = true
	r.fr.AllowIllegalReads = true
	r.enc = hpack.NewEncoder(&r.buf)
	r.dec = hpack.NewDecoder(4096, nil)
	return r
}

// rawClient connects to a server and exchanges SETTINGS.
func rawClient(t testing.TB, addr string, settings ...xhttp2.Setting) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r := newRaw(t, c)
	_, _ = io.WriteString(c, clientPreface)
	r.must(r.fr.WriteSettings(settings...))
	r.must(r.fr.WriteSettingsAck())
	return r
}

// rawServer is a hostile server for one connection of our client.
func rawServer(t testing.TB, cfg *Config) (*raw, *ClientConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	cc := dialClient(t, l.Addr().String(), cfg)
	r := newRaw(t, <-accepted)
	preface := make([]byte, len(clientPreface))
	if _, err := io.ReadFull(r.c, preface); err != nil || string(preface) != clientPreface {
		t.Fatalf("preface %q: %v", preface, err)
	}
	r.must(r.fr.WriteSettings())
	r.must(r.fr.WriteSettingsAck())
	return r, cc
}

func (r *raw) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// block encodes fields given as name, value, name, value…
func (r *raw) block(pairs ...string) []byte {
	r.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = r.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(r.buf.Bytes())
}

func (r *raw) headers(id uint32, end bool, pairs ...string) {
	r.t.Helper()
	r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(pairs...), EndStream: end, EndHeaders: true}))
}

// get are the fields of a plain request.
var get = []string{":method", "GET", ":scheme", "http", ":authority", "example.com", ":path", "/"}

func (r *raw) get(id uint32, more ...string) {
	r.t.Helper()
	r.headers(id, true, append(append([]string(nil), get...), more...)...)
}

// next reads frames until one that is neither SETTINGS, PING nor WINDOW_UPDATE, unless
// such a one is wanted.
func (r *raw) next(want xhttp2.FrameType) xhttp2.Frame {
	r.t.Helper()
	_ = r.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			r.t.Fatalf("want %v: %v", want, err)
		}
		switch typ := f.Header().Type; typ {
		case want:
			return f
		case xhttp2.FrameSettings, xhttp2.FramePing, xhttp2.FrameWindowUpdate:
		default:
			r.t.Fatalf("want %v, got %v", want, f)
		}
	}
}

func (r *raw) wantReset(id uint32, code Code) {
	r.t.Helper()
	f := r.next(xhttp2.FrameRSTStream).(*xhttp2.RSTStreamFrame)
	if f.StreamID != id || Code(f.ErrCode) != code {
		r.t.Fatalf("RST_STREAM of %d with %v, want %d with %v", f.StreamID, f.ErrCode, id, code)
	}
}

// wantGoAway skips whatever comes before GOAWAY, then wants the end.
func (r *raw) wantGoAway(code Code) {
	r.t.Helper()
	_ = r.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			r.t.Fatalf("want GOAWAY with %v: %v", code, err)
		}
		g, ok := f.(*xhttp2.GoAwayFrame)
		if !ok {
			continue
		}
		if Code(g.ErrCode) != code {
			r.t.Fatalf("GOAWAY with %v, %q; want %v", g.ErrCode, g.DebugData(), code)
		}
		break
	}
	r.wantEnd()
}

func (r *raw) wantEnd() {
	r.t.Helper()
	_ = r.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		if _, err := r.fr.ReadFrame(); err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				r.t.Fatal("the connection did not end")
			}
			return
		}
	}
}

// wantStatus reads a response's head.
func (r *raw) wantStatus(id uint32, status string) *xhttp2.HeadersFrame {
	r.t.Helper()
	f := r.next(xhttp2.FrameHeaders).(*xhttp2.HeadersFrame)
	hf, err := r.dec.DecodeFull(f.HeaderBlockFragment())
	if err != nil || f.StreamID != id || hf[0].Value != status {
		r.t.Fatalf("stream %d: %v %v, want stream %d with %s", f.StreamID, hf, err, id, status)
	}
	return f
}

// alive checks that a server answers on a connection of its own.
func alive(t testing.TB, addr string) {
	t.Helper()
	r := rawClient(t, addr)
	r.get(1)
	r.wantStatus(1, "200")
	_ = r.c.Close()
}

// pipeStream is one end of net.Pipe, for tests in a bubble of synctest.
type pipeStream struct {
	net.Conn
	info stream.Info
}

func (p *pipeStream) CloseWrite() error  { return p.Close() }
func (p *pipeStream) Info() *stream.Info { return &p.info }

// pipe connects a client and a server of ours in memory.
func pipe(t testing.TB, ccfg, scfg *Config, h handlerFunc) (*ClientConn, *ServerConn) {
	t.Helper()
	a, b := net.Pipe()
	for _, cfg := range []**Config{&ccfg, &scfg} {
		if *cfg == nil {
			*cfg = Default()
		}
		if err := (*cfg).Validate(); err != nil {
			t.Fatal(err)
		}
	}
	cc, sc := NewClient(&pipeStream{Conn: a}, ccfg), NewServer(&pipeStream{Conn: b}, scfg, h)
	var wg sync.WaitGroup
	wg.Go(func() { _ = cc.Run() })
	wg.Go(func() { _ = sc.Serve(context.Background()) })
	t.Cleanup(func() {
		cc.Close()
		_ = b.Close()
		wg.Wait()
	})
	return cc, sc
}
