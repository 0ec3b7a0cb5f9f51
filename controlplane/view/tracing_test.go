package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func traces(tracing map[string]any) *api.ProxyConfigEntry {
	return &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": "http", "tracing": tracing}}
}

func tracer(node string, services ...string) Client {
	c := mesh(node, services...)
	c.Kind.Caps = render.NewCapabilities(names.CapRBAC, names.CapHTTP2, names.CapTracing)
	return c
}

// traced are the connection managers that trace.
func traced(t *testing.T, v *View) (out []string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(v.Current().ByType[resource.ListenerType])) {
		if strings.Contains(string(v.Current().ByType[resource.ListenerType][name].Body.Value), "envoy.tracers.") {
			out = append(out, name)
		}
	}
	return out
}

// TestEveryKeyOfTracingActs: what is taken out of an example changes what a sidecar gets.
func TestEveryKeyOfTracingActs(t *testing.T) {
	for _, example := range []func() map[string]any{
		func() map[string]any {
			return map[string]any{"otlp": map[string]any{"address": "otel:4318", "protocol": "http", "path": "/p", "ca_file": "/ca.pem", "server_name": "s"},
				"sampling": 7, "tags": map[string]any{"team": "shop"}}
		},
		func() map[string]any {
			return map[string]any{"otlp": map[string]any{"address": "otel:4317", "insecure": true}}
		},
		func() map[string]any {
			return map[string]any{"zipkin": map[string]any{"service": "backup", "path": "/p"}}
		},
	} {
		kind := render.Client{Caps: render.NewCapabilities(names.CapRBAC, names.CapHTTP2, names.CapTracing)}
		whole, err := outcome(kind, traces(example()))
		if err != nil {
			t.Fatal(err)
		}
		check := func(path string, without map[string]any) {
			if have, err := outcome(kind, traces(without)); err == nil && have == whole {
				t.Errorf("%s has no effect", path)
			}
		}
		for key, v := range example() {
			without := example()
			delete(without, key)
			check(key, without)
			off := example()
			off["enabled"] = false
			check("enabled", off)
			for inner := range asMap(v) {
				without := example()
				delete(asMap(without[key]), inner)
				check(key+"."+inner, without)
			}
		}
	}
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// TestTracingFollowsItsCollector: what a collector is decides whether anything is
// traced, and nothing else is lost by it.
func TestTracingFollowsItsCollector(t *testing.T) {
	h := newHarness(t, traces(map[string]any{"otlp": map[string]any{"service": "otel"}}))
	h.publishAll()
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	v := h.m.Open(tracer("n1", "web"))
	defer v.Close()
	expect := func(what string, listeners int, problem string) {
		t.Helper()
		if have := traced(t, v); len(have) != listeners {
			t.Errorf("%s: %d listeners trace: %q", what, len(have), have)
		}
		if have := len(v.Current().ByType[resource.ListenerType]); have != 2 {
			t.Errorf("%s: %d listeners", what, have)
		}
		var have string
		for _, p := range h.m.Problems() {
			have += p.String() + "\n"
		}
		if problem == "" && have != "" || !strings.Contains(have, problem) {
			t.Errorf("%s: problems %q, want %q", what, have, problem)
		}
	}
	expect("OTLP over HTTP to a service without instances", 2, "")
	const cluster = "otel.default.dc1.internal.test.mesh@web"
	if v.Current().ByType[resource.ClusterType][cluster] == nil {
		t.Errorf("no cluster %s that shows the workload's identity", cluster)
	}
	before := v.Current().ByType[resource.EndpointType]["otel.default.dc1.internal.test.mesh"]
	h.setInstances("otel", inst("otel", "n2", 20000))
	if now := v.Current().ByType[resource.EndpointType]["otel.default.dc1.internal.test.mesh"]; now == nil || now.Version == before.Version {
		t.Error("the collector's endpoints did not follow")
	}
	h.setEntry(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "otel", Protocol: "grpc"})
	expect("OTLP over gRPC", 2, "")
	h.setEntry(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "otel", Protocol: "tcp"})
	expect("a collector that is tcp", 0, "web-1 Proxy.Config.tracing: otel is tcp; set Protocol in service-defaults/otel")
	h.setEntry(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "otel", Protocol: "http"})
	h.setEntry(&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "otel", Splits: []api.ServiceSplit{
		{Weight: 50, Service: "otel"}, {Weight: 50, Service: "api"}}})
	expect("a collector with routes", 0, "spans take no route")
	h.setEntry(traces(map[string]any{"otlp": map[string]any{"address": "10.0.0.9:4317", "insecure": true}}))
	expect("an address", 2, "")
	h.setEntry(traces(map[string]any{"otlp": map[string]any{"address": "10.0.0.9:4317"}, "tags": map[string]any{"component": "x"}}))
	expect("a tag that every span has", 0, "tracing.tags.component: every span has a tag of this name")
	h.setEntry(traces(map[string]any{"otlp": map[string]any{"address": "10.0.0.9:4317"}, "tags": map[string]any{"x": "%NOPE%"}}))
	expect("an operator that there is not", 0, "tracing.tags.x: ")
	registered := inst("web", "n1", 20000, "api")
	registered.Proxy.Config = map[string]any{"tracing": map[string]any{"zipkin": map[string]any{"service": "otel"}}}
	h.setInstances("web", registered)
	expect("two collectors", 0, "tracing.zipkin: a request has one trace")
}

// TestCollectorIsNotTraced: neither its own sidecar, nor the calls of applications that
// send spans themselves.
func TestCollectorIsNotTraced(t *testing.T) {
	h := newHarness(t, traces(map[string]any{"otlp": map[string]any{"service": "otel"}}))
	h.snap.Instances = map[catalog.Name][]*catalog.Instance{
		catalog.NewName("dc1", "web"):  {inst("web", "n1", 20000, "otel")},
		catalog.NewName("dc1", "otel"): {inst("otel", "n1", 20001, "web")},
	}
	h.publishAll()
	v := h.m.Open(tracer("n1", "web", "otel"))
	defer v.Close()
	if have := traced(t, v); len(have) != 1 || have[0] != "inbound:10.0.0.1:20000" {
		t.Errorf("traced: %q", have)
	}
}

// TestOlderEnvoysDoNotTrace: they would refuse the listener, and with it the next
// change of its authorization.
func TestOlderEnvoysDoNotTrace(t *testing.T) {
	h := newHarness(t, traces(map[string]any{"otlp": map[string]any{"address": "10.0.0.9:4317", "ca_file": "/ca.pem"}}))
	h.publishAll()
	h.setInstances("web", inst("web", "n1", 20000, "api"))
	for version, traces := range map[string]int{"": 0, "soon": 0, "1.9.0": 0, "1.36.9": 0, "1.37.0": 2, "1.40.0-dev": 2, "2.0.0": 2} {
		v := h.m.Open(NewClient("n1", []string{idOf("web")}, &corev3.Node{UserAgentName: "envoy",
			UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: version}}))
		if have := traced(t, v); len(have) != traces {
			t.Errorf("Envoy %q: traced %q", version, have)
		}
		if told := strings.Contains(fmt.Sprint(h.m.Problems()), "needs Envoy 1.37"); told != (traces == 0) {
			t.Errorf("Envoy %q: %v", version, h.m.Problems())
		}
		v.Close()
	}
}

// TestCollectorsThatEnvoyMayRefuse: no listener may depend on them.
func TestCollectorsThatEnvoyMayRefuse(t *testing.T) {
	for name, tc := range map[string]struct {
		collector map[string]any
		traces    bool
	}{
		"roots of the host":   {map[string]any{"otlp": map[string]any{"address": "c:4317"}}, false},
		"a file":              {map[string]any{"otlp": map[string]any{"address": "c:4317", "ca_file": "/ca.pem"}}, true},
		"plaintext":           {map[string]any{"otlp": map[string]any{"address": "c:4317", "insecure": true}}, true},
		"Zipkin with a file":  {map[string]any{"zipkin": map[string]any{"address": "c:9411", "ca_file": "/ca.pem"}}, false},
		"Zipkin in plaintext": {map[string]any{"zipkin": map[string]any{"address": "c:9411", "insecure": true}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, traces(tc.collector))
			h.publishAll()
			h.setInstances("web", inst("web", "n1", 20000, "api"))
			v := h.m.Open(NewClient("n1", []string{idOf("web")}, &corev3.Node{UserAgentName: "envoy",
				UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "1.40.0"}}))
			defer v.Close()
			if have := traced(t, v); (len(have) > 0) != tc.traces {
				t.Errorf("traced %q", have)
			}
			if told := strings.Contains(fmt.Sprint(h.m.Problems()), "nothing is traced"); told == tc.traces {
				t.Errorf("problems: %v", h.m.Problems())
			}
		})
	}
}
