package http2

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// script is a stream whose peer says what was written down, in pieces, and leaves.
type script struct {
	in   []byte
	step int
	out  bytes.Buffer
	info stream.Info
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in[:min(s.step, len(s.in))])
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *script) TryWrite(p []byte) (n int, done bool, err error) {
	n, err = s.out.Write(p)
	return n, true, err
}
func (s *script) CloseWrite() error                { return nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Info() *stream.Info               { return &s.info }

// frameSeeds are byte strings of frames.
func frameSeeds() (seeds [][]byte) {
	r := &raw{}
	add := func(f func(fr *xhttp2.Framer)) { seeds = append(seeds, r.frames(f)) }
	head := []byte("\x83\x86\x84\x41\x0bexample.com")
	add(func(fr *xhttp2.Framer) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: 4, Val: 100})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true, PadLength: 3})
		_ = fr.WriteDataPadded(1, false, []byte("hello"), make([]byte, 5))
		_ = fr.WriteData(1, false, []byte("world"))
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x00\x01a\x01b"), EndHeaders: true, EndStream: true})
		_ = fr.WriteWindowUpdate(0, 1000)
		_ = fr.WriteGoAway(0, 0, []byte("bye"))
	})
	add(func(fr *xhttp2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head[:5]})
		_ = fr.WriteContinuation(1, true, head[5:])
		_ = fr.WritePriority(3, xhttp2.PriorityParam{StreamDep: 1})
		_ = fr.WriteRSTStream(1, 8)
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WriteRawFrame(0x42, 0, 7, []byte("unknown"))
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x88"), EndHeaders: true, EndStream: true})
	})
	return seeds
}

// FuzzServer: whatever a client says, and however it is cut up, Serve returns, the
// handlers do, and the answer is the same for every cut.
func FuzzServer(f *testing.F) {
	for _, s := range frameSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, step := range []int{1 << 20, 7} {
			s := &script{in: append([]byte(clientPreface), in...), step: step}
			cfg := Default()
			cfg.Linger = time.Millisecond
			_ = NewServer(s, cfg, handlerFunc(echo)).Serve(context.Background())
			wellFormed(t, s.out.Bytes())
		}
	})
}

// FuzzClient: whatever a server says, Run returns and the exchanges do.
func FuzzClient(f *testing.F) {
	for _, s := range frameSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &script{in: in, step: 11}
		cfg := Default()
		cfg.Linger = time.Millisecond
		cc := NewClient(s, cfg)
		up, err := cc.Open(newRequest("GET", "/"), true)
		if err != nil {
			t.Fatal(err)
		}
		_ = cc.Run()
		var resp message.Response
		for {
			if _, err := up.ReadHead(&resp); err != nil || resp.Status >= 200 {
				break
			}
		}
		for {
			if _, last, err := up.Next(); err != nil || last {
				break
			}
		}
		up.Close()
		wellFormed(t, bytes.TrimPrefix(s.out.Bytes(), []byte(clientPreface)))
	})
}

// wellFormed reads what we wrote with x/net's framer.
func wellFormed(t *testing.T, out []byte) {
	t.Helper()
	fr := xhttp2.NewFramer(nil, bytes.NewReader(out))
	for {
		if _, err := fr.ReadFrame(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("we wrote what x/net refuses: %v in %x", err, out)
		}
	}
}

// TestFlowControlIsKept: with the smallest windows, no more is sent than is allowed, and
// all of it arrives.
func TestFlowControlIsKept(t *testing.T) {
	body := strings.Repeat("0123456789", 30_000)
	srv := serve(t, nil, func(s *Stream) {
		resp := message.Response{Status: 200, ContentLength: int64(len(body))}
		_ = s.WriteHead(&resp, false)
		_ = s.WriteData([]byte(body), true)
		_ = s.Flush()
	})
	r := rawClient(t, srv.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000})
	r.get(1)
	r.wantStatus(1, "200")
	var got []byte
	window := 1000
	for len(got) < len(body) {
		d := r.next(xhttp2.FrameData).(*xhttp2.DataFrame)
		if window -= len(d.Data()); window < 0 {
			t.Fatalf("%d bytes beyond the window", -window)
		}
		got = append(got, d.Data()...)
		if window < 500 {
			n := 777
			window += n
			r.must(r.fr.WriteWindowUpdate(1, uint32(n)))
			r.must(r.fr.WriteWindowUpdate(0, uint32(n)))
		}
	}
	if string(got) != body {
		t.Error("the body is not what was sent")
	}
}

// TestWindowFollowsConsumption: the peer gets window back when the other side has taken
// what came, and not before.
func TestWindowFollowsConsumption(t *testing.T) {
	cfg := Default()
	cfg.StreamWindow, cfg.ConnWindow = 65535, 65535
	step := make(chan bool, 5)
	srv := serve(t, cfg, func(s *Stream) {
		for range step {
			if _, _, err := s.Next(); err != nil {
				return
			}
		}
	})
	defer close(step)
	r := rawClient(t, srv.addr)
	r.headers(1, false, post...)
	for range 4 {
		r.must(r.fr.WriteData(1, false, make([]byte, 16000)))
	}
	// A PING's answer shows that all was read; no window came before it.
	quiet := func() {
		r.must(r.fr.WritePing(false, [8]byte{}))
		for {
			f, err := r.fr.ReadFrame()
			r.must(err)
			switch f := f.(type) {
			case *xhttp2.WindowUpdateFrame:
				t.Fatalf("window given back: %v", f)
			case *xhttp2.PingFrame:
				if f.IsAck() {
					return
				}
			}
		}
	}
	quiet()
	// Each step takes a chunk and gives back the one before.
	for range 5 {
		step <- true
	}
	var stream, conn uint32
	for stream < 65535/2 || conn < 65535/2 {
		w := r.next(xhttp2.FrameWindowUpdate).(*xhttp2.WindowUpdateFrame)
		if w.StreamID == 0 {
			conn += w.Increment
		} else {
			stream += w.Increment
		}
	}
}

// TestSendersTakeTurns: streams that share the connection's window all get some.
func TestSendersTakeTurns(t *testing.T) {
	const n = 20
	srv := serve(t, nil, func(s *Stream) {
		resp := message.Response{Status: 200, ContentLength: message.UnknownLength}
		_ = s.WriteHead(&resp, false)
		_ = s.WriteData(make([]byte, 1<<20), true)
		_ = s.Flush()
	})
	r := rawClient(t, srv.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	for i := range uint32(n) {
		r.get(2*i + 1)
	}
	// All of them wait for the connection's window before it opens.
	eventually(t, "everybody waits", func() bool {
		c := &srv.conn(0).conn
		c.mu.Lock()
		defer c.mu.Unlock()
		waiting := 0
		for s := c.senders.first; s != nil; s = s.qnext {
			waiting++
		}
		return waiting == n
	})
	got := map[uint32]int{}
	total := 0
	window := 65535
	_ = r.c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for total < n<<20 {
		f, err := r.fr.ReadFrame()
		r.must(err)
		d, ok := f.(*xhttp2.DataFrame)
		if !ok {
			continue
		}
		got[d.StreamID] += len(d.Data())
		total += len(d.Data())
		window -= len(d.Data())
		if window < 16384 {
			window += 32768
			r.must(r.fr.WriteWindowUpdate(0, 32768))
		}
		// A round of turns later, everybody has had one.
		if total > (n+4)*turn && len(got) < n {
			t.Fatalf("%d of %d streams have got data", len(got), n)
		}
	}
	for id, b := range got {
		if b != 1<<20 {
			t.Errorf("stream %d got %d bytes", id, b)
		}
	}
}

// TestLargeHead: a head beyond one frame goes out in CONTINUATIONs and is read again.
func TestLargeHead(t *testing.T) {
	srv := serve(t, nil, echo)
	cc := dialClient(t, srv.addr, nil)
	req := newRequest("GET", "/large")
	for i := range 50 {
		req.Fields.Add("x-"+strings.Repeat("n", i), strings.Repeat("v", 1000))
	}
	resp, _, err := exchange(cc, req, "")
	if path, _ := resp.Header("x-path"); err != nil || path != "/large" {
		t.Errorf("%v, path %q", err, path)
	}
}

// TestTogether: what arrives together is there together when the handler starts.
func TestTogether(t *testing.T) {
	ready := make(chan bool, 1)
	srv := serve(t, nil, func(s *Stream) {
		ready <- s.Ready()
		ok(s)
	})
	r := rawClient(t, srv.addr)
	block := r.block(post...)
	r.write(r.frames(func(fr *xhttp2.Framer) {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
		_ = fr.WriteData(1, true, []byte("body"))
	}), 1)
	if !<-ready {
		t.Error("the body was not there")
	}
}

// watchedReader is a socket that tells whether a wait holds memory.
type watchedReader struct {
	*stream.Socket
	held chan bool
}

func (w *watchedReader) ReadReady(in stream.Buffers) (int, error) {
	select {
	case w.held <- in.(*input).buf != nil:
	default:
	}
	return w.Socket.ReadReady(in)
}

// TestIdleConnectionHoldsNoBuffer: a connection that waits has neither input nor output.
func TestIdleConnectionHoldsNoBuffer(t *testing.T) {
	srv := serve(t, nil, ok)
	c, err := net.Dial("tcp", srv.addr)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := stream.NewSocket(c.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &watchedReader{Socket: sock, held: make(chan bool, 100)}
	cc := NewClient(w, Default())
	done := make(chan error, 1)
	go func() { done <- cc.Run() }()
	if _, _, err := exchange(cc, newRequest("GET", "/"), ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no output", func() bool {
		cc.mu.Lock()
		defer cc.mu.Unlock()
		return cc.w.cur == nil && cc.w.rest == nil
	})
	cc.Close()
	<-done
	close(w.held)
	for held := range w.held {
		if held {
			t.Error("input is held while the connection waits")
		}
	}
}

func TestConfig(t *testing.T) {
	for what, change := range map[string]func(*Config){
		"MaxConcurrentStreams": func(c *Config) { c.MaxConcurrentStreams = 0 },
		"StreamWindow":         func(c *Config) { c.StreamWindow = 1000 },
		"ConnWindow":           func(c *Config) { c.ConnWindow = 1 << 31 },
		"CustomSettings":       func(c *Config) { c.CustomSettings = []Setting{{settingInitialWindowSize, 1}} },
		"Keepalive":            func(c *Config) { c.Keepalive.Interval = 1 },
	} {
		c := Default()
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSettingsAnnounced: what the configuration says is what the peer is told.
func TestSettingsAnnounced(t *testing.T) {
	cfg := Default()
	cfg.AllowConnect, cfg.HeaderTableSize, cfg.MaxConcurrentStreams = true, 100, 7
	cfg.CustomSettings = []Setting{{0x4242, 17}}
	r := rawClient(t, serve(t, cfg, ok).addr)
	f := r.next(xhttp2.FrameSettings).(*xhttp2.SettingsFrame)
	var got []Setting
	_ = f.ForeachSetting(func(s xhttp2.Setting) error { got = append(got, Setting{uint16(s.ID), s.Val}); return nil })
	want := []Setting{{settingHeaderTableSize, 100}, {settingInitialWindowSize, 16 << 20}, {settingMaxHeaderListSize, 60 << 10},
		{settingMaxConcurrentStreams, 7}, {settingEnableConnect, 1}, {0x4242, 17}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if w := r.next(xhttp2.FrameWindowUpdate).(*xhttp2.WindowUpdateFrame); w.Increment != 24<<20-65535 {
		t.Errorf("connection window by %d", w.Increment)
	}
}
