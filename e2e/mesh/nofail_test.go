//go:build e2e

package mesh

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"google.golang.org/grpc/codes"
)

// pair is an instance of api and one of rpc behind one sidecar.
func (m *mesh) pair(x string) []*workload {
	m.t.Helper()
	api := m.register(spec{id: "api-" + x, service: "api", node: "host-" + x})
	rpc := m.register(spec{id: "rpc-" + x, service: "rpc", node: "host-" + x, grpc: newGRPCApp("rpc-" + x)})
	m.sidecarFor("host-"+x, api, rpc)
	return []*workload{api, rpc}
}

func TestNoFailedRequest(t *testing.T) {
	m := newMesh(t)
	// The connections to an instance that is deregistered have this long to end.
	m.drain = "5m"
	m.allow("web", "api")
	m.allow("web", "rpc")
	m.allow("web", "db")
	m.protocol("rpc", "grpc")
	m.protocol("db", "tcp")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api", "rpc", "db"}})
	m.pair("a")
	b := m.pair("b")
	m.workload(spec{id: "db-1", service: "db", tcp: greeter})
	client := web.rpc("rpc")
	for _, x := range []string{"a", "b"} {
		web.answers(5*second, "api", "/", 200, "api-"+x)
		web.rpcAnswers(5*second, client, codes.OK, "rpc-"+x)
	}
	// What is open now stays open through everything.
	conns := holdConns(t, web, 10)
	held := hold(t, client, 10)
	if held.instances["rpc-a"] == 0 || held.instances["rpc-b"] == 0 {
		t.Fatalf("the held streams are at %v: both instances should have some", held.instances)
	}
	during := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			l := startLoad(web)
			time.Sleep(300 * time.Millisecond)
			f(t)
			time.Sleep(700 * time.Millisecond)
			l.end(t, name)
			conns.check(t, name)
			held.check(t, name)
		})
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	agent := m.catalog.Agent()
	// change changes both of b, and waits until Consul's servers have it: what comes after
	// that is the mesh's.
	change := func(t *testing.T, what func(*workload) error, waitFor func(service, instance string) time.Duration) {
		t.Helper()
		for _, w := range b {
			must(t, what(w))
		}
		for _, w := range b {
			waitFor(w.service, w.id)
		}
		time.Sleep(time.Second)
	}
	during("failing check", func(t *testing.T) {
		change(t, func(w *workload) error { return agent.UpdateTTL("app:"+w.id, "down", "critical") }, m.unserved)
		change(t, func(w *workload) error { return agent.UpdateTTL("app:"+w.id, "up", "passing") }, m.served)
	})
	during("maintenance", func(t *testing.T) {
		change(t, func(w *workload) error { return agent.EnableServiceMaintenance(w.id, "test") }, m.unserved)
		change(t, func(w *workload) error { return agent.DisableServiceMaintenance(w.id) }, m.served)
	})
	during("deregistration", func(t *testing.T) {
		change(t, func(w *workload) error { return agent.ServiceDeregister(w.id) }, m.unserved)
		change(t, func(w *workload) error { return agent.ServiceRegister(w.reg) }, m.served)
	})
	during("a change every 100 ms", func(t *testing.T) {
		for i := range 30 {
			m.entry(&consulapi.ServiceRouterConfigEntry{Kind: consulapi.ServiceRouter, Name: []string{"api", "rpc"}[i%2], Routes: []consulapi.ServiceRoute{
				{Match: &consulapi.ServiceRouteMatch{HTTP: &consulapi.ServiceRouteHTTPMatch{PathPrefix: fmt.Sprintf("/p%d", i)}},
					Destination: &consulapi.ServiceRouteDestination{RequestTimeout: time.Duration(i+1) * time.Second}}}})
			time.Sleep(100 * time.Millisecond)
		}
	})
	during("control plane restart", func(t *testing.T) {
		m.cp.stop()
		time.Sleep(time.Second)
		m.runControlPlane()
		time.Sleep(2 * time.Second)
	})
	during("consul restart", func(t *testing.T) {
		must(t, m.consul.Stop())
		time.Sleep(time.Second)
		must(t, m.consul.Restart(t.Context()))
		time.Sleep(4 * time.Second)
	})
}

// TestSidecarDrains: a sidecar that is told to end, with Consul knowing nothing of it,
// finishes what it has, says so on its connections (Connection: close, GOAWAY), and
// costs nobody a request.
func TestSidecarDrains(t *testing.T) {
	m := newMesh(t)
	// Who has not heard of it is served for half of this; in the other half what was begun
	// ends, which takes a busy host a while.
	m.drain = "10s"
	m.allow("web", "api")
	m.allow("web", "rpc")
	m.protocol("rpc", "grpc")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api", "rpc"}})
	m.pair("a")
	b := m.pair("b")
	client := web.rpc("rpc")
	for _, x := range []string{"a", "b"} {
		web.answers(5*second, "api", "/", 200, "api-"+x)
		web.rpcAnswers(5*second, client, codes.OK, "rpc-"+x)
	}
	l := startLoad(web)
	time.Sleep(500 * time.Millisecond)
	began := time.Now()
	if err := b[0].sidecar.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-b[0].sidecar.done
	t.Logf("the sidecar ended after %v", time.Since(began))
	time.Sleep(500 * time.Millisecond)
	l.end(t, "drain")
}

// A sidecar that starts while Consul and the control plane are away serves from
// its cache.
func TestSidecarStartsFromCache(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	m.workload(spec{id: "api-1", service: "api"})
	web.answers(5*second, "api", "/", 200, "api-1")
	m.cp.stop()
	if err := m.consul.Stop(); err != nil {
		t.Fatal(err)
	}
	web.sidecar.stop()
	web.args = append(web.args, "--stale-after", "1s")
	web.sidecar = m.start("sidecar-web-again", "hauberk-sidecar", web.args...)
	web.awaitReady()
	web.answers(2*second, "api", "/", 200, "api-1")

	// What it serves by is stale by now, and it says so.
	m.eventually(15*second, "the alarm", func() error {
		var certs struct {
			Trust []struct {
				Source     string `json:"source"`
				AgeSeconds int    `json:"age_seconds"`
				Warning    string `json:"warning"`
			} `json:"trust"`
		}
		web.admin("/certs", &certs)
		if len(certs.Trust) != 1 || certs.Trust[0].AgeSeconds < 1 || !strings.Contains(certs.Trust[0].Warning, "kept in use") {
			return fmt.Errorf("/certs: %+v", certs.Trust)
		}
		log, err := os.ReadFile(web.sidecar.log)
		for _, want := range []string{"the trust bundles and this node's record: last confirmed", "the configuration: last confirmed"} {
			if !strings.Contains(string(log), want) {
				return fmt.Errorf("the log lacks %q: %w", want, err)
			}
		}
		return nil
	})
	web.answers(2*second, "api", "/", 200, "api-1")
}
