//go:build e2e

package files

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// checkedHost is a host that has its name for requests, and a status for checks, which wait
// while that is 0.
type checkedHost struct {
	*httptest.Server
	mu      sync.Mutex
	verdict int
	checks  map[string]int // by path
}

func newCheckedHost(t *testing.T, name string) *checkedHost {
	h := &checkedHost{checks: map[string]int{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			_, _ = io.WriteString(w, name)
			return
		}
		h.mu.Lock()
		h.checks[r.URL.Path]++
		h.mu.Unlock()
		for r.Context().Err() == nil {
			h.mu.Lock()
			status := h.verdict
			h.mu.Unlock()
			if status != 0 {
				w.WriteHeader(status)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}))
	t.Cleanup(h.CloseClientConnections)
	return h
}

func (h *checkedHost) set(verdict int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdict = verdict
}

func (h *checkedHost) count(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checks[path]
}

const checkedCluster = `- {TYPE cluster.v3.Cluster, name: NAME, type: EDS, eds_cluster_config: {service_name: NAME-hosts, eds_config: {path_config_source: {path: DIR/NAME.yaml}}},
   ignore_health_on_host_removal: IGNORED, health_checks: [{timeout: 10s, interval: 0.1s, no_traffic_interval: 0.1s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: {path: PATH}}]}
`

// checkedClusters are "a", and "b" where there is a path for its checks.
func checkedClusters(path string, ignored bool) string {
	one := func(name, path, ignored string) string {
		return strings.NewReplacer("NAME", name, "PATH", path, "IGNORED", ignored).Replace(checkedCluster)
	}
	out := "resources:\n" + one("a", "/a", "false")
	if path != "" {
		out += one("b", path, map[bool]string{true: "true", false: "false"}[ignored])
	}
	return out
}

func bothEndpoints(cluster string) string {
	const host = `{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: `
	return `resources: [{TYPE endpoint.v3.ClusterLoadAssignment, cluster_name: ` + cluster + `-hosts, endpoints: [{lb_endpoints: [` + host + `ONE}}}}, ` + host + `TWO}}}}]}]}]`
}

// heard are the different answers of a listener to some requests; only the status of one that
// is not the host's.
func (p *program) heard(port int) string {
	var out []string
	for range 6 {
		code, name, _ := strings.Cut(p.get(port), " ")
		if code == "200" {
			code = name
		}
		if !slices.Contains(out, code) {
			out = append(out, code)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestChecksBesideEnvoy: a listener that is new awaits the first checks; those in force do not
// refuse requests meanwhile, as Envoy's do; a
// cluster whose checks or service change goes on meanwhile; a host that is gone goes on as its checks do.
func TestChecksBesideEnvoy(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hauberk", "envoy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := newCheckedHost(t, "one"), newCheckedHost(t, "two")
			port := func(h *checkedHost) int { return h.Listener.Addr().(*net.TCPAddr).Port }
			p := start(t, name, [2]int{port(one), port(two)}, map[string]string{"lds.yaml": listeners("FIRST"), "cds.yaml": checkedClusters("", false),
				"a.yaml": bothEndpoints("a"), "b.yaml": bothEndpoints("b"), "c.yaml": endpoints("c", "TWO"), "rds.yaml": routes("a")})
			// checking: both hosts are being asked, and do not say yet.
			checking := func(path, want string) {
				t.Helper()
				within(t, "both are checked at "+path, func() bool { return one.count(path) > 0 && two.count(path) > 0 })
				time.Sleep(200 * time.Millisecond) // what does not wait for them is there by then
				if got := p.heard(p.ports[0]); got != want {
					t.Errorf("while they are checked at %s: %q, want %q", path, got, want)
				}
			}
			verdicts := func(ofOne, ofTwo int, want string) {
				t.Helper()
				one.set(ofOne)
				two.set(ofTwo)
				within(t, "after the checks: "+want, func() bool { return p.heard(p.ports[0]) == want })
			}
			checking("/a", "refused")
			verdicts(503, 200, "two")
			verdicts(200, 200, "one two")

			one.set(0)
			two.set(0)
			p.write(t, "cds.yaml", checkedClusters("/new", false))
			p.write(t, "rds.yaml", routes("b"))
			checking("/new", map[string]string{"hauberk": "one two", "envoy": "503"}[name]) // docs/clusters.md
			verdicts(503, 200, "two")
			verdicts(200, 200, "one two")

			one.set(0)
			two.set(0)
			p.write(t, "cds.yaml", checkedClusters("/changed", false))
			checking("/changed", "one two")
			verdicts(503, 200, "two")
			verdicts(200, 200, "one two")

			gone := func(second, want string) {
				t.Helper()
				p.write(t, "b.yaml", endpoints("b", "ONE"))
				p.write(t, "lds.yaml", second) // by which it is seen that the one before was read
				within(t, "the other listener", func() bool { return (p.get(p.ports[1]) != "refused") == strings.Contains(second, "SECOND") })
				if got := p.heard(p.ports[0]); got != want {
					t.Errorf("with a host that is gone: %q, want %q", got, want)
				}
			}
			gone(listeners("FIRST", "SECOND"), "one two")
			verdicts(200, 503, "one")
			two.set(200)
			p.write(t, "b.yaml", bothEndpoints("b"))
			verdicts(200, 200, "one two")
			p.write(t, "cds.yaml", checkedClusters("/ignored", true))
			checking("/ignored", "one two")
			gone(listeners("FIRST"), "one")

			// Another service, of which nothing is known yet.
			two.set(0)
			p.write(t, "cds.yaml", strings.NewReplacer("b-hosts", "c-hosts", "/b.yaml", "/c.yaml").Replace(checkedClusters("/service", false)))
			within(t, "its host is checked", func() bool { return two.count("/service") > 0 })
			time.Sleep(200 * time.Millisecond)
			if got := p.heard(p.ports[0]); got != "one" {
				t.Errorf("while the host of another service is checked: %q", got)
			}
			verdicts(503, 200, "two")
		})
	}
}
