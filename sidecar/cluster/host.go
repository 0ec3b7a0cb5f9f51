package cluster

import (
	"log/slog"
	"math"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Host is one upstream host of a cluster. It lives as long as the assignment
// names its address, or an exchange uses it.
type Host struct {
	cluster *Cluster
	key     string
	// socket is the transport socket that the host's metadata chose, nil for the
	// cluster's own.
	socket *SocketMatch
	target atomic.Pointer[target]
	// others are the further addresses of a LogicalDNS cluster's name, where connections are
	// made that cannot be made to the target.
	others atomic.Pointer[[]string]

	ep       atomic.Pointer[Endpoint]
	added    atomic.Pointer[addedTo] // nil where nothing was asked
	priority atomic.Int64
	locality *Locality // of the assignment, under the cluster's lock
	// retired: its connections were ended because it is down.
	// Under the cluster's lock.
	retired bool
	// gone: the assignment no longer names the host.
	gone atomic.Bool
	// terms are the generation of TLS contexts that the host was last a member under; 0 for
	// one of no assignment.
	terms atomic.Uint64
	// used since the last look, for hosts that live as long as they are.
	used atomic.Bool
	// nth says how often the cluster names the address before: it may have several hosts there.
	nth uint32
	// cuts counts how often byte streams were ended as the host failed.
	cuts atomic.Uint32

	pools      atomic.Pointer[[]*pool] // one for each source identity
	mu         sync.Mutex              // serialises writers of pools
	particular *particulars            // and those for some requests only, under mu

	active                            atomic.Int64
	conns                             atomic.Int64
	requests, success, failed         atomic.Uint64
	connects, connectFailed, timeouts atomic.Uint64
	outlier                           outlierState
	check                             checkState
	// healthySince is when the host came or was last found healthy, for slow start.
	healthySince atomic.Int64
}

// LogValue implements slog.LogValuer.
func (h *Host) LogValue() slog.Value {
	return slog.GroupValue(slog.String("cluster", h.cluster.name), slog.String("host", h.key))
}

// target is where connections to a host go. It changes with the name of a
// LogicalDNS cluster.
type target struct {
	network, address string
	addr             net.Addr
}

func targetOf(key string, e *Endpoint) *target {
	if e.Pipe != "" {
		return &target{"unix", e.Pipe, &net.UnixAddr{Name: e.Pipe, Net: "unix"}}
	}
	t := &target{network: "tcp", address: key}
	if ip, err := netip.ParseAddr(e.Host); err == nil {
		t.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(e.Port)))
	}
	return t
}

var (
	noPools []*pool
	nowhere Locality
)

func newHost(c *Cluster, key string, e *Endpoint, s *settings) *Host {
	h := &Host{cluster: c, key: key, socket: s.socketFor(e), locality: &nowhere}
	h.target.Store(targetOf(key, e))
	h.pools.Store(&noPools)
	now := monotonic()
	h.healthySince.Store(now)
	h.outlier.successRate = -1
	if s.HealthCheck != nil && !e.check().Disabled {
		// Not healthy until a check says so.
		bits, ok := c.tried.checks[key]
		if !ok {
			bits = checkFailed | checkPending
		}
		h.check.state.Store(bits)
	}
	return h
}

// inherit has h, which is reached over another transport socket than was, be known for what was
// found of that: it is the same host. What a trial found over the new socket goes before. was
// stays as it is, so that it can be recalled. The cluster's lock is held.
func (h *Host) inherit(was *Host, e *Endpoint, s *settings) {
	if _, tried := h.cluster.tried.checks[h.key]; !tried && s.HealthCheck != nil && !e.check().Disabled && !was.Endpoint().checkedElsewhere(e) {
		h.check.state.Store(was.check.state.Load())
		h.check.history = was.check.history
	}
	h.healthySince.Store(was.healthySince.Load())
	from, to := &was.outlier, &h.outlier
	to.failures5xx.Store(from.failures5xx.Load())
	to.failuresGateway.Store(from.failuresGateway.Load())
	to.failuresLocal.Store(from.failuresLocal.Load())
	to.isEjected.Store(from.isEjected.Load())
	to.until, to.times, to.returned = from.until, from.times, from.returned
	to.since, to.ejections = from.since, from.ejections
	to.degraded.is.Store(from.degraded.is.Load())
	to.degraded.until, to.degraded.times, to.degraded.ended = from.degraded.until, from.degraded.times, from.degraded.ended
}

func (h *Host) place(e *Endpoint, priority int) {
	if h.describe(e) {
		h.closeIdle()
	}
	h.priority.Store(int64(priority))
	h.gone.Store(false)
	h.check.removed = false
}

// describe says what the host is; moved, that connections to it told it another name than those to
// come, or may be to an address that it does not have any more: they are not mixed.
func (h *Host) describe(e *Endpoint) (moved bool) {
	was := h.ep.Swap(e)
	if was == nil || slices.Equal(was.Also, e.Also) && !h.renamed(was, e) {
		return false
	}
	again := *h.target.Load()
	h.target.Store(&again)
	return true
}

// renamed tells whether connections tell the host another name than they did.
func (h *Host) renamed(was, e *Endpoint) bool {
	if was.Hostname == e.Hostname {
		return false
	}
	t := h.tls(h.cluster.cfg.Load())
	return t != nil && t.AutoHostSNI
}

// Cluster is the cluster whose limits and counters apply to this host.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Address is host:port, or "unix:" and the path.
func (h *Host) Address() string { return h.key }

// Addr is the address as net has it.
func (h *Host) Addr() net.Addr { return h.target.Load().addr }

// Endpoint is the configuration. Immutable.
func (h *Host) Endpoint() *Endpoint { return h.ep.Load() }

// Hostname is the name the control plane gave the host, or "". That of an original destination is for
// logs alone: the cluster's and the address, as in Envoy.
func (h *Host) Hostname() string { return h.ep.Load().Hostname }

// Authority is the name by which requests and handshakes may call the host, or "": an original destination
// has none, where Envoy says the one that it has for logs.
func (h *Host) Authority() string {
	name := h.Hostname()
	if rest, ok := strings.CutPrefix(name, h.cluster.name); ok && rest == h.key {
		return ""
	}
	return name
}

// Health is what the control plane says of the host.
func (h *Host) Health() Health { return h.ep.Load().Health }

// Priority is the host's priority, 0 the first.
func (h *Host) Priority() int { return int(h.priority.Load()) }

// Weight is the load-balancing weight, at least 1.
func (h *Host) Weight() uint32 { return max(1, h.ep.Load().Weight) }

// hostState is what the balancer makes of a host.
type hostState uint8

const (
	hostUp hostState = iota
	hostDegraded
	hostDown
)

// state combines what the control plane, the active checks and the outlier
// detection say: all must find the host healthy. An excluded host does not count
// as one that could be, nor does one that drains, as in Envoy.
func (h *Host) state() (state hostState, excluded bool) { return h.stateBy(h.cluster.cfg.Load()) }

// stateBy is state by settings that may not be in force yet.
func (h *Host) stateBy(s *settings) (state hostState, excluded bool) {
	health, check := h.Health(), h.check.state.Load()
	pending := check&checkPending != 0 && s.ExcludeUnchecked
	excluded = health == Draining || pending || check&checkExcluded != 0
	switch {
	case health == Unhealthy || health == Draining || check&checkFailed != 0 || h.ejected():
		return hostDown, excluded
	case health == Degraded || check&checkDegraded != 0 || h.outlier.degraded.is.Load():
		return hostDegraded, excluded
	}
	return hostUp, excluded
}

// effectiveWeight is the weight, less while the host starts slowly.
func (h *Host) effectiveWeight(s *SlowStart, now int64) float64 {
	w := float64(h.Weight())
	if s == nil {
		return w
	}
	age := now - h.healthySince.Load()
	if age >= int64(s.Window) {
		return w
	}
	if state, _ := h.state(); state != hostUp {
		return w
	}
	grown := max(1e6, float64(age)) / float64(s.Window)
	if s.Aggression > 0 && s.Aggression != 1 {
		grown = math.Pow(grown, 1/s.Aggression)
	}
	return w * max(grown, s.MinPercent/100)
}

// usable tells whether a connection may be pooled for more requests. Also one to a host that
// is said to be unhealthy: where requests go there in panic, each would need one of its own.
func (h *Host) usable() bool { return !h.gone.Load() }

// Begin and End bracket an exchange for least-request balancing and /clusters.
func (h *Host) Begin() { h.active.Add(1) }

// End ends an exchange that Begin began.
func (h *Host) End() { h.active.Add(-1) }

// tls is the TLS context of connections to the host, nil for plaintext.
func (h *Host) tls(s *settings) *TLS {
	if h.socket != nil {
		return h.socket.TLS
	}
	return s.TLS
}

// socketFor is the first socket that an endpoint's metadata matches, or else its locality's.
func (c *Config) socketFor(e *Endpoint) *SocketMatch {
	return c.socketMatching(e.Metadata[SocketNamespace], e)
}

// socketMatching is socketFor with other metadata than the endpoint's own.
func (c *Config) socketMatching(have map[string]any, e *Endpoint) *SocketMatch {
	if s := c.firstSocket(have); s != nil || e.OfLocality == nil {
		return s
	}
	return c.firstSocket(e.OfLocality)
}

func (c *Config) firstSocket(have map[string]any) *SocketMatch {
	for i := range c.Sockets {
		if includes(have, c.Sockets[i].Match) {
			return &c.Sockets[i]
		}
	}
	return nil
}

// The namespaces of endpoint metadata that mean something here.
const (
	lbNamespace = "envoy.lb"
	// SocketNamespace chooses the transport socket; those of a locality count too.
	SocketNamespace = "envoy.transport_socket_match"
)

// includes tells whether have holds all of want.
func includes(have, want map[string]any) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || !reflect.DeepEqual(got, v) {
			return false
		}
	}
	return true
}

// pool returns the pool of a source identity and a priority.
func (h *Host) pool(source string, priority Priority) *pool {
	for _, p := range *h.pools.Load() {
		if p.source == source && p.priority == priority {
			return p
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	pools := *h.pools.Load()
	for _, p := range pools {
		if p.source == source && p.priority == priority {
			return p
		}
	}
	p := newPool(h, source, priority)
	next := append(slices.Clone(pools), p)
	h.pools.Store(&next)
	return p
}

func newPool(h *Host, source string, priority Priority) *pool {
	return &pool{host: h, source: source, priority: priority, all: map[*Conn]struct{}{}, multiplexed: multiplexed{freed: make(chan struct{}, 1)}}
}

func (h *Host) closeIdle() {
	for _, p := range h.everyPool() {
		p.closeIdle()
	}
}

func (h *Host) sweepIdle(now, limit int64) {
	for _, p := range h.everyPool() {
		p.sweep(now, limit)
		if p.own != nil {
			p.tidy()
		}
	}
	h.dismissPools(now)
}

func (h *Host) closeMatching(match func(source string, info *stream.Info) bool) int {
	n := 0
	for _, p := range h.everyPool() {
		n += p.closeMatching(match)
	}
	return n
}
