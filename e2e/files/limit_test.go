//go:build e2e

package files

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const limitedListener = `resources:
- {TYPE listener.v3.Listener, name: tcp, address: {socket_address: {address: 127.0.0.1, port_value: FIRST}}, filter_chains: [{filters: [
    {name: limit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: few, max_connections: MOST}},
    {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: CLUSTER}}]}]}
`

// statistic is a number that the admin interface of either tells, 0 for one that it does not.
func (p *program) statistic(t *testing.T, name string) float64 {
	t.Helper()
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.dir, "admin.sock"))
	}}}
	r, err := c.Get("http://localhost/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimPrefix(rest, ":")), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// TestConnectionLimitBesideEnvoy: how many connections there may be, and what is counted of
// those that are refused. After a change of the limit Envoy has places for as many again as it
// says; here those that are taken stay so.
func TestConnectionLimitBesideEnvoy(t *testing.T) {
	t.Parallel()
	var origins [2]int
	for i, name := range []string{"one", "two"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(s.Close)
		origins[i] = s.Listener.Addr().(*net.TCPAddr).Port
	}
	limited := func(most, cluster string) string {
		return strings.NewReplacer("MOST", most, "CLUSTER", cluster).Replace(limitedListener)
	}
	for _, who := range []struct{ name, counted, further string }{
		{"hauberk", `hauberk_connections_refused_total{listener="tcp",reason="connection_limit"}`, "refused"},
		{"envoy", "connection_limit.few.limited_connections", "200 two"},
	} {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, who.name, origins, map[string]string{"lds.yaml": limited("2", "a"), "cds.yaml": clusters("a", "b"),
				"a.yaml": endpoints("a", "ONE"), "b.yaml": endpoints("b", "TWO")})
			hold := func(want string) (c *client) {
				t.Helper()
				within(t, "it has room", func() bool { c = dial(t, p.ports[0]); return text(c.ask("/")) == want })
				return c
			}
			within(t, "it answers", func() bool { return p.get(p.ports[0]) == "200 one" })
			first, second := hold("200 one"), hold("200 one")
			within(t, "its admin interface is there", func() bool { _, err := os.Stat(filepath.Join(p.dir, "admin.sock")); return err == nil })
			before := p.statistic(t, who.counted)
			for range 3 {
				if got := p.get(p.ports[0]); got != "refused" {
					t.Errorf("a third: %s", got)
				}
			}
			if got := p.statistic(t, who.counted) - before; got != 3 {
				t.Errorf("%v of three refused are counted", got)
			}
			p.write(t, "lds.yaml", limited("3", "b"))
			third := hold("200 two")
			if got := p.get(p.ports[0]); got != who.further {
				t.Errorf("a fourth: %s, want %s", got, who.further)
			}
			if a, b := text(first.ask("/")), text(second.ask("/")); a != "200 one" || b != "200 one" {
				t.Errorf("those before the change: %s, %s", a, b)
			}
			for _, c := range []*client{first, second, third} {
				_ = c.c.Close()
			}
			within(t, "there is room again", func() bool { return p.get(p.ports[0]) == "200 two" })
		})
	}
}
