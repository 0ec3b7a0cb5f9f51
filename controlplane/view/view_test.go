package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testDomain = "test.mesh"

func idOf(service string) string {
	return "spiffe://" + testDomain + "/ns/default/dc/dc1/svc/" + service
}

func newSnapshot() *catalog.Snapshot {
	return &catalog.Snapshot{
		Datacenter: "dc1", TrustDomain: testDomain,
		Instances: map[catalog.Name][]*catalog.Instance{},
		Entries:   map[catalog.EntryKey]api.ConfigEntry{},
		Broken:    map[catalog.EntryKey]string{},
	}
}

// harness changes a snapshot as the store does: copy on write, and what is dirty.
type harness struct {
	t    testing.TB
	m    *Manager
	snap *catalog.Snapshot
}

func newHarness(t testing.TB, entries ...api.ConfigEntry) *harness {
	h := &harness{t: t, m: NewManager(slog.New(slog.DiscardHandler)), snap: newSnapshot()}
	for _, e := range entries {
		h.snap.Entries[catalog.KeyOf(e)] = e
	}
	return h
}

func (h *harness) publishAll() {
	h.m.Apply(Published{Snapshot: h.snap, Dirty: catalog.Dirty{All: true}, Received: time.Unix(1, 0), Index: 1})
}

func (h *harness) copied() *catalog.Snapshot {
	s := *h.snap
	s.Instances, s.Entries, s.Broken = maps.Clone(s.Instances), maps.Clone(s.Entries), maps.Clone(s.Broken)
	h.snap = &s
	return &s
}

func (h *harness) setEntry(e api.ConfigEntry) {
	key := catalog.KeyOf(e)
	h.copied().Entries[key] = e
	h.m.Apply(Published{Snapshot: h.snap, Dirty: catalog.Dirty{Entries: map[catalog.EntryKey]struct{}{key: {}}}, Received: time.Unix(2, 0), Index: 2})
}

func (h *harness) setInstances(service string, list ...*catalog.Instance) {
	n := catalog.NewName("dc1", service)
	h.copied().Instances[n] = list
	h.m.Apply(Published{Snapshot: h.snap, Dirty: catalog.Dirty{Instances: map[catalog.Name]struct{}{n: {}}}, Received: time.Unix(3, 0), Index: 3})
}

func inst(service, node string, port int, upstreams ...string) *catalog.Instance {
	p := &api.AgentServiceConnectProxyConfig{LocalServicePort: 9000}
	for i, u := range upstreams {
		p.Upstreams = append(p.Upstreams, api.Upstream{DestinationName: u, LocalBindPort: 7000 + port%1000*20 + i})
	}
	return goldenInstance{Service: service, ID: service + "-1", Node: node, Address: "10.0.0.1", Port: port, Proxy: p}.instance()
}

func mesh(node string, services ...string) Client {
	c := Client{Node: node, Kind: render.Client{Caps: render.NewCapabilities(names.CapRBAC)}}
	for _, s := range services {
		c.Permitted = append(c.Permitted, idOf(s))
	}
	return c
}

func intentions(service, source string, action api.IntentionAction) *api.ServiceIntentionsConfigEntry {
	return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: service,
		Sources: []*api.SourceIntention{{Name: source, Action: action}}}
}

func listeners(s *resource.Set) []string {
	return slices.Sorted(maps.Keys(s.ByType[resource.ListenerType]))
}

func changed(v *View, f func()) bool {
	c := v.Changed()
	f()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNothingBeforeTheFirstPublication(t *testing.T) {
	h := newHarness(t)
	v := h.m.Open(mesh("n1", "api"))
	if v.Current() != nil {
		t.Fatal("a set before the catalog was read: the client would drop what it has")
	}
	if !changed(v, h.publishAll) || v.Current() == nil {
		t.Fatal("no set after the first publication, not even an empty one")
	}
	if s := v.Current(); s.Index != 1 || s.Received != time.Unix(1, 0).UnixNano() || s.Built == 0 {
		t.Errorf("clock: %+v", s)
	}
}

func TestANodeSeesOnlyItsOwn(t *testing.T) {
	h := newHarness(t)
	h.snap.Instances = map[catalog.Name][]*catalog.Instance{
		catalog.NewName("dc1", "web"):    {inst("web", "n1", 20000, "api")},
		catalog.NewName("dc1", "api"):    {inst("api", "n2", 20000)},
		catalog.NewName("dc1", "secret"): {inst("secret", "n1", 20001, "vault")},
		catalog.NewName("dc1", "vault"):  {inst("vault", "n3", 20000)},
	}
	h.publishAll()
	// secret runs on n1 too, but n1's join record does not name it.
	v := h.m.Open(mesh("n1", "web", "api"))
	s := v.Current()
	if got := listeners(s); len(got) != 2 {
		t.Errorf("listeners %q, want web's inbound and its upstream", got)
	}
	for _, typeURL := range resource.PushOrder {
		for name := range s.ByType[typeURL] {
			if strings.Contains(name, "secret") || strings.Contains(name, "vault") {
				t.Errorf("sees %s", name)
			}
		}
	}
	if !slices.ContainsFunc(h.m.NodeProblems("n1"), func(p render.Problem) bool {
		return p.Service == "secret" && strings.Contains(p.Reason, "does not permit")
	}) {
		t.Error("the workload that is not permitted is not reported")
	}
	// What a client asks for narrows, and never widens.
	c := mesh("n1", "web")
	c.Workloads = []string{"secret-1"}
	if got := listeners(h.m.Open(c).Current()); len(got) != 0 {
		t.Errorf("asked for a workload it may not host and got %q", got)
	}
	c = mesh("n1", "web", "secret")
	c.Entitled = []string{idOf("secret")}
	for _, l := range listeners(h.m.Open(c).Current()) {
		if strings.Contains(l, "web") {
			t.Errorf("narrowed to secret, sees %s", l)
		}
	}
	if got := listeners(h.m.Open(mesh("n4", "web", "secret", "api", "vault")).Current()); len(got) != 0 {
		t.Errorf("another node sees %q", got)
	}
}

func TestAnIntentionChangesOneListener(t *testing.T) {
	h := newHarness(t, intentions("api", "web", "allow"))
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	h.setInstances("api", inst("api", "n2", 20000))
	web, apiView := h.m.Open(mesh("n1", "web")), h.m.Open(mesh("n2", "api"))
	before := apiView.Current()
	var webChanged bool
	start := time.Now()
	if !changed(apiView, func() {
		webChanged = changed(web, func() { h.setEntry(intentions("api", "web", "deny")) })
	}) {
		t.Fatal("the deny is not in the view")
	}
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("took %v", d)
	}
	if webChanged {
		t.Error("the caller's view changed, though nothing of it did")
	}
	after := apiView.Current()
	for _, typeURL := range resource.PushOrder {
		same := fmt.Sprintf("%p", before.ByType[typeURL]) == fmt.Sprintf("%p", after.ByType[typeURL])
		if same != (typeURL != resource.ListenerType) {
			t.Errorf("%s: same map is %v", typeURL, same)
		}
	}
	l := after.Get(resource.ListenerType, names.Inbound("10.0.0.1", 20000))
	if !l.Urgent || !strings.Contains(string(l.Body.Value), "service-intentions/api Sources[0] (web)") {
		t.Errorf("the listener does not carry the deny, or not urgently")
	}
	if after.Generation != before.Generation+1 || after.Index != 2 {
		t.Errorf("generation %d after %d, index %d", after.Generation, before.Generation, after.Index)
	}
	if changed(apiView, func() { h.setEntry(intentions("other", "web", "deny")) }) {
		t.Error("another service's intention changed the view")
	}
}

func TestHealthTouchesEndpointsOnly(t *testing.T) {
	h := newHarness(t)
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	h.setInstances("api", inst("api", "n2", 20000))
	v := h.m.Open(mesh("n1", "web"))
	before := v.Current()
	sick := *inst("api", "n2", 20000)
	sick.Health = catalog.Critical
	h.setInstances("api", &sick)
	after := v.Current()
	for _, typeURL := range resource.PushOrder {
		same := fmt.Sprintf("%p", before.ByType[typeURL]) == fmt.Sprintf("%p", after.ByType[typeURL])
		if same != (typeURL != resource.EndpointType) {
			t.Errorf("%s: same map is %v", typeURL, same)
		}
	}
	h.setInstances("api")
	name := names.Cluster("", "api", "default", "default", "dc1", testDomain)
	if v.Current().Get(resource.EndpointType, name) == nil {
		t.Error("a service without instances has no endpoints resource: its cluster would wait for one")
	}
}

func TestLastGoodStaysInForce(t *testing.T) {
	httpService := &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api", Protocol: "http"}
	router := func(regex string) *api.ServiceRouterConfigEntry {
		return &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "api", Routes: []api.ServiceRoute{
			{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathRegex: regex}}}}}
	}
	broken := intentions("api", "web", "deny")
	broken.Sources[0].Permissions = []*api.IntentionPermission{{Action: "deny", HTTP: &api.IntentionHTTPPermission{PathRegex: "("}}}
	broken.Sources[0].Action = ""

	h := newHarness(t, httpService, router("/v1.*"), intentions("api", "web", "allow"))
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	h.setInstances("api", inst("api", "n2", 20000))
	web, apiView := h.m.Open(mesh("n1", "web")), h.m.Open(mesh("n2", "api"))
	if changed(web, func() { h.setEntry(router("(")) }) {
		t.Error("a router that cannot be used changed the view")
	}
	if changed(apiView, func() { h.setEntry(broken) }) {
		t.Error("intentions that cannot be used changed the view")
	}
	if n := len(h.m.Problems()); n != 2 {
		t.Errorf("%d problems, want 2: %v", n, h.m.Problems())
	}
	// A good one that nobody looked at is still the last good one.
	apiView.Close()
	h.setEntry(intentions("api", "admin", "allow"))
	h.setEntry(broken)
	l := h.m.Open(mesh("n2", "api")).Current().Get(resource.ListenerType, names.Inbound("10.0.0.1", 20000))
	if !strings.Contains(string(l.Body.Value), "(admin)") || strings.Contains(string(l.Body.Value), "(web)") {
		t.Error("an older state than the last good one is in force")
	}
	if !changed(web, func() { h.setEntry(router("/v2.*")) }) {
		t.Error("the mended router is not in the view")
	}
}

func TestIntentionsThatNeverCompiledDeny(t *testing.T) {
	h := newHarness(t)
	h.snap.Broken[catalog.Entry(api.ServiceIntentions, "api")] = "Sources[0]: no such action"
	h.snap.DefaultAllow = true
	h.setInstances("api", inst("api", "n2", 20000))
	l := h.m.Open(mesh("n2", "api")).Current().Get(resource.ListenerType, names.Inbound("10.0.0.1", 20000))
	if l == nil || !strings.Contains(string(l.Body.Value), "denied: ") {
		t.Fatal("not denied")
	}
}

func TestALostAuthorizationFeatureDenies(t *testing.T) {
	h := newHarness(t, intentions("api", "web", "allow"))
	h.setInstances("api", inst("api", "n2", 20000))
	c := mesh("n2", "api")
	c.Kind = render.Client{}
	l := h.m.Open(c).Current().Get(resource.ListenerType, names.Inbound("10.0.0.1", 20000))
	if l == nil || !strings.Contains(string(l.Body.Value), "spiffe://test.mesh/hauberk/none/deny-all") {
		t.Fatal("a sidecar without RBAC accepts peers")
	}
	if strings.Contains(string(l.Body.Value), "envoy.filters.network.rbac") {
		t.Error("it is sent a filter it does not know, and would keep its old listener")
	}
	if len(h.m.NodeProblems("n2")) == 0 {
		t.Error("not reported")
	}
}

func TestRegistrations(t *testing.T) {
	h := newHarness(t)
	h.setInstances("api", inst("api", "n2", 20000))
	v := h.m.Open(mesh("n2", "api", "web"))
	// A registration that cannot be hosted leaves the last good one in force.
	bad := *inst("api", "n2", 20001)
	bad.Problem = "Mode: transparent is not supported"
	if changed(v, func() { h.setInstances("api", &bad) }) {
		t.Error("a registration that cannot be hosted changed the view")
	}
	if len(h.m.NodeProblems("n2")) != 1 {
		t.Errorf("problems: %v", h.m.NodeProblems("n2"))
	}
	// One that names another service moves.
	moved := inst("web", "n2", 20000)
	moved.ID = "api-1"
	n, o := catalog.NewName("dc1", "web"), catalog.NewName("dc1", "api")
	s := h.copied()
	s.Instances[n], s.Instances[o] = []*catalog.Instance{moved}, nil
	h.m.Apply(Published{Snapshot: s, Dirty: catalog.Dirty{Instances: map[catalog.Name]struct{}{n: {}, o: {}}}})
	l := v.Current().Get(resource.ListenerType, names.Inbound("10.0.0.1", 20000))
	if l == nil || !strings.Contains(string(l.Body.Value), idOf("web")) {
		t.Error("the moved registration is not hosted")
	}
	if !changed(v, func() { h.setInstances("web") }) || len(listeners(v.Current())) != 0 {
		t.Error("a deregistered workload keeps its listener")
	}
}

func TestTwoWorkloadsShareAListenerAndClusters(t *testing.T) {
	h := newHarness(t)
	h.setInstances("db", inst("db", "n9", 20000))
	h.setInstances("a", inst("a", "n1", 20000, "db"))
	other := inst("b", "n1", 20000, "db")
	other.Proxy.LocalServicePort, other.Proxy.Upstreams[0].LocalBindPort = 9001, 7999
	h.setInstances("b", other)
	s := h.m.Open(mesh("n1", "a", "b")).Current()
	if got := listeners(s); len(got) != 3 {
		t.Fatalf("listeners %q, want one inbound and two outbound", got)
	}
	m, err := s.Get(resource.ListenerType, names.Inbound("10.0.0.1", 20000)).Body.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	var sni []string
	for _, c := range m.(*listenerv3.Listener).FilterChains {
		sni = append(sni, c.FilterChainMatch.ServerNames[0])
	}
	if want := []string{"a.default.dc1.internal.test.mesh", "b.default.dc1.internal.test.mesh"}; !slices.Equal(sni, want) {
		t.Errorf("chains by %q, want %q", sni, want)
	}
	if n := len(s.ByType[resource.ClusterType]); n != 3 {
		t.Errorf("%d clusters, want db's and two applications", n)
	}
}

// TestAnEnvoyDialsAsEachOfItsWorkloads: it has one certificate a cluster, so
// each caller has clusters and routes of its own, named by its SPIFFE ID. Our
// sidecar shares them.
// TestRegistrationsThatShareAnID: IDs are unique on one Consul node only, and who
// may register a service may not register another. So neither gets the other's
// requests.
func TestRegistrationsThatShareAnID(t *testing.T) {
	on := func(consulNode, service string, port, application int) *catalog.Instance {
		i := inst(service, consulNode, port)
		i.ID, i.Entry.Service.Meta = "db-1-sidecar-proxy", map[string]string{catalog.NodeMeta: "n1"}
		i.Proxy.LocalServicePort = application
		return i
	}
	h := newHarness(t)
	h.snap.Instances = map[catalog.Name][]*catalog.Instance{
		catalog.NewName("dc1", "api"): {on("agent-of-a-tenant", "api", 20000, 6666)},
		catalog.NewName("dc1", "db"):  {on("n1", "db", 20001, 5432)},
	}
	h.publishAll()
	s := h.m.Open(mesh("n1", "api", "db")).Current()
	if got := listeners(s); len(got) != 2 {
		t.Fatalf("listeners %q, want both", got)
	}
	for service, application := range map[string]uint32{"api": 6666, "db": 5432} {
		name := names.LocalApp(service, "", "db-1-sidecar-proxy")
		r := s.Get(resource.ClusterType, name)
		if r == nil {
			t.Errorf("no cluster %s", name)
			continue
		}
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		c := m.(*clusterv3.Cluster)
		if got := c.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().Address.GetSocketAddress().GetPortValue(); got != application {
			t.Errorf("%s leads to %d, want %d", name, got, application)
		}
	}

	// Of one service: the other's application is not reached by its listener.
	h.snap = h.copied()
	h.snap.Instances = map[catalog.Name][]*catalog.Instance{
		catalog.NewName("dc1", "db"): {on("n0", "db", 20000, 6666), on("n1", "db", 20001, 5432)},
	}
	h.publishAll()
	if got := listeners(h.m.Open(mesh("n1", "db")).Current()); len(got) != 1 || !strings.Contains(got[0], "20000") {
		t.Errorf("listeners %q, want only the one whose cluster stands", got)
	}
}

func TestAnEnvoyDialsAsEachOfItsWorkloads(t *testing.T) {
	h := newHarness(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "db", Protocol: "http"},
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "db",
			Failover: map[string]api.ServiceResolverFailover{"*": {Service: "spare"}}},
		&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "spare", Protocol: "http"})
	h.setInstances("db", inst("db", "n9", 20000))
	h.setInstances("a", inst("a", "n1", 20000, "db"))
	other := inst("b", "n1", 20000, "db")
	other.Proxy.LocalServicePort, other.Proxy.Upstreams[0].LocalBindPort = 9001, 7999
	h.setInstances("b", other)
	client := mesh("n1", "a", "b")
	client.Kind = render.Client{Dialect: render.Envoy}
	s := h.m.Open(client).Current()
	sni := names.Cluster("", "db", "default", "default", "dc1", testDomain)
	for _, service := range []string{"a", "b"} {
		name := names.CalledBy(sni, service, "default")
		r := s.Get(resource.ClusterType, name)
		if r == nil || s.Get(resource.RouteType, names.Routes(sni, service, "default")) == nil || s.Get(resource.ClusterType, names.Failover(name)) == nil {
			t.Fatalf("%s has no cluster, failover or route of its own: %v", service, slices.Sorted(maps.Keys(s.ByType[resource.ClusterType])))
		}
		text := string(r.Body.Value)
		if !strings.Contains(text, idOf(service)) {
			t.Errorf("%s's cluster does not ask for its certificate: %q", service, text)
		}
		if len(r.Refs) != 1 || r.Refs[0].Name != sni || !strings.Contains(text, sni) {
			t.Errorf("%s's endpoints and SNI are not the plain ones: %v", service, r.Refs)
		}
	}
	if len(h.m.NodeProblems("n1")) > 0 {
		t.Errorf("problems: %v", h.m.NodeProblems("n1"))
	}
}

func TestCloseAndRun(t *testing.T) {
	h := newHarness(t)
	h.setInstances("api", inst("api", "n2", 20000))
	v := h.m.Open(mesh("n2", "api"))
	v.Close()
	if changed(v, func() { h.setInstances("api") }) {
		t.Error("a closed view changes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := h.m.Run(ctx, func(ctx context.Context) (Published, error) {
		if n++; n > 2 {
			cancel()
			return Published{}, ctx.Err()
		}
		return Published{Snapshot: h.snap, Dirty: catalog.Dirty{All: true}}, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestInboundForIntentionCheck(t *testing.T) {
	h := newHarness(t, intentions("api", "web", "allow"))
	if _, err := h.m.Inbound(catalog.NewName("", "api")); err == nil {
		t.Error("an answer before the catalog was read")
	}
	h.publishAll()
	r, err := h.m.Inbound(catalog.NewName("", "api"))
	if err != nil || !strings.Contains(string(r.Body.Value), "service-intentions/api Sources[0] (web)") {
		t.Errorf("%v", err)
	}
}

// TestCallersWithOverrides: what one caller asks of its upstream does not change
// the clusters of the others, and its connections keep the plain SNI.
func TestCallersWithOverrides(t *testing.T) {
	h := newHarness(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web",
		UpstreamConfig: &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{ConnectTimeoutMs: 250}}})
	h.setInstances("api", inst("api", "n9", 20000))
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	h.setInstances("cron", inst("cron", "n1", 20001, "api"))
	s := h.m.Open(mesh("n1", "web", "cron")).Current()
	plain := names.Cluster("", "api", "default", "default", "dc1", testDomain)
	var own string
	for name := range s.ByType[resource.ClusterType] {
		if strings.HasSuffix(name, "~"+plain) {
			own = name
		}
	}
	if own == "" || s.Get(resource.ClusterType, plain) == nil {
		t.Fatalf("clusters %v", slices.Sorted(maps.Keys(s.ByType[resource.ClusterType])))
	}
	if refs := s.Get(resource.ClusterType, own).Refs; len(refs) != 1 || refs[0].Name != plain {
		t.Errorf("the own cluster does not share the endpoints: %v", refs)
	}
}

// TestRoutesKeepTheirName: connections that are open look their routes up by
// name, so what a caller asks of its upstream may not change it.
func TestRoutesKeepTheirName(t *testing.T) {
	h := newHarness(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api", Protocol: "http"})
	h.setInstances("api", inst("api", "n9", 20000))
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	h.setInstances("cron", inst("cron", "n1", 20001, "api"))
	v := h.m.Open(mesh("n1", "web", "cron"))
	before := v.Current()
	h.setEntry(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web",
		UpstreamConfig: &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{ConnectTimeoutMs: 250}}})
	after := v.Current()
	if fmt.Sprintf("%p", before.ByType[resource.ListenerType]) != fmt.Sprintf("%p", after.ByType[resource.ListenerType]) {
		t.Error("a listener changed")
	}
	plain := names.Cluster("", "api", "default", "default", "dc1", testDomain)
	for caller, changes := range map[string]bool{"web": true, "cron": false} {
		name := names.Routes(plain, caller, "default")
		b, a := before.Get(resource.RouteType, name), after.Get(resource.RouteType, name)
		if b == nil || a == nil || (b != a) != changes {
			t.Errorf("routes of %s: before %v, after %v, change is %v", caller, b, a, changes)
		}
	}
}

// TestOtherDatacentersAreReported: a chain may lead where nothing is known of,
// as in Consul; that its target has nobody is said.
func TestOtherDatacentersAreReported(t *testing.T) {
	h := newHarness(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api",
		Failover: map[string]api.ServiceResolverFailover{"*": {Datacenters: []string{"dc2"}}}})
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	h.m.Open(mesh("n1", "web"))
	if !slices.ContainsFunc(h.m.NodeProblems("n1"), func(p render.Problem) bool {
		return p.Service == "api" && strings.Contains(p.String(), "dc2")
	}) {
		t.Errorf("problems: %v", h.m.NodeProblems("n1"))
	}
}

// BenchmarkChange measures what one change costs among 1,000 services of 10
// instances, with 1,000 nodes connected that host 10 of them each and call 3.
func BenchmarkChange(b *testing.B) {
	h := newHarness(b)
	const services, replicas = 1000, 10
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		var list []*catalog.Instance
		for k := range replicas {
			x := inst(name, fmt.Sprintf("n%d", (i+k*97)%services), 20000+i, fmt.Sprintf("s%d", (i+1)%services),
				fmt.Sprintf("s%d", (i+2)%services), fmt.Sprintf("s%d", (i+3)%services))
			x.ID = fmt.Sprintf("%s-%d", name, k)
			x.Address = fmt.Sprintf("10.%d.%d.%d", k, i/250, i%250+1)
			for u := range x.Proxy.Upstreams {
				x.Proxy.Upstreams[u].LocalBindPort = 10000 + i*3 + u
			}
			list = append(list, x)
		}
		h.snap.Instances[catalog.NewName("dc1", name)] = list
		e := intentions(name, "web", "allow")
		h.snap.Entries[catalog.KeyOf(e)] = e
	}
	var all []string
	for i := range services {
		all = append(all, fmt.Sprintf("s%d", i))
	}
	start := time.Now()
	h.publishAll()
	for i := range services {
		h.m.Open(mesh(fmt.Sprintf("n%d", i), all...))
	}
	b.Logf("first views of 1,000 nodes: %v", time.Since(start))
	b.Run("intention", func(b *testing.B) {
		for i := range b.N {
			h.setEntry(intentions("s5", "web", []api.IntentionAction{"allow", "deny"}[i%2]))
		}
	})
	b.Run("health", func(b *testing.B) {
		name := catalog.NewName("dc1", "s7")
		for i := range b.N {
			list := slices.Clone(h.snap.Instances[name])
			x := *list[3]
			x.Health = []catalog.Health{catalog.Critical, catalog.Passing}[i%2]
			list[3] = &x
			h.setInstances("s7", list...)
		}
	})
	b.Run("everything", func(b *testing.B) {
		for range b.N {
			h.publishAll()
		}
	})
}
