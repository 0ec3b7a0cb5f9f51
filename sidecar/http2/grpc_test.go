package http2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// rawCodec passes bytes as messages.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = bytes.Clone(b); return nil }
func (rawCodec) Name() string                    { return "raw" }

func init() { encoding.RegisterCodec(rawCodec{}) }

// grpcServer is grpc-go's server; it echoes every message of every method, and for the
// method that ends with Fail returns an error.
func grpcServer(t testing.TB) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(ss)
		ss.SetTrailer(metadata.Pairs("x-trailer", method))
		for {
			var m []byte
			switch err := ss.RecvMsg(&m); {
			case err == io.EOF && strings.HasSuffix(method, "Fail"):
				return status.Error(codes.FailedPrecondition, "as you wish: ü")
			case err == io.EOF:
				return nil
			case err != nil:
				return err
			}
			if err := ss.SendMsg(&m); err != nil {
				return err
			}
		}
	}))
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Stop(); wg.Wait() })
	return l.Addr().String()
}

func grpcClient(t testing.TB, addr string) *grpc.ClientConn {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("raw")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// relay is a proxy of one upstream connection: a server's handler that passes each
// stream on, as an exchange does, with a second goroutine for the request's body.
func relay(cc *ClientConn) handlerFunc {
	return func(s *Stream) {
		req := s.Request()
		up, err := cc.Open(req, req.Body == nil)
		if err != nil {
			s.Reset(RefusedStream)
			return
		}
		defer up.Close()
		defer func() { _ = s.Watch(nil) }() // before up is another's
		if s.Watch(watcherFunc(func(error) { up.Interrupt() })) != nil {
			return
		}
		_ = up.Flush()
		var wg sync.WaitGroup
		defer wg.Wait()
		if req.Body != nil {
			wg.Go(func() {
				for {
					chunk, last, err := s.Next()
					if err != nil {
						up.Reset(Cancel)
						return
					}
					if up.WriteData(chunk, last) != nil || up.Flush() != nil || last {
						return
					}
				}
			})
		}
		defer s.InterruptRead()
		var resp message.Response
		end := false
		for resp.Status < 200 {
			if end, err = up.ReadHead(&resp); err != nil {
				s.Reset(resetCode(err))
				return
			}
			if s.WriteHead(&resp, end) != nil {
				return
			}
			_ = s.Flush()
		}
		for !end {
			chunk, last, err := up.Next()
			if err != nil {
				s.Reset(resetCode(err))
				return
			}
			t := up.Trailers()
			end = last
			if s.WriteData(chunk, last && t == nil) != nil || last && t != nil && s.WriteTrailers(t) != nil {
				return
			}
			if last || !up.Ready() {
				_ = s.Flush()
			}
		}
	}
}

// resetCode passes on the code that the upstream gave: gRPC reads it.
func resetCode(err error) Code {
	var se *StreamError
	if errors.As(err, &se) && se.Remote {
		return se.Code
	}
	return InternalError
}

// TestGRPCThroughRelay: grpc-go's client and server with both of our sides between.
func TestGRPCThroughRelay(t *testing.T) {
	up := dialClient(t, grpcServer(t), nil)
	cc := grpcClient(t, serve(t, nil, relay(up)).addr)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	t.Run("unary", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				in := bytes.Repeat([]byte{byte(i)}, i*997)
				var out []byte
				var trailer metadata.MD
				err := cc.Invoke(ctx, "/t.T/Unary", &in, &out, grpc.Trailer(&trailer))
				if err != nil || !bytes.Equal(in, out) || trailer.Get("x-trailer")[0] != "/t.T/Unary" {
					t.Errorf("%d: %v, %d bytes of %d, trailer %v", i, err, len(out), len(in), trailer)
				}
			})
		}
		wg.Wait()
	})
	t.Run("error", func(t *testing.T) {
		in, out := []byte{}, []byte{}
		err := cc.Invoke(ctx, "/t.T/Fail", &in, &out)
		if status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "as you wish: ü" {
			t.Error(err)
		}
	})
	t.Run("stream", func(t *testing.T) {
		ss, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t.T/Stream")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			in := binary.BigEndian.AppendUint64(make([]byte, i*31), uint64(i))
			if err := ss.SendMsg(&in); err != nil {
				t.Fatal(err)
			}
			var out []byte
			if err := ss.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		_ = ss.CloseSend()
		var out []byte
		if err := ss.RecvMsg(&out); err != io.EOF {
			t.Error(err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		for range 20 {
			cctx, cancel := context.WithCancel(ctx)
			ss, err := cc.NewStream(cctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t.T/Stream")
			if err != nil {
				t.Fatal(err)
			}
			in, out := []byte("x"), []byte(nil)
			_ = ss.SendMsg(&in)
			_ = ss.RecvMsg(&out)
			cancel()
			if err := ss.RecvMsg(&out); status.Code(err) != codes.Canceled {
				t.Error(err)
			}
		}
		eventually(t, "the upstream streams' end", func() bool { return up.Active() == 0 })
	})
	t.Run("deadline", func(t *testing.T) {
		dctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		ss, err := cc.NewStream(dctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t.T/Stream")
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		if err := ss.RecvMsg(&out); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
		eventually(t, "the upstream stream's end", func() bool { return up.Active() == 0 })
	})
	t.Run("bulk", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				in := make([]byte, 3<<20)
				var out []byte
				if err := cc.Invoke(ctx, "/t.T/Bulk", &in, &out, grpc.MaxCallRecvMsgSize(4<<20)); err != nil || len(out) != len(in) {
					t.Errorf("%v, %d bytes", err, len(out))
				}
			})
		}
		wg.Wait()
	})
}
