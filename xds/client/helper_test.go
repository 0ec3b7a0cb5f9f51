package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	cds = resource.ClusterType
	eds = resource.EndpointType
	lds = resource.ListenerType
	rds = resource.RouteType
)

func mk(name string, m proto.Message, refs ...resource.Ref) *resource.Resource {
	r, err := resource.New(name, m, refs...)
	if err != nil {
		panic(err)
	}
	return r
}

func cl(name, v string) *resource.Resource {
	return mk(name, &clusterv3.Cluster{Name: name, AltStatName: v,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{},
	}, resource.Ref{Type: eds, Name: name})
}

func ep(name, v string) *resource.Resource {
	return mk(name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{
		{Locality: &corev3.Locality{Region: v}},
	}})
}

// ls is a listener; its stat prefix carries the route it names, if any.
func ls(name, v, route string) *resource.Resource {
	var refs []resource.Ref
	if route != "" {
		refs = append(refs, resource.Ref{Type: rds, Name: route})
	}
	return mk(name, &listenerv3.Listener{Name: name, StatPrefix: route, TrafficDirection: corev3.TrafficDirection(len(v) % 3)}, refs...)
}

func rt(name, v, cluster string) *resource.Resource {
	return mk(name, &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: []string{"x-" + v}}, resource.Ref{Type: cds, Name: cluster})
}

func mesh() []*resource.Resource {
	return []*resource.Resource{
		cl("a", "1"), cl("b", "1"), ep("a", "1"), ep("b", "1"), ls("in", "1", ""), ls("out", "1", "r"), rt("r", "1", "a"),
	}
}

func with(rs []*resource.Resource, changed ...*resource.Resource) []*resource.Resource {
	for _, c := range changed {
		rs = append(without(rs, c.Type, c.Name), c)
	}
	return rs
}

func without(rs []*resource.Resource, url string, names ...string) []*resource.Resource {
	return slices.DeleteFunc(slices.Clone(rs), func(r *resource.Resource) bool {
		return r.Type == url && slices.Contains(names, r.Name)
	})
}

// plane is a control plane that can be stopped and started.
type plane struct {
	name string
	srv  discoveryv3.AggregatedDiscoveryServiceServer

	mu    sync.Mutex
	lis   *bufconn.Listener
	grpc  *grpc.Server
	done  chan struct{}
	dials int
}

func newPlane(t testing.TB, name string, srv discoveryv3.AggregatedDiscoveryServiceServer) *plane {
	p := &plane{name: name, srv: srv}
	p.start()
	t.Cleanup(p.stop)
	return p
}

func (p *plane) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lis, p.grpc, p.done = bufconn.Listen(1<<20), grpc.NewServer(), make(chan struct{})
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(p.grpc, p.srv)
	if own, ok := p.srv.(interface{ register(*grpc.Server) }); ok {
		own.register(p.grpc)
	}
	lis, g, done := p.lis, p.grpc, p.done
	go func() { defer close(done); _ = g.Serve(lis) }()
}

func (p *plane) stop() {
	p.mu.Lock()
	g, done := p.grpc, p.done
	p.grpc = nil
	p.mu.Unlock()
	if g != nil {
		g.Stop()
		<-done
	}
}

func (p *plane) server() Server {
	return Server{Name: p.name, Dial: func(context.Context) (grpc.ClientConnInterface, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dials++
		if p.grpc == nil {
			return nil, errors.New("connection refused")
		}
		lis := p.lis
		return grpc.NewClient("passthrough:///"+p.name,
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
	}}
}

// mirror is a Handler that keeps what it accepts, asks for the children of
// clusters and listeners, and rejects what is bad.
type mirror struct {
	c *Client
	// subscribe and unsubscribe stand in for those of c.
	subscribe, unsubscribe func(url string, names ...string)

	mu      sync.Mutex
	have    map[string]map[string]*resource.Resource
	updates []Update
	bad     func(*resource.Resource) error
}

func newMirror() *mirror {
	m := &mirror{have: map[string]map[string]*resource.Resource{}}
	for _, url := range resource.PushOrder {
		m.have[url] = map[string]*resource.Resource{}
	}
	return m
}

func (m *mirror) reject(bad func(*resource.Resource) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bad = bad
}

func (m *mirror) Apply(u Update) map[string]error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.updates = append(m.updates, u)
	errs := map[string]error{}
	for _, r := range u.Upserts {
		if m.bad != nil {
			if err := m.bad(r); err != nil {
				errs[r.Name] = err
				continue
			}
		}
		m.have[u.Type][r.Name] = r
	}
	for _, n := range u.Removed {
		delete(m.have[u.Type], n)
	}
	if child := map[string]string{cds: eds, lds: rds}[u.Type]; child != "" {
		m.follow(child, m.children(u.Type))
	}
	return errs
}

// drop forgets what nobody asks for any more.
func (m *mirror) drop(url, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.have[url], name)
}

func (m *mirror) children(url string) (names []string) {
	for n, r := range m.have[url] {
		if url == cds {
			names = append(names, n)
			continue
		}
		var l listenerv3.Listener
		if err := r.Body.UnmarshalTo(&l); err != nil {
			panic(err)
		}
		if l.StatPrefix != "" {
			names = append(names, l.StatPrefix)
		}
	}
	return names
}

func (m *mirror) follow(child string, names []string) {
	subscribe, unsubscribe := m.subscribe, m.unsubscribe
	if subscribe == nil {
		subscribe, unsubscribe = m.c.Subscribe, m.c.Unsubscribe
	}
	subscribe(child, append(names, "")...) // never the wildcard
	var gone []string
	for n := range m.have[child] {
		if !slices.Contains(names, n) {
			gone = append(gone, n)
			delete(m.have[child], n)
		}
	}
	if len(gone) > 0 {
		unsubscribe(child, gone...)
	}
}

// holds reports what differs between what the mirror has and a list; empty when
// nothing does.
func (m *mirror) differs(rs []*resource.Resource) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	n := 0
	for _, r := range rs {
		if got := m.have[r.Type][r.Name]; got == nil || got.Version != r.Version {
			out = append(out, fmt.Sprintf("%s %s", r.Type, r.Name))
		}
	}
	for _, have := range m.have {
		n += len(have)
	}
	if n != len(rs) {
		out = append(out, fmt.Sprintf("has %d, wants %d", n, len(rs)))
	}
	return strings.Join(out, ", ")
}

func (m *mirror) seen() []Update {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.updates)
}

func (m *mirror) names(url string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.have[url]))
}

// run starts a client with a mirror and stops it with the test.
func run(t testing.TB, m *mirror, cfg Config) (*Client, func()) {
	t.Helper()
	cfg.Handler = m
	if cfg.Node.ID == "" {
		cfg.Node.ID = "n1"
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.c = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

func eventually(t testing.TB, what func() string) {
	t.Helper()
	diff := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if diff = what(); diff == "" {
			return
		}
	}
	t.Fatalf("after 30 s: %s", diff)
}

func protocols(t *testing.T, f func(t *testing.T, sotw bool)) {
	for _, sotw := range []bool{false, true} {
		t.Run(fmt.Sprintf("sotw=%v", sotw), func(t *testing.T) { f(t, sotw) })
	}
}
