//go:build e2e

package mesh

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
)

// load is the open-loop traffic of DESIGN 6: 500 requests a second, every other
// one a POST, client retries off, and one TCP connection held.
type load struct {
	w        *workload
	stop     chan struct{}
	wg       sync.WaitGroup
	sent     atomic.Int64
	mu       sync.Mutex
	failures []string
}

func startLoad(w *workload) *load {
	l := &load{w: w, stop: make(chan struct{})}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 256}}
	l.wg.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		began := time.Now()
		for n := 0; ; {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			// A tick that came late sends what is due since the last.
			for due := int(time.Since(began) / (2 * time.Millisecond)); n < due; n++ {
				l.wg.Go(func() { l.one(client, n) })
			}
		}
	})
	return l
}

func (l *load) one(client *http.Client, n int) {
	method, body := http.MethodGet, []byte(nil)
	if n%2 == 1 {
		method, body = http.MethodPost, bytes.Repeat([]byte("x"), 1024)
	}
	// A reader that is not one of net/http's own cannot be replayed, so the
	// client does not retry.
	req, err := http.NewRequest(method, "http://"+l.w.upstreams["api"]+"/", struct{ io.Reader }{bytes.NewReader(body)})
	if err != nil {
		l.fail(err.Error())
		return
	}
	req.ContentLength = int64(len(body))
	if len(body) == 0 {
		req.Body = nil
	}
	l.sent.Add(1)
	resp, err := client.Do(req)
	if err != nil {
		l.fail(fmt.Sprintf("%s %s: %v", time.Now().Format("05.000"), method, err))
		return
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		l.fail(fmt.Sprintf("%s %s: %d %q %v", time.Now().Format("05.000"), method, resp.StatusCode, b, err))
	}
}

func (l *load) fail(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, s)
}

func (l *load) end(t *testing.T, what string) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	t.Logf("%s: %d requests, %d failed", what, l.sent.Load(), len(l.failures))
	for i, f := range l.failures {
		if i == 5 {
			break
		}
		t.Log(f)
	}
	if len(l.failures) > 0 {
		t.Errorf("%s: %d of %d requests failed", what, len(l.failures), l.sent.Load())
	}
}

func TestNoFailedRequest(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	m.allow("web", "db")
	m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: "db", Protocol: "tcp"})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api", "db"}})
	m.workload(spec{id: "api-a", service: "api"})
	b := m.workload(spec{id: "api-b", service: "api"})
	m.workload(spec{id: "db-1", service: "db", tcp: greeter})
	web.answers(5*second, "api", "/", 200, "api-a")
	web.answers(5*second, "api", "/", 200, "api-b")

	conn, held, err := web.dial(t, "db")
	for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); {
		conn, held, err = web.dial(t, "db")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	during := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			l := startLoad(web)
			time.Sleep(300 * time.Millisecond)
			f(t)
			time.Sleep(700 * time.Millisecond)
			l.end(t, name)
			fmt.Fprintln(conn, name)
			if s, err := held.ReadString('\n'); err != nil || s != name+"\n" {
				t.Fatalf("the held TCP connection: %q %v", s, err)
			}
		})
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	agent := m.catalog.Agent()
	during("failing check", func(t *testing.T) {
		must(t, agent.UpdateTTL("app:api-b", "down", "critical"))
		time.Sleep(time.Second)
		must(t, agent.UpdateTTL("app:api-b", "up", "passing"))
	})
	during("maintenance", func(t *testing.T) {
		must(t, agent.EnableServiceMaintenance("api-b", "test"))
		time.Sleep(time.Second)
		must(t, agent.DisableServiceMaintenance("api-b"))
	})
	during("deregistration", func(t *testing.T) {
		must(t, agent.ServiceDeregister("api-b"))
		time.Sleep(time.Second)
		must(t, agent.ServiceRegister(b.reg))
		time.Sleep(time.Second)
	})
	during("a change every 100 ms", func(t *testing.T) {
		for i := range 30 {
			m.entry(&consulapi.ServiceRouterConfigEntry{Kind: consulapi.ServiceRouter, Name: "api", Routes: []consulapi.ServiceRoute{
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
