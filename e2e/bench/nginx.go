package main

import (
	"fmt"
	"strings"
)

func nginxFile(b *bench, h hop) string {
	listen, pass := h.listen, "http"
	if h.in.proto == http2 {
		listen += " http2"
	}
	var tls strings.Builder
	if h.in.mtls {
		listen += " ssl"
		fmt.Fprintf(&tls, `    ssl_certificate %s; ssl_certificate_key %s; ssl_client_certificate %s; ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_conf_command Ciphersuites %s;
`, b.file(h.name+".crt"), b.file(h.name+".key"), b.file("ca.crt"), cipherSuite)
	}
	if h.out.mtls {
		pass = "https"
		fmt.Fprintf(&tls, `    proxy_ssl_certificate %s; proxy_ssl_certificate_key %s; proxy_ssl_trusted_certificate %s; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.3; proxy_ssl_name api.bench; proxy_ssl_server_name on; proxy_ssl_conf_command Ciphersuites %s;
`, b.file(h.name+".crt"), b.file(h.name+".key"), b.file("ca.crt"), cipherSuite)
	}
	var more strings.Builder
	for i := range h.extra.clusters {
		fmt.Fprintf(&more, "  upstream extra-%d { server %s; keepalive 16; }\n  server { listen %s; server_name extra-%d.bench;\n", i, unused, h.listen, i)
		for r := range h.extra.perHost() {
			fmt.Fprintf(&more, "    location /part-%d/ { proxy_pass http://extra-%d; }\n", r, i)
		}
		more.WriteString("  }\n")
	}
	return fmt.Sprintf(`worker_processes 1;
error_log /dev/null;
pid %s;
events { worker_connections 8000; }
http {
  access_log off;
  keepalive_requests 1000000000;
  server_names_hash_max_size 65536;
  upstream next { server %s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %s default_server;
%s    location / { proxy_pass %s://next; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
%s}
`, b.file("nginx-"+strings.ReplaceAll(h.listen, ":", "-")+".pid"), h.upstream, listen, tls.String(), pass, more.String())
}
