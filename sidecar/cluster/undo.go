package cluster

import (
	"fmt"
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
	resolved   []netip.Addr
	hosts      []pastHost
}

// pastHost is what an assignment says of a host, and what its checks had found.
type pastHost struct {
	h        *Host
	ep       *Endpoint
	priority int64
	locality *Locality
	removed  bool
	check    uint32
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
		if panics.Refuse(panics.Configuration, func() error { c.restore(was, fresh); return nil }) != nil {
			c.recall(was, c.cfg.Load()) // the last good set is served as it is
		}
	}
	return err
}

func (c *Cluster) present() *past {
	// prepare makes new members, and leaves the old ones as they are; startDNS does so
	// with known.
	p := &past{
		settings: c.cfg.Load(), set: c.set.Load(), members: c.members,
		assignment: c.assignment, known: maps.Clone(c.known), resolved: c.resolved,
	}
	p.hosts = make([]pastHost, len(c.order))
	for i, h := range c.order {
		p.hosts[i] = pastHost{h, h.ep.Load(), h.priority.Load(), h.locality, h.check.removed, h.check.state.Load()}
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
	if was.set.own != nil {
		c.m.regardOwn(was.set.own)
	}
	c.members, c.assignment = was.members, was.assignment
	c.known, c.resolved = was.known, was.resolved
	for _, p := range was.hosts {
		p.h.describe(p.ep)
		p.h.priority.Store(p.priority)
		p.h.locality, p.h.check.removed = p.locality, p.removed
		p.h.check.state.Store(p.check)
	}
}

// restore puts in force what was recalled: the hosts as they were, and what goes on
// beside requests. fresh are the hosts as the change left them. c.mu is held.
func (c *Cluster) restore(was *past, fresh []*Host) {
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
		c.join(h)
	}
	again := *c.cfg.Load()
	c.turn(&again, was.assignment)
}

// setTogether gives clusters the same endpoints, or none of them. A host that has departed
// cannot come back as it was: so all sets are made, which may fault, before one is in force.
// All stay locked meanwhile: a check or an ejection would make what is planned outdated.
func setTogether(clusters []*Cluster, a *Assignment) error {
	were, plans := make([]*past, len(clusters)), make([]*plan, len(clusters))
	for i, c := range clusters {
		c.mu.Lock()
		defer c.mu.Unlock()
		were[i] = c.present()
		err := panics.Refuse(panics.Configuration, func() error { plans[i] = c.prepare(a, c.cfg.Load()); return nil })
		if err != nil {
			for j, was := range were[:i+1] {
				clusters[j].recall(was, was.settings)
			}
			return fmt.Errorf("for cluster %s: %w", c.name, err)
		}
	}
	for i, c := range clusters {
		panics.Guard(panics.Configuration, func() { c.adopt(plans[i]) }) // too late to refuse them
	}
	return nil
}
