package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/server"
	"github.com/hauberk-mesh/hauberk/controlplane/server/servertest"
	"github.com/hauberk-mesh/hauberk/controlplane/source/files"
)

// gauge reads a metric of a control plane; false when it has no such series.
func gauge(t *testing.T, cp *servertest.ControlPlane, series string) (float64, bool) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(cp.Socket, "unix://"))
	}}
	resp, err := (&http.Client{Transport: tr}).Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(b)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v, true
}

// until waits for something of other goroutines.
func until(t *testing.T, what func() string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; {
		why := what()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", why)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func atOnce(c *server.Config) { c.StaleAfter = time.Nanosecond }

// TestStaleCatalogIsAlarmed: files that cannot be read leave the last good state
// in use, with its age in the metrics and in `hauberk status`.
func TestStaleCatalogIsAlarmed(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "api.hcl"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(api)
	cp := servertest.Start(t, nil, atOnce, func(c *server.Config) { c.Source = files.New(files.Config{Dir: dir}) })
	b := &bed{t: t, addr: cp.Socket}
	until(t, func() string { out, errs, _ := b.run("status"); return without(out+errs, "api") })
	if age, ok := gauge(t, cp, "hauberk_catalog_age_seconds"); age != 0 || !ok {
		t.Errorf("in order: %v %v", age, ok)
	}
	if out, _, code := b.run("status"); code != 0 || strings.Contains(out, "warning") {
		t.Errorf("in order: %d\n%s", code, out)
	}
	write("service {")
	want := "warning: control plane: the catalog of files " + dir + ": last confirmed"
	until(t, func() string { out, _, _ := b.run("status"); return without(out, want) })
	if age, _ := gauge(t, cp, "hauberk_catalog_age_seconds"); age <= 0 {
		t.Errorf("the age is %v", age)
	}
	if out, _, code := b.run("status"); code != 1 || without(out, "problem: source", "api      tcp       1/1") != "" {
		t.Errorf("exit %d\n%s", code, out)
	}
	write(api)
	until(t, func() string {
		if out, _, _ := b.run("status"); strings.Contains(out, "warning") {
			return out
		}
		return ""
	})
}

// TestSilentControlPlaneIsAlarmed: what another control plane last said stays in
// use, and its age is told.
func TestSilentControlPlaneIsAlarmed(t *testing.T) {
	one := servertest.Start(t, nil, atOnce)
	b := &bed{t: t, addr: one.Socket}
	until(t, func() string { out, errs, _ := b.run("token", "list"); return without(out+errs, "TOKEN") })
	joinToken, errs, code := b.run("token", "create", "--node", "cp2", "--role", "controlplane")
	if code != 0 {
		t.Fatal(errs)
	}
	two := servertest.Start(t, nil, func(c *server.Config) { c.ID, c.JoinToken = "cp2", strings.TrimSpace(joinToken) })
	peer := "spiffe://test.mesh/hauberk/controlplane/cp2"
	series := `hauberk_control_plane_peer_age_seconds{peer="` + peer + `"}`
	// It is heard, and not only known: the age becomes less.
	last := -1.0
	until(t, func() string {
		age, ok := gauge(t, one, series)
		if less := ok && last >= 0 && age < last; less {
			return ""
		}
		if ok {
			last = age
		}
		return "it is not heard"
	})
	two.Stop()
	want := "warning: control plane: what " + peer + " says: last confirmed"
	until(t, func() string {
		out, _, _ := b.run("status")
		return without(out, want, "bans are not known here", " of cp2, ")
	})
}

// without names the first text that is missing; empty when none is.
func without(out string, want ...string) string {
	for _, w := range want {
		if !strings.Contains(out, w) {
			return w + " is missing in " + out
		}
	}
	return ""
}
