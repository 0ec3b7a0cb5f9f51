package hcm

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

const askWebSocket = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"

// websocketDenied has a chain of the upgrade deny everybody.
func websocketDenied(cfg *Config) {
	cfg.UpgradeFilters = []UpgradeFilters{{Type: "WebSocket", FilterChain: FilterChain{
		Filters: []HTTPFilter{{Name: "r", Config: RBACFilter{}}}, RBAC: []authz.HTTPFilter{{Rules: &authz.Rules{}}}}}}
}

// TestOpenTunnelsAreFound: an update judges a tunnel that is open by the chain which a request for
// it would pass now, whatever the manager's own says.
func TestOpenTunnelsAreFound(t *testing.T) {
	b := newBed(t, upgradeOrigin(t))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.start()
	c := b.dial()
	c.send(askWebSocket)
	if resp, err := http.ReadResponse(c.r, &http.Request{Method: "GET"}); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	b.mu.Lock()
	d := b.conns[0]
	b.mu.Unlock()
	if got := b.m.Tunnels(d); !slices.Equal(got, []string{"websocket"}) {
		t.Errorf("%q", got)
	}
	cfg := *b.cfg
	cfg.AccessLog = nil
	websocketDenied(&cfg)
	now, err := New(&cfg, Options{Clusters: b.clusters})
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	for kind, want := range map[string]bool{"websocket": true, "CONNECT": false} {
		if _, denied := now.DeniesTunnel(kind, &authz.Peer{}); denied != want {
			t.Errorf("%s is denied: %v", kind, denied)
		}
	}
	_ = c.Close()
	b.logged(1)
	b.eventually("a tunnel that is over is forgotten", func() bool { return len(b.m.Tunnels(d)) == 0 })
}

// TestTunnelOfBefore: a tunnel that opens after an update which denies it does not go on: the update
// did not find it.
func TestTunnelOfBefore(t *testing.T) {
	asked, answer := make(chan bool), make(chan bool)
	b := newBed(t, rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		close(asked)
		<-answer
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	}))
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.start()
	c := b.dial()
	c.send(askWebSocket)
	<-asked
	b.updated(websocketDenied)
	close(answer)
	if got, _ := io.ReadAll(c.r); strings.Contains(string(got), "101") {
		t.Errorf("%q", got)
	}
}
