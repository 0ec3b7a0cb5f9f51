package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// streamModule is the line that loads what nginx carries TCP with, which some
// packages have apart from nginx; empty when it is built in.
func streamModule(nginx string) (load string, err error) {
	about, err := exec.Command(nginx, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s -V: %w: %s", nginx, err, about)
	}
	if regexp.MustCompile(`--with-stream(\s|$)`).Match(about) {
		return "", nil
	}
	if dir := regexp.MustCompile(`--modules-path=(\S+)`).FindSubmatch(about); dir != nil {
		file := filepath.Join(string(dir[1]), "ngx_stream_module.so")
		if _, err := os.Stat(file); err == nil {
			return "load_module " + file + ";\n", nil
		}
	}
	return "", fmt.Errorf("%s has no stream module: apt-get install libnginx-mod-stream, or set NGINX_BIN", nginx)
}

// nginxFile is nginx bare and at its best: no log, connections to the server kept
// and reused, nothing of a gRPC stream gathered.
func nginxFile(b *bench, h hop) string {
	pid := b.file("nginx-" + strings.ReplaceAll(h.listen, ":", "-") + ".pid")
	head, body := "", nginxHTTP(b, h)
	if h.in.proto == tcp {
		head, body = b.nginxStream, nginxTCP(b, h)
	}
	return fmt.Sprintf(`%sworker_processes 1;
error_log /dev/null;
pid %s;
events { worker_connections 8000; }
%s`, head, pid, body)
}

// nginxTLS is of both sides. prefix is how the module that leads on names its own.
func nginxTLS(b *bench, h hop, prefix string) string {
	var out strings.Builder
	if h.in.mtls {
		fmt.Fprintf(&out, `    ssl_certificate %s; ssl_certificate_key %s; ssl_client_certificate %s; ssl_verify_client on; ssl_protocols TLSv1.3;
    ssl_session_tickets off; ssl_session_cache off; ssl_conf_command NumTickets 0; ssl_ecdh_curve %s; ssl_conf_command Ciphersuites %s;
`, b.file(h.name+".crt"), b.file(h.name+".key"), b.file("ca.crt"), keyExchange, cipherSuite)
	}
	if h.out.mtls {
		for _, l := range []string{
			"certificate " + b.file(h.name+".crt"), "certificate_key " + b.file(h.name+".key"), "trusted_certificate " + b.file("ca.crt"), "verify on", "protocols TLSv1.3",
			"name api.bench", "server_name on", "session_reuse off", "conf_command Groups " + keyExchange, "conf_command Ciphersuites " + cipherSuite,
		} {
			fmt.Fprintf(&out, "    %s_ssl_%s;\n", prefix, l)
		}
	}
	return out.String()
}

func nginxHTTP(b *bench, h hop) string {
	listen, module, scheme := h.listen, "proxy", "http"
	onward := `proxy_http_version 1.1; proxy_set_header Connection "";`
	if h.in.proto == http2 {
		listen += " http2"
	}
	if h.in.mtls {
		listen += " ssl"
	}
	if h.out.proto == http2 {
		module, scheme, onward = "grpc", "grpc", ""
	}
	if h.out.mtls {
		scheme += "s"
	}
	if h.noTimeout {
		onward += fmt.Sprintf(" %s_read_timeout 1h; %s_send_timeout 1h;", module, module)
	}
	return fmt.Sprintf(`http {
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  http2_max_concurrent_streams 1000;
  server_names_hash_max_size 65536;
  upstream next { server %s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %s default_server;
%s    location / { %s_pass %s://next; %s }
  }
%s}
`, h.upstream, listen, nginxTLS(b, h, module), module, scheme, onward, nginxRoutes(h))
}

// nginxRoutes is a server for each further cluster, as a mesh has them.
func nginxRoutes(h hop) string {
	var out strings.Builder
	for i := range h.extra.clusters {
		fmt.Fprintf(&out, "  upstream extra-%d { server %s; keepalive 16; }\n  server { listen %s; server_name extra-%d.bench;\n", i, unused, h.listen, i)
		for r := range h.extra.perHost() {
			fmt.Fprintf(&out, "    location /part-%d/ { proxy_pass http://extra-%d; }\n", r, i)
		}
		out.WriteString("  }\n")
	}
	return out.String()
}

func nginxTCP(b *bench, h hop) string {
	listen, tls := h.listen, ""
	if h.in.mtls {
		listen += " ssl"
	}
	if h.out.mtls {
		tls = "    proxy_ssl on;\n"
	}
	return fmt.Sprintf(`stream {
  access_log off;
  server {
    listen %s;
%s%s    proxy_pass %s; proxy_timeout 1h;
  }
}
`, listen, tls, nginxTLS(b, h, "proxy"), h.upstream)
}
