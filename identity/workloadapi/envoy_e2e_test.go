//go:build e2e

package workloadapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
)

// What our control plane renders for an Envoy: the workload's SPIFFE ID on the
// listener, "default" on the cluster, and ROOTCA for both.
var envoyConfig = template.Must(template.New("").Parse(`
node: {id: e2e, cluster: e2e}
admin: {address: {pipe: {path: {{.Admin}}, mode: 384}}}
static_resources:
  listeners:
  - name: inbound
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters: [{{template "proxy" "application"}}]
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
            tls_certificate_sds_secret_configs: [{name: "{{.ID}}", sds_config: {{template "sds" .API}}}]
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "{{.Peer}}"}}]
              validation_context_sds_secret_config: {name: ROOTCA, sds_config: {{template "sds" .API}}}
  - name: outbound
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains: [{filters: [{{template "proxy" "peer"}}]}]
  clusters:
  - {{template "to" .Application}}
    name: application
  - {{template "to" .Server}}
    name: peer
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        max_session_keys: 0
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificate_sds_secret_configs: [{name: default, sds_config: {{template "sds" .API}}}]
          combined_validation_context:
            default_validation_context:
              match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "{{.Peer}}"}}]
            validation_context_sds_secret_config: {name: {{.Bundle}}, sds_config: {{template "sds" .API}}}
  - name: hauberk_agent
    connect_timeout: 1s
    type: STATIC
    load_assignment: {cluster_name: hauberk_agent, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: {{.Socket}}}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
{{define "proxy"}}{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: {{.}}}}{{end}}
{{define "sds"}}{resource_api_version: V3, api_config_source: {api_type: {{.}}, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: hauberk_agent}}]}}{{end}}
{{define "to"}}connect_timeout: 1s
    type: STATIC
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.}}}}}}]}]}{{end}}
`))

type envoy struct {
	log   string // file
	admin *http.Client
}

func startEnvoy(t *testing.T, values map[string]any) *envoy {
	t.Helper()
	bin := os.Getenv("ENVOY_BIN")
	if bin == "" {
		bin = "/opt/envoy-venv/bin/envoy"
	}
	dir := socketDir(t)
	admin, logs := filepath.Join(dir, "admin"), filepath.Join(dir, "log")
	values["Admin"] = admin
	var y bytes.Buffer
	if err := envoyConfig.Execute(&y, values); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, y.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", file, "--concurrency", "1", "--use-dynamic-base-id", "-l", "info")
	// Not --log-path, which Envoy flushes every ten seconds.
	out, err := os.Create(logs)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the real Envoy is needed here (ENVOY_BIN): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			out, _ := os.ReadFile(logs)
			t.Logf("envoy's log:\n%s", out)
		}
	})
	return &envoy{logs, &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", admin)
		}}}}
}

// listener returns the address of a listener that is in service.
func (e *envoy) listener(name string) string {
	var out struct {
		Statuses []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	r, err := e.admin.Get("http://admin/listeners?format=json")
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	_ = json.NewDecoder(r.Body).Decode(&out)
	for _, s := range out.Statuses {
		if s.Name == name {
			return fmt.Sprintf("127.0.0.1:%d", s.Local.Socket.Port)
		}
	}
	return ""
}

// poll repeats until there is no error.
func poll(t *testing.T, what string, try func() error) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not in time: %v", what, err)
		}
	}
}

// serveEach answers each connection with hello, and returns the port.
func serveEach(t *testing.T, l net.Listener, hello func(net.Conn) string) int {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c, hello(c))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A real Envoy gets its identity and its trust from the socket, by both
// protocols, and follows renewals and new signers without a restart.
func TestEnvoy(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"state of the world": {"API": "GRPC", "Bundle": RootSecret},
		"incremental":        {"API": "DELTA_GRPC", "Bundle": "spiffe://" + td},
	} {
		t.Run(name, func(t *testing.T) { testEnvoy(t, values) })
	}
}

func testEnvoy(t *testing.T, values map[string]any) {
	src := newSource(t)
	src.permit(t, "web "+me(), "other "+notMe())
	src.issue(t, "web", "other")
	s := serve(t, Config{Source: src})

	peer := svid.NewHolder(idtest.Snapshot([]*idtest.Signer{src.signer}, src.signer.SVID(t, id("peer"))))
	web := spiffeid.RequireFromString(id("web"))
	serverTLS, err := tlsconf.Server(tlsconf.ServerParams{Source: peer, Authorize: tlsconf.Exactly(web)})
	if err != nil {
		t.Fatal(err)
	}
	values["ID"], values["Peer"], values["Socket"] = id("web"), id("peer"), s.path
	values["Application"] = serveEach(t, loopback(t), func(net.Conn) string { return "application" })
	values["Server"] = serveEach(t, tls.NewListener(loopback(t), serverTLS), func(c net.Conn) string {
		conn := c.(*tls.Conn)
		if err := conn.Handshake(); err != nil {
			return ""
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	})
	e := startEnvoy(t, values)
	var inbound, outbound string
	poll(t, "the listeners", func() error {
		if inbound, outbound = e.listener("inbound"), e.listener("outbound"); inbound == "" || outbound == "" {
			return errors.New("not there")
		}
		return nil
	})

	// call comes in as peer, and returns the serial that Envoy presented.
	call := func() (string, error) {
		conf, err := tlsconf.Client(tlsconf.ClientParams{Source: peer, Authorize: tlsconf.Exactly(web)})
		if err != nil {
			return "", err
		}
		c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second}, Config: conf}).Dial("tcp", inbound)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		b, err := io.ReadAll(c)
		if string(b) != "application" {
			return "", fmt.Errorf("read %q: %v", b, err)
		}
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
	}
	// out goes out through Envoy, and returns the serial that the server saw.
	out := func() (string, error) {
		c, err := net.DialTimeout("tcp", outbound, 2*time.Second)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		b, err := io.ReadAll(c)
		return string(b), err
	}
	both := func(what string) {
		t.Helper()
		start := time.Now()
		for way, f := range map[string]func() (string, error){"in": call, "out": out} {
			poll(t, what+", "+way, func() error {
				got, err := f()
				if err == nil && got != src.serial("web") {
					err = fmt.Errorf("serial %s, want %s", got, src.serial("web"))
				}
				return err
			})
		}
		t.Logf("%s: both ways after %s", what, time.Since(start).Round(time.Millisecond))
	}
	both("the first SVID")
	for range 3 {
		src.issue(t, "web")
		both("a renewal")
	}
	// One whom the bundle does not cover is refused, until it does.
	second := idtest.NewSigner(t, td)
	peer.Set(idtest.Snapshot([]*idtest.Signer{src.signer, second}, second.SVID(t, id("peer"))))
	if serial, err := call(); err == nil {
		t.Errorf("a peer of an unknown signer got through: %s", serial)
	}
	src.more = []*idtest.Signer{second}
	src.publish()
	both("a new signer")

	log := s.log.String()
	if strings.Contains(log, "rejected") {
		t.Error("Envoy rejected a secret")
	}
	// One stream asks for each of "default", the SVID and the bundle; the SVID
	// was sent at first and after each renewal, the bundles at first and when
	// the signer came.
	for about, want := range map[string]int{id("web") + ": ": 4, DefaultSecret + ": ": 4, "bundle of": len(bundleNames(values)) * 2} {
		if got := strings.Count(log, about); got != want {
			t.Errorf("%q was sent %d times, want %d:\n%s", about, got, want, log)
		}
	}
}

func bundleNames(values map[string]any) map[any]bool {
	return map[any]bool{RootSecret: true, values["Bundle"]: true}
}

// What an Envoy may not have it does not get, and its log says why.
func TestEnvoyUnpermitted(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "other "+notMe())
	src.issue(t, "web", "other")
	s := serve(t, Config{Source: src})
	port := serveEach(t, loopback(t), func(net.Conn) string { return "application" })
	e := startEnvoy(t, map[string]any{
		"API": "GRPC", "Bundle": RootSecret, "ID": id("other"), "Peer": id("peer"), "Socket": s.path, "Application": port, "Server": port,
	})
	poll(t, "the refusal", func() error {
		if !strings.Contains(s.log.String(), "no entry of this host gives "+id("other")) {
			return errors.New(s.log.String())
		}
		return nil
	})
	poll(t, "the reason in Envoy's own log", func() error {
		b, err := os.ReadFile(e.log)
		if err == nil && !strings.Contains(string(b), "no entry of this host gives "+id("other")) {
			err = errors.New(string(b))
		}
		return err
	})
	if strings.Contains(s.log.String(), fmt.Sprintf("serial %x", src.Snapshot().SVIDs[id("other")].Leaf().SerialNumber)) {
		t.Error("another's SVID was sent")
	}
}
