package config

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// TestSources: where discovered resources may come from, and what is said of the rest.
func TestSources(t *testing.T) {
	const stream = "  ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: cp}}]}\n"
	const controlPlane = `{name: cp, load_assignment: {cluster_name: cp, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /cp}}}}]}]}}`
	listener := func(rds string) string {
		return `  listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{filters: [{name: hcm, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, rds: ` + rds + `,
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}]` + "\n"
	}
	eds := func(source string) string {
		return "  clusters: [" + controlPlane + ", {name: c, type: EDS, eds_cluster_config: {" + source + "}}]\n"
	}
	own := func(api, cluster, more string) string {
		return "{" + more + "api_config_source: {api_type: " + api + ", grpc_services: [{envoy_grpc: {cluster_name: '" + cluster + "'}}]}}"
	}
	const none = "  clusters: [" + controlPlane + "]\n"
	for _, c := range []struct{ name, dynamic, static, want string }{
		{"files", "  lds_config: {path_config_source: {path: /lds}}\n  cds_config: {path: /cds}\n", none, ""},
		{"files, with a version", "  lds_config: {path_config_source: {path: /lds}, resource_api_version: V3}\n", none, ""},
		{"a file and the stream", stream + "  lds_config: {path_config_source: {path: /lds}}\n  cds_config: {ads: {}}\n", none, ""},
		{"no version is V3", stream + "  cds_config: {ads: {}}\n", none, ""},
		{"V2", stream + "  cds_config: {ads: {}, resource_api_version: V2}\n", none, "cds_config.resource_api_version: is V2; only V3 is supported"},
		{"V2 of the stream", strings.Replace(stream, "api_type", "transport_api_version: V2, api_type", 1), none, "ads_config.transport_api_version: is V2; only V3 is supported"},
		{"no stream", "  cds_config: {ads: {}}\n", none, "dynamic_resources.ads_config: is missing, and dynamic_resources.cds_config is ads"},
		{"no path", "  cds_config: {path: ''}\n", none, "dynamic_resources.cds_config"},
		{"a path with a mark", "  cds_config: {path_config_source: {path: '/a#b'}}\n", none, "dynamic_resources.cds_config.path_config_source.path: is empty, or has one of"},
		{"streams of their own", "  lds_config: " + own("GRPC", "cp", "") + "\n  cds_config: " + own("DELTA_GRPC", "cp", "initial_fetch_timeout: 1s, ") + "\n", none, ""},
		{"one beside another", stream + "  lds_config: {ads: {}}\n  cds_config: " + own("GRPC", "cp", "") + "\n", none, ""},
		{"REST", "  cds_config: " + own("REST", "cp", "") + "\n", none, "dynamic_resources.cds_config.api_config_source.api_type: is REST; use GRPC or DELTA_GRPC"},
		{"of no cluster", "  cds_config: " + own("GRPC", "none", "") + "\n", none, "dynamic_resources.cds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: there is no static cluster \"none\""},
		{"of a cluster with a mark", "  cds_config: " + own("GRPC", "a#b", "") + "\n", none, "cluster_name: has one of \"#\""},
		{"V2 of one", "  cds_config: " + strings.Replace(own("GRPC", "cp", ""), "{api_type", "{transport_api_version: V2, api_type", 1) + "\n", none, "api_config_source.transport_api_version: is V2"},
		{"a negative wait", "  cds_config: " + own("GRPC", "cp", "initial_fetch_timeout: -1s, ") + "\n", none, "dynamic_resources.cds_config.initial_fetch_timeout: must not be negative"},
		{"routes of a stream", "", none + listener("{route_config_name: r, config_source: "+own("GRPC", "cp", "")+"}"), ""},
		{"routes of no cluster", "", none + listener("{route_config_name: r, config_source: "+own("GRPC", "none", "")+"}"), "rds.config_source: cluster \"none\": " + ErrServer.Error()},
		{"routes by the name of a stream", stream, none + listener("{route_config_name: 'stream:cp/sotw#r', config_source: {ads: {}}}"), "rds.config_source: \"stream:cp/sotw#r\" reads like a file's or another service's"},
		{"endpoints of a stream", "", eds("eds_config: " + own("GRPC", "cp", "")), ""},
		{"endpoints of a cluster that has none itself", "", eds("eds_config: " + own("GRPC", "c", "")), "eds_cluster_config.eds_config: cluster \"c\": " + ErrServer.Error()},
		{"nothing", "  cds_config: {}\n", none, "dynamic_resources.cds_config.config_source_specifier: value is required"},
		{"routes of a file", "", none + listener("{route_config_name: r, config_source: {path: /r}}"), ""},
		{"routes of no stream", "", none + listener("{route_config_name: r, config_source: {ads: {}}}"), "there is no dynamic_resources.ads_config"},
		{"routes by the name of a file", stream, none + listener("{route_config_name: 'file:/etc/r#r', config_source: {ads: {}}}"), "rds.config_source: \"file:/etc/r#r\" reads like a file's"},
		{"endpoints of a file", "", eds("eds_config: {path: /e}"), ""},
		{"endpoints of no stream", "", eds("eds_config: {ads: {}}"), "there is no dynamic_resources.ads_config"},
		{"endpoints by the name of a file", stream, eds("service_name: 'file:/etc/r#r', eds_config: {ads: {}}"), "eds_cluster_config.eds_config: \"file:/etc/r#r\" reads like a file's"},
	} {
		text := "static_resources:\n" + c.static
		if c.dynamic != "" {
			text = "dynamic_resources:\n" + c.dynamic + text
		}
		_, err := ParseBootstrap([]byte(text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	for _, name := range []string{"r", "a#b", ""} {
		if service, got, ok := resource.SplitStream(resource.InStream("cp/sotw", name)); !ok || service != "cp/sotw" || got != name {
			t.Errorf("%q: %q %q %v", name, service, got, ok)
		}
		if path, got, ok := resource.SplitFile(resource.InFile("/etc/x:y", name)); !ok || path != "/etc/x:y" || got != name {
			t.Errorf("%q: %q %q %v", name, path, got, ok)
		}
	}
}

// FuzzResourceFile: what is read of a file can be decoded or is refused, as if it had come over
// the wire.
func FuzzResourceFile(f *testing.F) {
	for _, url := range resource.PushOrder {
		f.Add(`resources: [{"@type": ` + url + `, name: a, cluster_name: a}]`)
	}
	f.Add("resources: [&a [*a]]")
	f.Fuzz(func(t *testing.T, text string) {
		for _, url := range resource.PushOrder {
			found, err := ResourceFile([]byte(text), url)
			if err != nil {
				continue
			}
			for _, r := range found {
				if r.Name == "" || r.Type != url || r.Version != resource.Version(r.Body.GetValue()) {
					t.Errorf("%q: %+v", text, r)
				}
				_, _ = Listener(r.Body.GetValue())
				_, _ = Cluster(r.Body.GetValue())
			}
		}
	})
}
