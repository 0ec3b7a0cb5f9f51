package listener

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
)

// guarded is a listener that answers 200 to what an RBAC filter lets pass.
func guarded(disabled bool, permission authz.Permission) *Config {
	c := echoConfig("l")
	prefix := "/"
	c.Chains[0].TCP = nil
	c.Chains[0].HTTP = &hcm.Config{
		Routes: &route.Config{VirtualHosts: []route.VirtualHost{{Name: "all", Domains: []string{"*"},
			Routes: []route.Route{{Match: route.Match{Prefix: &prefix}, Direct: &route.DirectResponse{Status: 200}}}}}},
		Filters: []hcm.HTTPFilter{{Name: "rbac", Disabled: disabled, Config: hcm.RBACFilter{}}},
		RBAC: []authz.HTTPFilter{{Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
			Name: "p", Permissions: []authz.Permission{permission}, Principals: []authz.Principal{{Any: true}}}}}}},
	}
	return c
}

func newHTTPManager(t *testing.T) *Manager {
	clusters := cluster.NewManager(cluster.Options{})
	t.Cleanup(func() { _ = clusters.Close() })
	return newTestManager(t, func(o *Options) {
		o.NewHandler = func(_ *Config, c *FilterChain) (downstream.Handler, error) {
			if c.HTTP == nil {
				return echo{}, nil
			}
			return hcm.New(c.HTTP, hcm.Options{Clusters: clusters})
		}
	})
}

// get asks on a connection that is there; 0 is no answer.
func get(c net.Conn) (status int, last bool) {
	_, _ = io.WriteString(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, true
	}
	return resp.StatusCode, resp.Close
}

// TestRuleEnabledByUpdate: an RBAC filter that an update enables decides over the requests
// of older connections, and where it leaves them none, it ends them.
func TestRuleEnabledByUpdate(t *testing.T) {
	path := "/x"
	onPath, all := authz.Permission{URLPath: &route.StringMatch{Exact: &path}}, authz.Permission{Any: true}
	m := newHTTPManager(t)
	mustApply(t, m, guarded(true, onPath))
	c := dial(t, m, "l")
	for i, step := range []struct {
		cfg  *Config
		want int
	}{{nil, 200}, {guarded(false, onPath), 403}, {guarded(true, all), 200}, {guarded(false, all), 0}} {
		if step.cfg != nil {
			mustApply(t, m, step.cfg)
		}
		if status, _ := get(c); status != step.want {
			t.Fatalf("step %d: %d, want %d", i, status, step.want)
		}
	}
}

// TestRequestsAreNoBytes: where an update has bytes proxied that were requests, those who
// make requests are judged as before until they are finished, which they are to be soon.
func TestRequestsAreNoBytes(t *testing.T) {
	path := "/x"
	m := newHTTPManager(t)
	mustApply(t, m, guarded(false, authz.Permission{URLPath: &route.StringMatch{Exact: &path}}))
	c := dial(t, m, "l")
	if status, last := get(c); status != 403 || last {
		t.Fatal(status, last)
	}
	cfg := echoConfig("l")
	cfg.Chains[0].TCP = &tcp.Config{Cluster: "x"}
	mustApply(t, m, cfg)
	if status, last := get(c); status != 403 || !last {
		t.Errorf("%d, and the last one: %v", status, last)
	}
}
