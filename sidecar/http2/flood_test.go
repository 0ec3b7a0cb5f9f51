package http2

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// counts counts glitches by class.
type counts [numGlitches]atomic.Int64

func (c *counts) cfg() *Config {
	cfg := Default()
	cfg.Linger = 20 * time.Millisecond
	cfg.OnGlitch = func(g Glitch) { c[g].Add(1) }
	return cfg
}

// bounded runs an attack and checks that it leaves no more than limit bytes of heap
// behind while it is held, and that another connection is served.
func bounded(t *testing.T, addr string, limit int, attack func()) {
	t.Helper()
	before := heap()
	attack()
	if grown := heap() - before; grown > limit {
		t.Errorf("the heap grew by %d bytes, more than %d", grown, limit)
	}
	alive(t, addr)
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the pools hold
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// write sends prepared bytes as often as the peer takes them, up to n times. An error
// ends it: the peer has closed.
func (r *raw) write(b []byte, n int) {
	for range n {
		if _, err := r.c.Write(b); err != nil {
			return
		}
	}
}

// frames are n frames in one buffer, made by f with the framer.
func (r *raw) frames(f func(fr *xhttp2.Framer)) []byte {
	var b bytes.Buffer
	fr := xhttp2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	f(fr)
	return b.Bytes()
}

// TestFloods: each ends the connection with ENHANCE_YOUR_CALM, is counted under its
// class, and costs neither memory nor another connection.
func TestFloods(t *testing.T) {
	for _, f := range []struct {
		name  string
		class Glitch
		cfg   func(*Config)
		do    func(r *raw)
	}{
		{"rapid reset", GlitchReset, nil, func(r *raw) {
			block := r.block(get...)
			var b []byte
			for id := uint32(1); id < 4000; id += 2 {
				b = append(b, r.frames(func(fr *xhttp2.Framer) {
					_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true})
					_ = fr.WriteRSTStream(id, xhttp2.ErrCodeCancel)
				})...)
			}
			r.write(b, 1)
		}},
		{"made you reset", GlitchStreamError, nil, func(r *raw) {
			block := r.block(get...)
			var b []byte
			for id := uint32(1); id < 4000; id += 2 {
				b = append(b, r.frames(func(fr *xhttp2.Framer) {
					_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
					_ = fr.WriteWindowUpdate(id, 0)
				})...)
			}
			r.write(b, 1)
		}},
		{"malformed requests", GlitchMalformed, nil, func(r *raw) {
			block := r.block(append([]string{"connection", "close"}, get...)...)
			var b []byte
			for id := uint32(1); id < 4000; id += 2 {
				b = append(b, r.frames(func(fr *xhttp2.Framer) {
					_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
				})...)
			}
			r.write(b, 1)
		}},
		{"streams beyond the limit", GlitchRefusedStream, func(c *Config) { c.MaxConcurrentStreams = 10 }, func(r *raw) {
			block := r.block(append([]string(nil), post...)...)
			var b []byte
			for id := uint32(1); id < 4000; id += 2 {
				b = append(b, r.frames(func(fr *xhttp2.Framer) {
					_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
				})...)
			}
			r.write(b, 1)
		}},
		{"continuations without end", GlitchContinuation, nil, func(r *raw) {
			r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(get...)}))
			piece := r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteContinuation(1, false, r.block("a", "b")) })
			r.write(piece, 10000)
		}},
		{"large continuations", GlitchContinuation, nil, func(r *raw) {
			r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(get...)}))
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteContinuation(1, false, make([]byte, maxFrameSize)) }), 1000)
		}},
		{"empty continuations", GlitchEmptyFrame, nil, func(r *raw) {
			r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(get...)}))
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteContinuation(1, false, nil) }), 1000)
		}},
		{"empty DATA", GlitchEmptyFrame, nil, func(r *raw) {
			r.headers(1, false, post...)
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteData(1, false, nil) }), 1000)
		}},
		{"padded empty DATA", GlitchEmptyFrame, nil, func(r *raw) {
			r.headers(1, false, post...)
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteDataPadded(1, false, nil, make([]byte, 100)) }), 1000)
		}},
		{"SETTINGS", GlitchSettings, nil, func(r *raw) {
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteSettings() }), 10000)
		}},
		{"SETTINGS acknowledged", GlitchSettings, nil, func(r *raw) {
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteSettingsAck() }), 10000)
		}},
		{"PING", GlitchPing, nil, func(r *raw) {
			go func() { // the answers are read, so the queue stays short
				for {
					if _, err := r.fr.ReadFrame(); err != nil {
						return
					}
				}
			}()
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WritePing(false, [8]byte{}) }), 100000)
			_ = r.c.Close()
		}},
		{"PRIORITY", GlitchPriority, nil, func(r *raw) {
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3}) }), 10000)
		}},
		{"WINDOW_UPDATE", GlitchWindowUpdate, nil, func(r *raw) {
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteWindowUpdate(0, 1) }), 10000)
		}},
		{"DATA on closed streams", GlitchClosedStream, func(c *Config) { c.MaxGlitches = 500 }, func(r *raw) {
			// Stream 1 is skipped; it counts as closed.
			r.get(3)
			r.wantStatus(3, "200")
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteData(1, false, []byte("x")) }), 10000)
		}},
		{"RST_STREAM on closed streams", GlitchClosedStream, nil, func(r *raw) {
			r.get(1)
			r.wantStatus(1, "200")
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteRSTStream(1, xhttp2.ErrCodeCancel) }), 10000)
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			var n counts
			cfg := n.cfg()
			if f.cfg != nil {
				f.cfg(cfg)
			}
			srv := serve(t, cfg, ok)
			var r *raw
			bounded(t, srv.addr, 1<<20, func() {
				r = rawClient(t, srv.addr)
				f.do(r)
				_ = srv.ended()
			})
			var ce *ConnError
			if err := srv.ended(); !errors.As(err, &ce) || ce.Code != EnhanceYourCalm || ce.Err != nil {
				t.Errorf("the connection ended with %v", err)
			}
			if n[f.class].Load() == 0 {
				t.Errorf("%v was not counted", f.class)
			}
		})
	}
}

var post = []string{":method", "POST", ":scheme", "http", ":authority", "example.com", ":path", "/"}

// TestGoAwayReachesTheFlooder: the reason is said before the end.
func TestGoAwayReachesTheFlooder(t *testing.T) {
	srv := serve(t, nil, ok)
	r := rawClient(t, srv.addr)
	for range 600 {
		_ = r.fr.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3})
	}
	r.wantGoAway(EnhanceYourCalm)
}

// TestRapidResetKeepsHandlersBounded: streams count until their handlers have
// returned, so resetting them buys no more work (CVE-2023-44487).
func TestRapidResetKeepsHandlersBounded(t *testing.T) {
	cfg := Default()
	cfg.MaxConcurrentStreams, cfg.ResetBurst = 10, 100_000
	var running, most atomic.Int64
	hold := make(chan bool)
	release := sync.OnceFunc(func() { close(hold) })
	defer release() // a server that is left waits for its handlers
	srv := serve(t, cfg, func(s *Stream) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-hold
		running.Add(-1)
		ok(s)
	})
	bounded(t, srv.addr, 1<<20, func() {
		r := rawClient(t, srv.addr)
		block := r.block(get...)
		for id := uint32(1); id < 20000; id += 2 {
			r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}))
			if id < 20 {
				// These begin; only then they are reset.
				eventually(t, "a handler", func() bool { return running.Load() == int64(id+1)/2 })
			}
			r.must(r.fr.WriteRSTStream(id, xhttp2.ErrCodeCancel))
		}
		r.must(r.fr.WritePing(false, [8]byte{1}))
		for f := r.next(xhttp2.FramePing); !f.(*xhttp2.PingFrame).IsAck(); f = r.next(xhttp2.FramePing) {
		}
		if m := most.Load(); m != 10 {
			t.Errorf("%d handlers at once, want 10", m)
		}
		release()
		eventually(t, "the handlers' end", func() bool { return running.Load() == 0 })
		// The connection goes on.
		r.get(20001)
		r.wantStatus(20001, "200")
	})
}

// TestHPACKBomb: a block of references to one large entry is large when decoded; it is
// refused, is not kept, and leaves the table in step (CVE-2016-6581).
func TestHPACKBomb(t *testing.T) {
	var n counts
	srv := serve(t, n.cfg(), ok)
	bounded(t, srv.addr, 1<<20, func() {
		r := rawClient(t, srv.addr)
		big := strings.Repeat("x", 3900)
		r.get(1, "bomb", big)
		r.wantStatus(1, "200")
		r.next(xhttp2.FrameData)
		// The entry is the newest: index 62. 14,000 of them are 55 MB.
		block := append(r.block(get...), bytes.Repeat([]byte{0x80 | 62}, 14000)...)
		r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndStream: true, EndHeaders: true}))
		r.wantStatus(3, "431")
		r.get(5, "bomb", big)
		r.wantStatus(5, "200")
	})
	if n[GlitchHeaderSize].Load() != 1 {
		t.Errorf("%d heads counted as too large", n[GlitchHeaderSize].Load())
	}
}

// TestUnreadAnswers: a client that makes us answer and does not read is cut off while
// the answers are few.
func TestUnreadAnswers(t *testing.T) {
	var n counts
	srv := serve(t, n.cfg(), ok)
	bounded(t, srv.addr, 1<<20, func() {
		r := rawClient(t, srv.addr)
		// DATA between the PINGs keeps them from being idle ones.
		ping := r.frames(func(fr *xhttp2.Framer) {
			for range 8 {
				_ = fr.WritePing(false, [8]byte{})
			}
			_ = fr.WriteData(1, false, []byte("x"))
		})
		r.headers(1, false, post...)
		r.write(ping, 1_000_000)
		_ = srv.ended()
	})
	if n[GlitchOutboundFrames].Load() == 0 {
		t.Errorf("the connection ended with %v", srv.ended())
	}
}

// TestDataDribble: one byte a frame costs no more memory than the bytes do
// (CVE-2019-9511, -9517).
func TestDataDribble(t *testing.T) {
	hold := make(chan bool)
	srv := serve(t, nil, func(s *Stream) {
		if s.Request().Method == "GET" {
			ok(s)
			return
		}
		<-hold
	})
	defer close(hold)
	const streams, size = 10, 20000
	bounded(t, srv.addr, streams*size*2+1<<20, func() {
		r := rawClient(t, srv.addr)
		for i := range uint32(streams) {
			r.headers(2*i+1, false, post...)
			b := r.frames(func(fr *xhttp2.Framer) {
				for range size {
					_ = fr.WriteData(2*i+1, false, []byte("x"))
				}
			})
			r.write(b, 1)
		}
		r.must(r.fr.WritePing(false, [8]byte{}))
		for f := r.next(xhttp2.FramePing); !f.(*xhttp2.PingFrame).IsAck(); f = r.next(xhttp2.FramePing) {
		}
	})
}

// TestWindowOverflow: whoever sends more than it may is stopped, on a stream and on the
// connection.
func TestWindowOverflow(t *testing.T) {
	cfg := Default()
	cfg.StreamWindow, cfg.ConnWindow = 65535, 100000
	hold := make(chan bool)
	srv := serve(t, cfg, func(s *Stream) {
		if s.Request().Method == "GET" {
			ok(s)
			return
		}
		<-hold
	})
	defer close(hold)
	bounded(t, srv.addr, 1<<20, func() {
		r := rawClient(t, srv.addr)
		r.headers(1, false, post...)
		for range 5 {
			r.must(r.fr.WriteData(1, false, make([]byte, 16000)))
		}
		r.wantReset(1, FlowControlError)
		r.headers(3, false, post...)
		// What the reset stream held was given back; the window is whole again.
		for range 4 {
			r.must(r.fr.WriteData(3, false, make([]byte, 16000)))
		}
		r.headers(5, false, post...)
		for range 4 {
			r.write(r.frames(func(fr *xhttp2.Framer) { _ = fr.WriteData(5, false, make([]byte, 16000)) }), 1)
		}
		r.wantGoAway(FlowControlError)
	})
}

// TestZeroWindowHold: streams whose client takes nothing hold what was written to them
// and no more, and Interrupt ends them.
func TestZeroWindowHold(t *testing.T) {
	const streams = 200
	var mu sync.Mutex
	var held []*Stream
	ended := make(chan error, streams)
	body := make([]byte, 1<<20)
	srv := serve(t, nil, func(s *Stream) {
		if s.Request().Path != "/held" {
			ok(s)
			return
		}
		mu.Lock()
		held = append(held, s)
		mu.Unlock()
		resp := message.Response{Status: 200, ContentLength: message.UnknownLength}
		_ = s.WriteHead(&resp, false)
		ended <- s.WriteData(body, true)
	})
	bounded(t, srv.addr, 2<<20, func() {
		r := rawClient(t, srv.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		fields := append([]string(nil), get...)
		fields[7] = "/held"
		for i := range uint32(streams) {
			r.headers(2*i+1, true, fields...)
		}
		for range streams {
			r.next(xhttp2.FrameHeaders)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	for _, s := range held {
		s.Interrupt()
	}
	for range streams {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a held stream ended with %v", err)
		}
	}
}

// TestSlowHead: a head that does not become whole ends the connection, however its
// pieces arrive.
func TestSlowHead(t *testing.T) {
	var n counts
	cfg := n.cfg()
	cfg.HeaderTimeout = 50 * time.Millisecond
	srv := serve(t, cfg, ok)
	for i, start := range []func(r *raw){
		func(r *raw) { _, _ = r.c.Write([]byte{0, 0}) },
		func(r *raw) { _, _ = r.c.Write([]byte{0, 0, 9, frameHeaders, 0, 0, 0, 0, 1, 0x82}) },
		func(r *raw) {
			_ = r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block(get...)})
		},
	} {
		r := rawClient(t, srv.addr)
		start(r)
		r.wantGoAway(EnhanceYourCalm)
		if n[GlitchSlowHead].Load() != int64(i+1) {
			t.Errorf("case %d: %d counted", i, n[GlitchSlowHead].Load())
		}
	}
	// A connection that waits between requests may wait.
	r := rawClient(t, srv.addr)
	r.get(1)
	r.wantStatus(1, "200")
}
