package http2

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

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
	srv := serve(b, nil, unary())
	cc := dialClient(b, srv.addr, nil)
	req := unaryRequest()
	var resp message.Response
	b.ReportAllocs()
	for b.Loop() {
		if err := unaryCall(cc, req, &resp); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnary32 has 32 exchanges under way on one connection.
func BenchmarkUnary32(b *testing.B) {
	srv := serve(b, nil, unary())
	cc := dialClient(b, srv.addr, nil)
	b.ReportAllocs()
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
	d.init(initialTable, 64<<10)
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
	b.ReportAllocs()
	for b.Loop() {
		got.Reset()
		h.begin(requestHead, &got.Fields)
		if r := d.decode(block, &h); r != "" {
			b.Fatal(r)
		}
		if h.request(&got, false, false) != 0 || h.malformed != "" {
			b.Fatal(h.malformed)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	var e encoder
	e.init(initialTable, false)
	req := unaryRequest()
	var block []byte
	b.ReportAllocs()
	for b.Loop() {
		block = e.request(block[:0], req)
	}
}
