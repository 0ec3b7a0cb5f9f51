package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestDrain: streams that are under way end, later ones are refused, and both sides
// return in peace.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		a, b := net.Pipe()
		sc := NewServer(&pipeStream{Conn: b}, nil, handlerFunc(func(s *Stream) { <-release; ok(s) }))
		cc := NewClient(&pipeStream{Conn: a}, nil)
		ran, served := make(chan error, 1), make(chan error, 1)
		go func() { ran <- cc.Run() }()
		go func() { served <- sc.Serve(context.Background()) }()
		answered := make(chan error, 1)
		go func() {
			_, _, err := exchange(cc, newRequest("GET", "/"), "")
			answered <- err
		}()
		synctest.Wait()
		sc.Drain()
		synctest.Wait()
		if cc.Usable() || cc.Free() > 0 {
			t.Error("the client would open another stream")
		}
		if _, err := cc.Open(newRequest("GET", "/"), true); !errors.Is(err, ErrRefused) {
			t.Errorf("a stream after GOAWAY: %v", err)
		}
		close(release)
		if err := <-answered; err != nil {
			t.Errorf("the stream under way: %v", err)
		}
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// TestDrainIsTwoPhase: the first GOAWAY admits all that is on its way; the final one
// follows the answer to a PING, or the timeout, and names the last stream.
func TestDrainIsTwoPhase(t *testing.T) {
	srv := serve(t, nil, ok)
	r := rawClient(t, srv.addr)
	r.get(1)
	r.wantStatus(1, "200")
	r.next(xhttp2.FrameData)
	srv.conn(0).Drain()
	if g := r.next(xhttp2.FrameGoAway).(*xhttp2.GoAwayFrame); g.LastStreamID != maxStreamID || g.ErrCode != 0 {
		t.Errorf("first %v", g)
	}
	ping := r.next(xhttp2.FramePing).(*xhttp2.PingFrame)
	// They crossed a request, which is served.
	r.get(3)
	r.wantStatus(3, "200")
	r.next(xhttp2.FrameData)
	r.must(r.fr.WritePing(true, ping.Data))
	if g := r.next(xhttp2.FrameGoAway).(*xhttp2.GoAwayFrame); g.LastStreamID != 3 || g.ErrCode != 0 {
		t.Errorf("final %v", g)
	}
	r.wantEnd()
}

// TestDrainWithJitter: the whole time passes, and at most the jitter more, though the client
// has answered, and what it asks for meanwhile is served. No two connections wait alike.
func TestDrainWithJitter(t *testing.T) {
	waits := map[time.Duration]bool{}
	for range 5 {
		synctest.Test(t, func(t *testing.T) { waits[drainsWithJitter(t)] = true })
	}
	if len(waits) < 2 {
		t.Errorf("all wait for %v", waits)
	}
	wrong := Default()
	wrong.DrainJitter = 1.5
	if wrong.Validate() == nil {
		t.Error("more than all of the time is taken")
	}
}

func drainsWithJitter(t *testing.T) time.Duration {
	cfg := Default()
	cfg.DrainTimeout, cfg.DrainJitter = 10*time.Second, 0.5
	a, b := net.Pipe()
	sc := NewServer(&pipeStream{Conn: b}, cfg, handlerFunc(ok))
	served := make(chan error, 1)
	go func() { served <- sc.Serve(context.Background()) }()
	r := newRaw(t, a)
	said := make(chan any, 10)
	go func() {
		for {
			switch f, err := r.fr.ReadFrame(); f := f.(type) {
			case *xhttp2.GoAwayFrame:
				said <- f.LastStreamID
			case *xhttp2.PingFrame:
				said <- f.Data
			default:
				if err != nil {
					return
				}
			}
		}
	}()
	_, _ = io.WriteString(a, clientPreface)
	r.must(r.fr.WriteSettings())
	synctest.Wait()
	began := time.Now()
	sc.Drain()
	if last := <-said; last != uint32(maxStreamID) {
		t.Errorf("first %v", last)
	}
	r.must(r.fr.WritePing(true, (<-said).([8]byte)))
	r.get(1)
	last, took := <-said, time.Since(began)
	if last != uint32(1) || took < cfg.DrainTimeout || took > cfg.DrainTimeout*3/2 {
		t.Errorf("final %v after %v", last, took)
	}
	_ = a.Close()
	<-served
	return took
}

// TestJittered: by chance, within its bounds, and all over them.
func TestJittered(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := jittered(10*time.Second, 0.5)
		least, most = min(least, d), max(most, d)
	}
	if least < 10*time.Second || least > 11*time.Second || most < 14*time.Second || most > 15*time.Second {
		t.Errorf("from %v to %v", least, most)
	}
	if d := jittered(time.Second, 0); d != time.Second {
		t.Errorf("%v without any", d)
	}
}

// TestDrainAsksAnew: the answer to a PING from before the GOAWAY does not prove that the
// client has seen it, nor is it held against the client, once.
func TestDrainAsksAnew(t *testing.T) {
	cfg := Default()
	glitches := make(chan Glitch, 10)
	cfg.OnGlitch = func(g Glitch) { glitches <- g }
	cfg.Keepalive = Keepalive{Interval: 10 * time.Millisecond, Timeout: 5 * time.Second}
	srv := serve(t, cfg, ok)
	r := rawClient(t, srv.addr)
	before := r.next(xhttp2.FramePing).(*xhttp2.PingFrame)
	srv.conn(0).Drain()
	r.next(xhttp2.FrameGoAway)
	r.must(r.fr.WritePing(true, before.Data))
	ping := r.next(xhttp2.FramePing).(*xhttp2.PingFrame)
	r.get(1)
	r.wantStatus(1, "200")
	r.next(xhttp2.FrameData)
	if n := len(glitches); n != 0 {
		t.Errorf("%d glitches", n)
	}
	r.must(r.fr.WritePing(true, before.Data))
	if g := <-glitches; g != GlitchPing {
		t.Errorf("%v", g)
	}
	r.must(r.fr.WritePing(true, ping.Data))
	if g := r.next(xhttp2.FrameGoAway).(*xhttp2.GoAwayFrame); g.LastStreamID != 1 {
		t.Errorf("final %v", g)
	}
	r.wantEnd()
}

// TestKeepalive: a peer that does not answer is left, one that does is not.
func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.Keepalive = Keepalive{Interval: 10 * time.Second, Timeout: 3 * time.Second}
		a, b := net.Pipe()
		cc := NewClient(&pipeStream{Conn: a}, cfg)
		done := make(chan error, 1)
		go func() { done <- cc.Run() }()
		pings := make(chan [8]byte, 10)
		go func() {
			defer close(pings)
			_, _ = io.ReadFull(b, make([]byte, len(clientPreface)))
			fr := xhttp2.NewFramer(b, b)
			_ = fr.WriteSettings()
			for {
				f, err := fr.ReadFrame()
				if err != nil {
					return
				}
				if p, ok := f.(*xhttp2.PingFrame); ok {
					pings <- p.Data
				}
			}
		}()
		fr := xhttp2.NewFramer(b, nil)
		start := time.Now()
		for range 3 {
			_ = fr.WritePing(true, <-pings)
		}
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("three PINGs took %v", d)
		}
		<-pings // not answered, but another frame extends the time
		time.Sleep(2 * time.Second)
		_ = fr.WriteWindowUpdate(0, 1)
		err := <-done
		var ce *ConnError
		if !errors.As(err, &ce) || ce.Reason != "keepalive_timeout" {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(start); d != 45*time.Second {
			t.Errorf("ended after %v, want 45 s", d)
		}
		_ = b.Close()
	})
}

// TestKeepaliveBeforeStream: an idle connection is asked before it is used.
func TestKeepaliveBeforeStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.Keepalive = Keepalive{Idle: time.Minute, Timeout: time.Second}
		cc, _ := pipe(t, cfg, nil, ok)
		for i, wait := range []time.Duration{0, 30 * time.Second, 2 * time.Minute} {
			time.Sleep(wait)
			if _, _, err := exchange(cc, newRequest("GET", "/"), ""); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			cc.mu.Lock()
			pinged := !cc.keeper.sent.IsZero()
			cc.mu.Unlock()
			if pinged != (i == 2) {
				t.Errorf("after %v: pinged %v", wait, pinged)
			}
		}
		// The answers came: the timeout does nothing.
		time.Sleep(time.Minute)
		if !cc.Usable() {
			t.Error("the connection was given up")
		}
		if idle := time.Duration(clock.Now() - cc.IdleSince()); idle < time.Minute {
			t.Errorf("idle for %v", idle)
		}
	})
}

// TestWriteTimeout: a peer that takes no byte is left, and what waits returns. It does not look like
// the time of whoever waits, which is what a deadline that passed means to it.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		cfg := Default()
		cfg.HeaderTimeout = 0
		cc := NewClient(&pipeStream{Conn: a}, cfg)
		done := make(chan error, 1)
		go func() { done <- cc.Run() }()
		start := time.Now()
		_, _, err := exchange(cc, newRequest("GET", "/"), "")
		if e := (*ConnError)(nil); !errors.As(err, &e) || e.Reason != "write_failed" || stream.IsTimeout(err) {
			t.Errorf("the exchange: %v", err)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("after %v", d)
		}
		if err := <-done; err == nil || stream.IsTimeout(err) {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestInterrupt: every blocking call returns, and goes on after Resume.
func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scfg := Default()
		scfg.StreamWindow, scfg.ConnWindow = 65535, 65535
		step := make(chan bool)
		cc, _ := pipe(t, nil, scfg, func(s *Stream) { <-step; echo(s) })
		req := newRequest("POST", "/")
		req.ContentLength = message.UnknownLength
		s, err := cc.Open(req, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var resp message.Response
		body := []byte(strings.Repeat("b", 65535))
		if err := s.WriteData(body, false); err != nil {
			t.Fatal(err)
		}
		for what, call := range map[string]func() error{
			"ReadHead":  func() error { _, err := s.ReadHead(&resp); return err },
			"Next":      func() error { _, _, err := s.Next(); return err },
			"WriteData": func() error { return s.WriteData([]byte("x"), false) },
		} {
			got := make(chan error, 1)
			go func() { got <- call() }()
			synctest.Wait()
			select {
			case err := <-got:
				t.Fatalf("%s did not wait: %v", what, err)
			default:
			}
			s.Interrupt()
			if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
			s.Resume()
		}
		// One direction does not stop the other.
		s.InterruptRead()
		go close(step)
		if err := s.WriteData([]byte("y"), true); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		s.Resume()
		if _, err := s.ReadHead(&resp); err != nil || resp.Status != 200 {
			t.Fatal(err, resp.Status)
		}
		n := 0
		for last := false; !last; {
			var chunk []byte
			if chunk, last, err = s.Next(); err != nil {
				t.Fatal(err)
			}
			n += len(chunk)
		}
		if n != 65536 {
			t.Errorf("%d bytes came back", n)
		}
	})
}

type watcherFunc func(error)

func (f watcherFunc) StreamEnded(err error) { f(err) }

// TestWatch: a handler that waits for something else learns that its client has left.
func TestWatch(t *testing.T) {
	for name, leave := range map[string]func(r *raw){
		"reset":      func(r *raw) { r.must(r.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)) },
		"disconnect": func(r *raw) { _ = r.c.Close() },
		"violation":  func(r *raw) { r.must(r.fr.WriteWindowUpdate(1, 0)) },
	} {
		left := make(chan error, 2)
		watching := make(chan bool)
		srv := serve(t, nil, func(s *Stream) {
			gone := make(chan bool, 1)
			if err := s.Watch(watcherFunc(func(err error) { left <- err; gone <- true })); err != nil {
				t.Error(err)
			}
			watching <- true
			<-gone
			if err := s.Watch(nil); err == nil {
				t.Error("Watch does not say that the stream has ended")
			}
			if _, _, err := s.Next(); err == nil {
				t.Error("Next goes on")
			}
		})
		r := rawClient(t, srv.addr)
		r.headers(1, false, post...)
		<-watching
		leave(r)
		if err := <-left; err == nil {
			t.Errorf("%s: no reason", name)
		}
	}
}

// TestClientGoAway: what the server certainly did not process is ErrRefused, the rest
// goes on.
func TestClientGoAway(t *testing.T) {
	r, cc := rawServer(t, nil)
	results := make([]chan error, 3)
	for i := range results {
		results[i] = make(chan error, 1)
		go func() {
			_, _, err := exchange(cc, newRequest("GET", "/"), "")
			results[i] <- err
		}()
		r.next(xhttp2.FrameHeaders) // in this order
	}
	r.must(r.fr.WriteRSTStream(3, xhttp2.ErrCodeRefusedStream))
	r.must(r.fr.WriteGoAway(3, xhttp2.ErrCodeNo, nil))
	for i := 1; i < 3; i++ {
		if err := <-results[i]; !errors.Is(err, ErrRefused) {
			t.Errorf("stream %d: %v", 2*i+1, err)
		}
	}
	r.headers(1, true, ":status", "200")
	if err := <-results[0]; err != nil {
		t.Errorf("stream 1: %v", err)
	}
	r.wantEnd()
}

// TestClientLimits: the peer's limit and ours are kept, and freed streams are told of.
func TestClientLimits(t *testing.T) {
	r, cc := rawServer(t, nil)
	freed := make(chan bool, 10)
	cc.mu.Lock()
	cc.onFree = func() { freed <- true }
	cc.mu.Unlock()
	r.must(r.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1}))
	eventually(t, "the limit", func() bool { return cc.Free() == 1 })
	s, err := cc.Open(newRequest("GET", "/"), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cc.Open(newRequest("GET", "/"), true); !errors.Is(err, ErrRefused) {
		t.Errorf("a second: %v", err)
	}
	for len(freed) > 0 {
		<-freed
	}
	s.Close()
	<-freed
	if cc.Free() != 1 || cc.Active() != 0 {
		t.Errorf("free %d, active %d", cc.Free(), cc.Active())
	}
}

// TestEarlyResponse: a response before the request's end is good as it is; the rest of
// the request is not wanted (RFC 9113 8.1).
func TestEarlyResponse(t *testing.T) {
	srv := serve(t, nil, ok)
	cc := dialClient(t, srv.addr, nil)
	req := newRequest("POST", "/")
	req.ContentLength = message.UnknownLength
	s, err := cc.Open(req, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.Flush()
	var resp message.Response
	if _, err := s.ReadHead(&resp); err != nil || resp.Status != 200 {
		t.Fatal(err)
	}
	chunk, last, err := s.Next()
	for err == nil && !last {
		chunk, last, err = s.Next()
	}
	if err != nil {
		t.Errorf("%q, %v", chunk, err)
	}
	eventually(t, "the reset", func() bool {
		var se *StreamError
		err := s.WriteData([]byte("x"), false)
		return errors.As(err, &se) && se.Remote && se.Code == NoError
	})
}

// TestInterimResponses arrive one by one, before the final one.
func TestInterimResponses(t *testing.T) {
	srv := serve(t, nil, func(s *Stream) {
		for _, status := range []int{100, 103, 103} {
			if err := s.WriteHead(&message.Response{Status: status}, false); err != nil {
				t.Error(err)
			}
		}
		ok(s)
	})
	cc := dialClient(t, srv.addr, nil)
	s, err := cc.Open(newRequest("GET", "/"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.Flush()
	var resp message.Response
	for _, want := range []int{100, 103, 103, 200} {
		if end, err := s.ReadHead(&resp); err != nil || end || resp.Status != want {
			t.Fatalf("status %d, end %v, %v; want %d", resp.Status, end, err, want)
		}
	}
}

// TestEachHeadHasItsTime: the time for a head begins with its first byte, not with that of
// one before it that was not whole either; what goes on without end has the time of one.
func TestEachHeadHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.HeaderTimeout = time.Second
		a, b := net.Pipe()
		var n counts
		cfg.OnGlitch = func(g Glitch) { n[g].Add(1) }
		sc := NewServer(&pipeStream{Conn: b}, cfg, handlerFunc(ok))
		var wg sync.WaitGroup
		wg.Go(func() { _ = sc.Serve(context.Background()) })
		r := newRaw(t, a)
		wg.Go(func() { _, _ = io.Copy(io.Discard, a) })
		_, _ = io.WriteString(a, clientPreface)
		r.must(r.fr.WriteSettings())
		var rest []byte
		for i := range uint32(10) {
			block := r.block(get...)
			f := append(appendFrameHeader(nil, len(block), frameHeaders, flagEndHeaders|flagEndStream, 2*i+1), block...)
			// The end of the last head, and the beginning of the next.
			if _, err := a.Write(append(rest, f[:len(f)/2]...)); err != nil {
				t.Fatalf("head %d: %v", i, err)
			}
			rest = f[len(f)/2:]
			time.Sleep(700 * time.Millisecond)
		}
		if _, err := a.Write(rest); err != nil {
			t.Fatal(err)
		}
		r.must(r.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 101, BlockFragment: r.block(get...)}))
		began := time.Now()
		for r.fr.WriteContinuation(101, false, r.block("a", "b")) == nil {
			time.Sleep(300 * time.Millisecond)
		}
		if took := time.Since(began); took > 2*time.Second || n[GlitchSlowHead].Load() != 1 {
			t.Errorf("a head without end was waited for %v", took)
		}
		_ = a.Close()
		wg.Wait()
	})
}

// TestOpenBehindTooMuch: a request for which our own buffer has no room was not refused by
// the peer.
func TestOpenBehindTooMuch(t *testing.T) {
	a, b := net.Pipe() // of which nobody reads
	defer b.Close()
	cc := NewClient(&pipeStream{Conn: a}, Default())
	var wg sync.WaitGroup
	wg.Go(func() { _ = cc.Run() })
	defer wg.Wait()
	defer cc.Close()
	req := newRequest("GET", "/")
	req.Fields.Add("a", strings.Repeat("b", 10_000))
	for range 90 {
		s, err := cc.Open(req, true)
		if err != nil {
			if !errors.Is(err, ErrFull) || errors.Is(err, ErrRefused) {
				t.Error(err)
			}
			return
		}
		defer s.Close()
	}
	t.Error("it took all")
}

// TestNoStreamAfterTheEnd: a request that was read together with others is not opened any
// more when an answer to one of those found the connection broken: nobody would end it.
func TestNoStreamAfterTheEnd(t *testing.T) {
	a, _ := net.Pipe()
	sc := NewServer(&pipeStream{Conn: a}, nil, nil) // nobody reads: it is the test's
	sc.mu.Lock()
	sc.fail(&ConnError{Code: InternalError, Reason: "write_failed", Err: io.ErrClosedPipe})
	sc.mu.Unlock()
	block := newRaw(t, a).block(post...)
	h := &frameHeader{length: len(block), kind: frameHeaders, flags: flagEndHeaders, stream: 1}
	if err := sc.headersFrame(h, block); err == nil || len(sc.streams) > 0 {
		t.Errorf("%d streams, %v", len(sc.streams), err)
	}
}
