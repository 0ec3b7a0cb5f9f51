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
