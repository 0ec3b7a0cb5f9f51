package config

import (
	"strings"
	"testing"
)

const (
	otelOf = `{http: {name: o, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: x, grpc_service: {envoy_grpc: {cluster_name: c}}}}}`
	// As Consul's bootstraps have it.
	zipkinOf = `{http: {name: envoy.tracers.zipkin, typedConfig: {"@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collector_cluster: c, collector_endpoint_version: HTTP_JSON, collector_endpoint: /api/v2/spans, split_spans_for_request: true}}}`
)

func defaultTraced(tracer, manager string) string {
	return `{tracing: ` + tracer + `, static_resources: {clusters: [` + tracedCluster + `], listeners: [` + tracedListener(manager) + `]}}`
}

func tracedListener(manager string) string {
	return `{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 0}},
 filter_chains: [{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: p, ` + manager + `
  route_config: {name: r}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}`
}

const tracedCluster = `{name: c, connect_timeout: 1s, load_assignment: {cluster_name: c}}`

func TestDefaultTracer(t *testing.T) {
	own := "tracing: {provider: " + strings.TrimSuffix(strings.TrimPrefix(otelOf, "{http: "), "}") + "},"
	for _, c := range []struct {
		name, tracer, manager string
		service               string
		none, zipkin, spawn   bool
	}{
		{name: "of the bootstrap", tracer: otelOf, manager: "tracing: {},", service: "x"},
		{name: "as Consul has it", tracer: zipkinOf, manager: "tracing: {random_sampling: {}},", zipkin: true, spawn: true},
		{name: "the manager's own goes before", tracer: zipkinOf, manager: own, service: "x"},
		{name: "of neither", tracer: "{}", manager: "tracing: {},", none: true},
	} {
		b, err := ParseBootstrap([]byte(defaultTraced(c.tracer, c.manager)))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := b.Listeners[0].Chains[0].HTTP.Tracing
		if p := got.Provider; p.Service != c.service || p.None != c.none || (p.Zipkin != nil) != c.zipkin || got.SpawnUpstream != c.spawn {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestDefaultTracerTracesNothingByItself: a manager without tracing has none.
func TestDefaultTracerTracesNothingByItself(t *testing.T) {
	b, err := ParseBootstrap([]byte(defaultTraced(otelOf, "")))
	if err != nil || b.Listeners[0].Chains[0].HTTP.Tracing != nil {
		t.Fatal(err)
	}
}

// TestDefaultTracerOfDiscovered: what a control plane sends has the host's tracer.
func TestDefaultTracerOfDiscovered(t *testing.T) {
	b, err := ParseBootstrap([]byte(`{tracing: ` + otelOf + `, static_resources: {clusters: [` + tracedCluster + `]}}`))
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.Runtime.Listener(asListener(t, tracedListener("tracing: {},")))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Chains[0].HTTP.Tracing; got.Provider.Service != "x" || got.Provider.None {
		t.Errorf("%+v", got)
	}
	if refs := ListenerRefs(l); len(refs.Collectors) != 1 || refs.Collectors[0] != "c" {
		t.Errorf("waits for %v", refs.Collectors)
	}
}

func TestDefaultTracerRefuses(t *testing.T) {
	for _, c := range []struct{ tracer, want string }{
		{strings.Replace(otelOf, "cluster_name: c", "cluster_name: ''", 1), "tracing.http.typed_config.grpc_service.envoy_grpc.cluster_name: value length"},
		{strings.Replace(otelOf, "cluster_name: c", "cluster_name: nowhere", 1), `there is no cluster "nowhere"`},
		{strings.Replace(zipkinOf, "ZipkinConfig", "XRayConfig", 1), `tracing.http.typedConfig: unsupported extension`},
		{"{http: {name: x}}", `tracing.http: tracer "x" has no typed_config`},
	} {
		if _, err := ParseBootstrap([]byte(defaultTraced(c.tracer, "tracing: {},"))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.tracer, err)
		}
	}
}
