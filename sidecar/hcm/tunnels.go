package hcm

import (
	"slices"
	"strings"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// tunnels are those that clients have open. No further request of theirs is judged: an update of
// the listener has to find them.
type tunnels struct {
	mu   sync.Mutex
	open map[*downstream.Conn]map[*exchange]string // what each was switched to
}

func (t *tunnels) add(x *exchange, kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*downstream.Conn]map[*exchange]string{}
	}
	if t.open[x.d] == nil {
		t.open[x.d] = map[*exchange]string{}
	}
	t.open[x.d][x] = kind
}

func (t *tunnels) remove(x *exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.open[x.d], x); len(t.open[x.d]) == 0 {
		delete(t.open, x.d)
	}
}

// Tunnels are what requests of a connection that the manager serves were switched to.
func (m *Manager) Tunnels(d *downstream.Conn) (kinds []string) {
	m.tunnels.mu.Lock()
	defer m.tunnels.mu.Unlock()
	for _, kind := range m.tunnels.open[d] {
		kinds = append(kinds, kind)
	}
	return kinds
}

// DeniesTunnel tells whether a peer's every request for a protocol would be denied, as DeniesAll
// does: what such a request led to must not go on.
func (m *Manager) DeniesTunnel(kind string, p *authz.Peer) (rule string, denied bool) {
	return m.policy.forUpgrade(kind).deniesAll(p)
}

// upgradeKind is what the request is to be switched to.
func (x *exchange) upgradeKind() string {
	if x.req.Upgrade == "" {
		return "CONNECT"
	}
	return x.req.Upgrade
}

// openTunnel has updates find the tunnel. One that came since the request was admitted did not,
// and judges it here; false says that the connection was ended.
func (x *exchange) openTunnel() bool {
	kind := strings.Clone(x.upgradeKind())
	x.m.tunnels.add(x, kind)
	if x.policyInForce() {
		return true
	}
	now := x.d.Policy().Held.(*policy).forUpgrade(kind)
	rule, denied := now.deniesAll(&x.d.Peer)
	if denied {
		x.d.End(downstream.Ending{Flags: telemetry.FlagPolicyClosed, Reason: "denied", Rule: rule})
	}
	return !denied
}

// upgradesOf are the protocols that some route allows.
func upgradesOf(c *route.Config) (kinds []string) {
	for i := range c.VirtualHosts {
		for j := range c.VirtualHosts[i].Routes {
			f := c.VirtualHosts[i].Routes[j].Forward
			if f == nil {
				continue
			}
			for _, u := range f.Upgrades {
				if !u.Disabled && !names(kinds, u.Type) {
					kinds = append(kinds, u.Type)
				}
			}
		}
	}
	return kinds
}

// names compares protocols without case.
func names(kinds []string, kind string) bool {
	return slices.ContainsFunc(kinds, func(k string) bool { return message.EqualNames(k, kind) })
}
