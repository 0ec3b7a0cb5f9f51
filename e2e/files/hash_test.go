//go:build e2e

package files

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

const hashCluster = `resources:
- {TYPE cluster.v3.Cluster, name: a, type: EDS, lb_policy: POLICY, eds_cluster_config: {service_name: a-hosts, eds_config: {path_config_source: {path: DIR/a.yaml}}}}
`

const hashRoutes = `resources: [{TYPE route.v3.RouteConfiguration, name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: a, hash_policy: [{header: {header_name: x-key}}]}}]}]}]`

// weighted are endpoints of "a" by port; "*" and a weight may follow.
func weighted(ports ...string) string {
	out := `resources: [{TYPE endpoint.v3.ClusterLoadAssignment, cluster_name: a-hosts, endpoints: [{lb_endpoints: [`
	for _, p := range ports {
		port, weight, ok := strings.Cut(p, "*")
		if !ok {
			weight = "1"
		}
		out += `{load_balancing_weight: ` + weight + `, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ` + port + `}}}}, `
	}
	return out + `]}]}]`
}

const keys = 80

// placed is which host each key goes to.
func (p *program) placed(t *testing.T) (out [keys]string) {
	c := dial(t, p.ports[0])
	defer c.c.Close()
	for i := range out {
		_, _ = io.WriteString(c.c, "GET / HTTP/1.1\r\nHost: h\r\nX-Key: key-"+strconv.Itoa(i)+"\r\n\r\n")
		r, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = text(r)
	}
	return out
}

// TestHashesBesideEnvoy: each key has the same host at both, whatever came and went before.
func TestHashesBesideEnvoy(t *testing.T) {
	t.Parallel()
	var h [5]string
	for i := range h {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, i) }))
		t.Cleanup(s.Close)
		h[i] = strconv.Itoa(s.Listener.Addr().(*net.TCPAddr).Port)
	}
	sets := []struct {
		name  string
		hosts []string
		shows []string
	}{
		{"five", h[:], []string{"0", "1", "2", "3", "4"}},
		{"one less", []string{h[0], h[1], h[3], h[4]}, []string{"0", "1", "3", "4"}},
		{"it is back, and the order another", []string{h[2], h[4], h[3], h[1], h[0]}, []string{"0", "1", "2", "3", "4"}},
		{"weights", []string{h[0] + "*5", h[1], h[2] + "*2"}, []string{"0", "1", "2"}},
		{"one", []string{h[3]}, []string{"3"}},
		{"two", []string{h[3], h[0]}, []string{"0", "3"}},
	}
	for _, policy := range []string{"MAGLEV", "RING_HASH"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			var both [2]*program
			for i, name := range []string{"hauberk", "envoy"} {
				both[i] = start(t, name, [2]int{}, map[string]string{"lds.yaml": listeners("FIRST"), "rds.yaml": hashRoutes, "a.yaml": weighted(h[0]),
					"cds.yaml": strings.ReplaceAll(hashCluster, "POLICY", policy)})
				within(t, "it answers", func() bool { return both[i].get(both[i].ports[0]) == "200 0" })
			}
			for _, set := range sets {
				var got [2][keys]string
				for i, p := range both {
					p.write(t, "a.yaml", weighted(set.hosts...))
					within(t, p.name+": "+set.name, func() bool { return uses(p.placed(t), set.shows) })
					got[i] = p.placed(t) // as the first keys may have been asked before the change
				}
				for key := range got[0] {
					if got[0][key] != got[1][key] {
						t.Errorf("%s: key %d goes to %s, with Envoy to %s", set.name, key, got[0][key], got[1][key])
					}
				}
			}
		})
	}
}

// uses tells whether keys go to just these hosts.
func uses(placed [keys]string, hosts []string) bool {
	seen := map[string]bool{}
	for _, h := range placed {
		seen[strings.TrimPrefix(h, "200 ")] = true
	}
	for _, h := range hosts {
		if !seen[h] {
			return false
		}
	}
	return len(seen) == len(hosts)
}
