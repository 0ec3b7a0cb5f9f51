package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

func yamlAddress(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// tlsContext of an Envoy file: own certificate, the peer's by CA and SPIFFE ID, no session resumed.
func tlsContext(b *bench, h hop, l leg, kind string, more ...string) string {
	alpn := "\n          alpn_protocols: [" + alpnOf(l) + "]"
	if l.proto == tcp {
		alpn = ""
		if h.tunnels {
			alpn = "\n          alpn_protocols: [" + names.TunnelALPN + "]"
		}
	}
	return fmt.Sprintf(`
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%s
        %s
        common_tls_context:%s
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [%s]}
          tls_certificates: [{certificate_chain: {filename: %s}, private_key: {filename: %s}}]
          validation_context:
            trusted_ca: {filename: %s}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%s"}}]`,
		kind, strings.Join(more, "\n        "), alpn, keyExchange, b.file(h.name+".crt"), b.file(h.name+".key"), b.file("ca.crt"), h.peer)
}

func alpnOf(l leg) string {
	if l.proto == http2 {
		return "h2"
	}
	return "http/1.1"
}

const accessLog = `
          access_log:
          - name: file
            typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/null}`

// rbacPolicies let the peer in, by its identity or else by its address, and nobody else.
func rbacPolicies(h hop, any string) string {
	who := "direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}"
	if h.in.mtls {
		who = fmt.Sprintf(`authenticated: {principal_name: {exact: "%s"}}`, h.peer)
	}
	return fmt.Sprintf(`
              rules:
                action: ALLOW
                policies:
                  web: {permissions: [%s], principals: [{%s}]}`, any, who)
}

// envoyFile is the one file that Hauberk and Envoy both run, but that Hauberk is told
// of tunnels where TLS carries TCP, which Envoy does not know; with features on:
// access log, request ids, a retry policy, a timeout, and RBAC on who the peer is; or
// with all of these off.
func envoyFile(b *bench, h hop) string {
	downstream, upstream := "", ""
	if h.in.mtls {
		downstream = "\n      transport_socket:" + strings.ReplaceAll(tlsContext(b, h, h.in, "DownstreamTlsContext", "require_client_certificate: true", "disable_stateless_session_resumption: true", "disable_stateful_session_resumption: true"), "\n      ", "\n        ")
	}
	if h.out.mtls {
		upstream = "\n    transport_socket:" + tlsContext(b, h, h.out, "UpstreamTlsContext", "sni: api.bench", "max_session_keys: 0")
	}
	filters := envoyHTTP(h)
	if h.in.proto == tcp {
		filters = envoyTCP(h)
	}
	return fmt.Sprintf(`node: {id: bench, cluster: bench}
static_resources:
  listeners:
  - name: in
    address: %s
    filter_chains:
    - filters:%s%s
  clusters:%s%s%s
`, yamlAddress(h.listen), filters, downstream, envoyCluster("next", h.out, h.upstream), upstream, envoyExtraClusters(h))
}

func envoyCluster(name string, l leg, address string) string {
	protocol := ""
	if l.proto == http2 {
		protocol = `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`
	}
	return fmt.Sprintf(`
  - name: %s
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}%s`, name, name, yamlAddress(address), protocol)
}

func envoyTCP(h hop) string {
	log, rbac := accessLog, `
      - name: rbac
        typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
              stat_prefix: in`+rbacPolicies(h, "{any: true}")
	if h.bare {
		log, rbac = "", ""
	}
	return fmt.Sprintf(`%s
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: in
          cluster: next%s`, rbac, log)
}

func envoyHTTP(h hop) string {
	codec := "HTTP1"
	if h.in.proto == http2 {
		codec = "HTTP2"
	}
	features := `
          normalize_path: true` + accessLog
	retries := `, retry_policy: {retry_on: "connect-failure,refused-stream,reset-before-request", num_retries: 2}`
	rbac := `
          - name: rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC` + rbacPolicies(h, "{url_path: {path: {prefix: /}}}")
	if h.in.mtls {
		features += "\n          forward_client_cert_details: SANITIZE_SET\n          set_current_client_cert_details: {uri: true}"
	}
	if h.bare {
		features, retries, rbac = "\n          generate_request_id: false", "", ""
	}
	timeout := "15s"
	if h.noTimeout {
		timeout = "0s"
	}
	return fmt.Sprintf(`
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: %s%s
          http_filters:%s
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: next, timeout: %s%s}%s`, codec, features, rbac, timeout, retries, envoyExtraRoutes(h))
}

// perHost is how many routes each of the further virtual hosts has.
func (e extra) perHost() int { return max(1, e.routes/max(1, e.clusters)) }

// envoyExtraRoutes is a virtual host for each further cluster, as a mesh has them.
func envoyExtraRoutes(h hop) string {
	var out strings.Builder
	for i := range h.extra.clusters {
		fmt.Fprintf(&out, "\n            - name: extra-%d\n              domains: [\"extra-%d.bench\"]\n              routes:", i, i)
		for r := range h.extra.perHost() {
			fmt.Fprintf(&out, "\n              - {match: {prefix: /part-%d/}, route: {cluster: extra-%d, timeout: 15s}}", r, i)
		}
	}
	return out.String()
}

func envoyExtraClusters(h hop) string {
	var out strings.Builder
	for i := range h.extra.clusters {
		out.WriteString(envoyCluster(fmt.Sprintf("extra-%d", i), h.out, unused))
	}
	return out.String()
}

// unused is the address of endpoints that no request is for.
const unused = "127.0.0.1:9"
