// Package consultest starts a real Consul server on loopback: one server with a
// data directory, never -dev, so that it can be stopped and started again with
// what it knew.
package consultest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// Version is the Consul that the e2e/tools module pins.
const Version = "1.13.9"

// BinEnv chooses another Consul binary.
const BinEnv = "CONSUL_BIN"

// Options say what kind of server to start.
type Options struct {
	// Dir keeps configuration, data and log. It is made.
	Dir string
	// ACL turns on ACLs with default deny; ManagementToken is then set.
	ACL bool
	// HTTPS adds a listener that demands client certificates; HTTPSConfig is a
	// client's configuration for it.
	HTTPS bool
	// ClientLimit is the number of connections one client may hold, as Consul
	// limits it in production to 200; 1000 when zero.
	ClientLimit int
	// Progress is told when a binary has to be built; may be nil.
	Progress io.Writer
}

// Server is a running Consul.
type Server struct {
	// ManagementToken is the bootstrap token when ACLs are on.
	ManagementToken string

	opts  Options
	bin   string
	ports map[string]int
	cmd   *exec.Cmd
	done  chan error
}

// Start finds or builds Consul, starts it and waits until it has a leader.
func Start(ctx context.Context, opts Options) (*Server, error) {
	bin, err := Binary(ctx, opts.Progress)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, bin: bin}
	if opts.ACL {
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		h := hex.EncodeToString(b)
		s.ManagementToken = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return s, s.Restart(ctx)
}

func (s *Server) configure() error {
	if err := os.MkdirAll(filepath.Join(s.opts.Dir, "data"), 0o755); err != nil {
		return err
	}
	var err error
	if s.ports, err = freePorts("http", "https", "server", "serf_lan", "serf_wan", "grpc"); err != nil {
		return err
	}
	if !s.opts.HTTPS {
		s.ports["https"] = -1
	}
	ports := map[string]int{"dns": -1}
	for k, v := range s.ports {
		ports[k] = v
	}
	cfg := map[string]any{
		"server": true, "bootstrap_expect": 1,
		"node_name":   "consul",
		"datacenter":  "dc1",
		"data_dir":    filepath.Join(s.opts.Dir, "data"),
		"bind_addr":   "127.0.0.1",
		"client_addr": "127.0.0.1",
		"ports":       ports,
		"connect":     map[string]any{"enabled": true},
		// One server in a test: elections and leaving need not be patient.
		"performance":          map[string]any{"raft_multiplier": 1, "leave_drain_time": "10ms"},
		"log_level":            "warn",
		"disable_update_check": true,
		"limits":               map[string]any{"http_max_conns_per_client": cmp.Or(s.opts.ClientLimit, 1000)},
	}
	if s.opts.HTTPS {
		if err := s.writeTLS(); err != nil {
			return err
		}
		cfg["tls"] = map[string]any{"https": map[string]any{
			"ca_file": s.path("ca.pem"), "cert_file": s.path("server.pem"), "key_file": s.path("server-key.pem"), "verify_incoming": true,
		}}
	}
	if s.opts.ACL {
		cfg["primary_datacenter"] = "dc1"
		cfg["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny", "enable_token_persistence": true,
			"tokens": map[string]any{"initial_management": s.ManagementToken, "agent": s.ManagementToken},
		}
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.opts.Dir, "consul.json"), b, 0o600)
}

// freePorts picks loopback ports that differ.
func freePorts(names ...string) (map[string]int, error) {
	out := map[string]int{}
	for _, n := range names {
		p, err := ports.Free("127.0.0.1")
		if err != nil {
			return nil, err
		}
		out[n] = p
	}
	return out, nil
}

// HTTPAddr is host:port of the HTTP API.
func (s *Server) HTTPAddr() string { return fmt.Sprintf("127.0.0.1:%d", s.ports["http"]) }

// GRPCAddr is where Consul's own control plane for Envoys (xDS) is.
func (s *Server) GRPCAddr() string { return fmt.Sprintf("127.0.0.1:%d", s.ports["grpc"]) }

// Command is Consul's own command line, as somebody who administers this server.
func (s *Server) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+s.HTTPAddr(), "CONSUL_GRPC_ADDR="+s.GRPCAddr(), "CONSUL_HTTP_TOKEN="+s.ManagementToken)
	return cmd
}

// HTTPSAddr is host:port of the HTTP API over TLS.
func (s *Server) HTTPSAddr() string { return fmt.Sprintf("127.0.0.1:%d", s.ports["https"]) }

// Restart starts the server, with its data if it ran before, and waits until it
// has a leader.
func (s *Server) Restart(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(s.opts.Dir, "consul.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.bin, "agent", "-config-file="+filepath.Join(s.opts.Dir, "consul.json"))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	done := make(chan error, 1)
	cmd := s.cmd
	go func() { done <- cmd.Wait() }()
	s.done = done
	if err := s.awaitLeader(ctx); err != nil {
		return errors.Join(err, s.Stop())
	}
	return nil
}

func (s *Server) awaitLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.hasLeader(ctx) {
			return nil
		}
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("consul ended before it was ready: %v; see %s", err, filepath.Join(s.opts.Dir, "consul.log"))
		case <-ctx.Done():
			return fmt.Errorf("consul elected no leader; see %s", filepath.Join(s.opts.Dir, "consul.log"))
		case <-tick.C:
		}
	}
}

// hasLeader asks for the own node in the catalog: it is there once the leader
// has done its first work, and registrations are taken from then on.
func (s *Server) hasLeader(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTPAddr()+"/v1/catalog/node/consul", nil)
	if err != nil {
		return false
	}
	req.Header.Set("X-Consul-Token", s.ManagementToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(b), `"Node"`)
}

// Stop ends the server and keeps its data. It asks first: a server that is
// killed may lose what it had not written.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	// It may have ended by itself.
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	timer := time.NewTimer(15 * time.Second)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	s.cmd = nil
	return nil
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
		s.cmd = nil
	}
}

// Binary returns the path of Consul: CONSUL_BIN, else a build in the user's
// cache, which is made when it is missing.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	if p := os.Getenv(BinEnv); p != "" {
		if _, err := os.Stat(p); err != nil {
			return "", fmt.Errorf("%s: %w", BinEnv, err)
		}
		return p, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	p := filepath.Join(cache, "hauberk", "consul-"+Version)
	if _, err := os.Stat(p); err == nil {
		return p, nil
	}
	tools, err := toolsDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return "", err
	}
	if progress == nil {
		progress = io.Discard
	}
	fmt.Fprintf(progress, "building consul %s from its Go module (about 3 minutes, once) ", Version)
	tmp := p + ".new"
	cmd := exec.CommandContext(ctx, "go", "build", "-o", tmp, "github.com/hashicorp/consul")
	cmd.Dir = tools
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	stop := dots(progress)
	out, err := cmd.CombinedOutput()
	stop()
	if err != nil {
		return "", fmt.Errorf("build consul: %w\n%s", err, out)
	}
	fmt.Fprintln(progress, " done")
	return p, os.Rename(tmp, p)
}

// dots shows that something goes on, until stopped.
func dots(w io.Writer) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(3 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				fmt.Fprint(w, ".")
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// toolsDir finds e2e/tools above the working directory or the program.
func toolsDir() (string, error) {
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	for _, dir := range starts {
		for {
			p := filepath.Join(dir, "e2e", "tools")
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return p, nil
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return "", fmt.Errorf("no Consul: set %s, or run inside the source tree, where it can be built", BinEnv)
}
