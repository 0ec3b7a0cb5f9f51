package view

import (
	"time"

	"github.com/hashicorp/consul/api"
)

func ptr[T any](v T) *T { return &v }

// companions are the entries of the world that the examples are put into.
func companions() []api.ConfigEntry {
	return []api.ConfigEntry{
		&api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": "http"},
			AccessLogs: &api.AccessLogsConfig{Type: api.FileLogSinkType, Path: "/all"}},
		&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "db", Protocol: "tcp"},
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api", Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: "Service.Meta.version == v1"}, "v2": {Filter: "Service.Meta.version == v2"}}},
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "backup", Subsets: map[string]api.ServiceResolverSubset{"v1": {}}},
		intentions("web", "api", api.IntentionActionAllow),
	}
}

const (
	bookkeeping = "the server's own"
	note        = "for people"
)

// silent adds to what every entry has and nobody obeys.
func silent(more map[string]string) map[string]string {
	out := map[string]string{"Kind": "the type says it", "CreateIndex": bookkeeping, "ModifyIndex": bookkeeping, "Meta": note}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func headers(s string) *api.HTTPHeaderModifiers {
	return &api.HTTPHeaderModifiers{Add: map[string]string{"x-a": s}, Set: map[string]string{"x-b": s}, Remove: []string{"x-c" + s}}
}

func limits() *api.UpstreamLimits {
	return &api.UpstreamLimits{MaxConnections: ptr(3), MaxPendingRequests: ptr(4), MaxConcurrentRequests: ptr(5)}
}

func health() *api.PassiveHealthCheck {
	return &api.PassiveHealthCheck{Interval: time.Second, MaxFailures: 3, EnforcingConsecutive5xx: ptr(uint32(4)),
		ConsecutiveGatewayFailure: ptr(uint32(7)), EnforcingConsecutiveGatewayFailure: ptr(uint32(5)),
		MaxEjectionPercent: ptr(uint32(6)), BaseEjectionTime: ptr(2 * time.Second)}
}

func health5xx() *api.PassiveHealthCheck {
	h := health()
	h.MaxFailures, h.Consecutive5xx = 0, ptr(uint32(8))
	h.ConsecutiveGatewayFailure = nil
	return h
}

func subjects() []subject {
	return []subject{
		{name: api.ServiceDefaults, silent: silent(nil), examples: []func() any{
			func() any {
				return &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "http",
					MaxInboundConnections: 7, LocalConnectTimeoutMs: 70, LocalRequestTimeoutMs: 71, MaxRequestHeadersKB: ptr(uint32(72)),
					BalanceInboundConnections: "exact_balance",
					RateLimits: &api.RateLimits{InstanceLevel: api.InstanceLevelRateLimits{RequestsPerSecond: 75, RequestsMaxBurst: 76,
						Routes: []api.InstanceLevelRouteRateLimits{{PathExact: "/a", RequestsPerSecond: 77, RequestsMaxBurst: 78},
							{PathPrefix: "/b", RequestsPerSecond: 79}, {PathRegex: "/c", RequestsPerSecond: 80}}}},
					UpstreamConfig: &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{ConnectTimeoutMs: 73, Limits: limits(), PassiveHealthCheck: health()}}}
			},
			func() any {
				return &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "http", UpstreamConfig: &api.UpstreamConfiguration{
					Defaults:  &api.UpstreamConfig{PassiveHealthCheck: health5xx()},
					Overrides: []*api.UpstreamConfig{{Name: "api", ConnectTimeoutMs: 74, Limits: limits(), PassiveHealthCheck: health()}}}}
			},
			func() any {
				return &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "http", UpstreamConfig: &api.UpstreamConfiguration{
					Overrides: []*api.UpstreamConfig{{Name: "api", PassiveHealthCheck: health5xx()}}}}
			},
		}},
		{name: api.ProxyDefaults, silent: silent(map[string]string{"Name": "there is one"}), examples: []func() any{
			func() any {
				return &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global",
					Config: map[string]any{"protocol": "http", "local_connect_timeout_ms": 70, "local_request_timeout_ms": 71,
						"local_idle_timeout_ms": 72, "max_inbound_connections": 73, "max_request_headers_kb": 74,
						"tracing": map[string]any{"otlp": map[string]any{"service": "backup"}}},
					PrioritizeByLocality: &api.ServiceResolverPrioritizeByLocality{Mode: "failover"},
					AccessLogs:           &api.AccessLogsConfig{Enabled: true, DisableListenerLogs: true, Type: api.FileLogSinkType, Path: "/log", TextFormat: "%PROTOCOL%"}}
			},
			func() any {
				return &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": "http"},
					AccessLogs: &api.AccessLogsConfig{Enabled: true, Type: api.StdErrLogSinkType, JSONFormat: `{"p":"%PROTOCOL%"}`}}
			},
		}},
		{name: api.ServiceRouter, silent: silent(map[string]string{
			"Routes[].Destination.RetryOnConnectFailure": "every route retries what was never sent",
		}), examples: []func() any{
			func() any {
				return &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "api", Routes: []api.ServiceRoute{
					{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathExact: "/a", CaseInsensitive: true, Methods: []string{"GET"},
						Header: []api.ServiceRouteHTTPMatchHeader{{Name: "h1", Present: true, Invert: true}, {Name: "h2", Exact: "x"},
							{Name: "h3", Prefix: "x"}, {Name: "h4", Suffix: "x"}, {Name: "h5", Regex: "x"}},
						QueryParam: []api.ServiceRouteHTTPMatchQueryParam{{Name: "q1", Present: true}, {Name: "q2", Exact: "x"}, {Name: "q3", Regex: "x"}}}},
						Destination: &api.ServiceRouteDestination{ServiceSubset: "v1", PrefixRewrite: "/b", RequestTimeout: time.Second,
							IdleTimeout: 2 * time.Second, NumRetries: 7, RetryOnConnectFailure: true, RetryOnStatusCodes: []uint32{503},
							RetryOn: []string{"5xx"}, RequestHeaders: headers("1"), ResponseHeaders: headers("2")}},
					{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/p"}}, Destination: &api.ServiceRouteDestination{Service: "backup"}},
					{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathRegex: "/r"}}}}}
			},
		}},
		{name: api.ServiceSplitter, silent: silent(nil), examples: []func() any{
			func() any {
				return &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "api", Splits: []api.ServiceSplit{
					{Weight: 30, ServiceSubset: "v1", RequestHeaders: headers("1"), ResponseHeaders: headers("2")},
					{Weight: 70, Service: "backup"}}}
			},
		}},
		{name: api.ServiceResolver, silent: silent(nil), examples: []func() any{
			func() any {
				return &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api", DefaultSubset: "v2",
					Subsets:        map[string]api.ServiceResolverSubset{"v2": {Filter: "Service.Meta.version == v2", OnlyPassing: true}},
					ConnectTimeout: time.Second, RequestTimeout: 2 * time.Second,
					Failover: map[string]api.ServiceResolverFailover{"v2": {Service: "backup", ServiceSubset: "v1", Datacenters: []string{"dc2"}}},
					LoadBalancer: &api.LoadBalancer{Policy: "ring_hash", RingHashConfig: &api.RingHashConfig{MinimumRingSize: 7, MaximumRingSize: 8},
						HashPolicies: []api.HashPolicy{{Field: "header", FieldValue: "x", Terminal: true}, {SourceIP: true},
							{Field: "cookie", FieldValue: "c", CookieConfig: &api.CookieConfig{TTL: time.Second, Path: "/p"}},
							{Field: "cookie", FieldValue: "s", CookieConfig: &api.CookieConfig{Session: true, Path: "/s"}}}}}
			},
			func() any {
				return &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api",
					PrioritizeByLocality: &api.ServiceResolverPrioritizeByLocality{Mode: "failover"},
					Failover: map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{
						{Service: "backup", ServiceSubset: "v1"}, {Datacenter: "dc2"}}}},
					LoadBalancer: &api.LoadBalancer{Policy: "least_request", LeastRequestConfig: &api.LeastRequestConfig{ChoiceCount: 7}}}
			},
			func() any {
				return &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api",
					Redirect: &api.ServiceResolverRedirect{Service: "backup", ServiceSubset: "v1", Datacenter: "dc2"}}
			},
		}},
		{name: "service-resolver of a tcp service", partly: true, silent: silent(nil), examples: []func() any{
			func() any {
				return &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "db", ConnectTimeout: time.Second, RequestTimeout: 2 * time.Second,
					LoadBalancer: &api.LoadBalancer{Policy: "maglev", HashPolicies: []api.HashPolicy{{SourceIP: true}, {Field: "header", FieldValue: "x"}}}}
			},
		}},
		{name: "service-defaults of a tcp service", partly: true, silent: silent(map[string]string{"Protocol": "the default"}), examples: []func() any{
			func() any {
				return &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", Protocol: "tcp",
					MaxInboundConnections: 7, LocalConnectTimeoutMs: 70, LocalRequestTimeoutMs: 71, MaxRequestHeadersKB: ptr(uint32(72)),
					RateLimits: &api.RateLimits{InstanceLevel: api.InstanceLevelRateLimits{RequestsPerSecond: 75}}}
			},
		}},
		{name: api.ServiceIntentions, silent: silent(map[string]string{
			"Sources[].Precedence": "computed from the names", "Sources[].Description": note, "Sources[].LegacyID": bookkeeping,
			"Sources[].LegacyMeta": note, "Sources[].LegacyCreateTime": bookkeeping, "Sources[].LegacyUpdateTime": bookkeeping,
		}), examples: []func() any{
			func() any {
				return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "web", Sources: []*api.SourceIntention{
					{Name: "api", Permissions: []*api.IntentionPermission{
						{Action: "allow", HTTP: &api.IntentionHTTPPermission{PathExact: "/a", Methods: []string{"GET"}, Header: []api.IntentionHTTPHeaderPermission{
							{Name: "h1", Present: true, Invert: true}, {Name: "h2", Exact: "x", IgnoreCase: true}, {Name: "h3", Prefix: "x"},
							{Name: "h4", Suffix: "x"}, {Name: "h5", Contains: "x"}, {Name: "h6", Regex: "x", IgnoreCase: true}}}},
						{Action: "deny", HTTP: &api.IntentionHTTPPermission{PathPrefix: "/p"}},
						{Action: "deny", HTTP: &api.IntentionHTTPPermission{PathRegex: "/r"}}}},
					{Name: "*", Action: "allow"}}}
			},
		}},
		{name: api.MeshConfig, silent: silent(nil), examples: []func() any{
			func() any {
				tls := func() *api.MeshDirectionalTLSConfig {
					return &api.MeshDirectionalTLSConfig{TLSMinVersion: "TLSv1_2", CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}
				}
				return &api.MeshConfigEntry{ValidateClusters: true, TLS: &api.MeshTLSConfig{Incoming: tls(), Outgoing: tls()},
					HTTP: &api.MeshHTTPConfig{SanitizeXForwardedClientCert: true, Incoming: &api.MeshDirectionalHTTPConfig{
						RequestNormalization: &api.RequestNormalizationMeshConfig{InsecureDisablePathNormalization: true, MergeSlashes: true,
							PathWithEscapedSlashesAction: "KEEP_UNCHANGED", HeadersWithUnderscoresAction: "DROP_HEADER"}}}}
			},
		}},
		{name: "registration", silent: map[string]string{
			"DestinationServiceID":            "joins a sidecar to its application, in the sources",
			"Upstreams[].LocalBindSocketMode": "the one that is accepted is what sockets have anyhow",
			"Upstreams[].CentrallyConfigured": "Consul's mark of what nobody registered",
		}, examples: []func() any{
			func() any {
				return &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web", LocalServiceAddress: "127.0.0.2", LocalServicePort: 8080,
					Config: map[string]any{"protocol": "tcp", "bind_address": "10.0.0.9", "bind_port": 70, "local_connect_timeout_ms": 71, "max_inbound_connections": 72},
					Upstreams: []api.Upstream{{DestinationName: "api", Datacenter: "dc2", LocalBindAddress: "127.0.0.3", LocalBindPort: 9191,
						Config: map[string]any{"connect_timeout_ms": 74, "limits": map[string]any{"max_connections": 75}, "protocol": "grpc",
							"passive_health_check": map[string]any{"max_failures": 76}}}},
					AccessLogs: &api.AccessLogsConfig{Enabled: true, DisableListenerLogs: true, Type: api.FileLogSinkType, Path: "/log", TextFormat: "%PROTOCOL%"}}
			},
			func() any {
				return &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web", LocalServiceSocketPath: "/app.sock",
					Upstreams:  []api.Upstream{{DestinationName: "api", LocalBindSocketPath: "/api.sock", LocalBindSocketMode: "0600"}},
					AccessLogs: &api.AccessLogsConfig{Enabled: true, JSONFormat: `{"p":"%PROTOCOL%"}`}}
			},
		}},
	}
}
