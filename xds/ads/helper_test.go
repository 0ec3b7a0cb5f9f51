package ads

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func TestMain(m *testing.M) {
	// A thousand runs of a property take half a second, and find what a
	// hundred miss. -rapid.checks still decides.
	if f := flag.Lookup("rapid.checks"); f != nil {
		_ = f.Value.Set("1000")
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

const (
	cds = resource.ClusterType
	eds = resource.EndpointType
	lds = resource.ListenerType
	rds = resource.RouteType
)

var short = map[string]string{cds: "CDS", eds: "EDS", lds: "LDS", rds: "RDS"}

func mk(name string, m proto.Message, refs ...resource.Ref) *resource.Resource {
	r, err := resource.New(name, m, refs...)
	if err != nil {
		panic(err)
	}
	return r
}

// cl is a cluster whose endpoints have its name; v is its content.
func cl(name, v string) *resource.Resource {
	return mk(name, &clusterv3.Cluster{Name: name, AltStatName: v}, resource.Ref{Type: eds, Name: name})
}

func aggregate(name, v string, of ...string) *resource.Resource {
	return mk(name, &clusterv3.Cluster{Name: name, AltStatName: v}, refs(cds, of)...)
}

func ep(name, v string) *resource.Resource {
	return mk(name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{
		{Locality: &corev3.Locality{Region: v}},
	}})
}

func ls(name, v string, refs ...resource.Ref) *resource.Resource {
	return mk(name, &listenerv3.Listener{Name: name, StatPrefix: v}, refs...)
}

func urgent(name, v string, refs ...resource.Ref) *resource.Resource {
	r := ls(name, v, refs...)
	r.Urgent = true
	return r
}

func rt(name, v string, clusters ...string) *resource.Resource {
	return mk(name, &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: []string{"x-" + v}}, refs(cds, clusters)...)
}

func refs(url string, names []string) (out []resource.Ref) {
	for _, n := range names {
		out = append(out, resource.Ref{Type: url, Name: n})
	}
	return out
}

func toCluster(n string) resource.Ref { return resource.Ref{Type: cds, Name: n} }
func toRoute(n string) resource.Ref   { return resource.Ref{Type: rds, Name: n} }

func set(rs ...*resource.Resource) *resource.Set {
	s := &resource.Set{ByType: map[string]map[string]*resource.Resource{}}
	for _, r := range rs {
		if s.ByType[r.Type] == nil {
			s.ByType[r.Type] = map[string]*resource.Resource{}
		}
		s.ByType[r.Type][r.Name] = r
	}
	return s
}

// driver drives a core by hand, with a clock of its own.
type driver struct {
	t    *testing.T
	c    *core
	now  time.Time
	open []*response // sent and not answered
}

func newDriver(t *testing.T, delta bool, s *resource.Set) *driver {
	p := &driver{t: t, c: newCore(delta, 5*time.Second), now: time.Unix(1000, 0)}
	if s != nil {
		p.c.setView(s)
	}
	return p
}

func (p *driver) request(m request) {
	p.t.Helper()
	if _, err := p.c.apply(m, p.now); err != nil {
		p.t.Fatal(err)
	}
}

// subscribe sends an incremental subscription, or, in state of the world, the
// whole list of names.
func (p *driver) subscribe(url string, names ...string) {
	p.t.Helper()
	if p.c.delta {
		p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names})
		return
	}
	nonce := ""
	if ts := p.c.types[url]; ts != nil {
		nonce = ts.lastNonce
	}
	p.request(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: names, ResponseNonce: nonce})
}

// also adds one name to a subscription.
func (p *driver) also(url, name string) {
	p.t.Helper()
	names := []string{name}
	if ts := p.c.types[url]; ts != nil && !p.c.delta {
		names = append(names, slices.Sorted(maps.Keys(ts.names))...)
	}
	p.subscribe(url, names...)
}

// wildcards subscribes to all clusters and listeners.
func (p *driver) wildcards() {
	p.subscribe(cds)
	p.subscribe(lds)
}

func (p *driver) answer(r *response, nack string) {
	p.t.Helper()
	p.open = slices.DeleteFunc(p.open, func(o *response) bool { return o == r })
	var detail *spb.Status
	if nack != "" {
		detail = &spb.Status{Code: 3, Message: nack}
	}
	if p.c.delta {
		p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.url, ResponseNonce: r.nonce, ErrorDetail: detail})
		return
	}
	ts := p.c.types[r.url]
	var names []string
	for n := range ts.names {
		names = append(names, n)
	}
	if ts.wildcard && ts.everNamed {
		names = append(names, "*")
	}
	p.request(&discoveryv3.DiscoveryRequest{TypeUrl: r.url, ResponseNonce: r.nonce, ErrorDetail: detail, ResourceNames: names})
}

func (p *driver) ack(rs ...*response) {
	p.t.Helper()
	for _, r := range slices.Clone(rs) {
		p.answer(r, "")
	}
}

// next returns what the core sends now.
func (p *driver) next() []*response {
	out, _ := p.c.next(p.now)
	p.open = append(p.open, out...)
	return out
}

// settle acknowledges everything until nothing is sent any more, and returns
// what was.
func (p *driver) settle() (all []*response) {
	p.t.Helper()
	for range 1000 {
		all = append(all, p.next()...)
		if len(p.open) == 0 {
			return all
		}
		p.ack(slices.Clone(p.open)...)
	}
	p.t.Fatal("does not settle")
	return nil
}

func (p *driver) view(rs ...*resource.Resource) { p.c.setView(set(rs...)) }

// line renders a response as "CDS +a +b -c".
func line(r *response) string {
	var b strings.Builder
	b.WriteString(short[r.url])
	if short[r.url] == "" {
		b.WriteString(r.url)
	}
	for _, u := range r.upserts {
		b.WriteString(" +" + u.Name)
	}
	for _, n := range r.removed {
		b.WriteString(" -" + n)
	}
	return b.String()
}

func lines(rs []*response) []string {
	out := []string{}
	for _, r := range rs {
		out = append(out, line(r))
	}
	return out
}

func expect(t *testing.T, got []*response, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if d := cmp.Diff(want, lines(got)); d != "" {
		t.Fatalf("responses -want +got\n%s", d)
	}
}

// carries checks that a response has a resource in exactly this version.
func carries(t *testing.T, r *response, want *resource.Resource) {
	t.Helper()
	for _, u := range r.upserts {
		if u.Name == want.Name {
			if u.Version != want.Version {
				t.Fatalf("%s: %s has another version than wanted", line(r), u.Name)
			}
			return
		}
	}
	t.Fatalf("%s does not carry %s", line(r), want.Name)
}

// mesh is a whole little view: clusters a and b, a listener to route r to a.
func mesh() []*resource.Resource {
	return []*resource.Resource{
		cl("a", "1"), cl("b", "1"), ep("a", "1"), ep("b", "1"),
		ls("in", "1"), ls("out", "1", toRoute("r")), rt("r", "1", "a"),
	}
}

// with replaces resources by type and name.
func with(rs []*resource.Resource, changed ...*resource.Resource) []*resource.Resource {
	out := slices.Clone(rs)
	for _, c := range changed {
		out = without(out, c.Type, c.Name)
		out = append(out, c)
	}
	return out
}

func without(rs []*resource.Resource, url string, names ...string) []*resource.Resource {
	return slices.DeleteFunc(slices.Clone(rs), func(r *resource.Resource) bool {
		return r.Type == url && slices.Contains(names, r.Name)
	})
}

// synced returns a peer that has taken a view whole.
func synced(t *testing.T, delta bool, rs []*resource.Resource) *driver {
	t.Helper()
	p := newDriver(t, delta, set(rs...))
	p.wildcards()
	p.settle()
	var endpoints, routes []string
	for _, r := range rs {
		switch r.Type {
		case eds:
			endpoints = append(endpoints, r.Name)
		case rds:
			routes = append(routes, r.Name)
		}
	}
	p.subscribe(eds, endpoints...)
	p.settle()
	if len(routes) > 0 {
		p.subscribe(rds, routes...)
	}
	p.now = p.now.Add(time.Minute) // past every hold
	p.settle()
	if !p.c.quiet() {
		t.Fatal("not quiet after synchronisation")
	}
	return p
}

func both(t *testing.T, f func(t *testing.T, delta bool)) {
	for _, delta := range []bool{true, false} {
		t.Run(fmt.Sprintf("delta=%v", delta), func(t *testing.T) { f(t, delta) })
	}
}
