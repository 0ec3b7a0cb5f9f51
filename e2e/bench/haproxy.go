package main

import (
	"fmt"
	"os"
	"strings"
)

// cipherSuite is the one that Hauberk's and Envoy's hops agree on by themselves. OpenSSL's would
// agree on AES with 256 bits. The key exchange is the one that all of them have: without more
// words Hauberk's hops would agree on a post-quantum hybrid, which older peers do not know.
const cipherSuite, keyExchange = "TLS_AES_128_GCM_SHA256", "X25519"

// haproxyFile is HAProxy bare and at its best: no log, connections to the server
// always reused, and kept until nearly all descriptors are used (a quarter of them, unasked, which
// 1,000 clients and their hosts' connections are), bytes spliced where there is no TLS.
func haproxyFile(b *bench, h hop) (string, error) {
	routes, err := haproxyRoutes(b, h)
	in, out, mode := haproxyProto(h.in), haproxyProto(h.out), "http\n  http-reuse always"
	if h.in.mtls {
		in = fmt.Sprintf(" ssl crt %s ca-file %s verify required ssl-min-ver TLSv1.3 no-tls-tickets ciphersuites %s curves %s", b.file(h.name+".pem"), b.file("ca.crt"), cipherSuite, keyExchange) + haproxyALPN(h.in)
	}
	if h.out.mtls {
		out = fmt.Sprintf(" ssl crt %s ca-file %s verify required sni str(api.bench) no-ssl-reuse ssl-min-ver TLSv1.3 ciphersuites %s", b.file(h.name+".pem"), b.file("ca.crt"), cipherSuite) + haproxyALPN(h.out)
	}
	if h.in.proto == tcp {
		mode = "tcp\n  option splice-auto"
	}
	pool := ""
	if h.in.proto != tcp {
		pool = " pool-max-conn 4000 pool-purge-delay 60s"
	}
	var more strings.Builder
	for i := range h.extra.clusters {
		fmt.Fprintf(&more, "backend extra-%d\n  server next %s%s\n", i, unused, pool)
	}
	return fmt.Sprintf(`global
  maxconn 4000
  nbthread 1
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
  tune.ssl.cachesize 0
defaults
  mode %s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind %s%s
  default_backend next
%sbackend next
  server next %s%s%s
%s`, mode, h.listen, in, routes, h.upstream, out, pool, more.String()), err
}

// noTickets is a configuration of OpenSSL with which a server gives none: HAProxy's
// no-tls-tickets has them refer to its cache instead.
const noTickets = `openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
NumTickets = 0
`

// haproxyRoutes chooses the backend by one look into a map, which is how HAProxy
// has many routes.
func haproxyRoutes(b *bench, h hop) (string, error) {
	if h.extra.clusters == 0 {
		return "", nil
	}
	var out strings.Builder
	for i := range h.extra.clusters {
		for r := range h.extra.perHost() {
			fmt.Fprintf(&out, "extra-%d.bench/part-%d/ extra-%d\n", i, r, i)
		}
	}
	path := b.file("routes-" + strings.ReplaceAll(h.listen, ":", "-") + ".map")
	return "  use_backend %[base,map_beg(" + path + ",next)]\n", os.WriteFile(path, []byte(out.String()), 0o600)
}

func haproxyProto(l leg) string {
	if l.proto == http2 {
		return " proto h2"
	}
	return ""
}

func haproxyALPN(l leg) string {
	if l.proto == tcp {
		return ""
	}
	return " alpn " + alpnOf(l) + haproxyProto(l)
}
