package sidecar

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// TestCheck: a bootstrap that would not be served is refused before it is tried, with all
// that is wrong, and the check leaves nothing behind.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	const tcp = `{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c}}`
	log := func(path string) string {
		return `access_log: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "` + path + `"}}]`
	}
	tls := func(certificate string) string {
		return `transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, ` +
			`common_tls_context: {tls_certificates: [{certificate_chain: {filename: "` + certificate + `"}, private_key: {filename: "` + certificate + `"}}]}}}`
	}
	for name, c := range map[string]struct {
		listener string // after its name and address
		want     []string
	}{
		"good":                {log(filepath.Join(dir, "log")) + ", filter_chains: [{filters: [" + tcp + "]}]", nil},
		"the log's directory": {log("/nowhere/log") + ", filter_chains: [{filters: [" + tcp + "]}]", []string{"listener l: access log /nowhere/log: no such file"}},
		"the log a directory": {log(dir) + ", filter_chains: [{filters: [" + tcp + "]}]", []string{"is a directory"}},
		"chains that match":   {"filter_chains: [{name: a, filters: [" + tcp + "]}, {name: b, filters: [" + tcp + "]}]", []string{`"a" and "b" match the same connections`}},
		"names but for case":  {`filter_chains: [{filter_chain_match: {server_names: [a, A]}, filters: [` + tcp + `]}]`, []string{"match the same connections"}},
		"no certificate":      {"filter_chains: [{" + tls("/nowhere/crt") + ", filters: [" + tcp + "]}]", []string{"/nowhere/crt"}},
		"more than one thing": {log("/nowhere/log") + ", filter_chains: [{name: a, filters: [" + tcp + "]}, {name: b, filters: [" + tcp + "]}]",
			[]string{"/nowhere/log", "match the same connections"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := config.ParseBootstrap([]byte(`static_resources:
  clusters: [{name: c, type: STATIC, load_assignment: {cluster_name: c, endpoints: []}}]
  listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, ` + c.listener + "}]\n"))
			if err == nil {
				err = Check(b)
			}
			if c.want == nil && err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			}
		})
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the check left %v %v", left, err)
	}
}

// Logs of events are looked at as those of requests are, and none is made.
func TestCheckEventLogs(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{filepath.Join(dir, "events"): "", "/dev/stdout": "", "/nowhere/events": "event log /nowhere/events: no such file", dir: "is a directory"} {
		for text, where := range map[string]string{
			"cluster_manager: {outlier_detection: {event_log_path: " + path + "}}": "cluster_manager.outlier_detection.event_log_path: ",
			`static_resources: {clusters: [{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}, event_log_path: ` + path + `}]}]}`: "cluster c: health_checks[0].event_log_path: ",
		} {
			b, err := config.ParseBootstrap([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if err = Check(b); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), where) || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %s", text, err, want)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the check left %v %v", left, err)
	}
}

// What a start refuses because it would come in plaintext over a network is refused here too.
func TestCheckRefusesServicesInPlaintext(t *testing.T) {
	const far = "  - {name: far, load_assignment: {cluster_name: far, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 192.0.2.1, port_value: 1}}}}]}]}}\n"
	clusters := "\nstatic_resources:\n  clusters:\n" + far
	own := grpcSource("GRPC", "far", "")
	for path, text := range map[string]string{
		"dynamic_resources.lds_config":             "dynamic_resources:\n  lds_config: " + own + clusters,
		"dynamic_resources.cds_config":             "dynamic_resources:\n  cds_config: " + own + clusters,
		"dynamic_resources.ads_config":             "dynamic_resources:\n  cds_config: {ads: {}}\n  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: far}}]}" + clusters,
		"cluster a: eds_cluster_config.eds_config": clusters + "  - {name: a, type: EDS, eds_cluster_config: {eds_config: " + own + "}}\n",
		"listener in: rds.config_source": clusters + `  listeners:
  - {name: in, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: hcm, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in,
      rds: {route_config_name: r, config_source: ` + own + `},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}
`,
	} {
		b, err := config.ParseBootstrap([]byte("node: {id: n1, cluster: c}\n" + text))
		if err != nil {
			t.Fatal(path, err)
		}
		if err := Check(b); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "plaintext over a network") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
