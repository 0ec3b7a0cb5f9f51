package hcm

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRefusedBeforeTheTunnel: whatever a request for a tunnel is refused for, also before it is known
// whether it might have one, what its client sent behind it is not read as a request: another's bytes,
// which it was to carry, would ask in its name (RFC 9110 7.8).
func TestRefusedBeforeTheTunnel(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		head   string
		status int
	}{
		{"path to be normalised", func(c *Config) { c.EscapedSlashes = UnescapeAndRedirect }, "GET /a%2Fb HTTP/1.1\r\nHost: h\r\n", 307},
		{"path that is refused", func(c *Config) { c.EscapedSlashes, c.KeepAfterBadRequest = RejectEscaped, true }, "GET /a%2Fb HTTP/1.1\r\nHost: h\r\n", 400},
		{"query of no kind", func(c *Config) { c.KeepAfterBadRequest = true }, "QUERY / HTTP/1.1\r\nHost: h\r\n", 400},
		{"client of no address", func(c *Config) { c.Detections = []Detection{{Header: "x-client", Reject: 403}} }, "GET / HTTP/1.1\r\nHost: h\r\n", 403},
	} {
		for kind, upgrade := range map[string]string{"upgrade": "Connection: Upgrade\r\nUpgrade: websocket\r\n", "none": ""} {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				b := newBed(t)
				b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
				c.change(b.cfg)
				b.start()
				client := b.dial()
				client.send(c.head + upgrade + "\r\n" + simpleGet)
				if resp, _ := client.answer("GET"); resp.StatusCode != c.status || resp.Close != (upgrade != "") {
					t.Fatalf("%d, the last: %v", resp.StatusCode, resp.Close)
				}
				if upgrade != "" {
					client.closed()
				} else if resp, _ := client.answer("GET"); resp == nil {
					t.Error("another request has no answer")
				}
			})
		}
	}
	t.Run("CONNECT of a client of no address", func(t *testing.T) {
		b := newBed(t)
		b.cfg.Detections = []Detection{{Header: "x-client", Reject: 403}}
		b.start()
		client := b.dial()
		client.send("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n" + simpleGet)
		if resp, _ := client.answer("CONNECT"); resp.StatusCode != 403 || !resp.Close {
			t.Fatalf("%d, the last: %v", resp.StatusCode, resp.Close)
		}
		client.closed()
	})
}

// TestUpgradeToTheMethod: the filters of CONNECT are not for who asks, with another method, for a protocol
// of that name: where they are fewer, it would reach a host with none asked.
func TestUpgradeToTheMethod(t *testing.T) {
	for _, c := range []struct {
		name     string
		ofRoute  []route.Upgrade
		protocol string
	}{{"of the manager", nil, "CONNECT"}, {"in other letters", nil, "connect"}, {"of the route", []route.Upgrade{{Type: "CONNECT"}}, "Connect"}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, echo))
			b.rbac(authz.HTTPFilter{Rules: &authz.Rules{}})
			if b.cfg.Upgrades = nil; c.ofRoute == nil {
				b.cfg.Upgrades = []route.Upgrade{{Type: "CONNECT"}}
			}
			b.cfg.UpgradeFilters = []UpgradeFilters{{Type: "CONNECT"}}
			b.route().Forward.Upgrades = c.ofRoute
			b.cfg.HTTP2 = http2.Default()
			b.cfg.HTTP2.AllowConnect = true
			b.start()
			client := b.dial()
			if resp, _ := client.do("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: " + c.protocol + "\r\n\r\n"); resp.StatusCode != 403 || !resp.Close {
				t.Errorf("%d, the last: %v", resp.StatusCode, resp.Close)
			}
			cc := b.http2Client()
			if err := cc.AwaitSettings(t.Context()); err != nil {
				t.Fatal(err)
			}
			s, err := cc.Open(&message.Request{Method: "GET", Scheme: "http", Authority: "h", Path: "/", Upgrade: c.protocol}, true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_ = s.Flush()
			var resp message.Response
			if _, err := s.ReadHead(&resp); err != nil || resp.Status != 403 {
				t.Errorf("HTTP/2: %d %v", resp.Status, err)
			}
		})
	}
}
