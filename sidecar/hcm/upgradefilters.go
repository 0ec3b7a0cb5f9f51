package hcm

import (
	"fmt"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// UpgradeFilters is the chain of requests that switch to a protocol, "CONNECT" among them.
type UpgradeFilters struct {
	Type string // compared without case
	FilterChain
}

// upgradePolicy is all of a policy but for its chain.
type upgradePolicy struct {
	kind string
	*policy
}

// build makes the chains of a policy.
func (p *policy) build(m *Manager, o Options) (err error) {
	if p.chain, err = m.newChain(&p.cfg.FilterChain, p.paths.normalize, o); err != nil {
		return err
	}
	for i := range p.cfg.UpgradeFilters {
		u := &p.cfg.UpgradeFilters[i]
		c, err := m.newChain(&u.FilterChain, p.paths.normalize, o)
		if err != nil {
			return fmt.Errorf("filters of the upgrade to %q: %w", u.Type, err)
		}
		p.upgrades = append(p.upgrades, upgradePolicy{u.Type, &policy{
			cfg: p.cfg, paths: p.paths, early: p.early, certs: p.certs, chain: c, of: p,
			routes: func() *route.Table { return p.routes() },
		}})
	}
	for _, u := range p.upgrades {
		p.someFaults = p.someFaults || u.chain.faultHeaders != p.chain.faultHeaders
	}
	return nil
}

// dropFaults removes the headers that choose faults where the request's own chain has none.
//
//go:noinline
func (x *exchange) dropFaults() {
	f := &x.req.Fields
	for i := f.Find(message.XEnvoyOther, 0); i >= 0; i = f.Find(message.XEnvoyOther, i+1) {
		name, _, _ := f.At(i)
		if len(name) >= len(faultPrefix) && message.EqualFold(name[:len(faultPrefix)], faultPrefix) {
			f.DelAt(i)
		}
	}
}

// Inherit has the manager's filters go on with what those have counted of the one that it comes in the
// place of, for the same requests. Nobody has asked it for anything yet.
func (m *Manager) Inherit(before downstream.Handler) {
	old, ok := before.(*Manager)
	if !ok {
		return
	}
	m.policy.chain.inherit(old.policy.chain)
	for _, u := range m.policy.upgrades {
		if was := old.policy.forUpgrade(u.kind); was != &old.policy {
			u.chain.inherit(was.chain)
		}
	}
	if m.cfg.Routes != nil && old.cfg.Routes != nil {
		m.policy.routes().Inherit(old.policy.routes())
	}
}

// inherit: a filter has that of the same name before it, and of several those in their order.
func (c *chain) inherit(before *chain) {
	taken := map[int]bool{}
	for i := range c.links {
		l := &c.links[i]
		h, ok := l.filter.(filter.Heir)
		if !ok {
			continue
		}
		for j := range before.links {
			if !taken[j] && before.links[j].name == l.name {
				taken[j] = true
				h.Inherit(before.links[j].filter)
				break
			}
		}
	}
}

// fits tells why what the table has for filters cannot be used.
func (p *policy) fits(t *route.Table) error {
	if err := p.chain.bind(t).err; err != nil {
		return err
	}
	for _, u := range p.upgrades {
		if err := u.chain.bind(t).err; err != nil {
			return err
		}
	}
	return nil
}

// forUpgrade is what decides over a request for a protocol that it may switch to.
func (p *policy) forUpgrade(kind string) *policy {
	for _, u := range p.upgrades {
		if message.EqualNames(u.kind, kind) {
			return u.policy
		}
	}
	return p
}

// whole is the policy that an update replaces.
func (p *policy) whole() *policy {
	if p.of != nil {
		return p.of
	}
	return p
}
