//go:build e2e

package h2spec

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// certificate is one for 127.0.0.1 that vouches for itself, and its key.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "h2spec"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", pkcs8)
}

// upstream is a cluster, and the path below which it is asked.
type upstream struct {
	name, addr string
	http2      bool
}

func socket(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// bootstrap has the defaults of Envoy wherever it can: a listener in plain text, one with TLS,
// and a route to each upstream; the first is asked for everything else.
func bootstrap(t testing.TB, codec, plain, overTLS string, upstreams ...upstream) string {
	t.Helper()
	cert, key := certificate(t)
	var routes, clusters strings.Builder
	for _, u := range upstreams[1:] {
		fmt.Fprintf(&routes, "{match: {prefix: /%s/}, route: {cluster: %s}}, ", u.name, u.name)
	}
	fmt.Fprintf(&routes, "{match: {prefix: /}, route: {cluster: %s}}", upstreams[0].name)
	for _, u := range upstreams {
		options := ""
		if u.http2 {
			options = `, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: ` +
				`{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}`
		}
		fmt.Fprintf(&clusters, "  - {name: %s, connect_timeout: 5s%s, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}}\n",
			u.name, options, u.name, socket(u.addr))
	}
	hcm := fmt.Sprintf(`[{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, codec_type: %s,
        http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
        route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [%s]}]}}}]`, codec, &routes)
	return fmt.Sprintf(`node: {id: h2spec, cluster: h2spec}
static_resources:
  listeners:
  - {name: plain, address: %s, filter_chains: [{filters: %s}]}
  - name: tls
    address: %s
    filter_chains:
    - filters: %s
      transport_socket:
        name: tls
        typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {alpn_protocols: [h2],
          tls_certificates: [{certificate_chain: {inline_string: %q}, private_key: {inline_string: %q}}]}}
  clusters:
%s`, socket(plain), hcm, socket(overTLS), hcm, cert, key, &clusters)
}
