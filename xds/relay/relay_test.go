package relay

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCaller is a process whose identities the test changes.
type fakeCaller struct {
	mu      sync.Mutex
	ids     []string
	changed chan struct{}
}

func (c *fakeCaller) Entitled() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ids)
}

func (c *fakeCaller) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *fakeCaller) String() string { return "uid=1001 gid=1001 pid=7" }

func (c *fakeCaller) set(ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = ids
	close(c.changed)
	c.changed = make(chan struct{})
}

// controlPlane answers each request by a response whose nonce counts, and keeps
// what it was sent.
type controlPlane struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	mu      sync.Mutex
	nodes   []*corev3.Node
	refuse  error
	hangUp  chan struct{}
	flood   int // responses of 1 MiB to the first request
	flooded int
}

func (p *controlPlane) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if p.refuse != nil {
		return p.refuse
	}
	go func() {
		for i := range p.flood {
			m := &discoveryv3.DeltaDiscoveryResponse{Nonce: strings.Repeat("x", 1<<20), SystemVersionInfo: fmt.Sprint(i)}
			if s.Send(m) != nil {
				return
			}
			p.mu.Lock()
			p.flooded++
			p.mu.Unlock()
		}
	}()
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			requests <- m
		}
	}()
	for n := 1; ; n++ {
		select {
		case <-p.hangUp:
			return status.Error(codes.Unavailable, "going away")
		case m, ok := <-requests:
			if !ok {
				return nil
			}
			p.mu.Lock()
			p.nodes = append(p.nodes, m.GetNode())
			p.mu.Unlock()
			if p.flood == 0 {
				if err := s.Send(&discoveryv3.DeltaDiscoveryResponse{Nonce: fmt.Sprint(n), TypeUrl: m.GetTypeUrl()}); err != nil {
					return err
				}
			}
		}
	}
}

func (p *controlPlane) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		p.mu.Lock()
		p.nodes = append(p.nodes, m.GetNode())
		p.mu.Unlock()
		if err := s.Send(&discoveryv3.DiscoveryResponse{Nonce: "full", TypeUrl: m.GetTypeUrl()}); err != nil {
			return err
		}
	}
}

func serve(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	c, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Stop(); <-done })
	return c
}

const web, api = "spiffe://td/ns/default/dc/dc1/svc/web", "spiffe://td/ns/default/dc/dc1/svc/api"

type rig struct {
	caller *fakeCaller
	cp     *controlPlane
	ads    discoveryv3.AggregatedDiscoveryServiceClient
}

func newRig(t *testing.T, attested bool) *rig {
	r := &rig{
		caller: &fakeCaller{ids: []string{web}, changed: make(chan struct{})},
		cp:     &controlPlane{hangUp: make(chan struct{})},
	}
	up := serve(t, func(s *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, r.cp) })
	relay := New(Config{Upstream: up, Caller: func(context.Context) (Caller, bool) { return r.caller, attested }})
	r.ads = discoveryv3.NewAggregatedDiscoveryServiceClient(serve(t, func(s *grpc.Server) { relay.Register(s) }))
	return r
}

func (r *rig) open(t *testing.T) discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s, err := r.ads.DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) nodes() []*corev3.Node {
	r.cp.mu.Lock()
	defer r.cp.mu.Unlock()
	return slices.Clone(r.cp.nodes)
}

// greedy claims what is not its own, in every way metadata allows.
func greedy() *corev3.Node {
	md, err := structpb.NewStruct(map[string]any{
		names.MetadataEntitled:  []any{api},
		"Hauberk.Entitled":      []any{api},
		"hauberk.admin":         true,
		names.MetadataWorkloads: []any{"web-1"},
		"team":                  "blue",
	})
	if err != nil {
		panic(err)
	}
	return &corev3.Node{Id: "envoy-1", UserAgentName: "envoy", Metadata: md}
}

func ends(t *testing.T, recv func() error, code codes.Code, want string) {
	t.Helper()
	for range 100 {
		err := recv()
		if err == nil {
			continue
		}
		if status.Code(err) != code || !strings.Contains(err.Error(), want) {
			t.Errorf("the stream ended with %v, want %s %q", err, code, want)
		}
		return
	}
	t.Error("the stream goes on")
}

func delta(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) func() error {
	return func() error { _, err := s.Recv(); return err }
}

func TestTheNodeIsVouchedFor(t *testing.T) {
	r := newRig(t, true)
	check := func(how string, have []*corev3.Node) {
		t.Helper()
		if len(have) != 2 || have[1] != nil {
			t.Fatalf("%s: nodes %v, want one in the first request and none later", how, have)
		}
		got := have[0].GetMetadata().AsMap()
		if fmt.Sprint(got) != fmt.Sprint(map[string]any{names.MetadataEntitled: []any{web}, names.MetadataWorkloads: []any{"web-1"}, "team": "blue"}) {
			t.Errorf("%s: the control plane is told %v", how, got)
		}
	}
	s := r.open(t)
	for i := range 2 {
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: greedy(), TypeUrl: "t"}); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || m.GetNonce() != fmt.Sprint(i+1) || m.GetTypeUrl() != "t" {
			t.Fatalf("%v %v", m, err)
		}
	}
	check("incremental", r.nodes())
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err == nil {
		t.Error("the stream goes on after the client has closed it")
	}

	r = newRig(t, true)
	full, err := r.ads.StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := full.Send(&discoveryv3.DiscoveryRequest{Node: greedy(), TypeUrl: "t"}); err != nil {
			t.Fatal(err)
		}
		if m, err := full.Recv(); err != nil || m.GetNonce() != "full" {
			t.Fatalf("%v %v", m, err)
		}
	}
	check("state of the world", r.nodes())
	_ = full.CloseSend()
	_, _ = full.Recv()
}

func TestWhoIsRefused(t *testing.T) {
	first := &discoveryv3.DeltaDiscoveryRequest{Node: greedy(), TypeUrl: "t"}
	for name, c := range map[string]struct {
		rig  func(*rig)
		anon bool
		send *discoveryv3.DeltaDiscoveryRequest
		code codes.Code
		want string
	}{
		"not attested":       {anon: true, send: first, code: codes.PermissionDenied, want: "nobody vouches"},
		"without identities": {rig: func(r *rig) { r.caller.ids = nil }, send: first, code: codes.PermissionDenied, want: "no entry of this host is for uid=1001"},
		"without a node":     {send: &discoveryv3.DeltaDiscoveryRequest{TypeUrl: "t"}, code: codes.InvalidArgument, want: "names no node"},
		"refused upstream": {rig: func(r *rig) { r.cp.refuse = status.Error(codes.PermissionDenied, "node is banned") }, send: first,
			code: codes.PermissionDenied, want: "control plane: node is banned"},
		"upstream's own trouble": {rig: func(r *rig) { r.cp.refuse = status.Error(codes.Unauthenticated, "no certificate") }, send: first,
			code: codes.Unavailable, want: "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, !c.anon)
			if c.rig != nil {
				c.rig(r)
			}
			s := r.open(t)
			_ = s.Send(c.send)
			ends(t, delta(s), c.code, c.want)
			if name != "refused upstream" && len(r.nodes()) > 0 {
				t.Error("the control plane heard of it")
			}
		})
	}
}

func TestStreamEndsWithItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*rig)
		code codes.Code
		want string
	}{
		"identity withdrawn":      {func(r *rig) { r.caller.set() }, codes.PermissionDenied, "any more"},
		"another identity":        {func(r *rig) { r.caller.set(web, api) }, codes.Unavailable, "connect again"},
		"control plane goes away": {func(r *rig) { close(r.cp.hangUp) }, codes.Unavailable, "going away"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true)
			s := r.open(t)
			if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: greedy()}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
			// A change that leaves the same set ends nothing.
			r.caller.set(web, web)
			if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
			c.do(r)
			ends(t, delta(s), c.code, c.want)
		})
	}
}

// A client that does not read holds up the control plane, not the agent's memory.
func TestSlowClientHoldsUpTheSender(t *testing.T) {
	r := newRig(t, true)
	r.cp.flood = 60
	s := r.open(t)
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: greedy()}); err != nil {
		t.Fatal(err)
	}
	sent := func() int {
		r.cp.mu.Lock()
		defer r.cp.mu.Unlock()
		return r.cp.flooded
	}
	last := -1
	for n := sent(); n == 0 || n != last; n = sent() {
		last = n
		time.Sleep(200 * time.Millisecond) // until nothing moves any more
	}
	if last > 20 {
		t.Errorf("%d MiB were taken for a client that reads nothing", last)
	}
	for range 60 {
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
}
