//go:build e2e

package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// metric reads a metric of the control plane by its socket.
func (m *mesh) metric(name string) float64 {
	m.t.Helper()
	sock := m.cpArgs[len(m.cpArgs)-1]
	for i, a := range m.cpArgs {
		if a == "--socket" {
			sock = m.cpArgs[i+1]
		}
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}}}
	resp, err := c.Get("http://localhost/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		if text, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				m.t.Fatal(err)
			}
			return v
		}
	}
	m.t.Fatalf("the control plane has no metric %s", name)
	return 0
}

// passing is what the control plane serves of a service: "2/3".
func (m *mesh) passing(service string) string {
	m.t.Helper()
	var st api.Status
	if err := m.api.Get(m.t.Context(), api.StatusPath, &st); err != nil {
		m.t.Fatal(err)
	}
	for _, s := range st.Services {
		if s.Name == service {
			return fmt.Sprintf("%d/%d", s.Passing, s.Total)
		}
	}
	return "none"
}

func (m *mesh) becomes(limit time.Duration, service, want string) time.Duration {
	m.t.Helper()
	return m.eventually(limit, service+" is "+want, func() error {
		if got := m.passing(service); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// guardWindow is how long last-known health may be kept (DESIGN 3).
const guardWindow = 60 * time.Second

// TestConsulRestartFlipsToCritical: Consul restores active checks as critical
// when it starts. Last-known health stands until each check has run, which the
// metrics show; an instance that fails meanwhile is taken out at once; and nothing
// is kept longer than 60 s.
func TestConsulRestartFlipsToCritical(t *testing.T) {
	t.Parallel() // with the other that mostly waits a minute
	m := newMesh(t)
	m.allow("web", "*")
	// Long enough that after the restart there is a time in which nothing ran.
	every := func(d string) *consulapi.AgentServiceCheck {
		return &consulapi.AgentServiceCheck{Interval: d, Timeout: "1s", Status: "passing"}
	}
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api", "silent"}})
	m.workload(spec{id: "api-a", service: "api", check: every("10s")})
	m.workload(spec{id: "api-b", service: "api", check: every("10s")})
	m.workload(spec{id: "api-c", service: "api"})
	// Its check does not run again while this test does.
	m.workload(spec{id: "silent-1", service: "silent", check: every("24h")})
	m.becomes(10*time.Second, "api", "3/3")
	web.answers(5*second, "api", "/", 200, "api-a")
	web.answers(5*second, "silent", "/", 200, "silent-1")
	guard := func() (held, active float64) {
		return m.metric("hauberk_catalog_held_instances"), m.metric("hauberk_catalog_guard_active")
	}
	if held, active := guard(); held != 0 || active != 0 {
		t.Fatalf("before: %v held, guard %v", held, active)
	}

	if err := m.consul.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := m.consul.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.eventually(20*time.Second, "the control plane notices the restart", func() error {
		if _, active := guard(); active != 1 {
			return errors.New("no guard")
		}
		return nil
	})
	opened := time.Now()

	// The flip: Consul says critical of what has not run, the mesh does not.
	m.eventually(consulLag, "consul restores silent-1 as critical, without having looked", func() error {
		if s, out := m.consulSays("silent", "silent-1"); s != "critical" || out != "" {
			return fmt.Errorf("%s %q", s, out)
		}
		return nil
	})
	m.eventually(5*time.Second, "the metric shows what is kept", func() error {
		if held, _ := guard(); held < 1 {
			return errors.New("nothing")
		}
		return nil
	})
	kept := func() {
		t.Helper()
		if got := m.passing("silent"); got != "1/1" {
			m.explainChecks()
			t.Fatalf("silent is %s after %v", got, time.Since(opened))
		}
		for _, u := range []string{"api", "silent"} {
			if code, body, err := web.get(u, "/"); err != nil || code != 200 {
				t.Fatalf("%s after %v: %d %q %v", u, time.Since(opened), code, body, err)
			}
		}
	}
	// Each check runs in its time and passes; until then its instance serves.
	for ran := 0; ran < 2; {
		if time.Since(opened) > consulLag+10*time.Second {
			t.Fatal("the checks of api do not run")
		}
		ran = 0
		for _, id := range []string{"api-a", "api-b"} {
			if s, _ := m.consulSays("api", id); s == "passing" {
				ran++
			}
		}
		if got := m.passing("api"); got != "3/3" {
			m.explainChecks()
			t.Fatalf("api is %s with %d of its checks run", got, ran)
		}
		kept()
		time.Sleep(20 * time.Millisecond)
	}

	// A single failure in the same window is believed at once.
	for _, status := range []string{"passing", "critical"} {
		if err := m.catalog.Agent().UpdateTTL("app:api-c", "told", status); err != nil {
			t.Fatal(err)
		}
		m.eventually(consulLag, "consul has api-c "+status, func() error {
			if s, _ := m.consulSays("api", "api-c"); s != status {
				return errors.New(s)
			}
			return nil
		})
	}
	// Its sidecar has an alias check, which the agent reports after the other.
	m.eventually(consulLag, "consul has api-c's sidecar critical", func() error {
		checks, _, err := m.catalog.Health().Checks("api-sidecar-proxy", nil)
		if err != nil {
			return err
		}
		for _, c := range checks {
			if c.ServiceID == "api-c-sidecar-proxy" && c.Status == consulapi.HealthCritical && strings.HasSuffix(c.Output, "failing: told") {
				return nil
			}
		}
		return errors.New("not yet")
	})
	t.Logf("a single failure: after %v", m.becomes(time.Second, "api", "2/3"))
	if held, active := guard(); active != 1 || held < 1 {
		t.Errorf("that was to be within the window: %v held, guard %v", held, active)
	}

	// The rest of the window: the one that stays silent is served, to the end.
	for time.Since(opened) < guardWindow-15*time.Second {
		kept()
		if got := m.passing("api"); got != "2/3" {
			m.explainChecks()
			t.Fatalf("api is %s, its two living instances pass", got)
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.becomes(guardWindow+5*time.Second-time.Since(opened), "silent", "0/1")
	t.Logf("the silent one was kept for %v", time.Since(opened))
	m.eventually(5*time.Second, "the metrics say that it is over", func() error {
		if held, active := guard(); held != 0 || active != 0 {
			return fmt.Errorf("%v held, guard %v", held, active)
		}
		return nil
	})
	web.answers(2*second, "silent", "/", 503, "")
}
