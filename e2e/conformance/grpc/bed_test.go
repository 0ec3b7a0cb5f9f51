//go:build e2e

package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// grpcVersion is the grpc-go that the e2e/tools/grpc module pins.
const grpcVersion = "1.85.0"

// tool returns the path of one of grpc-go's programs: "client", "server" or "http2".
// They are built once into the user's cache.
func tool(t *testing.T, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "hauberk", "grpc-interop-"+grpcVersion)
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path+".new", "google.golang.org/grpc/interop/"+name)
	build.Dir = filepath.Join("..", "..", "tools", "grpc")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build grpc-go's interop %s: %v\n%s", name, err, out)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := ports.Free("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func awaitListening(t *testing.T, addr string) {
	t.Helper()
	eventually(t, 30*time.Second, "somebody listens on "+addr, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func eventually(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}

// process is a program that ends with the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	return startIn(t, nil, program, args...)
}

// startIn adds to the environment.
func startIn(t *testing.T, env []string, program string, args ...string) *process {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("--- %s\n%s", filepath.Base(program), b[max(0, len(b)-2000):])
		}
	})
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// authority signs certificates into dir.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const trustDomain = "interop.mesh"

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	})
	for _, service := range []string{"web", "api"} {
		a.sign(service, &x509.Certificate{
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/ns/default/dc/dc1/svc/" + service}},
		})
	}
	return a
}

func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	must := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	must(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	for file, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		must(os.WriteFile(filepath.Join(a.dir, name+file), pem.EncodeToMemory(block), 0o600))
	}
	out, err := x509.ParseCertificate(der)
	must(err)
	return out, key
}

// windows are the flow-control windows of a sidecar, in bytes.
type windows struct{ stream, conn int }

// rendered are those that the control plane gives out; tight ones make every large
// message wait.
var rendered, tight = windows{1 << 20, 4 << 20}, windows{65535, 100_000}

// sidecar is a hauberk-sidecar process with a static bootstrap.
type sidecar struct {
	t      *testing.T
	proc   *process
	addr   string // where it listens
	socket string // of its admin interface
	log    string
}

// hop says between what a sidecar stands.
type hop struct {
	to       string
	windows  windows
	from, by *authority // mTLS on its listener, and to its cluster
	// one: it has one processor, on which who has read reads for others (sidecar/stream).
	one bool
}

func (h hop) start(t *testing.T) *sidecar {
	t.Helper()
	bin := os.Getenv("HAUBERK_BIN")
	if bin == "" {
		t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	dir, err := os.MkdirTemp("", "hb") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &sidecar{t: t, addr: freeAddr(t), socket: filepath.Join(dir, "admin.sock"), log: filepath.Join(dir, "access.json")}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(h.bootstrap(s.addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	var env []string
	if h.one {
		env = append(env, "GOMAXPROCS=1")
	}
	s.proc = startIn(t, env, filepath.Join(bin, "hauberk-sidecar"), "run", "--admin", "off", "--admin-socket", s.socket, "--metrics", "off",
		"--ready", "off", "--drain-time", "5s", "--access-log", s.log, "--access-log-format", "json", "--bootstrap", file)
	awaitListening(t, s.addr)
	return s
}

func (h hop) bootstrap(listen string) string {
	const types = "type.googleapis.com/envoy.extensions."
	options := fmt.Sprintf("{max_concurrent_streams: 1024, initial_stream_window_size: %d, initial_connection_window_size: %d}",
		h.windows.stream, h.windows.conn)
	tls := func(a *authority, kind, own, peer, more string) string {
		if a == nil {
			return ""
		}
		return fmt.Sprintf(`transport_socket: {name: tls, typed_config: {"@type": %stransport_sockets.tls.v3.%sTlsContext, %s, common_tls_context: {
        alpn_protocols: [h2], tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3},
        tls_certificates: [{certificate_chain: {filename: %[4]s/%[5]s.crt}, private_key: {filename: %[4]s/%[5]s.key}}],
        validation_context: {trusted_ca: {filename: %[4]s/ca.crt}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://%[6]s/ns/default/dc/dc1/svc/%[7]s"}}]}}}}`,
			types, kind, more, a.dir, own, trustDomain, peer)
	}
	return fmt.Sprintf(`static_resources:
  listeners:
  - name: in
    address: %[1]s
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {"@type": %[2]sfilters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, http2_protocol_options: %[3]s,
          http_filters: [{name: router, typed_config: {"@type": %[2]sfilters.http.router.v3.Router}}],
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: server, timeout: 0s, max_stream_duration: {grpc_timeout_header_max: 0s}}}]}]}}
      %[4]s
  clusters:
  - name: server
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}]}
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": %[2]supstreams.http.v3.HttpProtocolOptions,
      explicit_http_config: {http2_protocol_options: %[3]s}}}
    load_assignment: {cluster_name: server, endpoints: [{lb_endpoints: [{endpoint: {address: %[5]s}}]}]}
    %[6]s
`, socketAddress(listen), types, options,
		strings.Replace(tls(h.from, "Downstream", "api", "web", "require_client_certificate: true"), "transport_socket", "\n      transport_socket", 1),
		socketAddress(h.to), tls(h.by, "Upstream", "web", "api", "sni: api"))
}

func socketAddress(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// path is a way through sidecars to a server.
type path struct {
	name     string
	sidecars []*sidecar // the caller's first
	addr     string     // where a client dials
}

// oneHop has a single sidecar in plaintext, twoHops a caller's and a server's sidecar
// with mTLS between them.
func oneHop(t *testing.T, server string, w windows) path {
	s := hop{to: server, windows: w}.start(t)
	return path{"one hop", []*sidecar{s}, s.addr}
}

func twoHops(t *testing.T, server string, w windows) path {
	return hops(t, "two hops", server, hop{windows: w})
}

// onOne is twoHops whose sidecars have one processor each.
func onOne(t *testing.T, server string, w windows) path {
	return hops(t, "two hops on one processor", server, hop{windows: w, one: true})
}

func hops(t *testing.T, name, server string, both hop) path {
	a := newAuthority(t)
	in, out := both, both
	in.to, in.from = server, a
	api := in.start(t)
	out.to, out.by = api.addr, a
	web := out.start(t)
	return path{name, []*sidecar{web, api}, web.addr}
}

// admin reads from the admin socket.
func (s *sidecar) admin(path string, to any) {
	s.t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	}}}
	resp, err := c.Get("http://localhost" + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(to); err != nil {
		s.t.Fatal(err)
	}
}

// goroutines is how many the process has now.
func (s *sidecar) goroutines() int {
	s.t.Helper()
	var out struct{ Goroutines int }
	s.admin("/memory", &out)
	return out.Goroutines
}
