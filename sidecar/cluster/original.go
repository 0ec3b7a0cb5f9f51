package cluster

import (
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Redirected is where a client wanted to go, where a firewall brought it to the listener, or a proxy that says
// so in a PROXY header; otherwise invalid: it wanted the listener, whose address info has.
func Redirected(destination netip.AddrPort, info *stream.Info) netip.AddrPort {
	plain := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
	if local, ok := info.Local.(*net.TCPAddr); ok && plain(local.AddrPort()) == plain(destination) {
		return netip.AddrPort{}
	}
	return destination
}

const (
	destinationShards = 64
	// maxDestinations bounds what clients can make a cluster remember.
	maxDestinations = 1 << 16
)

// destinations are the hosts of an OriginalDestination cluster: one for each
// address that a client meant to connect to, made at the first and forgotten when
// nothing uses it. Reads take no lock.
type destinations struct {
	c    *Cluster
	seed maphash.Seed
	// shards are made with the first host: other types of cluster have none.
	shards atomic.Pointer[destinationTable]

	mu     sync.Mutex // serialises writers
	count  int
	closed bool
	swept  int64 // of the manager's goroutine alone
}

type destinationTable [destinationShards]atomic.Pointer[map[netip.AddrPort]*Host]

func newDestinations(c *Cluster) *destinations {
	return &destinations{c: c, seed: maphash.MakeSeed()}
}

// find is the host of an address, nil when there is none yet.
func (d *destinations) find(a netip.AddrPort) *Host {
	t := d.shards.Load()
	if t == nil {
		return nil
	}
	if hosts := t[d.shard(a)].Load(); hosts != nil {
		return (*hosts)[a]
	}
	return nil
}

func (d *destinations) shard(a netip.AddrPort) uint64 {
	return maphash.Comparable(d.seed, a) % destinationShards
}

// each calls fn with the shards that have hosts, and replaces what it returns,
// unless that is nil.
func (d *destinations) each(fn func(map[netip.AddrPort]*Host) map[netip.AddrPort]*Host) {
	t := d.shards.Load()
	if t == nil {
		return
	}
	for i := range t {
		if hosts := t[i].Load(); hosts != nil {
			if next := fn(*hosts); next != nil {
				t[i].Store(&next)
			}
		}
	}
}

// some calls fn with hosts, from any shard on, while it wants more.
func (d *destinations) some(fn func(*Host) bool) {
	t := d.shards.Load()
	if t == nil {
		return
	}
	first := rand.IntN(destinationShards)
	for i := range t {
		hosts := t[(first+i)%destinationShards].Load()
		if hosts == nil {
			continue
		}
		for _, h := range *hosts {
			if !fn(h) {
				return
			}
		}
	}
}

// DestinationHeaders are the headers, in lower case, by which clusters let a client choose the
// host, also those that are gone: requests to them may be under way. Nil for none.
func (m *Manager) DestinationHeaders() map[string]bool {
	if p := m.destinationHeaders.Load(); p != nil {
		return *p
	}
	return nil
}

// looksAt notes such a header. The manager's lock is held.
func (m *Manager) looksAt(header string) {
	old := m.DestinationHeaders()
	if old[header] {
		return
	}
	next := map[string]bool{header: true}
	maps.Copy(next, old)
	m.destinationHeaders.Store(&next)
}

var plainOriginalDst OriginalDst

// originalDst are the terms of an OriginalDestination cluster.
func (c *Config) originalDst() *OriginalDst {
	if c.OriginalDst == nil {
		return &plainOriginalDst
	}
	return c.OriginalDst
}

// pick is the host where the client wanted to go; nil where nobody knows.
func (d *destinations) pick(s *settings, pc *PickContext) *Host {
	if pc == nil {
		return nil
	}
	to := pc.Destination
	terms := s.originalDst()
	if name := terms.Header; name != "" && pc.Request != nil {
		// Only the first value counts, as in Envoy.
		if v, ok := pc.Request.HeaderValue(name, 0); ok {
			if a, err := netip.ParseAddrPort(v); err == nil {
				to = a
			} else {
				s.picks.invalidDestination.Inc(0)
			}
		}
	}
	if !to.IsValid() {
		return nil
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if terms.Port != 0 {
		to = netip.AddrPortFrom(to.Addr(), terms.Port)
	}
	if to.Port() == 0 {
		return nil
	}
	h := d.find(to)
	if h == nil {
		return d.add(to)
	}
	if !h.used.Load() {
		h.used.Store(true)
	}
	return h
}

func (d *destinations) add(to netip.AddrPort) *Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.c.cfg.Load() // now, as hosts of the one before may have been dropped since the choice began
	if h := d.find(to); h != nil {
		h.used.Store(true)
		return h
	}
	if d.closed || d.count >= maxDestinations {
		return nil
	}
	e := &Endpoint{Host: to.Addr().String(), Port: int(to.Port()), Hostname: d.c.name + to.String()}
	h := newHost(d.c, e.key(), e, s)
	h.place(e, 0)
	h.used.Store(true)
	if s.Type != OriginalDestination {
		h.gone.Store(true) // as all have, or else nobody would drop it, nor find its connections
		return h
	}
	t := d.shards.Load()
	if t == nil {
		t = &destinationTable{}
		d.shards.Store(t)
	}
	next := map[netip.AddrPort]*Host{to: h}
	if old := t[d.shard(to)].Load(); old != nil {
		maps.Copy(next, *old)
	}
	t[d.shard(to)].Store(&next)
	d.count++
	d.counted()
	return h
}

// counted has the cluster's endpoints counted, which nobody knows to be anything but healthy.
// d.mu is held.
func (d *destinations) counted() {
	if m := d.c.metrics; m != nil {
		m.SetEndpoints(d.count, 0, 0, 0, 0)
	}
}

// size is how many hosts there are.
func (d *destinations) size() (n int) {
	if t := d.shards.Load(); t != nil {
		for i := range t {
			if hosts := t[i].Load(); hosts != nil {
				n += len(*hosts)
			}
		}
	}
	return n
}

// all are the hosts, by address: which is for people, and takes long where there are many.
func (d *destinations) all() []*Host {
	var out []*Host
	d.each(func(hosts map[netip.AddrPort]*Host) map[netip.AddrPort]*Host {
		out = slices.AppendSeq(out, maps.Values(hosts))
		return nil
	})
	slices.SortFunc(out, func(a, b *Host) int { return strings.Compare(a.key, b.key) })
	return out
}

// forgetUnused drops the hosts that were not chosen since the last time and have
// no connection, once an interval.
func (d *destinations) forgetUnused(now int64, interval time.Duration) {
	if interval <= 0 {
		interval = 5 * time.Second
	}
	if now-d.swept < int64(interval) {
		return
	}
	d.swept = now
	d.drop(func(h *Host) bool {
		return !h.used.Swap(false) && h.conns.Load() == 0 && h.active.Load() == 0
	})
}

// close forgets all hosts; none is made any more.
func (d *destinations) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.drop(func(*Host) bool { return true })
}

func (d *destinations) drop(which func(*Host) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each(func(old map[netip.AddrPort]*Host) (next map[netip.AddrPort]*Host) {
		for a, h := range old {
			if !which(h) {
				continue
			}
			if next == nil {
				next = maps.Clone(old)
			}
			delete(next, a)
			d.count--
			h.depart()
		}
		return next
	})
	d.counted()
}
