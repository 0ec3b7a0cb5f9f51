// Package bed runs a hauberk-sidecar from a static bootstrap for the conformance
// suites, and tells what the process holds.
package bed

import (
	"bufio"
	"fmt"
	"net"
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

// Listener is one listener of the bootstrap, with one connection manager.
type Listener struct {
	Addr string
	// Options are lines of the connection manager, RBAC the rules of its RBAC filter
	// (one line, flow style), both as in an Envoy file; empty for none.
	Options string
	RBAC    string
	// Forward is the route's action, cluster included; everything to the cluster "origin"
	// without a timeout when empty.
	Forward string
}

// Cluster is one cluster of the bootstrap, with one host.
type Cluster struct {
	Name, Addr string
	// HTTP2 are the options of HTTP/2 (one line, flow style, "{}" for the defaults), as in
	// an Envoy file; empty for HTTP/1.
	HTTP2 string
}

// Sidecar is a running process.
type Sidecar struct {
	t    testing.TB
	cmd  *exec.Cmd
	as   Process
	done chan struct{}
	dir  string
}

// Addr is a loopback address that is free until it is bound.
func Addr(t testing.TB) string {
	t.Helper()
	port, err := ports.Free("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Mesh are the options that the control plane renders.
const Mesh = "normalize_path: true, path_with_escaped_slashes_action: REJECT_REQUEST, request_headers_timeout: 15s, " +
	"common_http_protocol_options: {idle_timeout: 3600s}, proxy_100_continue: true, " +
	"http_protocol_options: {enable_trailers: true, allow_custom_methods: true}"

// Start runs a sidecar with one cluster, "origin", which speaks HTTP/1.
func Start(t testing.TB, origin string, listeners ...Listener) *Sidecar {
	t.Helper()
	return StartWith(t, []Cluster{{Name: "origin", Addr: origin}}, listeners...)
}

// StartWith writes the bootstrap, starts $HAUBERK_BIN/hauberk-sidecar and waits until
// every listener accepts. It ends with the test.
func StartWith(t testing.TB, clusters []Cluster, listeners ...Listener) *Sidecar {
	t.Helper()
	return StartAs(t, Process{}, clusters, listeners...)
}

// Process is how a sidecar is started.
type Process struct {
	Flags       []string
	Descriptors int // that it may have open, 0 for what there are
}

// StartAs is StartWith of a process of the caller's.
func StartAs(t testing.TB, p Process, clusters []Cluster, listeners ...Listener) *Sidecar {
	t.Helper()
	s := &Sidecar{t: t, as: p, done: make(chan struct{}), dir: t.TempDir()}
	s.run(s.bootstrap(clusters, listeners))
	for _, l := range listeners {
		s.await(l.Addr)
	}
	return s
}

// StartFile starts one with a bootstrap of the caller's, which listens on addrs.
func StartFile(t testing.TB, bootstrap string, addrs ...string) *Sidecar {
	t.Helper()
	s := &Sidecar{t: t, done: make(chan struct{}), dir: t.TempDir()}
	s.run(bootstrap)
	for _, a := range addrs {
		s.await(a)
	}
	return s
}

func (s *Sidecar) run(bootstrap string) {
	s.t.Helper()
	bin := os.Getenv("HAUBERK_BIN")
	if bin == "" {
		s.t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	file := filepath.Join(s.dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		s.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{filepath.Join(bin, "hauberk-sidecar"), "run", "--admin", "off", "--admin-socket", filepath.Join(s.dir, "admin"),
		"--metrics", "off", "--ready", "off", "--drain-time", "1s", "--bootstrap", file}, s.as.Flags...)
	if n := s.as.Descriptors; n > 0 {
		args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, n)}, args...)
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	s.t.Cleanup(s.Stop)
}

func (s *Sidecar) await(addr string) {
	s.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-s.done:
			s.t.Fatalf("hauberk-sidecar ended:\n%s", s.read("log"))
		default:
		}
		if time.Now().After(end) {
			s.t.Fatalf("hauberk-sidecar does not listen on %s:\n%s", addr, s.read("log"))
		}
	}
}

// Stop ends the process, if it still runs; what it logs is then complete.
func (s *Sidecar) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
		s.t.Errorf("hauberk-sidecar did not end on SIGTERM:\n%s", s.read("log"))
	}
}

// Alive fails the test when the process has ended.
func (s *Sidecar) Alive() {
	s.t.Helper()
	select {
	case <-s.done:
		s.t.Fatalf("hauberk-sidecar ended:\n%s", s.read("log"))
	default:
	}
}

// AccessLog returns the lines of the access log: status and details.
func (s *Sidecar) AccessLog() []string {
	return strings.Split(strings.TrimSuffix(s.read("access"), "\n"), "\n")
}

func (s *Sidecar) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.dir, name))
	return string(b)
}

// Memory is what the process holds in bytes that is its own and not files.
func (s *Sidecar) Memory() (anonymous int64) {
	s.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "Anonymous:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	s.t.Fatal("smaps_rollup does not tell of anonymous memory")
	return 0
}

func address(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

const filterType = "type.googleapis.com/envoy.extensions.filters."

func (s *Sidecar) bootstrap(clusters []Cluster, listeners []Listener) string {
	var b strings.Builder
	b.WriteString("node: {id: conformance, cluster: conformance}\nstatic_resources:\n  listeners:\n")
	for i, l := range listeners {
		rbac, forward, options := "", l.Forward, l.Options
		if forward == "" {
			forward = "cluster: origin, timeout: 0s"
		}
		if options != "" {
			options = ", " + options
		}
		if l.RBAC != "" {
			rbac = fmt.Sprintf(`{name: rbac, typed_config: {"@type": %shttp.rbac.v3.RBAC, rules: %s}}, `, filterType, l.RBAC)
		}
		fmt.Fprintf(&b, `  - name: in%d
    address: %s
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {"@type": %snetwork.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, generate_request_id: false%s,
          access_log: [{name: file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q,
            log_format: {text_format_source: {inline_string: "%%RESPONSE_CODE%% %%RESPONSE_CODE_DETAILS%%\n"}}}}],
          http_filters: [%s{name: router, typed_config: {"@type": %shttp.router.v3.Router}}],
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {%s}}]}]}}
`, i, address(l.Addr), filterType, options, filepath.Join(s.dir, "access"), rbac, filterType, forward)
	}
	b.WriteString("  clusters:\n")
	for _, c := range clusters {
		options := "http_protocol_options: {enable_trailers: true}"
		if c.HTTP2 != "" {
			options = "http2_protocol_options: " + c.HTTP2
		}
		fmt.Fprintf(&b, `  - name: %s
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {%s}
    load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}
`, c.Name, options, c.Name, address(c.Addr))
	}
	return b.String()
}

// Descriptors is how many file descriptors the process has open.
func (s *Sidecar) Descriptors() int {
	s.t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(open)
}
