package hcm

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/tokenbucket"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/fault"
	"github.com/hauberk-mesh/hauberk/sidecar/filter/ratelimit"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestUpgradeFilters: a request for a protocol passes the chain of that protocol, whoever allows it;
// one that may not switch, and every other, passes the manager's.
func TestUpgradeFilters(t *testing.T) {
	const upgrade = " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
	for _, tc := range []struct {
		name, send string
		change     func(*bed)
		status     int
		who        string
	}{
		{"allowed by both", "GET /no" + upgrade + "x-may: upgrade\r\n\r\n", func(*bed) {}, 426, "upgrade"},
		{"allowed by the other", "GET /no" + upgrade + "x-may: ask\r\n\r\n", func(*bed) {}, 403, "upgrade"},
		{"no upgrade", "GET /no HTTP/1.1\r\nHost: h\r\nx-may: upgrade\r\n\r\n", func(*bed) {}, 403, "ask"},
		{"no upgrade, allowed", "GET /no HTTP/1.1\r\nHost: h\r\nx-may: ask\r\n\r\n", func(*bed) {}, 426, "ask"},
		{"of another protocol", "GET /no HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: other\r\nx-may: upgrade\r\n\r\n", func(b *bed) {
			b.cfg.Upgrades = append(b.cfg.Upgrades, route.Upgrade{Type: "other"})
		}, 403, "ask"},
		{"not allowed", "GET /no" + upgrade + "x-may: upgrade\r\n\r\n", func(b *bed) { b.cfg.Upgrades[0].Disabled = true }, 403, "ask"},
		{"allowed by the route", "GET /no" + upgrade + "x-may: upgrade\r\n\r\n", func(b *bed) {
			b.cfg.Upgrades[0].Disabled = true
			b.route().Forward.Upgrades = []route.Upgrade{{Type: "websocket"}}
		}, 426, "upgrade"},
		{"the route spares a rule", "GET /no" + upgrade + "x-may: ask\r\n\r\n", func(b *bed) {
			b.route().Filters = []route.FilterOverride{{Name: "upgraded", Disabled: true}}
		}, 426, "upgrade"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, upgradeOrigin(t))
			b.filter("who", addHeader("ask"))
			b.allowing("x-may", "ask")
			b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
			b.cfg.UpgradeFilters = []UpgradeFilters{{Type: "websocket", FilterChain: FilterChain{
				Filters: []HTTPFilter{{Name: "who", Config: addHeader("upgrade")}, {Name: "upgraded", Config: RBACFilter{}}},
				RBAC:    []authz.HTTPFilter{*allowing("x-may", "upgrade")},
			}}}
			tc.change(b)
			b.start()
			c := b.dial()
			c.send(tc.send)
			if resp, _ := c.answer("GET"); resp.StatusCode != tc.status || resp.Header.Get("x-who") != tc.who {
				t.Errorf("%d by %q, want %d by %q", resp.StatusCode, resp.Header.Get("x-who"), tc.status, tc.who)
			}
		})
	}
}

// TestUpgradesThatAreNotDenied: a connection of a peer whom the manager's rules deny is of use
// while those of an upgrade do not, if anybody may ask for it.
func TestUpgradesThatAreNotDenied(t *testing.T) {
	nobody := authz.HTTPFilter{Rules: &authz.Rules{}}
	for _, tc := range []struct {
		name         string
		own, allowed bool
		ofRoute      []route.Upgrade
		want         bool
	}{
		{"its rules deny", true, true, nil, true},
		{"it has none", false, true, nil, false},
		{"nobody may ask", false, false, nil, true},
		{"a route allows it", false, false, []route.Upgrade{{Type: "other"}, {Type: "WebSocket"}}, false},
		{"a route refuses it", false, false, []route.Upgrade{{Type: "websocket", Disabled: true}}, true},
	} {
		b := newBed(t)
		b.rbac(nobody)
		own := UpgradeFilters{Type: "websocket"}
		if tc.own {
			own.Filters, own.RBAC = []HTTPFilter{{Name: "r", Config: RBACFilter{}}}, []authz.HTTPFilter{nobody}
		}
		b.cfg.Upgrades, b.cfg.UpgradeFilters = []route.Upgrade{{Type: "websocket", Disabled: !tc.allowed}}, []UpgradeFilters{own}
		b.route().Forward.Upgrades = tc.ofRoute
		b.start()
		if _, got := b.m.DeniesAll(&authz.Peer{}); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestUpgradeFiltersOfATable: what routes have for a filter has to fit that of an upgrade too.
func TestUpgradeFiltersOfATable(t *testing.T) {
	cfg := &Config{
		Routes:         &route.Config{VirtualHosts: []route.VirtualHost{{Name: "v", Domains: []string{"*"}, Filters: override("f", abort503)}}},
		UpgradeFilters: []UpgradeFilters{{Type: "websocket", FilterChain: FilterChain{Filters: []HTTPFilter{{Name: "f", Config: CORSFilter{}}}}}},
	}
	if err := Check(cfg); err == nil {
		t.Error("a fault for a filter that is another's was accepted")
	}
}

// TestFaultHeadersOfUpgrades: whoever passes no filter for faults says nothing of them to the host,
// also where the filters of others have one.
func TestFaultHeadersOfUpgrades(t *testing.T) {
	byHeader := &fault.Config{Abort: &fault.Abort{FromHeader: true, Share: route.All}}
	for _, own := range []bool{true, false} {
		seen := make(chan bool, 1)
		b := newBed(t, httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header.Get("X-Envoy-Fault-Other") != ""
			w.WriteHeader(426)
		}))
		b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
		u := UpgradeFilters{Type: "websocket"}
		if faults := []HTTPFilter{{Name: "f", Config: byHeader}}; own {
			u.Filters = faults
		} else {
			b.cfg.Filters = append(b.cfg.Filters, faults...)
		}
		b.cfg.UpgradeFilters = []UpgradeFilters{u}
		b.start()
		for _, upgrade := range []bool{true, false} {
			ask := "GET /a HTTP/1.1\r\nHost: h\r\nX-ENVOY-Fault-Other: 1\r\n"
			if upgrade {
				ask += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
			}
			b.dial().do(ask + "\r\n")
			if got := <-seen; got != (own == upgrade) {
				t.Errorf("the upgrade's chain has it: %v; upgrade: %v; the host sees it: %v", own, upgrade, got)
			}
		}
	}
}

// TestUpgradesArePartsOfAPolicy: of what is not a chain an upgrade's policy has all that the whole has.
func TestUpgradesArePartsOfAPolicy(t *testing.T) {
	b := newBed(t)
	b.cfg.ClientCertCases = &ClientCertCases{When: []authz.Condition{{DirectSource: []netip.Prefix{netip.MustParsePrefix("::/0")}}}, Then: make([]ClientCertRule, 1)}
	b.cfg.EarlyMutations = []route.HeaderMutation{{Remove: "x-a"}}
	b.cfg.UpgradeFilters = []UpgradeFilters{{Type: "websocket"}}
	b.start()
	whole := &b.m.policy
	if u := whole.forUpgrade("websocket"); u == whole || u.cfg != whole.cfg || u.certs != whole.certs || u.certs == nil || u.early.None() || u.paths != whole.paths {
		t.Errorf("%+v of %+v", u, whole)
	}
}

// TestLimitsOutliveUpgrades: what is kept for a connection is the whole policy's. A request for an
// upgrade neither begins a limit anew nor forgets it.
func TestLimitsOutliveUpgrades(t *testing.T) {
	b := newBed(t)
	b.cfg.UpgradeFilters = []UpgradeFilters{{Type: "websocket"}}
	b.cfg.ClientCertCases = &ClientCertCases{}
	b.start()
	whole, d := &b.m.policy, &downstream.Conn{}
	d.SetPolicy(b.m.Policy())
	d.Info = &stream.Info{TLS: true, PeerCertHash: "ab"}
	x := &exchange{m: b.m, d: d, policy: whole.forUpgrade("websocket")}
	if !x.policyInForce() {
		t.Error("an upgrade's policy is not in force")
	}
	limit := func(n int) any { return d.Kept(whole, true, "limit", func() any { return n }) }
	limit(1)
	x.clientCertElement(&ClientCertRule{Forward: SanitizeSet, Tell: ClientCert{URI: true}}, false)
	if limit(2) != 1 {
		t.Error("the limit began anew")
	}
}

// TestRouteLimitOfUpgrades: a route's limit is one limit, whichever chain a request passes.
func TestRouteLimitOfUpgrades(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	b.filter("l", &ratelimit.Config{})
	b.cfg.Upgrades = []route.Upgrade{{Type: "websocket"}}
	b.cfg.UpgradeFilters = []UpgradeFilters{{Type: "websocket", FilterChain: FilterChain{Filters: []HTTPFilter{{Name: "l", Config: &ratelimit.Config{}}}}}}
	b.route().Filters = override("l", &ratelimit.Config{
		Bucket: &tokenbucket.Spec{Max: 1, PerFill: 1, Interval: time.Hour}, Enabled: route.All, Enforced: route.All,
	})
	b.start()
	r1, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	r2, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if r1.StatusCode != 200 || r2.StatusCode != 429 {
		t.Errorf("%d and %d with a bucket of one token", r1.StatusCode, r2.StatusCode)
	}
}
