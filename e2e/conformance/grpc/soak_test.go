//go:build e2e

package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// dial connects a client of the test service; it is closed with the test.
func dial(t *testing.T, addr string) grpc_testing.TestServiceClient {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return grpc_testing.NewTestServiceClient(c)
}

// echoServer sends back what it gets.
type echoServer struct {
	grpc_testing.UnimplementedTestServiceServer
	streams atomic.Int64 // that are being served
}

func (e *echoServer) UnaryCall(_ context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: r.GetPayload()}, nil
}

func (e *echoServer) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	e.streams.Add(1)
	defer e.streams.Add(-1)
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: in.GetPayload()})
		}
		if err != nil {
			return err
		}
	}
}

// StreamingOutputCall sends without end, until the caller has enough.
func (e *echoServer) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, s grpc_testing.TestService_StreamingOutputCallServer) error {
	e.streams.Add(1)
	defer e.streams.Add(-1)
	for piece := random(100_000); ; {
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: piece}}); err != nil {
			return err
		}
	}
}

func startEcho(t *testing.T) (*echoServer, string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := new(echoServer)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	grpc_testing.RegisterTestServiceServer(g, e)
	go func() { _ = g.Serve(ln) }()
	t.Cleanup(g.Stop)
	return e, ln.Addr().String()
}

func random(n int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(out) // it cannot fail
	return out
}

// TestCompression: messages that are compressed arrive as they were sent.
func TestCompression(t *testing.T) {
	_, server := startEcho(t)
	client := dial(t, twoHops(t, server, rendered).addr)
	body := bytes.Repeat([]byte("hauberk "), 40_000)
	reply, err := client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: body}}, grpc.UseCompressor(gzip.Name))
	if err != nil || !bytes.Equal(reply.GetPayload().GetBody(), body) {
		t.Errorf("unary: %v", err)
	}
	if err := exchange(t.Context(), client, body, 5, grpc.UseCompressor(gzip.Name)); err != nil {
		t.Errorf("stream: %v", err)
	}
}

// exchange sends a message on one stream some times, without waiting for the answers,
// and compares what comes back.
func exchange(ctx context.Context, client grpc_testing.TestServiceClient, body []byte, times int, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.FullDuplexCall(ctx, opts...)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		for range times {
			if err := s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: body}}); err != nil {
				sent <- fmt.Errorf("send: %w", err)
				return
			}
		}
		sent <- s.CloseSend()
	}()
	want := sha256.Sum256(body)
	for i := range times {
		m, err := s.Recv()
		if err != nil {
			return fmt.Errorf("message %d of %d: %w", i, times, err)
		}
		if sha256.Sum256(m.GetPayload().GetBody()) != want {
			return fmt.Errorf("message %d of %d came back different", i, times)
		}
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("at the end: %w", err)
	}
	return <-sent
}

// TestConversations: messages to and fro on streams of several connections, each of which waits
// for the one before; that is where a sidecar holds messages back for others.
func TestConversations(t *testing.T) {
	_, server := startEcho(t)
	for _, p := range []path{twoHops(t, server, rendered), onOne(t, server, rendered)} {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			for range 4 {
				client := dial(t, p.addr)
				for range 2 {
					wg.Go(func() {
						if err := converse(ctx, client, 1000); err != nil {
							t.Error(err)
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// converse sends messages and waits for the answer of each.
func converse(ctx context.Context, client grpc_testing.TestServiceClient, times int) error {
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for i := range times {
		body := random(1 + i)
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: body}}); err != nil {
			return fmt.Errorf("message %d of %d: %w", i, times, err)
		}
		m, err := s.Recv()
		if err != nil {
			return fmt.Errorf("answer %d of %d: %w", i, times, err)
		}
		if !bytes.Equal(m.GetPayload().GetBody(), body) {
			return fmt.Errorf("answer %d of %d is not what was said", i, times)
		}
	}
	return s.CloseSend()
}

// TestSoak has some hundred streams at once carry large messages both ways under
// narrow windows, has many more cancelled and reset at any moment, and then looks for
// what the sidecars still hold: nothing.
func TestSoak(t *testing.T) {
	echo, server := startEcho(t)
	for _, p := range []path{oneHop(t, server, tight), twoHops(t, server, tight), onOne(t, server, tight)} {
		t.Run(p.name, func(t *testing.T) { soak(t, echo, p) })
	}
}

func soak(t *testing.T, echo *echoServer, p path) {
	var clients [4]grpc_testing.TestServiceClient
	for i := range clients {
		clients[i] = dial(t, p.addr)
		// The connections are there before the count.
		if err := exchange(t.Context(), clients[i], []byte("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	before := make([]int, len(p.sidecars))
	for i, s := range p.sidecars {
		eventually(t, 10*time.Second, "the sidecar rests", func() error {
			before[i] = s.goroutines()
			time.Sleep(50 * time.Millisecond)
			if now := s.goroutines(); now != before[i] {
				return fmt.Errorf("%d goroutines, then %d", before[i], now)
			}
			return nil
		})
	}

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // a stream that hangs does so for longer than any host is slow
	defer cancel()
	var wg sync.WaitGroup
	began := time.Now()
	const streams, times = 300, 3
	body := random(150_000)
	for i := range streams {
		wg.Go(func() {
			if err := exchange(ctx, clients[i%len(clients)], body, times); err != nil {
				t.Errorf("a stream beside others: %v", err)
			}
		})
	}
	// Beside them, clients that go away at any moment of a call.
	var cancelled atomic.Int64
	for i := range 20 {
		wg.Go(func() {
			for range 25 {
				if storm(t, ctx, clients[i%len(clients)]) {
					cancelled.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d streams of %d messages of %d KB both ways, and %d cancelled calls, in %v", streams, times, len(body)/1000, cancelled.Load(), time.Since(began))
	if cancelled.Load() < 100 {
		t.Errorf("only %d calls were cancelled in time", cancelled.Load())
	}

	eventually(t, 10*time.Second, "the server has no stream left", func() error {
		if n := echo.streams.Load(); n != 0 {
			return fmt.Errorf("%d streams", n)
		}
		return nil
	})
	for i, s := range p.sidecars {
		eventually(t, 10*time.Second, "the sidecar holds what it held", func() error {
			if now := s.goroutines(); now > before[i] {
				return fmt.Errorf("%s, sidecar %d: %d goroutines, %d before", p.name, i, now, before[i])
			}
			return nil
		})
	}
	// What it held was no capacity of the connections either.
	for range 20 {
		if err := exchange(ctx, clients[0], body, 1); err != nil {
			t.Fatalf("after the storm: %v", err)
		}
	}
}

// storm makes a call and leaves it at a random moment; it tells whether the call was
// still running.
func storm(t *testing.T, ctx context.Context, client grpc_testing.TestServiceClient) bool {
	// Not by a deadline: the server would know of it, and may be the one that ends the call.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(time.Duration(rand.Int64N(int64(30*time.Millisecond))), cancel).Stop()
	var err error
	if rand.IntN(2) == 0 {
		err = exchange(ctx, client, random(50_000), 10)
	} else {
		var s grpc_testing.TestService_StreamingOutputCallClient
		for s, err = client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{}); err == nil; {
			_, err = s.Recv()
		}
	}
	if err == nil {
		return false
	}
	if status.Code(err) != codes.Canceled {
		t.Errorf("a call that its client left: %v", err)
		return false
	}
	return true
}
