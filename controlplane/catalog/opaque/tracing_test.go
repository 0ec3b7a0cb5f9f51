package opaque

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// read is the Config of layers of JSON, as they are merged.
func read(t *testing.T, layers ...string) (Proxy, []Problem) {
	t.Helper()
	var configs []map[string]any
	for _, l := range layers {
		var c map[string]any
		if err := json.Unmarshal([]byte(l), &c); err != nil {
			t.Fatal(err)
		}
		configs = append(configs, c)
	}
	return ReadProxy(Merge(configs...))
}

func TestReadTracing(t *testing.T) {
	for name, tc := range map[string]struct {
		layers []string
		want   Tracing
	}{
		"a service of the mesh": {
			[]string{`{"tracing":{"otlp":{"service":"otel-collector"}}}`},
			Tracing{OTLP: &Collector{Service: "otel-collector", Path: "/v1/traces"}, Sampling: 100}},
		"an address, as HCL's blocks come back from Consul": {
			[]string{`{"Tracing":[{"zipkin":[{"address":"[::1]:9411","Path":"/spans","insecure":"true"}],"sampling":"0.01"}]}`},
			Tracing{Zipkin: &Collector{Host: "::1", Port: 9411, Path: "/spans", Insecure: true}, Sampling: 1}},
		"over TLS": {
			[]string{`{"tracing":{"otlp":{"address":"otel:4318","protocol":"http","ca_file":"/ca.pem","server_name":"otel.internal"}}}`},
			Tracing{OTLP: &Collector{Host: "otel", Port: 4318, Protocol: "http", Path: "/v1/traces", CAFile: "/ca.pem", ServerName: "otel.internal"}, Sampling: 100}},
		"a registration stands above proxy-defaults, key by key": {
			[]string{`{"tracing":{"otlp":{"service":"a"},"sampling":1,"tags":{"team":"shop","Team":"x"}}}`,
				`{"TRACING":{"OTLP":[{"Service":"b"}],"Sampling":100,"tags":{"team":"cart","t_eam":"y"}}}`},
			Tracing{OTLP: &Collector{Service: "b", Path: "/v1/traces"}, Sampling: 10000, Tags: map[string]string{"team": "cart", "Team": "x", "t_eam": "y"}}},
		"off": {
			[]string{`{"tracing":{"otlp":{"service":"a"}}}`, `{"tracing":{"enabled":false,"sampling":null}}`},
			Tracing{OTLP: &Collector{Service: "a", Path: "/v1/traces"}, Sampling: 100, Disabled: true}},
		"a null says nothing": {
			[]string{`{"tracing":{"otlp":{"service":"a"}}}`, `{"tracing":null}`},
			Tracing{OTLP: &Collector{Service: "a", Path: "/v1/traces"}, Sampling: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			have, problems := read(t, tc.layers...)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if diff := cmp.Diff(&tc.want, have.Tracing); diff != "" {
				t.Errorf("-want +have:\n%s", diff)
			}
			if bad := have.Tracing.Check(); bad != nil {
				t.Error(bad)
			}
		})
	}
}

// TestRefuseTracing: each with the path of the key that is wrong.
func TestRefuseTracing(t *testing.T) {
	for config, want := range map[string]string{
		`{"tracing":7}`: "tracing",
		`{"tracing":{"otlp":{"service":"a"},"colour":1}}`:                          "tracing.colour",
		`{"tracing":{"sampling":100.5}}`:                                           "tracing.sampling",
		`{"tracing":{"sampling":0.001}}`:                                           "tracing.sampling",
		`{"tracing":{"sampling":"NaN"}}`:                                           "tracing.sampling",
		`{"tracing":{"enabled":"perhaps"}}`:                                        "tracing.enabled",
		`{"tracing":{"tags":{"team":7}}}`:                                          "tracing.tags.team",
		`{"tracing":{"tags":["team"]}}`:                                            "tracing.tags",
		`{"tracing":{"otlp":{"address":"otel"}}}`:                                  "tracing.otlp.address",
		`{"tracing":{"otlp":{"address":"otel:0"}}}`:                                "tracing.otlp.address",
		`{"tracing":{"otlp":{"address":"me@otel:1"}}}`:                             "tracing.otlp.address",
		`{"tracing":{"otlp":{"address":"o tel:1"}}}`:                               "tracing.otlp.address",
		`{"tracing":{"otlp":{"protocol":"udp"}}}`:                                  "tracing.otlp.protocol",
		`{"tracing":{"otlp":{"ca_file":"ca.pem"}}}`:                                "tracing.otlp.ca_file",
		`{"tracing":{"otlp":{"path":"spans"}}}`:                                    "tracing.otlp.path",
		`{"tracing":{"otlp":{"headers":{}}}}`:                                      "tracing.otlp.headers",
		`{"tracing":{"zipkin":{"protocol":"grpc"}}}`:                               "tracing.zipkin.protocol",
		`{"tracing":{}}`:                                                           "tracing",
		`{"tracing":{"otlp":{"service":"a"},"zipkin":{"service":"b"}}}`:            "tracing.zipkin",
		`{"tracing":{"otlp":{}}}`:                                                  "tracing.otlp",
		`{"tracing":{"otlp":{"service":"a","address":"b:1"}}}`:                     "tracing.otlp.address",
		`{"tracing":{"otlp":{"service":"a","insecure":true}}}`:                     "tracing.otlp.insecure",
		`{"tracing":{"otlp":{"service":"a","ca_file":"/ca"}}}`:                     "tracing.otlp.ca_file",
		`{"tracing":{"otlp":{"service":"a","server_name":"b"}}}`:                   "tracing.otlp.server_name",
		`{"tracing":{"otlp":{"service":"a","protocol":"grpc"}}}`:                   "tracing.otlp.protocol",
		`{"tracing":{"otlp":{"address":"a:1","insecure":true,"ca_file":"/ca"}}}`:   "tracing.otlp.ca_file",
		`{"tracing":{"otlp":{"address":"a:1","insecure":true,"server_name":"b"}}}`: "tracing.otlp.server_name",
		`{"envoy_tracing_json":"{}"}`:                                              "envoy_tracing_json",
		`{"envoy_listener_tracing_json":"{}"}`:                                     "envoy_listener_tracing_json",
	} {
		p, problems := read(t, config)
		if p.Tracing != nil {
			if bad := p.Tracing.Check(); bad != nil {
				problems = append(problems, *bad)
			}
		}
		if len(problems) != 1 || problems[0].Key != want || problems[0].Reason == "" {
			t.Errorf("%s: want %s, have %v", config, want, problems)
		}
	}
}
