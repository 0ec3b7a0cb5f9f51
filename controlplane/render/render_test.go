package render

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func snapshot(entries ...api.ConfigEntry) *catalog.Snapshot {
	s := &catalog.Snapshot{
		Datacenter: "dc1", TrustDomain: testDomain,
		Instances: map[catalog.Name][]*catalog.Instance{},
		Entries:   map[catalog.EntryKey]api.ConfigEntry{},
	}
	for _, e := range entries {
		s.Entries[catalog.KeyOf(e)] = e
	}
	return s
}

func environment(t *testing.T, entries ...api.ConfigEntry) *Environment {
	t.Helper()
	env, err := NewEnvironment(snapshot(entries...))
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func body[M any](t *testing.T, r *resource.Resource) M {
	t.Helper()
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	return m.(any).(M)
}

func TestCapabilities(t *testing.T) {
	a := NewCapabilities("envoy.lb.does_not_support_overprovisioning", names.CapRBAC, names.CapMaglev, names.CapRBAC)
	if b := NewCapabilities(names.CapMaglev, names.CapRBAC); a != b {
		t.Errorf("%v and %v differ: clients would not share resources", a, b)
	}
	if !a.Has(names.CapRBAC) || a.Has("hauberk.cap.rb") || a.Has(names.CapHTTP2) || (Capabilities{}).Has(names.CapRBAC) {
		t.Error("wrong membership")
	}
	if !(Client{Dialect: Envoy}).Can(names.CapHTTP2) || (Client{}).Can(names.CapRBAC) {
		t.Error("an Envoy can everything, a sidecar what it announces")
	}
}

func TestEndpoints(t *testing.T) {
	env := environment(t)
	target := compile.Target{Service: catalog.NewName("dc1", "api")}
	instance := func(addr string, port, weight int, h catalog.Health, zone string) *catalog.Instance {
		i := &catalog.Instance{ID: addr, Address: addr, Port: port, PassingWeight: weight, WarningWeight: 2, Health: h,
			Entry: &api.ServiceEntry{Service: &api.AgentService{Meta: map[string]string{"v": "1"}}}}
		if zone != "" {
			i.Entry.Service.Locality = &api.Locality{Region: "eu", Zone: zone}
		}
		return i
	}
	tests := []struct {
		name      string
		change    func(*compile.Target)
		instances []*catalog.Instance
		want      []string
		problems  int
	}{
		{name: "none is an empty resource"},
		{name: "every health state is sent",
			instances: []*catalog.Instance{
				instance("10.0.0.1", 1, 5, catalog.Passing, ""), instance("10.0.0.2", 1, 5, catalog.Warning, ""),
				instance("10.0.0.3", 1, 5, catalog.Critical, ""), instance("10.0.0.4", 1, 5, catalog.Maintenance, "")},
			want: []string{"/ 17", "10.0.0.1:1 HEALTHY 5", "10.0.0.2:1 HEALTHY 2", "10.0.0.3:1 UNHEALTHY 5", "10.0.0.4:1 DRAINING 5"}},
		{name: "only passing", change: func(t *compile.Target) { t.OnlyPassing = true },
			instances: []*catalog.Instance{instance("10.0.0.2", 1, 5, catalog.Warning, "")},
			want:      []string{"/ 2", "10.0.0.2:1 UNHEALTHY 2"}},
		{name: "weights out of bounds",
			instances: []*catalog.Instance{instance("10.0.0.1", 1, 0, catalog.Passing, ""), instance("10.0.0.2", 1, 4000, catalog.Passing, "")},
			want:      []string{"/ 129", "10.0.0.1:1 UNHEALTHY 1", "10.0.0.2:1 HEALTHY 128"}},
		{name: "one address is one host, the healthier registration of it",
			instances: []*catalog.Instance{instance("10.0.0.1", 1, 1, catalog.Critical, ""), instance("10.0.0.1", 1, 1, catalog.Passing, "")},
			want:      []string{"/ 1", "10.0.0.1:1 HEALTHY 1"}},
		{name: "places in order",
			instances: []*catalog.Instance{instance("10.0.0.1", 1, 1, catalog.Passing, "b"), instance("10.0.0.2", 1, 1, catalog.Passing, "a")},
			want:      []string{"eu/a 1", "10.0.0.2:1 HEALTHY 1", "eu/b 1", "10.0.0.1:1 HEALTHY 1"}},
		{name: "a host name is no address", problems: 1,
			instances: []*catalog.Instance{instance("api.example", 1, 1, catalog.Passing, ""), instance("::1", 1, 1, catalog.Passing, "")},
			want:      []string{"/ 1", "::1:1 HEALTHY 1"}},
		{name: "a filter chooses", change: func(t *compile.Target) { t.Filter = `Service.Meta.v == 2` },
			instances: []*catalog.Instance{instance("10.0.0.1", 1, 1, catalog.Passing, "")}},
		{name: "a filter that fails leaves nothing", problems: 1, change: func(t *compile.Target) { t.Filter = `Service.Meta.v ==` },
			instances: []*catalog.Instance{instance("10.0.0.1", 1, 1, catalog.Passing, "")}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			target := target
			if tc.change != nil {
				tc.change(&target)
			}
			r, problems, err := Endpoints(env, &target, tc.instances, api.Locality{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range body[*endpointv3.ClusterLoadAssignment](t, r).Endpoints {
				got = append(got, fmt.Sprintf("%s/%s %d", l.Locality.Region, l.Locality.Zone, l.LoadBalancingWeight.GetValue()))
				for _, e := range l.LbEndpoints {
					a := e.GetEndpoint().Address.GetSocketAddress()
					got = append(got, fmt.Sprintf("%s:%d %s %d", a.Address, a.GetPortValue(), e.HealthStatus, e.LoadBalancingWeight.GetValue()))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || len(problems) != tc.problems {
				t.Errorf("-want +got:\n%s\nproblems %v", diff, problems)
			}
		})
	}
}

func TestTimeoutsAndRetries(t *testing.T) {
	tests := []struct {
		name, protocol string
		chain          time.Duration
		d              *api.ServiceRouteDestination
		timeout, idle  time.Duration
		retryOn        string
		retries        uint32
		problems       int
		envoy          bool
	}{
		{name: "http says nothing", protocol: "http", timeout: 15 * time.Second, idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request", retries: 2},
		{name: "grpc says nothing", protocol: "grpc", idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request", retries: 2},
		{name: "negative is none", protocol: "http", chain: -1, idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request", retries: 2},
		{name: "a long request is not idled out", protocol: "http", chain: 10 * time.Minute, timeout: 10 * time.Minute, idle: 10 * time.Minute,
			retryOn: "connect-failure,refused-stream,reset-before-request", retries: 2},
		{name: "idle as said", protocol: "http", d: &api.ServiceRouteDestination{IdleTimeout: time.Second}, timeout: 15 * time.Second, idle: time.Second,
			retryOn: "connect-failure,refused-stream,reset-before-request", retries: 2},
		{name: "conditions without a number", protocol: "http", d: &api.ServiceRouteDestination{RetryOn: []string{"5xx", "nonsense"}}, timeout: 15 * time.Second,
			idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request,5xx", retries: 1, problems: 1},
		{name: "codes", protocol: "http", d: &api.ServiceRouteDestination{NumRetries: 3, RetryOnStatusCodes: []uint32{503}}, timeout: 15 * time.Second,
			idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request,retriable-status-codes", retries: 3},
		{name: "grpc statuses need HTTP/2", protocol: "http", d: &api.ServiceRouteDestination{RetryOn: []string{"unavailable"}}, timeout: 15 * time.Second,
			idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request", retries: 2, problems: 1},
		{name: "which Envoy has", protocol: "http", envoy: true, d: &api.ServiceRouteDestination{RetryOn: []string{"unavailable"}}, timeout: 15 * time.Second,
			idle: 5 * time.Minute, retryOn: "connect-failure,refused-stream,reset-before-request,unavailable", retries: 1},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			b := &chainBuilder{env: environment(t), chain: &compile.Chain{Protocol: tc.protocol}, out: &Chain{}}
			if tc.envoy {
				b.client.Dialect = Envoy
			}
			r := &compile.Route{RequestTimeout: tc.chain, Destination: tc.d, Origin: "o"}
			a := &routev3.RouteAction{}
			b.timeouts(a, r)
			p := b.retries(r)
			if a.Timeout.AsDuration() != tc.timeout || a.IdleTimeout.AsDuration() != tc.idle {
				t.Errorf("timeout %v idle %v, want %v and %v", a.Timeout.AsDuration(), a.IdleTimeout.AsDuration(), tc.timeout, tc.idle)
			}
			if p.RetryOn != tc.retryOn || p.NumRetries.GetValue() != tc.retries || len(b.out.Problems) != tc.problems {
				t.Errorf("%d retries on %s (%v), want %d on %s", p.NumRetries.GetValue(), p.RetryOn, b.out.Problems, tc.retries, tc.retryOn)
			}
		})
	}
}

func TestHeaderChanges(t *testing.T) {
	_, _, err := headerChanges(&api.HTTPHeaderModifiers{Set: map[string]string{"X-A": "100%% of %REQ(x-b):10% and %PROTOCOL% %REQ(ENVIRONMENT)% %%ENVIRONMENT%%"}, Remove: []string{"X-C"}})
	if err != nil {
		t.Error(err)
	}
	for name, m := range map[string]*api.HTTPHeaderModifiers{
		"stray percent": {Add: map[string]string{"x-a": "100%"}},
		"pseudo header": {Set: map[string]string{":path": "/"}},
		"host":          {Set: map[string]string{"Host": "a"}},
		"framing":       {Remove: []string{"Content-Length"}},
		"no name":       {Remove: []string{""}},
		"environment":   {Set: map[string]string{"x-a": "a %ENVIRONMENT(CONSUL_HTTP_TOKEN)% b"}},
		"its beginning": {Add: map[string]string{"x-a": "%ENVIRONMENT(CONSUL_HTTP_TOKEN):4%"}},
		"as a fallback": {Add: map[string]string{"x-a": `%COALESCE({"operators":["REQ(x)",{"command":"ENVIRONMENT","param":"A"}]})%`}},
		"a file":        {Add: map[string]string{"x-a": "%FILE_CONTENT(/etc/shadow)%"}},
	} {
		if _, _, err := headerChanges(m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestPureAndShared: equal inputs give equal versions, and the cache gives the
// same objects until an input changes, and the same resources while bytes do not.
func TestPureAndShared(t *testing.T) {
	defaults := &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api", Protocol: "http"}
	compiled := func() *compile.Chain {
		c, _, err := compile.CompileChain(snapshot(defaults), catalog.NewName("dc1", "api"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	env, cache := environment(t), NewCache()
	first, err := cache.Chain(env, Client{}, catalog.NewName("dc1", "web"), compiled())
	if err != nil {
		t.Fatal(err)
	}
	again, err := cache.Chain(env, Client{}, catalog.NewName("dc1", "web"), compiled())
	if err != nil {
		t.Fatal(err)
	}
	if first == again {
		t.Error("another chain gave the remembered result")
	}
	for i := range first.Resources {
		if first.Resources[i] != again.Resources[i] {
			t.Errorf("%s is not shared though nothing of it changed", first.Resources[i].Name)
		}
	}
	cache.Begin()
	cache.End()
	if n := cache.Len(); n != 0 {
		t.Errorf("%d results remembered that nobody asked for", n)
	}
}

// TestUpstreamTLS: a peer is one exact identity, over TLS 1.3, whatever Envoy's
// defaults are.
func TestUpstreamTLS(t *testing.T) {
	chain, _, err := compile.CompileChain(snapshot(), catalog.NewName("dc1", "api"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewChain(environment(t), Client{}, catalog.NewName("dc1", "web"), chain)
	if err != nil {
		t.Fatal(err)
	}
	c := body[*clusterv3.Cluster](t, out.Resources[0])
	text := string(c.TransportSocket.GetTypedConfig().Value)
	for _, want := range []string{"spiffe://test.mesh/ns/default/dc/dc1/svc/api", "api.default.dc1.internal.test.mesh", names.RootSecret, names.DefaultSecret, names.AgentCluster} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the TLS context", want)
		}
	}
	if c.Name != "api.default.dc1.internal.test.mesh" || c.OutlierDetection != nil {
		t.Errorf("cluster %v", c)
	}
	p := environment(t).outgoing.params()
	if p.TlsMinimumProtocolVersion.String() != "TLSv1_3" || p.TlsMaximumProtocolVersion.String() != "TLSv1_3" {
		t.Errorf("versions %v", p)
	}
}

func TestMeshTLS(t *testing.T) {
	env := environment(t, &api.MeshConfigEntry{TLS: &api.MeshTLSConfig{Incoming: &api.MeshDirectionalTLSConfig{TLSMinVersion: "TLSv1_2"}}})
	p := env.incoming.params()
	if p.TlsMinimumProtocolVersion.String() != "TLSv1_2" || p.TlsMaximumProtocolVersion.String() != "TLSv1_3" || len(p.CipherSuites) != len(aeadSuites) {
		t.Errorf("incoming %v", p)
	}
	if slices.ContainsFunc(p.CipherSuites, func(s string) bool {
		return !strings.HasPrefix(s, "ECDHE-") || strings.Contains(s, "-SHA") && !strings.Contains(s, "GCM")
	}) {
		t.Errorf("suites %q", p.CipherSuites)
	}
	// A list of which nothing is acceptable is no wish for the whole list.
	none := environment(t, &api.MeshConfigEntry{TLS: &api.MeshTLSConfig{Incoming: &api.MeshDirectionalTLSConfig{
		TLSMinVersion: "TLSv1_2", CipherSuites: []string{"TLS_RSA_WITH_AES_128_CBC_SHA"}}}})
	if p := none.incoming.params(); p.TlsMinimumProtocolVersion.String() != "TLSv1_3" || len(none.Problems) == 0 {
		t.Errorf("without an acceptable suite: %v, problems %v", p, none.Problems)
	}
	if out := env.outgoing.params(); out.TlsMinimumProtocolVersion.String() != "TLSv1_3" {
		t.Errorf("outgoing %v", out)
	}
}

func TestWorkloadConfig(t *testing.T) {
	env := environment(t, &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": "http", "local_connect_timeout_ms": 100, "max_inbound_connections": 5}})
	inst := &catalog.Instance{ID: "api-1", Address: "10.0.0.1", Port: 20000, Proxy: &api.AgentServiceConnectProxyConfig{
		Config: map[string]any{"local_connect_timeout_ms": float64(300), "bind_port": "x", "Local_Idle_Timeout_Ms": 1000}}}
	c, problems := readWorkloadConfig(env, inst, &api.ServiceConfigEntry{Name: "api", LocalConnectTimeoutMs: 200, LocalRequestTimeoutMs: 700, MaxInboundConnections: 9}, "tcp")
	want := opaque.Proxy{Protocol: "tcp", BindAddress: "10.0.0.1", BindPort: 20000, ConnectTimeout: 300 * time.Millisecond,
		RequestTimeout: 700 * time.Millisecond, IdleTimeout: time.Second, MaxConnections: 9}
	if c != want {
		t.Errorf("have %+v\nwant %+v", c, want)
	}
	if len(problems) != 2 || problems[0].Path != "api-1 Proxy.Config.bind_port" || problems[1].Path != "service-defaults/api LocalRequestTimeoutMs" {
		t.Errorf("problems %v", problems)
	}
}

// TestAccessLogFormats: a format that our sidecar would refuse is withheld and
// reported, since a refused listener would keep its old authorization too.
func TestAccessLogFormats(t *testing.T) {
	env := environment(t)
	for path, logs := range map[string]api.AccessLogsConfig{
		"":                                {Enabled: true, DisableListenerLogs: true, TextFormat: "%PROTOCOL%"},
		"x Proxy.AccessLogs.TextFormat":   {Enabled: true, TextFormat: "%CEL(x)%"},
		"x Proxy.AccessLogs.JSONFormat.a": {Enabled: true, JSONFormat: `{"a":"%REQ%"}`},
		"x Proxy.AccessLogs.JSONFormat":   {Enabled: true, JSONFormat: `{"a":1}`},
	} {
		out, problems := accessLogging(env, Client{}, "x", &logs)
		if path == "" {
			if len(problems) > 0 || len(out.filter) != 1 {
				t.Errorf("%v %v", out, problems)
			}
			continue
		}
		if len(problems) != 1 || problems[0].Path != path || len(out.filter) > 0 {
			t.Errorf("%s: %v, logs %v", path, problems, out)
		}
	}
	envoy := Client{Dialect: Envoy}
	if out, problems := accessLogging(env, envoy, "x", &api.AccessLogsConfig{Enabled: true, TextFormat: "%CEL(x)%"}); len(problems) > 0 || len(out.filter) != 1 {
		t.Errorf("Envoy: %v %v", out, problems)
	}
}

// TestLogFilesOfRegistrations: who may register a service does not choose which files of a host its
// sidecar appends to; the mesh's operators say where logs lie.
func TestLogFilesOfRegistrations(t *testing.T) {
	central := func(path string) *Environment {
		return environment(t, &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", AccessLogs: &api.AccessLogsConfig{Type: api.FileLogSinkType, Path: path}})
	}
	for _, c := range []struct {
		env  *Environment
		path string
		want bool
	}{
		{environment(t), "/etc/cron.d/x", false},
		{central(""), "/etc/cron.d/x", false},
		{central("/var/log/mesh/proxies.log"), "/etc/cron.d/x", false},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh/api.log", true},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh/proxies.log", true},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh/../../../etc/cron.d/x", false},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh/..", false},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh/a/b", false},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh", false},
		{central("/var/log/mesh/proxies.log"), "/var/log/mesh/api.log/", false},
		{central("/var/log/mesh/proxies.log"), "var/log/mesh/api.log", false},
		{central("relative"), "other", false},
	} {
		for _, client := range []Client{{}, {Dialect: Envoy}} {
			out, problems := accessLogging(c.env, client, "x", &api.AccessLogsConfig{Enabled: true, DisableListenerLogs: true, Type: api.FileLogSinkType, Path: c.path})
			if (len(out.filter) == 1) != c.want || c.want != (len(problems) == 0) || !c.want && problems[0].Path != "x Proxy.AccessLogs.Path" {
				t.Errorf("%s: %v, %v", c.path, out.filter, problems)
			}
		}
	}
	// What they write themselves they may.
	env := environment(t, &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", AccessLogs: &api.AccessLogsConfig{Enabled: true, DisableListenerLogs: true, Type: api.FileLogSinkType, Path: "/log"}})
	if out, problems := accessLogging(env, Client{}, "x", nil); len(problems) > 0 || len(out.filter) != 1 {
		t.Errorf("proxy-defaults: %v %v", out, problems)
	}
}

// TestBrokenMeshEntryIsStrict: what an entry that never could be read asks for is
// not known, so it may be the stricter setting.
func TestBrokenMeshEntryIsStrict(t *testing.T) {
	snap := snapshot()
	snap.Broken = map[catalog.EntryKey]string{meshKey: "no such field"}
	env, err := NewEnvironment(snap)
	if err != nil {
		t.Fatal(err)
	}
	if !env.http.sanitizeXFCC || env.http.underscores != corev3.HttpProtocolOptions_REJECT_REQUEST {
		t.Errorf("%+v", env.http)
	}
}

// TestListenerWithoutLogs: what one workload's log needs may not be there on its host. A sidecar
// refuses the listener then, and must not be without the next deny of the others for that.
func TestListenerWithoutLogs(t *testing.T) {
	env := environment(t, &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", AccessLogs: &api.AccessLogsConfig{Type: api.FileLogSinkType, Path: "/nowhere/at/proxies.log"}})
	client := Client{Caps: NewCapabilities(names.CapRBAC, names.CapHTTP2, names.CapListenerLog)}
	in := func(service string, logs *api.AccessLogsConfig) *Inbound {
		t.Helper()
		name := catalog.NewName("dc1", service)
		out, err := NewInbound(env, client, Workload{
			Instance: &catalog.Instance{Service: name, ID: service + "-1", Address: "10.0.0.1", Port: 15006,
				Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: service, LocalServicePort: 9000, AccessLogs: logs}},
			Authorization: &compile.Authorization{Service: name, Protocol: "http"},
		})
		if err != nil || out.Chain == nil {
			t.Fatalf("%v, %v", err, out)
		}
		return out
	}
	quiet, logging := in("api", nil), in("web", &api.AccessLogsConfig{Enabled: true, Type: api.FileLogSinkType, Path: "/nowhere/at/all.log"})
	r, _, err := InboundListener([]*Inbound{quiet})
	if err != nil || r.Fallback != nil {
		t.Errorf("nothing could be left out: %v, %v", err, r.Fallback)
	}
	if r, _, err = InboundListener([]*Inbound{logging, quiet}); err != nil || r.Fallback == nil {
		t.Fatalf("%v, %v", err, r)
	}
	if plain := string(r.Fallback.Body.GetValue()); strings.Contains(plain, "/nowhere") || !strings.Contains(string(r.Body.GetValue()), "/nowhere") {
		t.Error("the log is not what the two differ in")
	}
	full, plain := body[*listenerv3.Listener](t, r), body[*listenerv3.Listener](t, r.Fallback)
	if len(full.FilterChains) != 2 || len(plain.FilterChains) != 2 || !r.Fallback.Urgent || r.Fallback.Name != r.Name || !slices.Equal(r.Refs, r.Fallback.Refs) {
		t.Errorf("the fallback is another listener: %v", plain)
	}
	if in("web", nil).Plain != nil || logging.Plain == nil {
		t.Error("a chain has a plain form where it says something of logs")
	}
}

// TestNamesThatDifferByCase: services whose names differ by case have one SNI, and a listener
// with a filter chain for each would be refused.
func TestNamesThatDifferByCase(t *testing.T) {
	env := environment(t)
	var chains []*Inbound
	for _, service := range []string{"api", "API"} {
		name := catalog.NewName("dc1", service)
		in, err := NewInbound(env, Client{Dialect: Envoy}, Workload{
			Instance: &catalog.Instance{Service: name, ID: service + "-1", Address: "10.0.0.1", Port: 15006,
				Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: service, LocalServicePort: 9000}},
			Authorization: &compile.Authorization{Service: name, Protocol: "tcp"},
		})
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, in)
	}
	r, problems, err := InboundListener(chains)
	if err != nil || len(problems) != 1 {
		t.Fatalf("%v, %v", err, problems)
	}
	if l := body[*listenerv3.Listener](t, r); len(l.FilterChains) != 1 {
		t.Errorf("%d filter chains for one SNI", len(l.FilterChains))
	}
}
