package validate

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func ptr[T any](v T) *T { return &v }

func intention(s *api.SourceIntention) api.ConfigEntry {
	return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "api", Sources: []*api.SourceIntention{s}}
}

func permission(p *api.IntentionPermission) api.ConfigEntry {
	return intention(&api.SourceIntention{Name: "web", Permissions: []*api.IntentionPermission{p}})
}

// TestRefused has one row for each field whose loss would change what an
// operator asked for. want begins with the path.
func TestRefused(t *testing.T) {
	sd := func(f func(*api.ServiceConfigEntry)) api.ConfigEntry {
		e := &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api"}
		f(e)
		return e
	}
	res := func(f func(*api.ServiceResolverConfigEntry)) api.ConfigEntry {
		e := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api"}
		f(e)
		return e
	}
	route := func(m *api.ServiceRouteHTTPMatch, d *api.ServiceRouteDestination) api.ConfigEntry {
		return &api.ServiceRouterConfigEntry{Name: "api", Routes: []api.ServiceRoute{{Match: &api.ServiceRouteMatch{HTTP: m}, Destination: d}}}
	}
	split := func(w ...float32) api.ConfigEntry {
		e := &api.ServiceSplitterConfigEntry{Name: "api"}
		for i, x := range w {
			e.Splits = append(e.Splits, api.ServiceSplit{Weight: x, ServiceSubset: strings.Repeat("v", i+1)})
		}
		return e
	}
	limit := func(perSecond, burst int, routes ...api.InstanceLevelRouteRateLimits) api.ConfigEntry {
		return sd(func(e *api.ServiceConfigEntry) {
			e.RateLimits = &api.RateLimits{InstanceLevel: api.InstanceLevelRateLimits{RequestsPerSecond: perSecond, RequestsMaxBurst: burst, Routes: routes}}
		})
	}
	logs := func(a api.AccessLogsConfig) api.ConfigEntry { return &api.ProxyConfigEntry{AccessLogs: &a} }
	for want, e := range map[string]api.ConfigEntry{
		"Namespace:":         sd(func(e *api.ServiceConfigEntry) { e.Namespace = "x" }),
		"Partition:":         sd(func(e *api.ServiceConfigEntry) { e.Partition = "x" }),
		"Name: must be set":  sd(func(e *api.ServiceConfigEntry) { e.Name = "" }),
		"Name: the wildcard": sd(func(e *api.ServiceConfigEntry) { e.Name = "*" }),
		"Protocol:":          sd(func(e *api.ServiceConfigEntry) { e.Protocol = "bogus" }),
		"Mode:":              sd(func(e *api.ServiceConfigEntry) { e.Mode = api.ProxyModeTransparent }),
		"MutualTLSMode:":     sd(func(e *api.ServiceConfigEntry) { e.MutualTLSMode = api.MutualTLSModePermissive }),
		"MeshGateway.Mode:":  sd(func(e *api.ServiceConfigEntry) { e.MeshGateway.Mode = api.MeshGatewayModeLocal }),
		"ExternalSNI:":       sd(func(e *api.ServiceConfigEntry) { e.ExternalSNI = "x" }),
		"Destination:":       sd(func(e *api.ServiceConfigEntry) { e.Destination = &api.DestinationConfig{} }),
		"RateLimits.InstanceLevel: limits nothing":                           limit(0, 0),
		"RateLimits.InstanceLevel.RequestsPerSecond: -1":                     limit(-1, 0),
		"RateLimits.InstanceLevel.RequestsMaxBurst: is below":                limit(2, 1),
		"RateLimits.InstanceLevel.RequestsPerSecond: must be":                limit(0, 1, api.InstanceLevelRouteRateLimits{PathExact: "/", RequestsPerSecond: 1}),
		"RateLimits.InstanceLevel.Routes[0].RequestsPerSecond: must":         limit(1, 0, api.InstanceLevelRouteRateLimits{PathExact: "/"}),
		"RateLimits.InstanceLevel.Routes[0].PathPrefix: one of":              limit(1, 0, api.InstanceLevelRouteRateLimits{RequestsPerSecond: 1}),
		"RateLimits.InstanceLevel.Routes[0].PathExact: only one":             limit(1, 0, api.InstanceLevelRouteRateLimits{PathExact: "/", PathRegex: "/", RequestsPerSecond: 1}),
		"RateLimits.InstanceLevel.Routes[0].PathRegex: not":                  limit(1, 0, api.InstanceLevelRouteRateLimits{PathRegex: "(", RequestsPerSecond: 1}),
		"RateLimits.InstanceLevel.Routes[0].PathRegex: the regular":          limit(1, 0, api.InstanceLevelRouteRateLimits{PathRegex: "/[a-z]{1000}", RequestsPerSecond: 1}),
		"BalanceInboundConnections: \"evenly\"":                              sd(func(e *api.ServiceConfigEntry) { e.BalanceInboundConnections = "evenly" }),
		"Config.tracing.colour: unknown":                                     &api.ProxyConfigEntry{Config: map[string]any{"tracing": map[string]any{"colour": 1}}},
		"Config.tracing: names no collector":                                 &api.ProxyConfigEntry{Config: map[string]any{"tracing": map[string]any{}}},
		"Config.tracing.otlp.service: \"a/b\"":                               &api.ProxyConfigEntry{Config: map[string]any{"tracing": map[string]any{"otlp": map[string]any{"service": "a/b"}}}},
		"Config.envoy_tracing_json: escape hatches into Envoy's configurati": &api.ProxyConfigEntry{Config: map[string]any{"envoy_tracing_json": "{}"}},
		"EnvoyExtensions[0]:":                                                sd(func(e *api.ServiceConfigEntry) { e.EnvoyExtensions = []api.EnvoyExtension{{}} }),
		"Expose.Paths[0]:":                                                   sd(func(e *api.ServiceConfigEntry) { e.Expose.Paths = []api.ExposePath{{}} }),
		"UpstreamConfig.Defaults.Name:": sd(func(e *api.ServiceConfigEntry) {
			e.UpstreamConfig = &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{Name: "x"}}
		}),
		"UpstreamConfig.Overrides[0].Peer:": sd(func(e *api.ServiceConfigEntry) {
			e.UpstreamConfig = &api.UpstreamConfiguration{Overrides: []*api.UpstreamConfig{{Name: "x", Peer: "p"}}}
		}),
		"UpstreamConfig.Defaults.PassiveHealthCheck.MaxEjectionPercent:": sd(func(e *api.ServiceConfigEntry) {
			e.UpstreamConfig = &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{PassiveHealthCheck: &api.PassiveHealthCheck{MaxEjectionPercent: ptr(uint32(101))}}}
		}),
		"Config.envoy_public_listener_json:": &api.ProxyConfigEntry{Config: map[string]any{"envoy_public_listener_json": "{}"}},
		"Config.bogus: unknown":              &api.ProxyConfigEntry{Config: map[string]any{"bogus": 1}},
		"Config.bind_port: want":             &api.ProxyConfigEntry{Config: map[string]any{"bind_port": "x"}},
		"Config.protocol: bogus":             &api.ProxyConfigEntry{Config: map[string]any{"protocol": "bogus"}},
		"Config.bind_address: \"x\" is not":  &api.ProxyConfigEntry{Config: map[string]any{"bind_address": "x"}},
		"AccessLogs.Path: \"x\" is not":      logs(api.AccessLogsConfig{Type: api.FileLogSinkType, Path: "x"}),
		"AccessLogs.Path: has":               logs(api.AccessLogsConfig{Path: "/x"}),
		"AccessLogs.Type:":                   logs(api.AccessLogsConfig{Type: "syslog"}),
		"AccessLogs.TextFormat: only":        logs(api.AccessLogsConfig{TextFormat: "x", JSONFormat: "{}"}),
		"AccessLogs.JSONFormat: not":         logs(api.AccessLogsConfig{JSONFormat: "x"}),
		"AccessLogs.JSONFormat.a: only":      logs(api.AccessLogsConfig{JSONFormat: `{"a":1}`}),
		"UpstreamConfig.Defaults.Limits.MaxConnections: 0": sd(func(e *api.ServiceConfigEntry) {
			e.UpstreamConfig = &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{Limits: &api.UpstreamLimits{MaxConnections: ptr(0)}}}
		}),
		"Routes[0].Match.HTTP.PathExact: only":        route(&api.ServiceRouteHTTPMatch{PathExact: "/", PathPrefix: "/"}, nil),
		"Routes[0].Match.HTTP.PathRegex:":             route(&api.ServiceRouteHTTPMatch{PathRegex: "("}, nil),
		"Routes[0].Match.HTTP.Header[0]: one":         route(&api.ServiceRouteHTTPMatch{Header: []api.ServiceRouteHTTPMatchHeader{{Name: "x"}}}, nil),
		"Routes[0].Match.HTTP.Methods[0]:":            route(&api.ServiceRouteHTTPMatch{Methods: []string{"get"}}, nil),
		"Routes[0].Destination.PrefixRewrite:":        route(&api.ServiceRouteHTTPMatch{}, &api.ServiceRouteDestination{PrefixRewrite: "/x"}),
		"Routes[0].Destination.RequestTimeout:":       route(nil, &api.ServiceRouteDestination{RequestTimeout: 5}),
		"Routes[0].Destination.RetryOnStatusCodes[0]": route(nil, &api.ServiceRouteDestination{RetryOnStatusCodes: []uint32{5}}),
		"Routes[0].Destination.RequestHeaders.Set.x: the value": route(nil, &api.ServiceRouteDestination{
			RequestHeaders: &api.HTTPHeaderModifiers{Set: map[string]string{"x": "a\r\nb: c"}}}),
		"Splits: must not":  split(),
		"Splits: weights":   split(50, 49.99),
		"Splits[0].Weight:": split(-1, 101),
		"DefaultSubset:":    res(func(e *api.ServiceResolverConfigEntry) { e.DefaultSubset = "x" }),
		"Subsets.v1.Filter:": res(func(e *api.ServiceResolverConfigEntry) {
			e.Subsets = map[string]api.ServiceResolverSubset{"v1": {Filter: "=="}}
		}),
		"Redirect.Peer:": res(func(e *api.ServiceResolverConfigEntry) { e.Redirect = &api.ServiceResolverRedirect{Peer: "x"} }),
		"Failover.v1: \"v1\" is not": res(func(e *api.ServiceResolverConfigEntry) {
			e.Failover = map[string]api.ServiceResolverFailover{"v1": {Service: "x"}}
		}),
		"Failover.*.Targets[0].Peer:": res(func(e *api.ServiceResolverConfigEntry) {
			e.Failover = map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{{Peer: "x"}}}}
		}),
		"LoadBalancer.Policy:": res(func(e *api.ServiceResolverConfigEntry) { e.LoadBalancer = &api.LoadBalancer{Policy: "x"} }),
		"LoadBalancer.HashPolicies:": res(func(e *api.ServiceResolverConfigEntry) {
			e.LoadBalancer = &api.LoadBalancer{HashPolicies: []api.HashPolicy{{SourceIP: true}}}
		}),
		"LoadBalancer.LeastRequestConfig.ChoiceCount: 1": res(func(e *api.ServiceResolverConfigEntry) {
			e.LoadBalancer = &api.LoadBalancer{Policy: "least_request", LeastRequestConfig: &api.LeastRequestConfig{ChoiceCount: 1}}
		}),
		"LoadBalancer.RingHashConfig.MaximumRingSize:": res(func(e *api.ServiceResolverConfigEntry) {
			e.LoadBalancer = &api.LoadBalancer{Policy: "ring_hash", RingHashConfig: &api.RingHashConfig{MaximumRingSize: 1 << 24}}
		}),
		"LoadBalancer.HashPolicies[0].CookieConfig.Path:": res(func(e *api.ServiceResolverConfigEntry) {
			e.LoadBalancer = &api.LoadBalancer{Policy: "maglev", HashPolicies: []api.HashPolicy{
				{Field: "cookie", FieldValue: "c", CookieConfig: &api.CookieConfig{Path: "/"}}}}
		}),
		"RequestTimeout: -1s":               res(func(e *api.ServiceResolverConfigEntry) { e.RequestTimeout = -time.Second }),
		"Routes[0].Destination.RetryOn[1]:": route(nil, &api.ServiceRouteDestination{RetryOn: []string{"5XX", "sometimes"}}),
		"Sources[0].Action: \"maybe\"":      intention(&api.SourceIntention{Name: "web", Action: "maybe"}),
		"Sources[0].Peer:":                  intention(&api.SourceIntention{Name: "web", Action: "allow", Peer: "x"}),
		"Sources[0].SamenessGroup:":         intention(&api.SourceIntention{Name: "web", Action: "allow", SamenessGroup: "x"}),
		"Sources[0].Namespace:":             intention(&api.SourceIntention{Name: "web", Action: "allow", Namespace: "x"}),
		"Sources[0].Permissions[0].HTTP:":   permission(&api.IntentionPermission{Action: "allow"}),
		"Sources[0].Permissions[0].JWT:": permission(&api.IntentionPermission{Action: "allow",
			HTTP: &api.IntentionHTTPPermission{PathExact: "/"}, JWT: &api.IntentionJWTRequirement{}}),
		"Sources[0].Permissions[0].HTTP: is empty": permission(&api.IntentionPermission{Action: "allow", HTTP: &api.IntentionHTTPPermission{}}),
		"JWT:":                                   &api.ServiceIntentionsConfigEntry{Name: "api", JWT: &api.IntentionJWTRequirement{}},
		"TransparentProxy.MeshDestinationsOnly:": &api.MeshConfigEntry{TransparentProxy: api.TransparentProxyMeshConfig{MeshDestinationsOnly: true}},
		"TLS.Incoming.TLSMinVersion:":            &api.MeshConfigEntry{TLS: &api.MeshTLSConfig{Incoming: &api.MeshDirectionalTLSConfig{TLSMinVersion: "TLSv1_0"}}},
		"Kind: \"ingress-gateway\"":              &api.IngressGatewayConfigEntry{Kind: api.IngressGateway, Name: "x"},
	} {
		err := Validate(e)
		if err == nil || !strings.Contains("; "+err.Error(), "; "+want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}

// TestAccepted: what Consul answers of entries that say little or much.
func TestAccepted(t *testing.T) {
	for _, e := range []api.ConfigEntry{
		&api.ServiceConfigEntry{Name: "api", Protocol: "HTTP", TransparentProxy: &api.TransparentProxyConfig{}, Namespace: "default"},
		&api.ProxyConfigEntry{Name: "global", Config: map[string]any{"protocol": "grpc"}, TransparentProxy: &api.TransparentProxyConfig{}},
		&api.ProxyConfigEntry{Name: "global", AccessLogs: &api.AccessLogsConfig{Enabled: true, Type: api.FileLogSinkType, Path: "/x", JSONFormat: `{"a":"%PROTOCOL%"}`}},
		&api.ServiceRouterConfigEntry{Name: "api", Routes: []api.ServiceRoute{{}}},
		// Negative is none, as in Consul.
		&api.ServiceRouterConfigEntry{Name: "api", Routes: []api.ServiceRoute{{Destination: &api.ServiceRouteDestination{
			RequestTimeout: -time.Second, IdleTimeout: -1, RetryOn: []string{"5XX", "unavailable"}}}}},
		&api.ServiceSplitterConfigEntry{Name: "api", Splits: []api.ServiceSplit{{Weight: 33.33, ServiceSubset: "a"}, {Weight: 33.33, ServiceSubset: "b"}, {Weight: 33.34}}},
		&api.ServiceResolverConfigEntry{Name: "api", ConnectTimeout: time.Second, Redirect: &api.ServiceResolverRedirect{Datacenter: "dc2"}},
		intention(&api.SourceIntention{Name: "*", Action: "deny", Type: api.IntentionSourceConsul, Precedence: 9}),
		&api.MeshConfigEntry{TLS: &api.MeshTLSConfig{Incoming: &api.MeshDirectionalTLSConfig{TLSMinVersion: "TLSv1_2"}}},
	} {
		if err := Validate(e); err != nil {
			t.Errorf("%s/%s: %v", e.GetKind(), e.GetName(), err)
		}
	}
}

// TestOwnSockets: an application is none of those that hand out keys.
func TestOwnSockets(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/app.sock": true, "/run/app/hauberk.sock": true, "/run/hauberkapp/a.sock": true,
		"/run/hauberk/agent.sock": false, "/run//hauberk/./controlplane.sock": false, "/run/app/../hauberk/agent.sock": false,
		"/run/user/1000/hauberk/controlplane.sock": false, "/tmp/hauberk-1000/controlplane.sock": false,
		"/proc/self/cwd/agent.sock": false, "/proc/1/root/run/x.sock": false,
	} {
		app := &api.AgentServiceConnectProxyConfig{DestinationServiceName: "api", LocalServiceSocketPath: path}
		upstream := &api.AgentServiceConnectProxyConfig{DestinationServiceName: "api", LocalServicePort: 1,
			Upstreams: []api.Upstream{{DestinationName: "db", LocalBindSocketPath: path}}}
		for field, p := range map[string]*api.AgentServiceConnectProxyConfig{"LocalServiceSocketPath": app, "Upstreams[0].LocalBindSocketPath": upstream} {
			if err := Proxy(p); (err == nil) != want || err != nil && !strings.Contains(err.Error(), field+":") {
				t.Errorf("%s %s: %v", field, path, err)
			}
		}
	}
}

func TestProxy(t *testing.T) {
	ok := func() *api.AgentServiceConnectProxyConfig {
		return &api.AgentServiceConnectProxyConfig{DestinationServiceName: "api", LocalServicePort: 1,
			Upstreams: []api.Upstream{{DestinationName: "db", LocalBindPort: 9191}}}
	}
	more := ok()
	more.LocalServicePort, more.LocalServiceSocketPath = 0, "/run/api.sock"
	more.Config = map[string]any{"local_connect_timeout_ms": float64(100), "Bind_Port": "8000"}
	more.Upstreams[0].Config = map[string]any{"connect_timeout_ms": 10, "limits": map[string]any{"max_connections": 3}}
	more.Upstreams = append(more.Upstreams, api.Upstream{DestinationName: "web", LocalBindSocketPath: "/run/web.sock", LocalBindSocketMode: "0600"})
	for _, p := range []*api.AgentServiceConnectProxyConfig{ok(), more} {
		if err := Proxy(p); err != nil {
			t.Error(err)
		}
	}
	for want, f := range map[string]func(*api.AgentServiceConnectProxyConfig){
		"DestinationServiceName": func(p *api.AgentServiceConnectProxyConfig) { p.DestinationServiceName = "" },
		"LocalServiceSocketPath": func(p *api.AgentServiceConnectProxyConfig) { p.LocalServiceSocketPath = "x" },
		"LocalServicePort":       func(p *api.AgentServiceConnectProxyConfig) { p.LocalServiceSocketPath = "/x" },
		"Upstreams[0].LocalBindSocketPath": func(p *api.AgentServiceConnectProxyConfig) {
			p.Upstreams[0].LocalBindPort, p.Upstreams[0].LocalBindSocketPath = 0, "x"
		},
		"Upstreams[0].LocalBindSocketMode": func(p *api.AgentServiceConnectProxyConfig) { p.Upstreams[0].LocalBindSocketMode = "0600" },
		"Upstreams[0].Config.limits.max_connections": func(p *api.AgentServiceConnectProxyConfig) {
			p.Upstreams[0].Config = map[string]any{"limits": map[string]any{"max_connections": 0}}
		},
		"Upstreams[0].Config.colour":        func(p *api.AgentServiceConnectProxyConfig) { p.Upstreams[0].Config = map[string]any{"colour": "red"} },
		"Config.envoy_bootstrap_json_tpl":   func(p *api.AgentServiceConnectProxyConfig) { p.Config = map[string]any{"envoy_bootstrap_json_tpl": ""} },
		"Upstreams[0].DestinationPeer":      func(p *api.AgentServiceConnectProxyConfig) { p.Upstreams[0].DestinationPeer = "x" },
		"Upstreams[0].DestinationType":      func(p *api.AgentServiceConnectProxyConfig) { p.Upstreams[0].DestinationType = "prepared_query" },
		"Upstreams[0].DestinationNamespace": func(p *api.AgentServiceConnectProxyConfig) { p.Upstreams[0].DestinationNamespace = "x" },
		"Upstreams[1].LocalBindPort":        func(p *api.AgentServiceConnectProxyConfig) { p.Upstreams = append(p.Upstreams, p.Upstreams[0]) },
	} {
		p := ok()
		f(p)
		if err := Proxy(p); err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}
