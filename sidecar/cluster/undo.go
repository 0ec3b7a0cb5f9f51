package cluster

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// past is what a change of a cluster can leave half done.
type past struct {
	settings   *settings
	set        *endpointSet
	members    members
	assignment *Assignment
	known      map[string][]netip.Addr
	resolved   *netip.Addr
	checks     map[*Host]uint32 // what the checks of hosts had found
}

// change calls f, which changes what the cluster is told, as one thing: a fault in it is
// an error, and puts back in force what was. What f ended stays so: connections that
// were idle, ejections. c.mu is held.
func (c *Cluster) change(f func()) error {
	was := c.present()
	err := panics.Refuse(panics.Configuration, func() error { f(); return nil })
	if err != nil {
		tried, fresh := c.cfg.Load(), c.order
		c.recall(was, tried)
		if panics.Refuse(panics.Configuration, func() error { c.restore(was, tried, fresh); return nil }) != nil {
			c.recall(was, c.cfg.Load()) // the last good set is served as it is
		}
	}
	return err
}

func (c *Cluster) present() *past {
	// replace makes new members, and leaves the old ones as they are; startDNS does so
	// with known.
	p := &past{
		settings: c.cfg.Load(), set: c.set.Load(), members: c.members,
		assignment: c.assignment, known: maps.Clone(c.known), resolved: c.resolved,
	}
	if len(c.checks) > 0 {
		p.checks = make(map[*Host]uint32, len(c.order))
		for _, h := range c.order {
			p.checks[h] = h.check.state.Load()
		}
	}
	return p
}

// recall has requests see what was in force before other settings were tried. It calls
// nothing that could fail. c.mu is held.
func (c *Cluster) recall(was *past, tried *settings) {
	s := was.settings
	if s.tlsGeneration != tried.tlsGeneration {
		// Connections may have been made with what was tried: no other context may
		// have its number.
		again := *s
		again.tlsGeneration = tried.tlsGeneration + 1
		s = &again
	}
	c.cfg.Store(s)
	c.set.Store(was.set)
	c.members, c.assignment = was.members, was.assignment
	c.known, c.resolved = was.known, was.resolved
}

// restore puts in force what was recalled: the hosts as they were, and what goes on
// beside requests. fresh are the hosts as the change left them. c.mu is held.
func (c *Cluster) restore(was *past, tried *settings, fresh []*Host) {
	for _, h := range fresh {
		if !slices.Contains(was.members.order, h) {
			h.depart()
		}
	}
	c.members, c.ejected = members{}, 0
	for _, h := range was.members.order {
		if h.gone.Load() {
			continue // its connections are ending: another one takes its place
		}
		if h.ejected() {
			c.ejected++
		}
		if state, ok := was.checks[h]; ok {
			h.check.state.Store(state)
		}
		c.join(h)
	}
	if tried == was.settings {
		c.replace(c.assignment) // names are being resolved as before
	} else {
		again := *c.cfg.Load()
		c.turn(&again, false)
	}
}
