package listener

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
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
		FilterChain: hcm.FilterChain{
			Filters: []hcm.HTTPFilter{{Name: "rbac", Disabled: disabled, Config: hcm.RBACFilter{}}},
			RBAC: []authz.HTTPFilter{{Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
				Name: "p", Permissions: []authz.Permission{permission}, Principals: []authz.Principal{{Any: true}}}}}}},
		},
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

// TestNewDenyOfRequests: a peer that may not ask for anything any more loses its
// connection, and with it the streams there. One that may still ask for something keeps
// it: on some path, on a route with rules of its own or for a client that it names; and so
// does one that was never allowed to: it is told so.
func TestNewDenyOfRequests(t *testing.T) {
	path := "/x"
	onPath, all := authz.Permission{URLPath: &route.StringMatch{Exact: &path}}, authz.Permission{Any: true}
	clients := netip.MustParsePrefix("203.0.113.0/24")
	others := authz.Principal{Not: &authz.Principal{Source: &clients}}
	nobody := &authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}}
	with := func(p authz.Permission, change func(*hcm.Config)) *Config {
		c := guarded(false, p)
		if change != nil {
			change(c.Chains[0].HTTP)
		}
		return c
	}
	elsewhere := func(o route.FilterOverride) func(*hcm.Config) {
		return func(h *hcm.Config) {
			other := h.Routes.VirtualHosts[0]
			other.Name, other.Domains, other.Filters = "other", []string{"other"}, []route.FilterOverride{o}
			h.Routes.VirtualHosts = append(h.Routes.VirtualHosts, other)
		}
	}
	for _, step := range []struct {
		name string
		cfg  *Config
		want int // 0 for an end
	}{
		{"denied on a path", with(onPath, nil), 403},
		{"denied on all", with(all, nil), 0},
		{"but where a route has no rules", with(all, elsewhere(route.FilterOverride{Name: "rbac", Disabled: true})), 403},
		{"but where a route has others", with(all, elsewhere(route.FilterOverride{Name: "rbac", Config: &authz.HTTPFilter{}})), 403},
		{"also where a route has others", with(all, elsewhere(route.FilterOverride{Name: "rbac", Config: nobody})), 0},
		{"where another filter is meant", with(all, elsewhere(route.FilterOverride{Name: "else", Disabled: true})), 0},
		{"but for clients behind the peer", with(all, func(h *hcm.Config) {
			h.RBAC[0].Rules.Policies[0].Principals = []authz.Principal{others}
		}), 403},
		{"also for clients behind a peer that is not trusted", with(all, func(h *hcm.Config) {
			h.RBAC[0].Rules.Policies[0].Principals, h.UseRemoteAddress = []authz.Principal{others}, true
		}), 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			m := newHTTPManager(t)
			before := guarded(true, all)
			before.Chains[0].HTTP.UseRemoteAddress = step.cfg.Chains[0].HTTP.UseRemoteAddress
			mustApply(t, m, before)
			c := dial(t, m, "l")
			if status, _ := get(c); status != 200 {
				t.Fatal(status)
			}
			mustApply(t, m, step.cfg)
			if status, _ := get(c); status != step.want {
				t.Errorf("%d, want %d", status, step.want)
			}
			if step.want != 0 {
				return
			}
			c = dial(t, m, "l")
			if status, _ := get(c); status != 403 {
				t.Errorf("a new connection gets %d", status)
			}
			mustApply(t, m, step.cfg)
			if status, _ := get(c); status != 403 {
				t.Errorf("a connection that nothing changed for gets %d", status)
			}
		})
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

// TestNoRuleIsForgotten: a rule that came by an update goes on to judge a connection whose
// requests no chain takes any more, through every further update.
func TestNoRuleIsForgotten(t *testing.T) {
	path := "/x"
	onPath := authz.Permission{URLPath: &route.StringMatch{Exact: &path}}
	m := newHTTPManager(t)
	mustApply(t, m, guarded(true, onPath))
	c := dial(t, m, "l")
	if status, _ := get(c); status != 200 {
		t.Fatal(status)
	}
	mustApply(t, m, guarded(false, onPath))
	for _, cluster := range []string{"x", "y"} {
		cfg := echoConfig("l")
		cfg.Chains[0].TCP = &tcp.Config{Cluster: cluster}
		mustApply(t, m, cfg)
	}
	if status, last := get(c); status != 403 || !last {
		t.Errorf("%d, and the last one: %v", status, last)
	}
}

// lingering serves a connection past its end, until it is released.
type lingering struct {
	echo
	release chan struct{}
}

func (h lingering) ServeStream(ctx context.Context, c *downstream.Conn) {
	h.echo.ServeStream(ctx, c)
	<-h.release
}

// TestClosedOnce: a connection that a policy has closed and whose handler has not returned
// yet is not closed anew, nor counted, by each further update and withdrawal.
func TestClosedOnce(t *testing.T) {
	h := lingering{release: make(chan struct{})}
	m := newTestManager(t, func(o *Options) {
		o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) { return h, nil }
	})
	defer close(h.release)
	mustApply(t, m, echoConfig("l"))
	if err := roundTrip(dial(t, m, "l")); err != nil {
		t.Fatal(err)
	}
	mustApply(t, m, echoConfig("l", denyAll()))
	mustApply(t, m, echoConfig("l", denyAll()))
	if n := m.Recheck(); n != 0 {
		t.Errorf("%d closed again", n)
	}
	if n := m.CloseConns(func(string, *stream.Info) bool { return true }, "withdrawn"); n != 0 {
		t.Errorf("%d closed again by a withdrawal", n)
	}
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WriteUsed(&text); err != nil {
		t.Fatal(err)
	}
	found := ""
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, "hauberk_connections_closed_total{") {
			found += line
		}
	}
	if strings.Count(found, "\n") != 1 || !strings.HasSuffix(found, "} 1\n") {
		t.Errorf("counted:\n%s", found)
	}
}

var _ judge = (*hcm.Manager)(nil)

// tunnelling is a handler whose connections carry a tunnel.
type tunnelling struct {
	echo
	denies bool
}

func (tunnelling) DeniesAll(*authz.Peer) (string, bool) { return "", false }
func (tunnelling) Tunnels(*downstream.Conn) []string    { return []string{"other", "websocket"} }
func (h tunnelling) DeniesTunnel(kind string, _ *authz.Peer) (string, bool) {
	return "nobody", h.denies && kind == "websocket"
}

// TestTunnelThatIsDenied: a connection ends whose tunnel a request would not get after an update,
// though the peer may ask for other things.
func TestTunnelThatIsDenied(t *testing.T) {
	denies := false
	m := newTestManager(t, func(o *Options) {
		o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) { return tunnelling{denies: denies}, nil }
	})
	cfg := func(cluster string) *Config {
		c := echoConfig("l")
		c.Chains[0].TCP = &tcp.Config{Cluster: cluster}
		return c
	}
	mustApply(t, m, cfg("x"))
	c := dial(t, m, "l")
	for i, want := range []bool{true, true, false} {
		if err := roundTrip(c); (err == nil) != want {
			t.Fatalf("after %d updates: %v", i, err)
		}
		denies = i == 1
		mustApply(t, m, cfg(strings.Repeat("y", i+1)))
	}
}

// TestNewDenyUnderOtherTrust: whether a peer may name its clients is for the update to say, by which
// its further requests are judged, and not for what was in force when it connected.
func TestNewDenyUnderOtherTrust(t *testing.T) {
	all, clients := authz.Permission{Any: true}, netip.MustParsePrefix("203.0.113.0/24")
	for _, trusted := range []bool{true, false} {
		m := newHTTPManager(t)
		before, after := guarded(true, all), guarded(false, all)
		before.Chains[0].HTTP.UseRemoteAddress, after.Chains[0].HTTP.UseRemoteAddress = trusted, !trusted
		after.Chains[0].HTTP.RBAC[0].Rules.Policies[0].Principals = []authz.Principal{{Not: &authz.Principal{Source: &clients}}}
		mustApply(t, m, before)
		c := dial(t, m, "l")
		if status, _ := get(c); status != 200 {
			t.Fatal(status)
		}
		mustApply(t, m, after)
		_, _ = io.WriteString(c, "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if (err == nil) != trusted || trusted && resp.StatusCode != 200 {
			t.Errorf("trusted %v: %v, %v", trusted, resp, err)
		}
	}
}
