package sidecar

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
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// authority signs certificates into a directory, as someone who keeps files for
// sidecars would.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	a.cert = a.sign(&x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "td"}}, Subject: pkix.Name{CommonName: "ca"},
	}, a.key, "ca")
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey, file string) *x509.Certificate {
	a.t.Helper()
	a.n++
	c.SerialNumber = big.NewInt(a.n)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(file+".crt", "CERTIFICATE", der)
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(file+".key", "PRIVATE KEY", b)
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func (a *authority) write(file, kind string, b []byte) {
	if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) issue(service string) {
	a.sign(&x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/ns/default/dc/dc1/svc/" + service}},
	}, a.newKey(), service)
}

func id(service string) string { return "spiffe://td/ns/default/dc/dc1/svc/" + service }

// run starts a sidecar from a bootstrap and stops it when the test ends.
func run(t *testing.T, bootstrap string, more ...func(*Config)) *Sidecar {
	t.Helper()
	b, err := config.ParseBootstrap([]byte(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Bootstrap: b, Node: "n1", Ready: "127.0.0.1:0", Metrics: "127.0.0.1:0", Admin: "127.0.0.1:0", DrainTime: 2 * time.Second, Log: slog.New(slog.DiscardHandler)}
	for _, f := range more {
		f(&cfg)
	}
	s, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// server is the bootstrap of a sidecar in front of an application: chain "http"
// and a chain "tcp", by SNI.
func server(a *authority, app, db net.Addr) string {
	tlsContext := `
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {tls_minimum_protocol_version: TLSv1_3}
            tls_certificates: [{certificate_chain: {filename: DIR/SVC.crt}, private_key: {filename: DIR/SVC.key}}]
            validation_context: {trusted_ca: {filename: DIR/ca.crt}}`
	rbac := `
              action: ALLOW
              policies:
                web-may-get:
                  permissions: [PERMISSION]
                  principals: [{authenticated: {principal_name: {exact: "` + id("web") + `"}}}]`
	text := `
static_resources:
  listeners:
  - name: in
    traffic_direction: INBOUND
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters:
    - {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    filter_chains:
    - name: http
      filter_chain_match: {server_names: [api], transport_protocol: tls}
      transport_socket:` + strings.ReplaceAll(tlsContext, "SVC", "api") + `
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          http_filters:
          - name: rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:` + strings.ReplaceAll(strings.ReplaceAll(rbac, "PERMISSION", `{header: {name: ":method", string_match: {exact: GET}}}`), "\n", "\n  ") + `
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}
    - name: tcp
      filter_chain_match: {server_names: [db], transport_protocol: tls}
      transport_socket:` + strings.ReplaceAll(tlsContext, "SVC", "db") + `
      filters:
      - name: rbac
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
          stat_prefix: in
          rules:` + strings.ReplaceAll(rbac, "PERMISSION", "{any: true}") + `
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: db, cluster: db}
  clusters:
  - {name: app, load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [ENDPOINT_APP]}]}}
  - {name: db, load_assignment: {cluster_name: db, endpoints: [{lb_endpoints: [ENDPOINT_DB]}]}}
`
	text = strings.ReplaceAll(text, "DIR", a.dir)
	text = strings.ReplaceAll(text, "ENDPOINT_APP", endpoint(app))
	return strings.ReplaceAll(text, "ENDPOINT_DB", endpoint(db))
}

func endpoint(a net.Addr) string {
	host, port, _ := net.SplitHostPort(a.String())
	return fmt.Sprintf("{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}", host, port)
}

// caller is the bootstrap of a sidecar beside a client called who.
func caller(a *authority, who string, in net.Addr) string {
	cluster := func(name, peer string) string {
		return `
  - name: ` + name + `
    load_assignment: {cluster_name: ` + name + `, endpoints: [{lb_endpoints: [` + endpoint(in) + `]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: ` + name + `
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: DIR/` + who + `.crt}, private_key: {filename: DIR/` + who + `.key}}]
          validation_context:
            trusted_ca: {filename: DIR/ca.crt}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "` + peer + `"}}]`
	}
	return strings.ReplaceAll(`
static_resources:
  listeners:
  - name: api
    traffic_direction: OUTBOUND
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: api}}]}
  - name: db
    traffic_direction: OUTBOUND
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: db, cluster: db}
  clusters:`+cluster("api", id("api"))+cluster("db", id("db"))+"\n", "DIR", a.dir)
}

// echo answers each line of a connection with the same line.
func echo(t *testing.T) net.Addr {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return ln.Addr()
}

func application(t *testing.T) net.Addr {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s cert=%s", r.Method, r.URL, r.Header.Get("X-Forwarded-Client-Cert"))
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr()
}

func call(t *testing.T, method string, to net.Addr, path, body string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+to.String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// say sends a line and returns the answer.
func say(c net.Conn, line string) (string, error) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestTwoSidecars(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "evil", "api", "db"} {
		a.issue(s)
	}
	accessLog := filepath.Join(t.TempDir(), "access.log")
	srv := run(t, server(a, application(t), echo(t)), func(c *Config) { c.AccessLog = &telemetry.AccessLogConfig{Path: accessLog, JSON: true} })
	in := srv.Addrs().Listeners["in"]
	web := run(t, caller(a, "web", in))
	evil := run(t, caller(a, "evil", in))

	t.Run("http", func(t *testing.T) {
		code, body := call(t, "GET", web.Addrs().Listeners["api"], "/x?y=1", "")
		if code != 200 || !strings.HasPrefix(body, "GET /x?y=1 ") || !strings.Contains(body, "URI="+id("web")) {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("a method that no rule allows", func(t *testing.T) {
		if code, body := call(t, "POST", web.Addrs().Listeners["api"], "/x", "body"); code != 403 {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("a source that no rule allows", func(t *testing.T) {
		if code, body := call(t, "GET", evil.Addrs().Listeners["api"], "/x", ""); code != 403 {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("tcp", func(t *testing.T) {
		c, err := net.Dial("tcp", web.Addrs().Listeners["db"].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, line := range []string{"hello", "again"} {
			if got, err := say(c, line); err != nil || got != line+"\n" {
				t.Errorf("%q %v", got, err)
			}
		}
	})
	t.Run("tcp from a source that no rule allows", func(t *testing.T) {
		c, err := net.Dial("tcp", evil.Addrs().Listeners["db"].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := say(c, "hello"); err == nil {
			t.Errorf("answered %q", got)
		}
	})
	t.Run("plaintext", func(t *testing.T) {
		c, err := net.Dial("tcp", in.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := say(c, "GET / HTTP/1.1\r\nHost: x\r\n\r"); err == nil {
			t.Errorf("answered %q", got)
		}
	})
	t.Run("TLS without a certificate", func(t *testing.T) {
		c, err := tls.Dial("tcp", in.String(), &tls.Config{ServerName: "api", InsecureSkipVerify: true})
		if err == nil {
			defer c.Close()
			_, err = say(c, "GET / HTTP/1.1\r\nHost: x\r\n\r")
		}
		if err == nil {
			t.Error("was answered")
		}
	})
	t.Run("readiness and metrics", func(t *testing.T) {
		if code, body := call(t, "GET", srv.Addrs().Ready, "/ready", ""); code != 200 {
			t.Errorf("%d %s", code, body)
		}
		code, body := call(t, "GET", srv.Addrs().Metrics, "/metrics", "")
		if code != 200 || !strings.Contains(body, "hauberk_requests_total{") || !strings.Contains(body, `web-may-get`) {
			t.Errorf("%d %s", code, body)
		}
		if _, body := call(t, "GET", srv.Addrs().Admin, "/certs", ""); !strings.Contains(body, id("api")) || strings.Contains(body, "PRIVATE") {
			t.Errorf("%s", body)
		}
		if _, body := call(t, "GET", srv.Addrs().Admin, "/config_dump", ""); !strings.Contains(body, `"Name": "in"`) || strings.Contains(body, "PRIVATE") {
			t.Errorf("%s", body)
		}
	})
	t.Run("each denial and refusal is logged once", func(t *testing.T) {
		for text, want := range map[string]int{
			`"code":403`:                     2,
			`"filter_chain":"tcp"`:           2,
			`"method":"GET","path":"/x?y=1"`: 1,
		} {
			n := 0
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); { // the last connection's end is logged when the sidecar has seen it
				if n = accessLines(t, srv, accessLog, text); n >= want {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if n != want {
				t.Errorf("%d lines with %s, want %d", n, text, want)
			}
		}
		if n := accessLines(t, srv, accessLog, `"filter_chain":null`); n < 1 {
			t.Error("plaintext left no line")
		}
	})
}

// accessLines counts the lines of an access log with a text, once it is written.
func accessLines(t *testing.T, s *Sidecar, file, text string) int {
	t.Helper()
	s.logs.Flush()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// While routes, clusters and listeners change, no request fails and an open
// connection stays.
func TestLiveReload(t *testing.T) {
	one, two := application(t), application(t)
	addr := func(a net.Addr) uint32 { return uint32(a.(*net.TCPAddr).Port) }
	s := run(t, "node: {id: n1}\n", func(c *Config) {
		c.AccessLog = &telemetry.AccessLogConfig{Path: filepath.Join(t.TempDir(), "access.log")}
	})
	s.state.follow(nobody{}) // what is put comes as if by ADS
	put := func(rs ...*resource.Resource) {
		t.Helper()
		for _, r := range rs {
			if errs := s.state.Apply(client.Update{Type: r.Type, Upserts: []*resource.Resource{r}}); len(errs) > 0 {
				t.Fatal(errs)
			}
		}
	}
	put(edsCluster(t, "a"), assignment(t, "a", addr(one)), edsCluster(t, "b"), assignment(t, "b", addr(two)), httpListener(t, "l", "r"), routeTo(t, "r", "a"))
	to := s.Addrs().Listeners["l"]
	if to == nil {
		t.Fatal("the listener is not in force")
	}
	var sent, failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
		defer c.CloseIdleConnections()
		for ctx.Err() == nil {
			resp, err := c.Post("http://"+to.String()+"/", "text/plain", strings.NewReader("x"))
			sent.Add(1)
			if err != nil {
				failed.Add(1)
				t.Log(err)
				continue
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != 200 {
				failed.Add(1)
				t.Log(resp.Status)
			}
		}
	}()
	for i := 0; i < 50 || sent.Load() < 50; i++ {
		next := []string{"a", "b"}[i%2]
		put(edsCluster(t, next), assignment(t, "a", addr(one)), httpListener(t, "l", "r"), routeTo(t, "r", next))
		if i == 25 {
			// Who chose the cluster before its routes left it is served by it first.
			chose := sent.Load()
			eventually(t, "requests", func() bool { return sent.Load() >= chose+2 })
			s.state.Apply(client.Update{Type: resource.ClusterType, Removed: []string{"a"}})
			put(edsCluster(t, "a"), assignment(t, "a", addr(one)))
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	<-done
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), sent.Load())
	}
	if got := s.Addrs().Listeners["l"]; got.String() != to.String() {
		t.Errorf("the listener moved from %s to %s", to, got)
	}
}

func TestBuildRefuses(t *testing.T) {
	if _, err := Build(Config{}); err == nil || !strings.Contains(err.Error(), "neither a control plane nor a bootstrap") {
		t.Error(err)
	}
	b, err := config.ParseBootstrap([]byte("node: {id: x}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(Config{Bootstrap: b, Admin: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Error(err)
	}
	a := newAuthority(t)
	a.issue("api")
	text := strings.ReplaceAll(server(a, application(t), echo(t)), "db.key", "api.key")
	if b, err = config.ParseBootstrap([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(Config{Bootstrap: b}); err == nil || !strings.Contains(err.Error(), "db.crt") {
		t.Errorf("a missing certificate: %v", err)
	}
}
