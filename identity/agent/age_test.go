package agent

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/token"
)

// TestAgedTrustIsAlarmed: once, with its age and what it means, and once more
// when it is over.
func TestAgedTrustIsAlarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := &Agent{cfg: Config{StaleAfter: 5 * time.Minute}, log: slog.New(slog.NewTextHandler(&log, nil)), addresses: []string{"cp.example:15012"}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		heard := func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.status.LastContact = time.Now()
		}
		go a.watchAge(ctx)
		pass := func(d time.Duration) string {
			<-time.After(d)
			synctest.Wait()
			defer log.Reset()
			return log.String()
		}
		if got := pass(time.Hour); got != "" || a.Status().Stale != "" {
			t.Fatalf("before there is any trust data: %q", got)
		}
		heard()
		if got := pass(5*time.Minute - time.Second); got != "" || a.Status().Stale != "" {
			t.Fatalf("too early: %q", got)
		}
		got := pass(time.Minute)
		for _, want := range []string{"level=WARN", "of 5m", "stay in use", "ban or a withdrawn signer", "cp.example:15012"} {
			if !strings.Contains(got, want) {
				t.Errorf("the warning lacks %q: %q", want, got)
			}
		}
		if st := a.Status(); !strings.Contains(st.Stale, "of 5m59s ago") {
			t.Errorf("status: %+v", st)
		}
		if got := pass(time.Hour); got != "" {
			t.Errorf("warned again: %q", got)
		}
		heard()
		if got := pass(time.Minute); !strings.Contains(got, "current again") || a.Status().Stale != "" {
			t.Errorf("the end of it: %q", got)
		}
	})
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
