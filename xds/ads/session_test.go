package ads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// board is a Provider with one set for all.
type board struct {
	mu      sync.Mutex
	set     *resource.Set
	changed chan struct{}
	open    int
	clients []Client
	refuse  error
}

func newBoard(s *resource.Set) *board { return &board{set: s, changed: make(chan struct{})} }

func (b *board) Open(_ context.Context, c Client) (View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return nil, b.refuse
	}
	b.open++
	b.clients = append(b.clients, c)
	return b, nil
}

func (b *board) Current() *resource.Set {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.set
}

func (b *board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *board) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
}

func (b *board) publish(s *resource.Set) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set = s
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) views() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// serve starts a server on a pipe and returns a client of it.
func serve(t testing.TB, s *Server) discoveryv3.AggregatedDiscoveryServiceClient {
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	s.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///ads",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		<-done
	})
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

type deltaStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

func openDelta(t *testing.T, c discoveryv3.AggregatedDiscoveryServiceClient, url string, names ...string) deltaStream {
	t.Helper()
	s, err := c.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "n1"}, TypeUrl: url, ResourceNamesSubscribe: names,
	}); err != nil && err != io.EOF { // a stream that was refused already: Recv tells why
		t.Fatal(err)
	}
	return s
}

func recv(t *testing.T, s deltaStream) *discoveryv3.DeltaDiscoveryResponse {
	t.Helper()
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ack(t *testing.T, s deltaStream, m *discoveryv3.DeltaDiscoveryResponse) {
	t.Helper()
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}); err != nil {
		t.Fatal(err)
	}
}

func TestProviderIsToldWhoTheClientIs(t *testing.T) {
	b := newBoard(set(mesh()...))
	c := serve(t, New(Config{Provider: b}, WithPeerID(func(context.Context) (string, error) { return "spiffe://td/hauberk/node/n1", nil })))
	md, _ := structpb.NewStruct(map[string]any{"k": "v"})
	node := &corev3.Node{
		Id: "n1", Cluster: "c", UserAgentName: "envoy", Metadata: md, ClientFeatures: []string{"f"},
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "1.2.3"},
	}
	d, err := c.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: cds}); err != nil {
		t.Fatal(err)
	}
	recv(t, d)
	s, err := c.StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: cds}); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err != nil || len(m.Resources) != 2 || m.VersionInfo == "" {
		t.Fatalf("%v, %v", m, err)
	}
	want := Client{
		NodeID: "n1", Cluster: "c", UserAgent: "envoy", Version: "1.2.3", Features: []string{"f"},
		Metadata: map[string]any{"k": "v"}, PeerID: "spiffe://td/hauberk/node/n1", RemoteAddr: "bufconn", Delta: true,
	}
	if d := cmp.Diff(want, b.clients[0]); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	want.Delta = false
	if d := cmp.Diff(want, b.clients[1]); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestRefusedStreams(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		opts []Option
		node *corev3.Node
		want codes.Code
	}{
		"no identity": {Config{Provider: newBoard(set())},
			[]Option{WithPeerID(func(context.Context) (string, error) { return "", errors.New("no certificate") })},
			&corev3.Node{Id: "n"}, codes.Unauthenticated},
		"no node":           {Config{Provider: newBoard(set())}, nil, nil, codes.InvalidArgument},
		"provider's status": {Config{Provider: &board{refuse: status.Error(codes.PermissionDenied, "not yours")}}, nil, &corev3.Node{Id: "n"}, codes.PermissionDenied},
		"provider's error":  {Config{Provider: &board{refuse: errors.New("not ready")}}, nil, &corev3.Node{Id: "n"}, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, New(c.cfg, c.opts...))
			s, err := client.DeltaAggregatedResources(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: c.node, TypeUrl: cds})
			if _, err := s.Recv(); status.Code(err) != c.want {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestNewStreamsBeyondTheLimitAreRefused(t *testing.T) {
	t.Run("rate", func(t *testing.T) {
		c := serve(t, New(Config{Provider: newBoard(set()), StreamRate: 0.001, StreamBurst: 2}))
		recv(t, openDelta(t, c, cds))
		recv(t, openDelta(t, c, cds))
		if _, err := openDelta(t, c, cds).Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("third stream: %v", err)
		}
	})
	t.Run("number", func(t *testing.T) {
		c := serve(t, New(Config{Provider: newBoard(set()), MaxSessions: 1}))
		recv(t, openDelta(t, c, cds))
		if _, err := openDelta(t, c, cds).Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("second stream: %v", err)
		}
	})
}

// One peer's streams must not use up what the others reconnect with.
func TestStreamsOfOnePeerAreBounded(t *testing.T) {
	peer := "spiffe://td/hauberk/node/greedy"
	c := serve(t, New(Config{Provider: newBoard(set()), MaxPeerSessions: 1, StreamRate: 0.001, StreamBurst: 2},
		WithPeerID(func(context.Context) (string, error) { return peer, nil })))
	recv(t, openDelta(t, c, cds))
	for range 3 {
		if _, err := openDelta(t, c, cds).Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("a stream beyond the peer's: %v", err)
		}
	}
	peer = "spiffe://td/hauberk/node/other"
	recv(t, openDelta(t, c, cds))
}

func TestSilentStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serve(t, New(Config{Provider: newBoard(set())}))
		s, err := c.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Fatalf("%v", err)
		}
	})
}

func TestStreamThatLeavesClosesItsView(t *testing.T) {
	b := newBoard(set(mesh()...))
	srv := New(Config{Provider: b})
	c := serve(t, srv)
	s := openDelta(t, c, cds)
	recv(t, s)
	if b.views() != 1 || len(srv.Sessions()) != 1 {
		t.Fatal("no session")
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err == nil {
		t.Fatal("the stream did not end")
	}
	if b.views() != 0 || len(srv.Sessions()) != 0 {
		t.Fatalf("%d views, %d sessions", b.views(), len(srv.Sessions()))
	}
}

// bigSet has more than any flow-control window holds.
func bigSet(gen int) *resource.Set {
	pad := strings.Repeat("x", 64<<10)
	var rs []*resource.Resource
	for i := range 16 {
		rs = append(rs, cl(fmt.Sprintf("c%02d", i), fmt.Sprint(gen)+pad))
	}
	return set(rs...)
}

func TestKickEndsAClientThatDoesNotRead(t *testing.T) {
	b := newBoard(bigSet(0))
	srv := New(Config{Provider: b}, WithPeerID(func(context.Context) (string, error) { return "spiffe://td/node", nil }))
	c := serve(t, srv)
	s := openDelta(t, c, cds)
	waitFor(t, func() bool {
		st := srv.Sessions()
		return len(st) == 1 && len(st[0].Types) == 1 && st[0].Types[0].Outstanding == 1
	})
	if n := srv.Kick("spiffe://td/other"); n != 0 {
		t.Fatalf("kicked %d others", n)
	}
	if n := srv.Kick("spiffe://td/node"); n != 1 {
		t.Fatalf("kicked %d", n)
	}
	waitFor(t, func() bool { return len(srv.Sessions()) == 0 && b.views() == 0 })
	for {
		if _, err := s.Recv(); err != nil {
			if status.Code(err) != codes.PermissionDenied {
				t.Fatalf("%v", err)
			}
			return
		}
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("condition not met in 10 s")
		}
	}
}

// TestSlowClientCostsNothing: a client that does not read keeps one response in
// flight; when it reads again it gets the newest state, not the history.
func TestSlowClientCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(bigSet(0))
		srv := New(Config{Provider: b})
		s := openDelta(t, serve(t, srv), cds)
		for i := range 200 {
			synctest.Wait()
			b.publish(bigSet(i + 1))
		}
		synctest.Wait()
		if n := srv.Sessions()[0].Types[0].Outstanding; n != 1 {
			t.Fatalf("%d responses in flight", n)
		}
		n, last := 0, ""
		for last != bigSet(200).Get(cds, "c15").Version {
			m := recv(t, s)
			n++
			if len(m.Resources) > 0 {
				last = m.Resources[len(m.Resources)-1].Version
			}
			ack(t, s, m)
		}
		if n > 4 {
			t.Fatalf("%d responses for 200 changes it did not wait for", n)
		}
		synctest.Wait()
		if !srv.Sessions()[0].InSync {
			t.Fatal("not in sync")
		}
	})
}

// TestNoBusyLoopOnNack: over the wire, a client that rejects everything gets
// fewer than ten responses a second.
func TestNoBusyLoopOnNack(t *testing.T) {
	for _, delta := range []bool{true, false} {
		t.Run(fmt.Sprintf("delta=%v", delta), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoard(set(mesh()...))
				c := serve(t, New(Config{Provider: b}))
				n := 0
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				no := &spb.Status{Code: 3, Message: "no"}
				if delta {
					s, err := c.DeltaAggregatedResources(ctx)
					if err != nil {
						t.Fatal(err)
					}
					_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: cds})
					_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: lds})
					for m, err := s.Recv(); err == nil; m, err = s.Recv() {
						n++
						_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: no})
					}
				} else {
					s, err := c.StreamAggregatedResources(ctx)
					if err != nil {
						t.Fatal(err)
					}
					_ = s.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: cds})
					_ = s.Send(&discoveryv3.DiscoveryRequest{TypeUrl: lds})
					for m, err := s.Recv(); err == nil; m, err = s.Recv() {
						n++
						_ = s.Send(&discoveryv3.DiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ErrorDetail: no})
					}
				}
				if n == 0 || n > 20 {
					t.Fatalf("%d responses in 10 s", n)
				}
			})
		})
	}
}

// record is an Observer that keeps what it is told.
type record struct {
	NopObserver
	mu   sync.Mutex
	conv []Convergence
	log  []string
}

func (r *record) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *record) SessionOpened(s SessionInfo) { r.note("opened %s", s.Client.NodeID) }
func (r *record) SessionClosed(s SessionInfo, err error) {
	r.note("closed %s %v", s.Client.NodeID, err)
}
func (r *record) Refused(reason string) { r.note("refused %s", reason) }
func (r *record) Sent(_ SessionInfo, url string, u, d int) {
	r.note("sent %s +%d -%d", short[url], u, d)
}
func (r *record) Acked(_ SessionInfo, url string, took time.Duration) {
	r.note("acked %s after %v", short[url], took)
}
func (r *record) Nacked(_ SessionInfo, url string, names []string, detail string) {
	r.note("nacked %s %v %s", short[url], names, detail)
}
func (r *record) Converged(_ SessionInfo, c Convergence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conv = append(r.conv, c)
}

func TestObserverSeesEachChangesClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, rec := newBoard(set(mesh()...)), &record{}
		srv := New(Config{Provider: b, Observer: rec})
		s := openDelta(t, serve(t, srv), eds, "a")
		ack(t, s, recv(t, s))
		synctest.Wait()

		received := time.Now()
		time.Sleep(20 * time.Millisecond)
		next := set(with(mesh(), ep("a", "2"))...)
		next.Index, next.Received, next.Built = 42, received.UnixNano(), time.Now().UnixNano()
		b.publish(next)
		m := recv(t, s)
		time.Sleep(30 * time.Millisecond)
		ack(t, s, m)
		synctest.Wait()
		// A change this client does not see measures nothing.
		b.publish(set(with(mesh(), ep("a", "2"), ep("b", "2"))...))
		synctest.Wait()

		if len(rec.conv) != 2 || !rec.conv[0].Initial || rec.conv[1].Initial {
			t.Fatalf("%+v", rec.conv)
		}
		c := rec.conv[1]
		if c.Index != 42 || !c.Received.Equal(received) || c.Acked.Sub(c.Received) != 50*time.Millisecond ||
			c.Acked.Sub(c.LastSent) != 30*time.Millisecond || c.Built.Sub(c.Received) != 20*time.Millisecond {
			t.Fatalf("%+v", c)
		}
		st, ok := srv.Session(srv.Sessions()[0].ID)
		if !ok || st.LastConvergence.Index != 42 || !st.InSync || len(st.Types[0].Resources) != 1 {
			t.Fatalf("%+v", st)
		}
		if held, _ := srv.Held(st.ID); len(held) != 1 || held[0].Version != ep("a", "2").Version {
			t.Fatalf("held %v", held)
		}
		_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"b"}})
		m = recv(t, s)
		_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: m.Nonce, ErrorDetail: &spb.Status{Message: "b: no"}})
		synctest.Wait()
		_ = s.CloseSend()
		_, _ = s.Recv()
		synctest.Wait()
		want := []string{
			"opened n1", "sent EDS +1 -0", "acked EDS after 0s", "sent EDS +1 -0", "acked EDS after 30ms",
			"sent EDS +1 -0", "nacked EDS [b] b: no", "closed n1 <nil>",
		}
		if d := cmp.Diff(want, rec.log); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
		if _, ok := srv.Session(st.ID); ok {
			t.Error("the session outlives its stream")
		}
	})
}

func TestDrainSpreadsAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := New(Config{Provider: newBoard(set(mesh()...))})
		c := serve(t, srv)
		begin := time.Now()
		var wg sync.WaitGroup
		ends := make([]time.Duration, 4)
		for i := range ends {
			s := openDelta(t, c, cds)
			recv(t, s)
			wg.Go(func() {
				_, err := s.Recv()
				if status.Code(err) != codes.Unavailable {
					t.Errorf("%v", err)
				}
				ends[i] = time.Since(begin)
			})
		}
		if err := srv.Drain(t.Context(), 4*time.Second); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for i, d := range ends {
			if d != time.Duration(i)*time.Second {
				t.Errorf("stream %d ended after %v", i, d)
			}
		}
		if _, err := openDelta(t, c, cds).Recv(); status.Code(err) != codes.Unavailable {
			t.Fatalf("new stream while draining: %v", err)
		}
		if err := srv.Drain(t.Context(), time.Second); err != nil {
			t.Fatalf("second drain: %v", err)
		}
	})
}

func TestDrainObeysItsContext(t *testing.T) {
	srv := New(Config{Provider: newBoard(set(mesh()...))})
	c := serve(t, srv)
	recv(t, openDelta(t, c, cds))
	recv(t, openDelta(t, c, cds))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Drain(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestHoldTimeoutRunsInTheSession: the session's timer, not a message, releases
// what is held.
func TestHoldTimeoutRunsInTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(set(cl("a", "1")))
		s := openDelta(t, serve(t, New(Config{Provider: b})), cds)
		ack(t, s, recv(t, s))
		_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: lds})
		ack(t, s, recv(t, s))
		begin := time.Now()
		b.publish(set(cl("a", "1"), cl("c", "1"), ls("l", "1", toCluster("c"))))
		recv(t, s)
		if m := recv(t, s); m.TypeUrl != lds || time.Since(begin) != 5*time.Second {
			t.Fatalf("%s after %v", m.TypeUrl, time.Since(begin))
		}
	})
}
