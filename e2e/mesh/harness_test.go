//go:build e2e

package mesh

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
	"github.com/hauberk-mesh/hauberk/internal/ports"
)

const trustDomain = "e2e.mesh"

// mesh is one environment: a Consul, a control plane, and workloads whose
// applications live in the test process.
type mesh struct {
	t       *testing.T
	dir     string
	bin     string
	consul  *consultest.Server
	catalog *consulapi.Client
	cp      *proc
	cpArgs  []string
	cpID    string
	api     *client.Client
	files   string // the directory of the files source; then there is no Consul
	drain   string // --drain-time of the sidecars, 3s when empty
}

type proc struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	return newMeshWith(t)
}

// newMeshWith adds flags of the control plane.
func newMeshWith(t *testing.T, flags ...string) *mesh {
	t.Helper()
	bin := os.Getenv("HAUBERK_BIN")
	if bin == "" {
		t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	m := &mesh{t: t, dir: t.TempDir(), bin: bin}
	var err error
	m.consul, err = consultest.Start(t.Context(), consultest.Options{Dir: filepath.Join(m.dir, "consul"), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.consul.Stop() })
	cfg := consulapi.DefaultConfig()
	cfg.Address = m.consul.HTTPAddr()
	if m.catalog, err = consulapi.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "*",
		Sources: []*consulapi.SourceIntention{{Name: "*", Action: consulapi.IntentionActionDeny}}})
	m.entry(&consulapi.ProxyConfigEntry{Kind: consulapi.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": "http"}})
	m.startControlPlane("cp1", flags...)
	return m
}

func (m *mesh) startControlPlane(id string, extra ...string) {
	m.t.Helper()
	sock := filepath.Join(m.dir, id+".sock")
	m.cpArgs = append([]string{"run", "--trust-domain", trustDomain, "--id", id,
		"--state-dir", filepath.Join(m.dir, id), "--xds-address", fmt.Sprintf("127.0.0.1:%d", freePort(m.t)),
		"--api-address", "127.0.0.1:0", "--socket", sock}, extra...)
	m.cpID = id
	c, err := client.New("unix://"+sock, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.api = c
	m.runControlPlane()
}

// runControlPlane starts the control plane as it was configured, again perhaps.
func (m *mesh) runControlPlane() {
	m.t.Helper()
	m.cp = m.start("controlplane-"+m.cpID, "hauberk-controlplane", m.cpArgs...)
	m.eventually(20*time.Second, "the control plane is in sync", func() error {
		var st api.Status
		if err := m.api.Get(m.t.Context(), api.StatusPath, &st); err != nil {
			return err
		}
		if !st.Source.Synced {
			return fmt.Errorf("source: %v", st.Source.Errors)
		}
		return nil
	})
}

func (m *mesh) start(name, program string, args ...string) *proc {
	m.t.Helper()
	return m.startProgram(name, filepath.Join(m.bin, program), args...)
}

// startProgram starts one that may not be ours.
func (m *mesh) startProgram(name, program string, args ...string) *proc {
	m.t.Helper()
	p := &proc{name: name, done: make(chan struct{}), log: filepath.Join(m.dir, name+".log")}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = os.Environ()
	if m.consul != nil {
		p.cmd.Env = append(p.cmd.Env, "CONSUL_HTTP_ADDR="+m.consul.HTTPAddr())
	}
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	m.t.Cleanup(func() {
		p.stop()
		if m.t.Failed() {
			b, _ := os.ReadFile(p.log)
			m.t.Logf("--- %s\n%s", name, tail(string(b), 15))
		}
	})
	return p
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.kill()
	}
}

func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (m *mesh) entry(e consulapi.ConfigEntry) {
	m.t.Helper()
	for began := time.Now(); ; {
		_, _, err := m.catalog.ConfigEntries().Set(e, nil)
		switch {
		case err == nil:
			return
		case strings.Contains(err.Error(), "read only while being upgraded") && time.Since(began) < 30*second:
			time.Sleep(100 * time.Millisecond) // a young leader takes no intentions yet
		default:
			m.t.Fatalf("write %s/%s: %v", e.GetKind(), e.GetName(), err)
		}
	}
}

func (m *mesh) allow(src, dst string) {
	m.t.Helper()
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: dst,
		Sources: []*consulapi.SourceIntention{{Name: src, Action: consulapi.IntentionActionAllow}}})
}

func (m *mesh) eventually(limit time.Duration, what string, f func() error) time.Duration {
	m.t.Helper()
	began := time.Now()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			m.explainChecks()
			m.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// workload is a registered service instance with its sidecar.
type workload struct {
	m         *mesh
	id        string
	service   string
	app       string // host:port of the application
	mesh      string
	upstreams map[string]string
	sidecar   *proc
	args      []string
	accessLog string
	reg       *consulapi.AgentServiceRegistration
	ready     string
	crash     func() // ends the application and its connections
}

type spec struct {
	id, service string
	version     string
	upstreams   []string
	handler     http.Handler   // an HTTP application, or
	tcp         func(net.Conn) // a TCP one, or
	grpc        grpcServer     // one that speaks gRPC
	node        string         // joins an existing node's sidecar when set
	// check, when set, is run by Consul against the application, in place of one
	// whose state a test tells.
	check *consulapi.AgentServiceCheck
}

// grpcServer serves on a listener and returns what ends it as a crash would.
type grpcServer interface {
	serve(ln net.Listener) (crash func())
}

func freePort(t *testing.T) int {
	t.Helper()
	p, err := ports.Free("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// echoName answers with the instance's id.
func echoName(id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, id)
	})
}

func (m *mesh) register(s spec) *workload {
	m.t.Helper()
	w := &workload{m: m, id: s.id, service: s.service, upstreams: map[string]string{}, accessLog: filepath.Join(m.dir, "access-"+s.id+".json")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	w.app = ln.Addr().String()
	w.crash = func() { ln.Close() }
	m.t.Cleanup(func() { ln.Close() })
	if s.grpc != nil {
		w.crash = s.grpc.serve(ln)
		m.t.Cleanup(w.crash)
	} else if s.tcp != nil {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go s.tcp(c)
			}
		}()
	} else {
		h := s.handler
		if h == nil {
			h = echoName(s.id)
		}
		srv := &http.Server{Handler: h}
		go func() { _ = srv.Serve(ln) }()
		w.crash = func() { srv.Close() }
		m.t.Cleanup(w.crash)
	}
	meshPort := freePort(m.t)
	w.mesh = net.JoinHostPort("127.0.0.1", strconv.Itoa(meshPort))
	node := s.node
	if node == "" {
		node = s.id
	}
	meta := map[string]string{"hauberk-node": node}
	if s.version != "" {
		meta["version"] = s.version
	}
	proxy := &consulapi.AgentServiceConnectProxyConfig{LocalServicePort: ln.Addr().(*net.TCPAddr).Port}
	for _, u := range s.upstreams {
		p := freePort(m.t)
		w.upstreams[u] = net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
		proxy.Upstreams = append(proxy.Upstreams, consulapi.Upstream{DestinationName: u, LocalBindPort: p})
	}
	w.reg = &consulapi.AgentServiceRegistration{
		ID: s.id, Name: s.service, Address: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Meta: meta,
		Check: &consulapi.AgentServiceCheck{CheckID: "app:" + s.id, TTL: "10m", Status: "passing"},
		Connect: &consulapi.AgentServiceConnect{SidecarService: &consulapi.AgentServiceRegistration{
			Port: meshPort, Address: "127.0.0.1", Proxy: proxy, Meta: meta,
			Checks: consulapi.AgentServiceChecks{{Name: "application", AliasService: s.id}},
		}},
	}
	if s.check != nil {
		w.reg.Check = s.check
		w.reg.Check.CheckID, w.reg.Check.TCP = "app:"+s.id, w.app
	}
	if m.files != "" {
		m.stanza(w)
	} else if err := m.catalog.Agent().ServiceRegister(w.reg); err != nil {
		m.t.Fatal(err)
	} else {
		m.served(s.service, s.id)
	}
	return w
}

func (m *mesh) token(node string, services ...string) string {
	m.t.Helper()
	var reply api.TokenReply
	if err := m.api.Post(m.t.Context(), api.TokensPath, api.TokenRequest{Node: node, Services: services}, &reply); err != nil {
		m.t.Fatal(err)
	}
	f := filepath.Join(m.dir, node+".token")
	if err := os.WriteFile(f, []byte(reply.Token), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return f
}

// sidecarFor starts one sidecar process for the workloads of a node.
func (m *mesh) sidecarFor(node string, ws ...*workload) {
	m.t.Helper()
	var services []string
	for _, w := range ws {
		services = append(services, w.service)
	}
	ready := fmt.Sprintf("127.0.0.1:%d", freePort(m.t))
	args := []string{"run", "--node", node, "--state-dir", filepath.Join(m.dir, "sidecar-"+node),
		"--admin", "127.0.0.1:0", "--admin-socket", filepath.Join(m.dir, node+"-admin.sock"),
		"--metrics", "127.0.0.1:0", "--ready", ready,
		"--access-log", ws[0].accessLog, "--access-log-format", "json",
		"--drain-time", cmp.Or(m.drain, "3s"), "--log-level", "info", "--token-file", m.token(node, services...)}
	p := m.start("sidecar-"+node, "hauberk-sidecar", args...)
	for _, w := range ws {
		w.sidecar, w.args, w.ready, w.accessLog = p, args, ready, ws[0].accessLog
	}
	ws[0].awaitReady()
}

func (w *workload) awaitReady() {
	w.m.t.Helper()
	w.m.eventually(20*time.Second, w.id+"'s sidecar is ready", func() error {
		resp, err := http.Get("http://" + w.ready + "/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 {
			return errors.New(strings.TrimSpace(string(b)))
		}
		return nil
	})
}

// admin reads JSON from the admin socket of the workload's sidecar.
func (w *workload) admin(path string, to any) {
	w.m.t.Helper()
	if err := json.Unmarshal(w.adminText(path), to); err != nil {
		w.m.t.Fatalf("%s of %s: %v", path, w.id, err)
	}
}

func (w *workload) adminText(path string) []byte {
	w.m.t.Helper()
	socket := w.args[slices.Index(w.args, "--admin-socket")+1]
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	resp, err := c.Get("http://localhost" + path)
	if err != nil {
		w.m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.m.t.Fatalf("%s of %s: %v", path, w.id, err)
	}
	return b
}

// workload registers a service instance and starts a sidecar of its own.
func (m *mesh) workload(s spec) *workload {
	m.t.Helper()
	w := m.register(s)
	m.sidecarFor(s.id, w)
	return w
}

var httpClient = &http.Client{Timeout: 10 * time.Second}

// get calls an upstream through the workload's sidecar.
func (w *workload) get(upstream, path string, header ...string) (int, string, error) {
	return w.do(http.MethodGet, upstream, path, header...)
}

func (w *workload) do(method, upstream, path string, header ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+w.upstreams[upstream]+path, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// answers waits until a GET gives this code and body.
func (w *workload) answers(limit time.Duration, upstream, path string, code int, body string, header ...string) time.Duration {
	w.m.t.Helper()
	return w.m.eventually(limit, fmt.Sprintf("%s -> %s%s answers %d %s", w.id, upstream, path, code, body), func() error {
		c, b, err := w.get(upstream, path, header...)
		if err != nil {
			return err
		}
		if c != code || (body != "" && b != body) {
			return fmt.Errorf("got %d %q", c, b)
		}
		return nil
	})
}

// records reads the sidecar's access log.
func (w *workload) records(match func(map[string]any) bool) []map[string]any {
	f, err := os.Open(w.accessLog)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []map[string]any
	for s := bufio.NewScanner(f); s.Scan(); {
		var r map[string]any
		if json.Unmarshal(s.Bytes(), &r) == nil && match(r) {
			out = append(out, r)
		}
	}
	return out
}
