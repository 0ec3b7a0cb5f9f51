package cluster

import (
	"errors"
	"slices"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// CloseConns closes the upstream connections, idle and in use, that match: a
// withdrawn identity or a lost trust anchor ends them at once, also where their
// host or their cluster has gone, and those of health checks. Those that are being
// made end as soon as they are there. source is the workload a connection was opened for. It returns how many were
// closed.
func (m *Manager) CloseConns(match func(source string, info *stream.Info) bool) int {
	m.dials.withdraw(match)
	n := 0
	for _, h := range m.everyHost() {
		n += h.closeMatching(match)
	}
	for _, c := range append(m.All(), m.tried()...) { // checks end with their cluster
		for _, held := range c.checkConns() {
			if match(held.source, held.Info()) {
				_ = stream.CloseNow(held.Stream)
				n++
			}
		}
	}
	return n
}

// everyHost are the hosts that may have connections.
func (m *Manager) everyHost() []*Host {
	m.mu.Lock() // a cluster that is being removed is in neither place for a moment
	defer m.mu.Unlock()
	var out []*Host
	for _, c := range m.All() {
		out = append(out, c.hosts()...)
	}
	// After the clusters: a host joins these before it leaves its cluster.
	return m.departed.all(out)
}

// departed are the hosts that their clusters no longer have, and that have connections
// still. The zero value is empty.
type departed struct {
	mu    sync.Mutex
	hosts map[*Host]struct{}
}

// keep remembers a host until its last connection ends. The host has gone.
func (d *departed) keep(h *Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.conns.Load() == 0 {
		return
	}
	if d.hosts == nil {
		d.hosts = map[*Host]struct{}{}
	}
	d.hosts[h] = struct{}{}
}

// release forgets a host that has no connection any more.
func (d *departed) release(h *Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.conns.Load() == 0 {
		delete(d.hosts, h)
	}
}

// all appends the hosts to a list.
func (d *departed) all(to []*Host) []*Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.hosts {
		to = append(to, h)
	}
	return to
}

// depart retires a host that its cluster no longer has: it gets no more requests, and
// stays known until those that it serves have ended.
func (h *Host) depart() {
	h.gone.Store(true)
	h.closeIdle()
	h.cluster.m.departed.keep(h)
}

// gained and lost count the host's connections. One that had gone when it gained its
// first is known from then on.
func (h *Host) gained() {
	h.conns.Add(1)
	if h.gone.Load() {
		h.cluster.m.departed.keep(h)
	}
}

func (h *Host) lost() {
	if h.conns.Add(-1) == 0 && h.gone.Load() {
		h.cluster.m.departed.release(h)
	}
}

// withdrawal tells which connections a withdrawal ends.
type withdrawal func(source string, info *stream.Info) bool

// errWithdrawn is why a connection is not used that a withdrawal overtook.
var errWithdrawn = errors.New("its identity or trust was withdrawn while it was made")

// errFailing is why a byte stream is not opened whose host has failed meanwhile.
var errFailing = errors.New("its host was found to fail while it was made")

// covers tells whether one of the withdrawals ends the connection.
func covers(withdrawn []withdrawal, source string, info *stream.Info) bool {
	for _, w := range withdrawn {
		if w(source, info) {
			return true
		}
	}
	return false
}

// closeMatching closes connections in use too; their readers see the end.
func (p *pool) closeMatching(match func(source string, info *stream.Info) bool) int {
	return p.closeThose(func(c *Conn) bool { return match(p.source, c.Info()) })
}

// closeThose closes the connections that match, those in use too.
func (p *pool) closeThose(match func(*Conn) bool) int {
	p.mu.Lock()
	var found []*Conn
	for c := range p.all {
		if match(c) {
			c.condemned.Store(true)
			found = append(found, c)
		}
	}
	idle := slices.Clone(p.idle)
	p.idle = slices.DeleteFunc(p.idle, func(c *Conn) bool { return slices.Contains(found, c) })
	p.mu.Unlock()
	for _, c := range found {
		c.Ours()
		_ = c.end(!slices.Contains(idle, c))
	}
	return len(found)
}

// closeBytes closes the connections that carry byte streams. Those of requests are not used again,
// and serve what is under way, as in Envoy: an answer may be on its way that tells why the host fails.
func (h *Host) closeBytes() {
	h.cuts.Add(1) // first: those that are being made are not among them yet
	for _, p := range h.everyPool() {
		p.closeThose(func(c *Conn) bool { return c.bytes || c.uncounted })
	}
}
