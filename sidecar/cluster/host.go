package cluster

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Host is one upstream host of a cluster. It lives as long as the assignment
// names its address, or an exchange uses it.
type Host struct {
	cluster          *Cluster
	key              string
	network, address string
	addr             net.Addr

	ep       atomic.Pointer[Endpoint]
	priority atomic.Int64
	// gone: the assignment no longer names the host.
	gone atomic.Bool

	pools atomic.Pointer[[]*pool] // one for each source identity
	mu    sync.Mutex              // serialises writers of pools

	active                            atomic.Int64
	conns                             atomic.Int64
	requests, success, failed         atomic.Uint64
	connects, connectFailed, timeouts atomic.Uint64
	outlier                           outlierState
}

func newHost(c *Cluster, key string, e *Endpoint) *Host {
	h := &Host{cluster: c, key: key, network: "tcp", address: key}
	if e.Pipe != "" {
		h.network, h.address = "unix", e.Pipe
		h.addr = &net.UnixAddr{Name: e.Pipe, Net: "unix"}
	} else if ip, err := netip.ParseAddr(e.Host); err == nil {
		h.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(e.Port)))
	}
	h.pools.Store(&[]*pool{})
	return h
}

func (h *Host) place(e *Endpoint, priority int) {
	h.ep.Store(e)
	h.priority.Store(int64(priority))
	h.gone.Store(false)
}

// Cluster is the cluster whose limits and counters apply to this host.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Address is host:port, or "unix:" and the path.
func (h *Host) Address() string { return h.key }

// Addr is the address as net has it.
func (h *Host) Addr() net.Addr { return h.addr }

// Endpoint is the configuration. Immutable.
func (h *Host) Endpoint() *Endpoint { return h.ep.Load() }

// Hostname is the name the control plane gave the host, or "".
func (h *Host) Hostname() string { return h.ep.Load().Hostname }

// Health is what the control plane says of the host.
func (h *Host) Health() Health { return h.ep.Load().Health }

// Priority is the host's priority, 0 the first.
func (h *Host) Priority() int { return int(h.priority.Load()) }

// Weight is the load-balancing weight, at least 1.
func (h *Host) Weight() uint32 { return max(1, h.ep.Load().Weight) }

// usable tells whether a connection may be pooled for more requests.
func (h *Host) usable() bool {
	if h.gone.Load() {
		return false
	}
	health := h.Health()
	return health == Healthy || health == Degraded
}

// Begin and End bracket an exchange for least-request balancing and /clusters.
func (h *Host) Begin() { h.active.Add(1) }

// End ends an exchange that Begin began.
func (h *Host) End() { h.active.Add(-1) }

// HostStats is a copy of a host's state, for people.
type HostStats struct {
	Address, Hostname                 string
	Health                            Health
	Ejected                           bool
	Priority                          int
	Weight                            uint32
	Active, Connections, Idle         int64
	Requests, Success, Failed         uint64
	Connects, ConnectFailed, Timeouts uint64
	ConsecutiveFailures               int
	Region, Zone, SubZone             string
}

// Stats returns the state of every host, in the order of the assignment.
func (c *Cluster) Stats() []HostStats {
	var out []HostStats
	for _, h := range c.hosts() {
		s := HostStats{
			Address: h.key, Hostname: h.Hostname(), Health: h.Health(), Ejected: h.ejected(),
			Priority: h.Priority(), Weight: h.Weight(), Active: h.active.Load(), Connections: h.conns.Load(),
			Requests: h.requests.Load(), Success: h.success.Load(), Failed: h.failed.Load(),
			Connects: h.connects.Load(), ConnectFailed: h.connectFailed.Load(), Timeouts: h.timeouts.Load(),
			ConsecutiveFailures: int(h.outlier.failures5xx.Load()),
		}
		for _, p := range *h.pools.Load() {
			s.Idle += int64(p.idleCount())
		}
		out = append(out, s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assignment != nil {
		at := map[string]*Locality{}
		for i := range c.assignment.Localities {
			l := &c.assignment.Localities[i]
			for j := range l.Endpoints {
				if key := l.Endpoints[j].key(); at[key] == nil {
					at[key] = l
				}
			}
		}
		for i := range out {
			if l := at[out[i].Address]; l != nil {
				out[i].Region, out[i].Zone, out[i].SubZone = l.Region, l.Zone, l.SubZone
			}
		}
	}
	return out
}

// pool returns the pool of a source identity.
func (h *Host) pool(source string) *pool {
	for _, p := range *h.pools.Load() {
		if p.source == source {
			return p
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	pools := *h.pools.Load()
	for _, p := range pools {
		if p.source == source {
			return p
		}
	}
	p := &pool{host: h, source: source, all: map[*Conn]struct{}{}}
	next := append(slices.Clone(pools), p)
	h.pools.Store(&next)
	return p
}

func (h *Host) closeIdle() {
	for _, p := range *h.pools.Load() {
		p.closeIdle()
	}
}

func (h *Host) sweepIdle(now, limit int64) {
	for _, p := range *h.pools.Load() {
		p.sweep(now, limit)
	}
}

func (h *Host) closeMatching(match func(source string, info *stream.Info) bool) int {
	n := 0
	for _, p := range *h.pools.Load() {
		n += p.closeMatching(match)
	}
	return n
}
