package config

import (
	"math"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// spiffeValidator is a validation context of trust domains.
func spiffeValidator(domains string) string {
	return `{custom_validator_config: {name: envoy.tls.cert_validator.spiffe, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, trust_domains: [` + domains + `]}}}`
}

// Each case changes one place of foreign.yaml and gives a part of the error.
func TestForeignRefuses(t *testing.T) {
	text, err := os.ReadFile("testdata/foreign.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unverified server", "{validation_context: {system_root_certs: {}}}", "{alpn_protocols: [http/1.1]}", "the server would not be verified"},
		{"nothing to verify with", "{system_root_certs: {}}", "{max_verify_depth: 3}", "trusted_ca: is missing: nothing would be verified"},
		{"unverified client", "            validation_context:\n              trusted_ca", "            custom_validation:\n              trusted_ca", `unknown field "custom_validation"`},
		{"renegotiation", "auto_host_sni: true\n", "auto_host_sni: true\n        allow_renegotiation: true\n", "allow_renegotiation: renegotiation is never done"},
		{"name to check", "        auto_host_sni: true\n", "", "auto_sni_san_validation: there is no name to check"},
		{"a name beside pins", "{system_root_certs: {}}", "{verify_certificate_hash: ['" + strings.Repeat("00", 32) + "']}", "auto_sni_san_validation: was configured without configuring a trusted CA"},
		{"a name beside trust domains", "{system_root_certs: {}}", spiffeValidator("{name: td, trust_bundle: {inline_string: x}}"), "auto_sni_san_validation: a name in DNS is no identity of a trust domain"},
		{"tickets", "require_sni: true", "session_ticket_keys: {keys: [{inline_string: k}]}", "session_ticket_keys: unsupported; remove the field: sessions are never resumed"},
		{"OCSP", "require_sni: true", "ocsp_staple_policy: MUST_STAPLE", "ocsp_staple_policy: OCSP stapling is not implemented"},
		{"weak suite", "ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA", `"AES128-SHA" is not supported`},
		{"weak curve", "ecdh_curves: [X25519", "ecdh_curves: [P-224", `"P-224" is not supported`},
		{"pin", `"DF:6F:F7:2F:E9`, `"DF:6F`, "verify_certificate_hash[0]: is not the text of a SHA-256 hash"},
		{"validators", "{system_root_certs: {}}", `{custom_validator_config: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}`, "custom_validator_config: has no SPIFFE validator"},
		{"no trust domain", "{system_root_certs: {}}", spiffeValidator(""), "trust_domains: value must contain at least 1 item(s)"},
		{"a trust domain's name", "{system_root_certs: {}}", spiffeValidator("{name: 'spiffe://td', trust_bundle: {inline_string: x}}"), "trust_domains[0].name: "},
		{"a trust domain twice", "{system_root_certs: {}}", spiffeValidator("{name: td, trust_bundle: {inline_string: x}}, {name: td, trust_bundle: {inline_string: z}}"), `trust_domains[1].name: "td" is there twice`},
		{"a trust domain without a bundle", "{system_root_certs: {}}", spiffeValidator("{name: td}"), "trust_domains[0].trust_bundle: is missing"},
		{"trust domains and roots", "{system_root_certs: {}}", strings.Replace(spiffeValidator("{name: td, trust_bundle: {inline_string: x}}"), "{", "{system_root_certs: {}, ", 1), "custom_validator_config: has trust domains of its own; remove trusted_ca and system_root_certs"},
		{"no version of a header", "disallowed_versions: [V1]", "disallowed_versions: [V2, V1]", "listener_filters[0].typed_config.disallowed_versions: leaves no version"},
		{"a limit without a number", "          max_connections: 100\n", "", "filters[0].typed_config.max_connections: is missing"},
		{"extensions as filter state", "disallowed_versions: [V1]", "tlv_location: FILTER_STATE", "tlv_location: is FILTER_STATE; nothing has filter state"},
		{"an extension for nothing", "disallowed_versions: [V1]", "rules: [{tlv_type: 1}]", "rules[0].on_tlv_present: is missing"},
		{"an extension that chooses hosts", "disallowed_versions: [V1]", "rules: [{tlv_type: 1, on_tlv_present: {metadata_namespace: envoy.lb, key: k}}]", "rules[0].on_tlv_present.metadata_namespace: what a client's header says does not choose among hosts"},
		{"types of all extensions", "disallowed_versions: [V1]", "pass_through_tlvs: {tlv_type: [1]}", "pass_through_tlvs.tlv_type: is for match_type INCLUDE"},
		{"tunnel", "          idle_timeout: 0s\n", "          tunneling_config: {hostname: h}\n", "tunneling_config: unsupported; remove the field"},
		{"duplicate match", "    - name: tls\n      filter_chain_match", "    - {name: twin, filters: []}\n    - name: tls\n      filter_chain_match", "filter_chains[0].filters: is empty"},
		{"early data", "          max_early_data_bytes: 1024\n", "", "max_early_data_bytes: is needed with ON_DOWNSTREAM_DATA"},
		{"monitor", "name: envoy.resource_monitors.fixed_heap, threshold", "name: other, threshold", `there is no resource monitor "other"`},
		{"runtime key", "limit.enabled: true", "limit.enabled: [3]", "is no number, text, boolean or fraction"},
		{"limit that is none", "connection_limit: 1000", "connection_limit: 1.5", "is not a number of connections"},
		{"mode of an endpoint", "{socket_address: {address: 10.0.0.2, port_value: 443}}", "{pipe: {path: /x, mode: 1}}", "pipe.mode: is for listeners"},
		{"IPv4 with compat", `address: "::", port_value: 8443`, `address: "127.0.0.1", port_value: 8443`, "ipv4_compat: is for an IPv6 address"},
		{"last filter", "      - name: tcp\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "      - name: tcp\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo", "unsupported extension"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(text), c.old) {
				t.Fatalf("the file has no %q", c.old)
			}
			if _, err := ParseBootstrap([]byte(strings.Replace(string(text), c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// What is odd, and means the same in Envoy.
func TestForeignBootstrapsAreTaken(t *testing.T) {
	const chain = `
      - filters:
        - name: limit
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit
            stat_prefix: x
            max_connections: 18446744073709551615
        - name: tcp
          typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c}
`
	out, err := ParseBootstrap([]byte(`
static_resources:
  clusters:
  - {name: c, load_assignment: {cluster_name: c}}
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:` + chain + `
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    default_filter_chain:` + strings.Replace(strings.Replace(chain, "- filters", "  filters", 1), "\n      ", "\n        filter_chain_match: {}\n      ", 1) + `
  - address: {pipe: {path: /run/x}}
    filter_chains:` + chain))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range out.Listeners {
		names = append(names, l.Name)
	}
	if got := strings.Join(names, " "); got != "127.0.0.1:0 listeners[1] /run/x" {
		t.Errorf("the listeners are %s", got)
	}
	if got := out.Listeners[0].Chains[0].ConnectionLimits[0].Max; got != math.MaxInt64 {
		t.Errorf("the limit is %d", got)
	}
	if _, err := ParseBootstrap([]byte(`
static_resources:
  clusters: [{name: c, load_assignment: {cluster_name: c}}]
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    default_filter_chain: {filter_chain_match: {destination_port: 5}, filters: [{name: x}]}
`)); err == nil || !strings.Contains(err.Error(), "default_filter_chain.filter_chain_match: the default chain takes what no other matches") {
		t.Error(err)
	}
}

// Envoy joins the protocols with commas and splits them again, and its own example of an
// edge proxy has both in one text.
func TestProtocolsInOneText(t *testing.T) {
	text, err := os.ReadFile("testdata/static.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBootstrap([]byte(strings.Replace(string(text), "alpn_protocols: [http/1.1]", `alpn_protocols: ["h2,http/1.1"]`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Listeners[0].Chains[0].TLS.ALPN; !slices.Equal(got, []string{"h2", "http/1.1"}) {
		t.Errorf("offers %q", got)
	}
}

// edgeManager is a bootstrap with a connection manager that has the fields, and one HTTP
// filter before the router.
func edgeManager(fields, filter string) []byte {
	return []byte(`
static_resources:
  clusters:
  - name: app
    track_timeout_budgets: true
    track_cluster_stats: {timeout_budgets: true, request_response_sizes: true}
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}]}]}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          ` + fields + `
          http_filters:
          - {name: first, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.` + filter + `}}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app, retry_policy: {retry_on: "5xx"}}}]}]}
`)
}

const uuids = `request_id_extension: {typed_config: {"@type": type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, `

// Fields that many bootstraps have, and that say what is so anyway or only count.
func TestOrdinaryFieldsAreTaken(t *testing.T) {
	for _, fields := range []string{
		uuids + "}}", uuids + "pack_trace_reason: true, use_request_id_for_trace_sampling: true}}", "request_id_extension: {}",
	} {
		if _, err := ParseBootstrap(edgeManager(fields, "grpc_stats.v3.FilterConfig, emit_filter_state: true")); err != nil {
			t.Errorf("%s: %v", fields, err)
		}
	}
}

// What control planes put into the bootstraps that they make.
func TestBootstrapsOfControlPlanesAreTaken(t *testing.T) {
	for _, fields := range []string{
		"deferred_stat_options: {enable_deferred_creation_stats: true}",
		"stats_eviction_interval: 60s",
		`default_regex_engine: {name: envoy.regex_engines.google_re2, typed_config: {"@type": type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2}}`,
		"application_log_config: {log_format: {text_format: '%v'}}",
		"application_log_config: {log_format: {json_format: {a: '%v'}}}",
		"cluster_manager: {enable_deferred_cluster_creation: true}",
		"static_resources: {clusters: [{name: nowhere, type: STATIC}, {name: nobody, type: STRICT_DNS}]}",
	} {
		if _, err := ParseBootstrap([]byte(fields)); err != nil {
			t.Errorf("%s: %v", fields, err)
		}
	}
	for fields, want := range map[string]string{
		"cluster_manager: {local_cluster_name: c}":                                                                                                       `cluster_manager.local_cluster_name: "c" is no cluster of static_resources, or one that only leads to a control plane or to the agent`,
		"cluster_manager: {outlier_detection: {event_service: {}}}":                                                                                      "cluster_manager.outlier_detection.event_service: unsupported; remove the field: use event_log_path",
		"cluster_manager: {upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 5}}}":                                                 "cluster_manager.upstream_bind_config.source_address.port_value: one port",
		"cluster_manager: {upstream_bind_config: {source_address: {address: here, port_value: 0}}}":                                                      "cluster_manager.upstream_bind_config.source_address.address: \"here\" is not an IP address",
		cares("rotate_nameservers: true"):                                                                                                                "typed_dns_resolver_config.typed_config.rotate_nameservers: needs resolvers",
		"dns_resolution_config: {resolvers: [{socket_address: {address: 127.0.0.1, port_value: 0}}]}":                                                    "dns_resolution_config.resolvers[0]: a nameserver is an IP address with a port",
		"typed_dns_resolver_config: {name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}": "typed_dns_resolver_config: has no resolver of type CaresDnsResolverConfig",
		"cluster_manager: {load_stats_config: {}}":                                                                                                       "cluster_manager.load_stats_config: unsupported; remove the field: statistics are read from /stats/prometheus",
		"default_regex_engine: {name: x}":                                                                                                                "default_regex_engine.typed_config: value is required",
		"default_regex_engine: {name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random}}":      "default_regex_engine: is no GoogleRE2; expressions have RE2's syntax only",
		"static_resources: {clusters: [{name: c, type: LOGICAL_DNS}]}":                                                                                   "load_assignment: a logical DNS cluster has exactly one locality with one endpoint",
	} {
		if _, err := ParseBootstrap([]byte(fields)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", fields, err, want)
		}
	}
}

// What clusters have that do not say it themselves is said once, the newest way first.
func TestClusterDefaults(t *testing.T) {
	const old = "dns_resolution_config: {resolvers: [{socket_address: {address: 10.0.0.53, port_value: 53}}]}\n"
	newest := cares("resolvers: [{socket_address: {address: 10.0.0.54, port_value: 53}}]")
	for fields, want := range map[string]*Bootstrap{
		"node: {}":                                       {},
		"use_tcp_for_dns_lookups: true":                  {Nameservers: &cluster.DNS{OverTCP: true}},
		"use_tcp_for_dns_lookups: true\n" + old:          {Nameservers: &cluster.DNS{Servers: []string{"10.0.0.53:53"}}},
		"use_tcp_for_dns_lookups: true\n" + old + newest: {Nameservers: &cluster.DNS{Servers: []string{"10.0.0.54:53"}, OwnResolver: true}},
		"cluster_manager: {upstream_bind_config: {source_address: {address: 127.0.0.9, port_value: 0}}}": {Bind: &cluster.Bind{From: []cluster.BindAddress{{Addr: netip.MustParseAddr("127.0.0.9")}}}},
		"cluster_manager: {upstream_bind_config: {}, outlier_detection: {event_log_path: /x}}":           {Bind: &cluster.Bind{}, OutlierEvents: "/x"},
	} {
		b, err := ParseBootstrap([]byte(fields))
		if err != nil {
			t.Errorf("%s: %v", fields, err)
			continue
		}
		if got := (&Bootstrap{Nameservers: b.Nameservers, Bind: b.Bind, OutlierEvents: b.OutlierEvents}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", fields, got)
		}
	}
}

// The own cluster is one of the bootstrap's. A node without a locality is in no zone.
func TestOwnCluster(t *testing.T) {
	for _, c := range []struct {
		node string
		want *cluster.Own
	}{
		{"{id: node}", &cluster.Own{Cluster: "own"}},
		{"{id: node, locality: {}}", &cluster.Own{Cluster: "own", Zone: &cluster.Zone{}}},
		{"{id: node, locality: {region: r, zone: z, sub_zone: s}}", &cluster.Own{Cluster: "own", Zone: &cluster.Zone{Region: "r", Zone: "z", SubZone: "s"}}},
	} {
		b, err := ParseBootstrap([]byte("node: " + c.node + `
cluster_manager: {local_cluster_name: own}
static_resources: {clusters: [{name: own, load_assignment: {cluster_name: own}}]}`))
		if err != nil || !reflect.DeepEqual(b.Own, c.want) {
			t.Errorf("%s: got %+v, %v", c.node, b, err)
		}
	}
	// As Envoy Gateway has it: its hosts come from the control plane.
	b, err := ParseBootstrap([]byte(`
cluster_manager: {local_cluster_name: own}
dynamic_resources: {ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}
static_resources:
  clusters:
  - {name: own, type: EDS, eds_cluster_config: {service_name: own, eds_config: {ads: {}, resource_api_version: V3}}}
  - {name: xds, load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}`))
	if err != nil || b.Own == nil || b.Clusters[0].Type != cluster.EDS {
		t.Errorf("by EDS: got %+v, %v", b, err)
	}
	b, err = ParseBootstrap([]byte("cluster_manager: {local_cluster_name: ''}"))
	if err != nil || b.Own != nil {
		t.Errorf("without a name: got %+v, %v", b, err)
	}
	if _, err := ParseBootstrap([]byte(`
cluster_manager: {local_cluster_name: xds}
dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}}
static_resources: {clusters: [{name: xds, load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}]}`)); err == nil || !strings.Contains(err.Error(), `cluster_manager.local_cluster_name: "xds" is no cluster`) {
		t.Errorf("one that leads to the control plane: got %v", err)
	}
}

func TestOrdinaryFieldsThatAreRefused(t *testing.T) {
	const stats = "grpc_stats.v3.FilterConfig"
	for _, c := range []struct{ fields, filter, old, new, want string }{
		{uuids + "use_request_id_for_trace_sampling: false}}", stats, "", "", "request_id_extension.typed_config.use_request_id_for_trace_sampling: requests are always sampled by their id"},
		{"", stats, `"5xx"`, `"5xx,503"`, `retry_on: "503" is no condition: write retriable-status-codes, and the status into retriable_status_codes`},
		{"", stats, `"5xx"`, `"5xx,gateway_error"`, `retry_on: unsupported condition "gateway_error", which an Envoy would ignore; the conditions are 5xx, cancelled, connect-failure,`},
		{"", "jwt_authn.v3.JwtAuthentication", "", "", "http_filters[0]: unsupported extension \"first\" (type envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication); without it everybody would be let in: envoy.filters.http.rbac decides by identity, headers, path and address"},
		{"", "ratelimit.v3.RateLimit", "", "", "without it nothing would be limited: envoy.filters.http.local_ratelimit does without a service"},
	} {
		text := strings.Replace(string(edgeManager(c.fields, c.filter)), c.old, c.new, 1)
		if _, err := ParseBootstrap([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}
