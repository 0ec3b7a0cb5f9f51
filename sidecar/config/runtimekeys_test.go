package config

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// withLayer is a bootstrap of one layer, whose listeners are discovered unless there are static ones.
func withLayer(t *testing.T, values, rest string) (*Bootstrap, error) {
	t.Helper()
	return ParseBootstrap([]byte(`layered_runtime: {layers: [{name: s, static_layer: ` + values + `}]}
dynamic_resources: {lds_config: {path_config_source: {path: /etc/listeners.yaml}}}
` + rest))
}

const keyedListener = `static_resources:
  clusters: [{name: a, lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: {default_value: 3, runtime_key: bias}, slow_start_config: {slow_start_window: 60s, aggression: {default_value: 2, runtime_key: steep}}}}, {name: b}]
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 1}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          access_log:
          - filter: {or_filter: {filters: [
              {status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: status}}}},
              {runtime_filter: {runtime_key: sampled, percent_sampled: {numerator: 7, denominator: TEN_THOUSAND}}}]}}
            typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}
          http_filters:
          - name: fault
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
              delay: {fixed_delay: 1s, percentage: {numerator: 1}}
              abort: {http_status: 503, percentage: {numerator: 2}}
              max_active_faults: 3
              abort_percent_runtime: own.abort
          - name: limit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: l
              filter_enabled: {default_value: {numerator: 4}, runtime_key: limited}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {prefix: /, runtime_fraction: {default_value: {numerator: 0}, runtime_key: canary}}
                route:
                  request_mirror_policies: [{cluster: b, runtime_fraction: {default_value: {numerator: 5}, runtime_key: mirrored}}]
                  weighted_clusters: {runtime_key_prefix: split, clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}
`

// keyed is what of keyedListener a layer can say.
type keyed struct {
	Canary, Mirrored, Limited, Delayed, Aborted route.Share
	Delay                                       time.Duration
	Status                                      int
	Active                                      uint32
	A, B                                        uint32 // weights
	Logged                                      int64
	Sampled                                     uint64
	Bias, Steep                                 float64
}

func keyedOf(b *Bootstrap) keyed {
	h := b.Listeners[0].Chains[0].HTTP
	r := h.Routes.VirtualHosts[0].Routes[0]
	f := h.Filters[0].Config.(*fault.Config)
	logged := h.AccessLog[0].Filter.(telemetry.Any)
	return keyed{
		Canary: *r.Match.Share, Mirrored: r.Forward.Mirrors[0].Share, Limited: h.Filters[1].Config.(*ratelimit.Config).Enabled,
		Delayed: f.Delay.Share, Aborted: f.Abort.Share, Delay: f.Delay.Fixed, Status: f.Abort.Status, Active: *f.MaxActive,
		A: r.Forward.Weighted[0].Weight, B: r.Forward.Weighted[1].Weight,
		Logged: logged[0].(telemetry.StatusFilter).Value, Sampled: logged[1].(telemetry.SampleFilter).Numerator,
		Bias: *b.Clusters[0].ActiveRequestBias, Steep: b.Clusters[0].SlowStart.Aggression,
	}
}

// TestRuntimeKeys: what a static layer says stands in the place of a field's default, by Envoy's rules of
// what is a number, a boolean or a fraction.
func TestRuntimeKeys(t *testing.T) {
	const percent = route.All / 100
	unset := keyed{
		Mirrored: 5 * percent, Limited: 4 * percent, Delayed: percent, Aborted: 2 * percent, Delay: time.Second, Status: 503, Active: 3,
		A: 1, B: 2, Logged: 500, Sampled: 7, Bias: 3, Steep: 2,
	}
	for _, c := range []struct {
		values string
		change func(*keyed)
	}{
		{"{}", func(*keyed) {}},
		{"{canary: 50}", func(k *keyed) { k.Canary = 50 * percent }},
		{"{canary: 0.9}", func(k *keyed) { k.Canary = 0 }},
		{"{canary: 33.7}", func(k *keyed) { k.Canary = 33 * percent }},
		{"{canary: 300}", func(k *keyed) { k.Canary = route.All }},
		{"{canary: -1}", func(*keyed) {}},
		{"{canary: true}", func(*keyed) {}},
		{"{canary: '20'}", func(k *keyed) { k.Canary = 20 * percent }},
		{"{canary: many}", func(*keyed) {}},
		{"{canary: {numerator: 5}}", func(k *keyed) { k.Canary = 5 * percent }},
		{"{canary: {numerator: 5, denominator: TEN_THOUSAND}}", func(k *keyed) { k.Canary = 500 }},
		{"{canary: {numerator: 5, denominator: MILLION}}", func(k *keyed) { k.Canary = 5 }},
		{"{canary: {numerator: 101, denominator: HUNDRED}}", func(k *keyed) { k.Canary = route.All }},
		{"{canary: {numerator: 5, denominator: DOZEN}}", func(*keyed) {}},
		{"{canary: {numerator: 5, other: 1}}", func(*keyed) {}},
		{"{mirrored: {}}", func(k *keyed) { k.Mirrored = 0 }},
		{"{mirrored: {denominator: MILLION}}", func(k *keyed) { k.Mirrored = 0 }},
		{"{limited: 100}", func(k *keyed) { k.Limited = route.All }},
		{"{fault: {http: {delay: {fixed_delay_percent: 9, fixed_duration_ms: 20}, max_active_faults: 8}}}", func(k *keyed) {
			k.Delayed, k.Delay, k.Active = 9*percent, 20*time.Millisecond, 8
		}},
		{"{fault.http.abort.http_status: 418, own.abort: 11}", func(k *keyed) { k.Status, k.Aborted = 418, 11*percent }},
		{"{split: {a: 90}}", func(k *keyed) { k.A = 90 }},
		{"{split.a: 0, split.b: 7}", func(k *keyed) { k.A, k.B = 0, 7 }},
		{"{status: 400, sampled: 9}", func(k *keyed) { k.Logged, k.Sampled = 400, 9 }},
		{"{sampled: {numerator: 9}}", func(*keyed) {}},
		{"{bias: 0.5, steep: 1.5}", func(k *keyed) { k.Bias, k.Steep = 0.5, 1.5 }},
		{"{bias: -1, steep: 0}", func(k *keyed) { k.Bias, k.Steep = 1, 1 }},
	} {
		b, err := withLayer(t, c.values, keyedListener)
		if err != nil {
			t.Errorf("%s: %v", c.values, err)
			continue
		}
		want := unset
		c.change(&want)
		if got := keyedOf(b); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.values, got, want)
		}
	}
}

// TestRuntimeOfDiscoveredResources: routes and clusters that are discovered have it too.
func TestRuntimeOfDiscoveredResources(t *testing.T) {
	b, err := withLayer(t, "{canary: 50, bias: 0.5}", "")
	if err != nil {
		t.Fatal(err)
	}
	r := &routev3.RouteConfiguration{}
	c := &clusterv3.Cluster{}
	for m, text := range map[proto.Message]string{
		r: `{"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"direct_response": {"status": 200},
			"match": {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": "canary"}}}]}]}`,
		c: `{"name": "c", "lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"active_request_bias": {"default_value": 3, "runtime_key": "bias"}}}`,
	} {
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			t.Fatal(err)
		}
	}
	body, _ := proto.Marshal(r)
	routes, err := b.Runtime.Route(body)
	if err != nil || *routes.VirtualHosts[0].Routes[0].Match.Share != route.All/2 {
		t.Errorf("routes: %+v, %v", routes, err)
	}
	body, _ = proto.Marshal(c)
	one, err := b.Runtime.Cluster(body)
	if err != nil || *one.ActiveRequestBias != 0.5 {
		t.Errorf("cluster: %+v, %v", one, err)
	}
}

// TestRuntimeRefuses: what Envoy would act on, and the sidecar would not, is refused by its path,
// whether or not resources are discovered that may name keys of their own.
func TestRuntimeRefuses(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"{mine: 1}", ""},
		{"{tracing.client_enabled: 5}", ""},
		{"{fault.http.abort.abort_percent: 5}", ""},
		{"{http.max_requests_per_io_cycle: 1}", ""},
		{"{envoy.restart_features.use_eds_cache_for_ads: true}", ""},
		{"{'envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst': true}", ""},
		{"{overload: {premature_reset_total_stream_count: 9}}", `static_layer["overload"]["premature_reset_total_stream_count"]: `},
		{"{overload.premature_reset_min_stream_lifetime_seconds: 9}", `static_layer["overload.premature_reset_min_stream_lifetime_seconds"]: `},
		{"{circuit_breakers: {a: {default: {max_requests: 1}}}}", `static_layer["circuit_breakers"]["a"]["default"]["max_requests"]: `},
		{"{upstream.maintenance_mode.a: 100}", `static_layer["upstream.maintenance_mode.a"]: `},
		{"{outlier_detection.enforcing_consecutive_5xx: 0}", `static_layer["outlier_detection.enforcing_consecutive_5xx"]: `},
		{"{fault.http.cluster.abort.abort_percent: 5}", `static_layer["fault.http.cluster.abort.abort_percent"]: `},
		{"{envoy.reloadable_features.some: false}", ""},
		{"{envoy.reloadable_features.some: 'false'}", ""},
		{"{mine: [1]}", `static_layer["mine"]: is no number`},
		{"{mine: null}", `static_layer["mine"]: is no number`},
		{"{fault.http.abort.http_status: 42}", `static_layer["fault.http.abort.http_status"]: `},
		{"{split.a: 0, split.b: 0}", `weighted_clusters: the weights must add up`},
	} {
		_, err := withLayer(t, c.values, keyedListener)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.values, err, c.want)
		}
	}
}
