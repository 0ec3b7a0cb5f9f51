package http2

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

// measured reports the process's CPU time for each exchange: the clock says little on a
// machine that others use too.
func measured(b *testing.B) {
	b.ReportAllocs()
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := cpu()
	b.Cleanup(func() { b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op") })
}

// withWorkers is the default configuration with a pool of goroutines.
func withWorkers(b *testing.B) *Config {
	cfg := Default()
	cfg.Workers = new(workers.Pool)
	b.Cleanup(cfg.Workers.Close)
	return cfg
}

// unaryRequest has the fields that a gRPC client sends.
func unaryRequest() *message.Request {
	r := newRequest("POST", "/helloworld.Greeter/SayHello")
	r.ContentLength = message.UnknownLength
	r.AcceptTrailers = true
	r.Fields.Add("content-type", "application/grpc")
	r.Fields.Add("user-agent", "grpc-go/1.85.0")
	r.Fields.Add("grpc-timeout", "999873u")
	r.Fields.Add("x-request-id", "0b7b6d3a-5f6f-4f0e-9a55-9f27c1a1a1a1")
	return r
}

// unary answers as a gRPC server does; its messages are reused.
func unary() handlerFunc {
	type messages struct {
		resp     message.Response
		trailers message.Fields
	}
	free := make(chan *messages, 64)
	return func(s *Stream) {
		var m *messages
		select {
		case m = <-free:
		default:
			m = &messages{}
			m.resp.Status, m.resp.ContentLength = 200, message.UnknownLength
			m.resp.Fields.Add("content-type", "application/grpc")
			m.trailers.Add("grpc-status", "0")
		}
		for {
			_, last, err := s.Next()
			if err != nil {
				return
			}
			if last {
				break
			}
		}
		if s.WriteHead(&m.resp, false) == nil && s.WriteData(kilobyte[:], false) == nil && s.WriteTrailers(&m.trailers) == nil {
			_ = s.Flush()
		}
		free <- m
	}
}

var kilobyte [1024]byte

func unaryCall(cc *ClientConn, req *message.Request, resp *message.Response) error {
	s, err := cc.Open(req, false)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.WriteData(kilobyte[:], true); err != nil {
		return err
	}
	if err := s.Flush(); err != nil {
		return err
	}
	if _, err := s.ReadHead(resp); err != nil {
		return err
	}
	for {
		_, last, err := s.Next()
		if err != nil {
			return err
		}
		if last {
			return nil
		}
	}
}

// BenchmarkUnary is a gRPC-like exchange between both sides, over loopback.
func BenchmarkUnary(b *testing.B) {
	srv := serve(b, withWorkers(b), unary())
	cc := dialClient(b, srv.addr, nil)
	req := unaryRequest()
	var resp message.Response
	measured(b)
	for b.Loop() {
		if err := unaryCall(cc, req, &resp); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnary32 has 32 exchanges under way on one connection.
func BenchmarkUnary32(b *testing.B) {
	srv := serve(b, withWorkers(b), unary())
	cc := dialClient(b, srv.addr, nil)
	measured(b)
	b.SetParallelism(16) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		req := unaryRequest()
		var resp message.Response
		for pb.Next() {
			if err := unaryCall(cc, req, &resp); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var e encoder
	e.init(initialTable, false)
	req := unaryRequest()
	var block []byte
	for range 3 {
		block = e.request(block[:0], req)
	}
	var d decoder
	d.init(initialTable)
	h := head{cfg: Default()}
	var got message.Request
	var warm encoder
	warm.init(initialTable, false)
	for range 2 {
		h.begin(requestHead, &got.Fields)
		if r := d.decode(warm.request(nil, req), &h); r != "" {
			b.Fatal(r)
		}
		got.Reset()
	}
	measured(b)
	for b.Loop() {
		got.Reset()
		h.begin(requestHead, &got.Fields)
		if r := d.decode(block, &h); r != "" {
			b.Fatal(r)
		}
		if h.request(&got, false, false) != nil || h.malformed != "" {
			b.Fatal(h.malformed)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	var e encoder
	e.init(initialTable, false)
	req := unaryRequest()
	var block []byte
	measured(b)
	for b.Loop() {
		block = e.request(block[:0], req)
	}
}

// hop is an exchange's state, reused.
type hop struct {
	up   *Stream
	resp message.Response
}

func (h *hop) StreamEnded(error) { h.up.Interrupt() }

// unaryRelay is a proxy for requests that are small: it passes on what is there.
func unaryRelay(cc *ClientConn) handlerFunc {
	hops := sync.Pool{New: func() any { return new(hop) }}
	return func(s *Stream) {
		up, err := cc.Open(s.Request(), false)
		if err != nil {
			return
		}
		defer up.Close()
		h := hops.Get().(*hop)
		h.up = up
		defer hops.Put(h)
		if s.Watch(h) != nil {
			return
		}
		for last := false; !last; {
			var chunk []byte
			if chunk, last, err = s.Next(); err != nil || up.WriteData(chunk, last) != nil {
				return
			}
		}
		_ = up.Flush()
		if _, err := up.ReadHead(&h.resp); err != nil || s.WriteHead(&h.resp, false) != nil {
			return
		}
		for last := false; !last; {
			var chunk []byte
			if chunk, last, err = up.Next(); err != nil {
				return
			}
			if s.WriteData(chunk, false) != nil || last && s.WriteTrailers(up.Trailers()) != nil {
				return
			}
		}
		_ = s.Flush()
		_ = s.Watch(nil)
	}
}

// BenchmarkRelay has 32 exchanges under way through a proxy: two hops, four codecs.
func BenchmarkRelay(b *testing.B) {
	srv := serve(b, withWorkers(b), unary())
	cc := dialClient(b, serve(b, withWorkers(b), unaryRelay(dialClient(b, srv.addr, nil))).addr, nil)
	measured(b)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		req := unaryRequest()
		var resp message.Response
		for pb.Next() {
			if err := unaryCall(cc, req, &resp); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkBulk moves 1 MB bodies.
func BenchmarkBulk(b *testing.B) {
	body := make([]byte, 1<<20)
	srv := serve(b, withWorkers(b), func(s *Stream) {
		resp := message.Response{Status: 200, ContentLength: int64(len(body))}
		_ = s.WriteHead(&resp, false)
		_ = s.WriteData(body, true)
		_ = s.Flush()
	})
	cc := dialClient(b, srv.addr, nil)
	req := newRequest("GET", "/")
	var resp message.Response
	b.SetBytes(1 << 20)
	measured(b)
	for b.Loop() {
		s, err := cc.Open(req, true)
		if err != nil {
			b.Fatal(err)
		}
		_ = s.Flush()
		if _, err := s.ReadHead(&resp); err != nil {
			b.Fatal(err)
		}
		for last := false; !last; {
			if _, last, err = s.Next(); err != nil {
				b.Fatal(err)
			}
		}
		s.Close()
	}
}

// TestNoAllocations: a unary exchange, both sides of it, allocates nothing once the
// pools are filled; through a proxy neither.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		return // the pools drop things at random then
	}
	workers := func() *Config {
		cfg := Default()
		cfg.Workers = new(workers.Pool)
		t.Cleanup(cfg.Workers.Close)
		return cfg
	}
	origin := serve(t, workers(), unary())
	for name, addr := range map[string]string{
		"direct": origin.addr,
		"relay":  serve(t, workers(), unaryRelay(dialClient(t, origin.addr, nil))).addr,
	} {
		cc := dialClient(t, addr, nil)
		req := unaryRequest()
		var resp message.Response
		if allocs := testing.AllocsPerRun(2000, func() {
			if err := unaryCall(cc, req, &resp); err != nil {
				t.Fatal(err)
			}
		}); allocs >= 1 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
