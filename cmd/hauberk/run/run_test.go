package run

import (
	"bytes"
	"context"
	"errors"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source/files"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseUpstream(t *testing.T) {
	for in, want := range map[string]string{
		"web:9191":           "web 127.0.0.1:9191",
		"web:127.0.0.2:9191": "web 127.0.0.2:9191",
		"web:[::1]:9191":     "web [::1]:9191",
		"web":                "",
		"web:":               "",
		":9191":              "",
		"web:0":              "",
		"web:70000":          "",
	} {
		u, err := parseUpstream(in)
		got := ""
		if err == nil {
			got = u.Service + " " + u.Bind.String()
		}
		if got != want {
			t.Errorf("%q: got %q (%v), want %q", in, got, err, want)
		}
	}
}

func TestEnvName(t *testing.T) {
	if got := envName("order-db.v2"); got != "HAUBERK_UPSTREAM_ORDER_DB_V2" {
		t.Error(got)
	}
}

// The files registry keeps peers away until the application is ready, and
// leaves nothing behind.
func TestFilesRegistry(t *testing.T) {
	dir := t.TempDir()
	f := &filesRegistry{dir: dir}
	r := &registration{Service: "api", ID: "api-1", Node: "n1", App: hostPort{"127.0.0.1", 9001}, Mesh: hostPort{"127.0.0.1", 21000}}
	// health is what the control plane makes of the directory.
	health := func() catalog.Health {
		t.Helper()
		set, err := files.Load(dir)
		if err != nil {
			t.Fatalf("the files source refuses what is written: %v", err)
		}
		for _, instances := range set.Instances {
			for _, i := range instances {
				if i.ID == "api-1-sidecar-proxy" {
					return i.Health
				}
			}
		}
		t.Fatal("the instance is not there")
		return 0
	}
	if err := f.Announce(t.Context(), r); err != nil || health() != catalog.Critical {
		t.Fatalf("announce: %v, %v, want critical", err, health())
	}
	if err := f.Ready(t.Context(), r); err != nil || health() != catalog.Passing {
		t.Fatalf("ready: %v, %v, want passing", err, health())
	}
	if err := f.Withdraw(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := f.Withdraw(t.Context(), r); err != nil {
		t.Errorf("withdrawing twice: %v", err)
	}
}

// awayRegistry is one that nobody reaches.
type awayRegistry struct{}

var errAway = errors.New("nobody is there")

func (awayRegistry) Announce(context.Context, *registration) error { return errAway }
func (awayRegistry) Ready(context.Context, *registration) error    { return errAway }
func (awayRegistry) Withdraw(context.Context, *registration) error { return errAway }

// What could not be registered is one error, not another one about taking it back.
func TestRegistryIsAway(t *testing.T) {
	var log bytes.Buffer
	r := &runner{log: slog.New(slog.NewTextHandler(&log, nil)), where: awayRegistry{}, reg: registration{Mesh: hostPort{"192.0.2.1", 1}}}
	if _, err := r.run(t.Context()); !errors.Is(err, errAway) {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("it also says %s", log.String())
	}
}

// A port that somebody has is told before anything is registered: the sidecar would come up
// without it, and nobody could reach the service.
func TestMeshPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	r := &runner{log: slog.New(slog.DiscardHandler), where: awayRegistry{}, reg: registration{Mesh: hostPort{"127.0.0.1", taken}}}
	if _, err := r.run(t.Context()); err == nil || errors.Is(err, errAway) || !strings.Contains(err.Error(), l.Addr().String()+" is in use") || !strings.Contains(err.Error(), "--mesh-port") {
		t.Error(err)
	}
	// What is no address of this host is none that the sidecar binds, as behind a translation.
	r.reg.Mesh = hostPort{"192.0.2.1", taken}
	if _, err := r.run(t.Context()); !errors.Is(err, errAway) {
		t.Error(err)
	}
}

// TestSidecarHasItsOwnMemory: what an application may have is not for its sidecar.
func TestSidecarHasItsOwnMemory(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GOMEMLIMIT", "4GiB")
	t.Setenv("GOGC", "off")
	t.Setenv("HAUBERK_TOKEN", "hbt1.secret")
	program := filepath.Join(dir, "sidecar")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexport -p > '"+dir+"/environment'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &runner{options: options{sidecarPath: program, stateDir: filepath.Join(dir, "state"), startTimeout: time.Minute}}
	s, err := r.startSidecar(t.Context())
	if err == nil {
		t.Error("what is no sidecar is ready")
	}
	<-s.proc.Done
	env, err := os.ReadFile(filepath.Join(dir, "environment"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(env); strings.Contains(text, "GOMEMLIMIT") || strings.Contains(text, "GOGC") || !strings.Contains(text, "HAUBERK_TOKEN") {
		t.Errorf("the sidecar has\n%s", text)
	}
	p, err := (&runner{args: []string{"sh", "-c", `test "$GOMEMLIMIT" = 4GiB -a "$GOGC" = off`}}).startApp()
	if err != nil {
		t.Fatal(err)
	}
	if <-p.Done; p.ExitStatus() != 0 {
		t.Error("the application lacks its limit")
	}
}

// A token that was not needed, as the node had joined before, is good for whoever has it.
func TestApplicationHasNoToken(t *testing.T) {
	t.Setenv("HAUBERK_TOKEN", "hbt1.secret")
	t.Setenv("HAUBERK_TEST_OTHER", "x")
	r := &runner{args: []string{"sh", "-c", `test -z "${HAUBERK_TOKEN+set}" -a "$HAUBERK_TEST_OTHER" = x -a "$HAUBERK_UPSTREAM_WEB" = 127.0.0.1:5`},
		reg: registration{Upstreams: []upstream{{"web", hostPort{"127.0.0.1", 5}}}}}
	p, err := r.startApp()
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done
	if p.ExitStatus() != 0 {
		t.Error("the application has the token, or lacks what it should have")
	}
}
