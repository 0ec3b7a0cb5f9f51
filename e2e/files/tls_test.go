//go:build e2e

package files

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// pki signs for names.
type pki struct {
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
	// ended has what it issues have expired.
	ended bool
}

func newPKI(t *testing.T) *pki {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA " + rand.Text()}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(rand.Text())}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &pki{ca: ca, key: key}
}

// root is the anchor, and issue a certificate and its key, all PEM.
func (p *pki) root() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}))
}

func (p *pki) issue(t *testing.T, name string) (crt, key string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour)
	if p.ended {
		end = time.Now().Add(-time.Minute)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, p.ca, &k.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// revoke is a list of who is revoked: a certificate.
func (p *pki) revoke(t *testing.T, crt string) string {
	b, _ := pem.Decode([]byte(crt))
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)}}}, p.ca, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// origin is a TLS server that tells by which connection a request came, the name that this
// asked for, and whose certificate it showed. It holds requests for /wait.
type origin struct {
	*httptest.Server
	release chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]string
	last  int
}

type connKey struct{}

func newOrigin(t *testing.T, p *pki) *origin {
	o := &origin{conns: map[net.Conn]string{}, release: make(chan struct{})}
	crt, key := p.issue(t, "origin")
	pair, err := tls.X509KeyPair([]byte(crt), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("connection-number", r.Context().Value(connKey{}).(string))
		if r.URL.Path == "/wait" {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-o.release:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, r.TLS.ServerName+" "+r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	o.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.last++
		o.conns[c] = strconv.Itoa(o.last)
		return context.WithValue(ctx, connKey{}, o.conns[c])
	}
	o.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.conns, c)
		}
	}
	o.Config.ErrorLog = log.New(io.Discard, "", 0)
	o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	o.EnableHTTP2 = true
	o.StartTLS()
	t.Cleanup(o.CloseClientConnections)
	return o
}

// has tells whether a connection is there.
func (o *origin) has(conn string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Contains(slices.Collect(maps.Values(o.conns)), conn)
}

// client is a connection of HTTP/1 to a listener.
type client struct {
	c net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, port int) *client {
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &client{c, bufio.NewReader(c)}
}

func (c *client) ask(path string) *http.Response {
	_, _ = io.WriteString(c.c, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil
	}
	return r
}

func text(r *http.Response) string {
	if r == nil {
		return "closed"
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return "cut"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %.200s", r.StatusCode, b))
}

const tlsListeners = `resources:
- {TYPE listener.v3.Listener, name: http, address: {socket_address: {address: 127.0.0.1, port_value: FIRST}}, filter_chains: [{filters: [{name: hcm, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in,
    route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: a}}]}]},
    http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}
- {TYPE listener.v3.Listener, name: tcp, address: {socket_address: {address: 127.0.0.1, port_value: SECOND}}, filter_chains: [{filters: [{name: tcp, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: a}}]}]}
`

const tlsCluster = `resources:
- TYPE cluster.v3.Cluster
  name: a
  load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ONE}}}}]}]}
  PROTOCOL
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: NAME
      common_tls_context:
        OWN
        TRUST
`

const tlsHTTP2 = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}`

func tlsConfig(protocol, name, own, trust string) string {
	if strings.HasPrefix(own, "sds") {
		own = `tls_certificate_sds_secret_configs: [{name: own, sds_config: {path_config_source: {path: DIR/own.yaml}}}]`
	} else {
		own = `tls_certificates: [{certificate_chain: {filename: DIR/` + own + `.crt}, private_key: {filename: DIR/` + own + `.key}}]`
	}
	switch {
	case trust == "sds":
		trust = `validation_context_sds_secret_config: {name: trust, sds_config: {path_config_source: {path: DIR/trust.yaml}}}`
	default:
		trust = `validation_context: ` + trust
	}
	return strings.NewReplacer("PROTOCOL", protocol, "NAME", name, "OWN", own, "TRUST", trust).Replace(tlsCluster)
}

func ownSecret(name string) string {
	return `resources: [{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: own, tls_certificate: {certificate_chain: {filename: DIR/` + name + `.crt}, private_key: {filename: DIR/` + name + `.key}}}]`
}

func trustSecret(ca string) string {
	return `resources: [{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: trust, validation_context: {trusted_ca: {filename: DIR/` + ca + `.crt}}}]`
}

// tlsStep is a change of a file, and what comes of it for whom: the SNI and the client that
// the origin saw, with "over it" where that was over the connection of a request that was
// under way meanwhile.
type tlsStep struct {
	name, file, text string
	fresh            string // of a new connection of the TCP proxy
	beside           string // of a request while that one is under way
	after            string // and of one when it has ended; its connection has, too, but for "over it"
}

// TestUpstreamTLSBesideEnvoy: what a change of a cluster's TLS context, or of its secrets,
// means for requests under way, for those that come later, and for proxied connections.
func TestUpstreamTLSBesideEnvoy(t *testing.T) {
	t.Parallel()
	ca, other := newPKI(t), newPKI(t)
	files := map[string]string{"ca.crt": ca.root(), "other.crt": other.root(), "own.yaml": ownSecret("web"), "trust.yaml": trustSecret("ca"), "lds.yaml": tlsListeners}
	for _, n := range []string{"web", "api"} {
		files[n+".crt"], files[n+".key"] = ca.issue(t, n)
	}
	const trusted = `{trusted_ca: {filename: DIR/ca.crt}}`
	const nobody = `{trusted_ca: {filename: DIR/ca.crt}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: nobody}}]}`
	for proto, protocol := range map[string]string{"HTTP1": "", "HTTP2": tlsHTTP2} {
		cluster := func(name, own, trust string) string { return tlsConfig(protocol, name, own, trust) }
		// A connection of HTTP/2 takes requests beside the one that is under way.
		beside := map[string]string{"HTTP1": "one api", "HTTP2": "one web over it"}[proto]
		steps := []tlsStep{
			{"another SNI", "cds.yaml", cluster("two", "web", trusted), "two web", "two web", "two web"},
			{"another certificate", "cds.yaml", cluster("two", "api", trusted), "two api", "two api", "two api"},
			{"secrets", "cds.yaml", cluster("one", "sds", "sds"), "one web", "one web", "one web"},
			{"another certificate as a secret", "own.yaml", ownSecret("api"), "one api", beside, "one web over it"},
			{"trust as a secret that the host has not", "trust.yaml", trustSecret("other"), "closed", beside, "one web over it"},
			{"trust as a secret that it has", "trust.yaml", trustSecret("ca"), "one api", beside, "one web over it"},
			{"a validation context that the host fails", "cds.yaml", cluster("two", "api", nobody), "closed", "503", "503"},
		}
		for _, name := range []string{"hauberk", "envoy"} {
			t.Run(proto+"/"+name, func(t *testing.T) {
				t.Parallel()
				own := maps.Clone(files)
				own["cds.yaml"] = cluster("one", "web", trusted)
				runTLS(t, name, newOrigin(t, ca), own, steps)
			})
		}
	}
}

func runTLS(t *testing.T, name string, o *origin, files map[string]string, steps []tlsStep) {
	port := o.Listener.Addr().(*net.TCPAddr).Port
	p := start(t, name, [2]int{port, port}, files)
	within(t, "it answers", func() bool { return strings.HasPrefix(p.get(p.ports[0]), "200 ") })
	proxied := dial(t, p.ports[1])
	first := text(proxied.ask("/"))
	for _, s := range steps {
		underWay := dial(t, p.ports[0]).ask("/wait")
		if underWay == nil {
			t.Fatalf("%s: no head of an answer", s.name)
		}
		conn := underWay.Header.Get("connection-number")
		p.write(t, s.file, s.text)
		got := ""
		within(t, s.name+": for a new connection", func() bool {
			c := dial(t, p.ports[1])
			defer c.c.Close()
			got = saw(c.ask("/"), conn)
			return got == s.fresh
		})
		if got := saw(dial(t, p.ports[0]).ask("/"), conn); got != s.beside {
			t.Errorf("%s: beside the one that is under way: %s, want %s", s.name, got, s.beside)
		}
		o.release <- struct{}{}
		if got := text(underWay); !strings.HasPrefix(got, "200 ") {
			t.Errorf("%s: the one that was under way: %s", s.name, got)
		}
		if !strings.HasSuffix(s.after, "over it") {
			within(t, s.name+": its connection ends", func() bool { return !o.has(conn) })
		}
		if got := saw(dial(t, p.ports[0]).ask("/"), conn); got != s.after {
			t.Errorf("%s: after the one that was under way: %s, want %s", s.name, got, s.after)
		}
		if got := text(proxied.ask("/")); got != first {
			t.Errorf("%s: the proxied connection has %s, and had %s", s.name, got, first)
		}
	}
}

// saw is what the origin saw of a request.
func saw(r *http.Response, conn string) string {
	got := text(r)
	if r == nil || r.StatusCode != 200 {
		return strings.Fields(got)[0]
	}
	if got = strings.TrimPrefix(got, "200 "); r.Header.Get("connection-number") == conn {
		got += " over it"
	}
	return got
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("never: " + what)
		}
	}
}
