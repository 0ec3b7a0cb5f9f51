package agent

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/token"
)

// TestAgedTrustIsAlarmed in the agent's log, in its status and in what it reports.
func TestAgedTrustIsAlarmed(t *testing.T) {
	dir := t.TempDir()
	cp := startControlPlane(t, "one", filepath.Join(dir, "cp"), "", "127.0.0.1:0")
	var log lines
	// Everything is stale after no time, so the first look warns.
	a, _ := startAgent(t, Config{StateDir: filepath.Join(dir, "agent"), Token: cp.mint(t, token.RoleNode, "n1", "web"),
		StaleAfter: time.Nanosecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	await(t, a, "the identity", func() bool { return a.holds(serviceID("web")) })
	a.SetReport(Report{Warnings: []string{"another"}})
	var reported []string
	for end := time.Now().Add(15 * time.Second); len(reported) < 2; {
		if time.Now().After(end) {
			t.Fatalf("reported: %q", reported)
		}
		<-time.After(5 * time.Millisecond)
		for _, r := range cp.Reports() {
			reported = r.Warnings
		}
	}
	status := a.Status().Stale
	for where, got := range map[string]string{"status": status, "log": log.String(), "report": strings.Join(reported, " ")} {
		for _, want := range []string{"trust bundles and this node's record: last confirmed", "kept in use", "a ban or a withdrawn signer", cp.addr} {
			if !strings.Contains(got, want) {
				t.Errorf("the %s lacks %q: %q", where, want, got)
			}
		}
	}
	// Old, and in use.
	if !a.holds(serviceID("web")) || len(a.Snapshot().Bundles) != 1 {
		t.Error("stale trust data was dropped")
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestAgeOfTrust: each message of a control plane makes it new, and a restart
// does not.
func TestAgeOfTrust(t *testing.T) {
	dir := t.TempDir()
	cp := startControlPlane(t, "one", filepath.Join(dir, "cp"), "", "127.0.0.1:0")
	cfg := Config{StateDir: filepath.Join(dir, "agent"), Token: cp.mint(t, token.RoleNode, "n1", "web"), StaleAfter: time.Nanosecond}
	a, stop := startAgent(t, cfg)
	await(t, a, "the identity", func() bool { return a.holds(serviceID("web")) })
	joined := a.Status().LastContact
	if joined.IsZero() {
		t.Fatal("joining is no contact")
	}
	// A change of the record is a message of its own.
	if _, err := cp.BanNode(token.RoleNode, "n1", "for the test"); err != nil {
		t.Fatal(err)
	}
	await(t, a, "the ban", func() bool { return !a.holds(serviceID("web")) })
	heard := a.Status().LastContact
	if !heard.After(joined) {
		t.Errorf("heard at %v, joined at %v", heard, joined)
	}
	stop()
	cp.stop()

	again, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	// On disk is the control plane's clock, in milliseconds: here the same one.
	if st := again.Status(); st.LastContact.After(heard) || heard.Sub(st.LastContact) > time.Second || st.Stale == "" {
		t.Errorf("after a restart the trust data is of %v, heard at %v; %q", st.LastContact, heard, st.Stale)
	}
}
