package run

import (
	"context"
	"encoding/json"
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
	"time"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/process"
	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// sidecar is the running hauberk-sidecar and how to talk to it.
type sidecar struct {
	proc   *process.Process
	ready  string // http://host:port/ready
	socket string // of the admin's changes
}

func findSidecar() (string, error) {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), "hauberk-sidecar")
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	p, err := exec.LookPath("hauberk-sidecar")
	if err != nil {
		return "", fmt.Errorf("hauberk-sidecar is neither beside this program nor in PATH; give --sidecar")
	}
	return p, nil
}

// startSidecar starts it and waits until it has its identity and configuration.
// The sidecar is returned even with an error, so that it can be stopped.
func (r *runner) startSidecar(ctx context.Context) (*sidecar, error) {
	if err := os.MkdirAll(r.stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("sidecar state: %w", err)
	}
	port, err := ports.Free("127.0.0.1")
	if err != nil {
		return nil, err
	}
	ready := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	socket := filepath.Join(r.stateDir, "admin.sock")
	args := []string{"run",
		"--node", r.node,
		"--state-dir", r.stateDir,
		"--admin", "127.0.0.1:0",
		"--admin-socket", socket,
		"--metrics", "127.0.0.1:0",
		"--ready", ready,
		"--access-log", r.accessLog,
		"--access-log-format", r.accessLogFormat,
		"--drain-time", r.drainTime.String(),
		"--log-level", r.logLevel,
	}
	if r.tokenFile != "" {
		args = append(args, "--token-file", r.tokenFile)
	}
	cmd := exec.Command(r.sidecarPath, args...)
	cmd.Env = withoutVariables(os.Environ(), applicationsMemory...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	p, err := process.Start("sidecar", cmd)
	if err != nil {
		return nil, err
	}
	s := &sidecar{proc: p, ready: "http://" + ready + "/ready", socket: socket}
	ctx, cancel := context.WithTimeout(ctx, r.startTimeout)
	defer cancel()
	return s, process.Poll(ctx, p, 50*time.Millisecond, s.isReady)
}

func (s *sidecar) isReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ready, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("sidecar says: %s", strings.TrimSpace(string(b)))
	}
	return nil
}

func (s *sidecar) alive() bool {
	if s == nil {
		return false
	}
	select {
	case <-s.proc.Done:
		return false
	default:
		return true
	}
}

// admin is a client of the sidecar's Unix socket.
func (s *sidecar) admin() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
		},
	}}
}

// serves says, by an error, which of the upstreams has no listener yet.
func (s *sidecar) serves(ctx context.Context, upstreams []upstream) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/listeners", nil)
	if err != nil {
		return err
	}
	resp, err := s.admin().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var listeners []struct {
		Address string `json:"address"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&listeners); err != nil {
		return fmt.Errorf("sidecar's listeners: %w", err)
	}
	open := map[string]bool{}
	for _, l := range listeners {
		open[l.Address] = true
	}
	for _, u := range upstreams {
		if !open[u.Bind.String()] {
			return fmt.Errorf("upstream %s has no listener on %s yet", u.Service, u.Bind)
		}
	}
	return nil
}

// drain has the sidecar finish what peers have sent and refuse what is new,
// while the application can still call its upstreams.
func (s *sidecar) drain(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit+5*time.Second)
	defer cancel()
	url := "http://localhost/drain?inbound&wait=" + limit.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.admin().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("drain: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	return nil
}

func (s *sidecar) stop(grace time.Duration) { s.proc.Stop(syscall.SIGTERM, grace+5*time.Second) }

// startApp starts the application with its upstreams in the environment.
func (r *runner) startApp() (*process.Process, error) {
	cmd := exec.Command(r.args[0], r.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The token is the sidecar's alone: one that was not needed any more is still good.
	cmd.Env = withoutVariables(os.Environ(), "HAUBERK_TOKEN")
	for _, u := range r.reg.Upstreams {
		cmd.Env = append(cmd.Env, envName(u.Service)+"="+u.Bind.String())
	}
	return process.Start("application", cmd)
}

// applicationsMemory are what an application that is written in Go is given for the whole of its
// memory. The sidecar has a limit of its own, by its control group, and one that it took from
// here would have it collect garbage all the time, or with GOGC=off and none never.
var applicationsMemory = []string{"GOMEMLIMIT", "GOGC"}

// withoutVariables is an environment but for some variables. It changes environ.
func withoutVariables(environ []string, names ...string) []string {
	return slices.DeleteFunc(environ, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(names, name)
	})
}

// envName is the variable that tells an application where an upstream is.
func envName(service string) string {
	up := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, service)
	return "HAUBERK_UPSTREAM_" + up
}
