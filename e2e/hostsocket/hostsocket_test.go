//go:build e2e

package hostsocket

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

const trustDomain = "socket.e2e"

func id(service string) string {
	return "spiffe://" + trustDomain + "/ns/default/dc/dc1/svc/" + service
}

// world is a control plane without services, and what it takes to join it.
type world struct {
	t            *testing.T
	dir, bin     string
	controlPlane *proc
	operator     string // the control plane's socket
}

type proc struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	bin := os.Getenv("HAUBERK_BIN")
	if bin == "" {
		t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	dir, err := os.MkdirTemp("/tmp", "hs") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "files"), 0o755)); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, bin: bin, operator: filepath.Join(dir, "cp.sock")}
	w.controlPlane = w.start("controlplane", "hauberk-controlplane", "run", "--trust-domain", trustDomain, "--id", "cp1", "--datacenter", "dc1",
		"--source", "files", "--files-dir", filepath.Join(dir, "files"), "--state-dir", filepath.Join(dir, "cp"),
		"--xds-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0", "--socket", w.operator)
	w.eventually("the control plane answers", func() error { _, err := w.hauberk("status"); return err })
	return w
}

func (w *world) start(name, program string, args ...string) *proc {
	w.t.Helper()
	p := &proc{done: make(chan struct{}), log: filepath.Join(w.dir, name+".log")}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.Command(filepath.Join(w.bin, program), args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	w.t.Cleanup(func() {
		p.end(syscall.SIGTERM)
		if w.t.Failed() {
			w.t.Logf("--- %s\n%s", name, p.text())
		}
	})
	return p
}

func (p *proc) text() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// end signals, and waits.
func (p *proc) end(s syscall.Signal) int {
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

func (w *world) hauberk(args ...string) (string, error) {
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "hauberk"), args...)
	cmd.Env = append(os.Environ(), "HAUBERK_ADDR=unix://"+w.operator)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("hauberk %v: %w: %s", args, err, errs.String())
	}
	return out.String(), nil
}

func (w *world) token(node string, services ...string) string {
	w.t.Helper()
	args := []string{"token", "create", "--node", node}
	for _, s := range services {
		args = append(args, "--service", s)
	}
	text, err := w.hauberk(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.file(node+".token", text)
}

func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *world) eventually(what string, f func() error) {
	w.t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("%s: not in time: %v", what, err)
		}
	}
}

// fetch asks as this process, by SPIFFE's own client, and verifies what it gets.
func fetch(socket string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	x, err := c.FetchX509Context(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range x.SVIDs {
		if _, _, err := x509svid.Verify(s.Certificates, x.Bundles); err != nil {
			return nil, err
		}
		if _, err := x509.MarshalPKCS8PrivateKey(s.PrivateKey); err != nil {
			return nil, err
		}
		ids = append(ids, s.ID.String())
	}
	return ids, nil
}

func want(socket string, ids ...string) func() error {
	return func() error {
		got, err := fetch(socket)
		if err == nil && !slices.Equal(got, ids) {
			err = fmt.Errorf("got %v, want %v", got, ids)
		}
		return err
	}
}

// TestHostSocket is the way of an operator: a token with selectors, an agent, a
// file for what the token leaves to the host, and a process of that host.
func TestHostSocket(t *testing.T) {
	for _, command := range []string{"agent", "run"} {
		t.Run(command, func(t *testing.T) { testHostSocket(t, command) })
	}
}

func testHostSocket(t *testing.T, command string) {
	w := newWorld(t)
	me := fmt.Sprintf("uid=%d,gid=%d", os.Geteuid(), os.Getegid())
	other := fmt.Sprintf("uid=%d", os.Geteuid()+1)
	token := w.token("host-1", "web@"+me, "db@"+other, "local", "own")
	workloads := w.file("workloads.yaml", fmt.Sprintf("workloads:\n- {service: local, selectors: [uid=%d], hint: second}\n", os.Geteuid()))
	socket := filepath.Join(w.dir, "run", "agent.sock")
	args := []string{command, "--state-dir", filepath.Join(w.dir, "state"), "--token-file", token,
		"--socket", socket, "--workloads", workloads, "--log-format", "json"}
	if command == "run" {
		args = append(args, "--admin", "off", "--metrics", "off", "--ready", "off", "--drain-time", "1s")
	}
	p := w.start("host", "hauberk-sidecar", args...)
	began := time.Now()
	w.eventually("the identities of this process", want(socket, id("local"), id("web")))
	t.Logf("first SVIDs after %s", time.Since(began).Round(time.Millisecond))

	testFetchCommand(t, w, socket)

	// The socket is served; a second agent says by whom.
	again := exec.Command(filepath.Join(w.bin, "hauberk-sidecar"), "agent", "--state-dir", filepath.Join(w.dir, "state2"), "--socket", socket)
	out, err := again.CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("served already, by process %d", p.cmd.Process.Pid)) {
		t.Errorf("a second agent on the socket: %v: %s", err, out)
	}

	// Killed, with the control plane away: the dead socket is replaced, and what
	// the agent held it still serves.
	p.end(syscall.SIGKILL)
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("a killed process removed its socket: %v", err)
	}
	w.controlPlane.end(syscall.SIGTERM)
	p = w.start("host", "hauberk-sidecar", args...)
	w.eventually("the identities, after a crash and without a control plane", want(socket, id("local"), id("web")))

	// An end that is asked for takes the socket away.
	if code := p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	for _, secret := range []string{"PRIVATE KEY", "BEGIN"} {
		if strings.Contains(p.text(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// testFetchCommand: what an operator sees of the same, and takes into files.
func testFetchCommand(t *testing.T, w *world, socket string) {
	t.Helper()
	dir := filepath.Join(w.dir, "files-of-svids")
	out, err := w.hauberk("identity", "fetch", "--socket", socket, "--write", dir, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		SPIFFEID string `json:"spiffe_id"`
		Hint     string `json:"hint"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got) != 2 || got[0].SPIFFEID != id("local") || got[0].Hint != "second" || got[1].SPIFFEID != id("web") {
		t.Errorf("%s: %v", out, err)
	}
	if strings.Contains(out, "PRIVATE") {
		t.Error("a key is printed")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "svid.1.pem"), filepath.Join(dir, "svid.1.key"))
	if err != nil || pair.Leaf.URIs[0].String() != id("web") {
		t.Errorf("the files: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "svid.1.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v %v", info.Mode(), err)
	}
	if out, err := w.hauberk("identity", "show", filepath.Join(dir, "svid.1.pem")); err != nil {
		t.Errorf("the SVID is not valid to the control plane: %v: %s", err, out)
	}
	if _, err := w.hauberk("identity", "fetch", "--socket", socket+".none"); err == nil || !strings.Contains(err.Error(), "exit status 2") {
		t.Errorf("no socket: %v", err)
	}
}

// TestBanEndsStreams: what the control plane withdraws ends a stream that is
// open on the host.
func TestBanEndsStreams(t *testing.T) {
	w := newWorld(t)
	token := w.token("host-1", fmt.Sprintf("web@uid=%d", os.Geteuid()))
	socket := filepath.Join(w.dir, "run", "agent.sock")
	w.start("host", "hauberk-sidecar", "agent", "--state-dir", filepath.Join(w.dir, "state"), "--token-file", token, "--socket", socket)
	w.eventually("the identity", want(socket, id("web")))

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	watch := &watcher{first: make(chan struct{}), errs: make(chan error, 1)}
	done := make(chan error, 1)
	go func() { done <- c.WatchX509Context(ctx, watch) }()
	select {
	case <-watch.first:
	case <-ctx.Done():
		t.Fatal("no first update")
	}
	operator, err := client.New("unix://"+w.operator, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := operator.Post(ctx, strings.Replace(api.BanPath, "{name}", "host-1", 1), nil, nil); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	select {
	case err := <-watch.errs:
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "banned") {
			t.Errorf("the stream ended with %v", err)
		}
		t.Logf("a ban ended the stream after %s", time.Since(began).Round(time.Millisecond))
	case <-ctx.Done():
		t.Error("the stream goes on after a ban")
	}
	cancel()
	<-done
	if _, err := w.hauberk("identity", "fetch", "--socket", socket); err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "banned") {
		t.Errorf("hauberk identity fetch on a banned node: %v", err)
	}
	if ids, err := fetch(socket); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a banned node serves %v, %v", ids, err)
	}
}

// watcher notes the first update and the first error.
type watcher struct {
	first chan struct{}
	seen  bool
	errs  chan error
}

func (w *watcher) OnX509ContextUpdate(*workloadapi.X509Context) {
	if !w.seen {
		w.seen = true
		close(w.first)
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	select {
	case w.errs <- err:
	default:
	}
}
