package telemetry

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Label values that stand for something other than a name.
const (
	// PeerNone is the peer of a plaintext connection.
	PeerNone = "none"
	// PeerOther is a verified identity that is not a service.
	PeerOther = "other"
	// Overflow collects whatever exceeds a bound on the number of series.
	Overflow = "overflow"
)

const (
	maxPeers       = 256 // of one service
	maxPeerResults = 128 // (code, flags) pairs of one peer
)

// PeerName turns a verified SPIFFE ID into the value of the peer label: the
// service name of spiffe://TD/ns/NS/dc/DC/svc/NAME. A peer chooses no label value:
// its ID is in a certificate that a trusted signer made.
func PeerName(id string) string {
	if id == "" {
		return PeerNone
	}
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return PeerOther
	}
	_, path, _ := strings.Cut(rest, "/")
	if !strings.HasPrefix(path, "ns/") && !strings.HasPrefix(path, "ap/") {
		return PeerOther
	}
	before, name, ok := strings.Cut(path, "/svc/")
	if !ok || name == "" || strings.Contains(name, "/") || !strings.Contains(before, "/dc/") {
		return PeerOther
	}
	return name
}

// ServiceMetrics are the handles of one service in one direction.
type ServiceMetrics struct {
	m         *Metrics
	direction Direction
	service   string
	users     int // m.mu guards it

	mu    sync.Mutex // serialises writers of peers
	peers atomic.Pointer[map[string]*PeerMetrics]
}

// Service returns the handles of a service; for configuration time. Whoever asks for them
// gives them back with Release.
func (m *Metrics) Service(d Direction, service string) *ServiceMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := serviceKey{d, service}
	s := m.services[k]
	if s == nil {
		s = &ServiceMetrics{m: m, direction: d, service: service}
		s.peers.Store(&map[string]*PeerMetrics{})
		m.services[k] = s
	}
	s.users++
	return s
}

// Release gives the handles back; with its last user what was counted of the service is
// forgotten. A nil ServiceMetrics has nothing to give.
func (s *ServiceMetrics) Release() {
	if s == nil {
		return
	}
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	delete(m.services, serviceKey{s.direction, s.service})
	direction := s.direction.String()
	for _, f := range [...]*family{m.requests.f, m.requestDuration.f, m.connections.f, m.connectionsOpen.f, m.connectionTime.f, m.bytes.f} {
		f.deleteWhere(func(labels []string) bool { return labels[0] == direction && labels[1] == s.service })
	}
}

// Peer returns the handles of one peer, named as PeerName does. It takes no lock
// and allocates nothing for a known peer.
func (s *ServiceMetrics) Peer(name string) *PeerMetrics {
	if s == nil {
		return nil
	}
	if p := (*s.peers.Load())[name]; p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.peers.Load()
	if p := old[name]; p != nil {
		return p
	}
	if len(old) >= maxPeers && name != Overflow {
		name = Overflow
		if p := old[name]; p != nil {
			return p
		}
	}
	p := newPeerMetrics(s, name)
	next := make(map[string]*PeerMetrics, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[name] = p
	s.peers.Store(&next)
	return p
}

// PeerMetrics are the handles of one peer of one service. A nil PeerMetrics
// counts nothing.
type PeerMetrics struct {
	s    *ServiceMetrics
	name string

	duration           *Histogram
	connectionTime     *Histogram
	connections        *Counter
	open               *Gauge
	received, sent     *Counter
	mu                 sync.Mutex
	results            atomic.Pointer[map[resultKey]*Counter]
	overflow           *Counter
	directionLabel     string
	serviceLabel, peer string
}

type resultKey struct {
	code  uint16
	flags Flags
}

func newPeerMetrics(s *ServiceMetrics, name string) *PeerMetrics {
	d := s.direction.String()
	b := newBlock(4 + histogramCells(requestBounds) + histogramCells(connectionBounds))
	p := &PeerMetrics{s: s, name: name, directionLabel: d, serviceLabel: s.service, peer: name}
	p.connections = s.m.connections.in(b, 0, d, s.service, name)
	p.open = s.m.connectionsOpen.in(b, 1, d, s.service, name)
	p.received = s.m.bytes.in(b, 2, d, s.service, name, "received")
	p.sent = s.m.bytes.in(b, 3, d, s.service, name, "sent")
	p.duration = s.m.requestDuration.in(b, 4, d, s.service, name)
	p.connectionTime = s.m.connectionTime.in(b, 4+histogramCells(requestBounds), d, s.service, name)
	p.results.Store(&map[resultKey]*Counter{})
	return p
}

// Request counts one answered request. It takes no lock and allocates nothing
// for a pair of code and flags that was seen before.
func (p *PeerMetrics) Request(s Shard, code int, flags Flags, d time.Duration) {
	if p == nil {
		return
	}
	p.result(code, flags).Inc(s)
	p.duration.Observe(s, d)
}

func (p *PeerMetrics) result(code int, flags Flags) *Counter {
	if code < 0 || code > 599 {
		code = 0
	}
	k := resultKey{uint16(code), flags & (flagEnd - 1)}
	if c := (*p.results.Load())[k]; c != nil {
		return c
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := *p.results.Load()
	if c := old[k]; c != nil {
		return c
	}
	if len(old) >= maxPeerResults {
		if p.overflow == nil {
			p.overflow = p.s.m.requests.With(p.directionLabel, p.serviceLabel, p.peer, Overflow, Overflow)
		}
		return p.overflow
	}
	c := p.s.m.requests.With(p.directionLabel, p.serviceLabel, p.peer, strconv.Itoa(code), k.flags.String())
	next := make(map[resultKey]*Counter, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[k] = c
	p.results.Store(&next)
	return c
}

// Bytes counts bytes received from and sent to the downstream.
func (p *PeerMetrics) Bytes(s Shard, received, sent int64) {
	if p == nil {
		return
	}
	if received > 0 {
		p.received.Add(s, uint64(received))
	}
	if sent > 0 {
		p.sent.Add(s, uint64(sent))
	}
}

// ConnectionOpened counts a new connection.
func (p *PeerMetrics) ConnectionOpened(s Shard) {
	if p != nil {
		p.connections.Inc(s)
		p.open.Add(s, 1)
	}
}

// ConnectionClosed takes one that was open for d off the open ones; s is the shard it was
// opened with.
func (p *PeerMetrics) ConnectionClosed(s Shard, d time.Duration) {
	if p != nil {
		p.open.Add(s, -1)
		p.connectionTime.Observe(s, d)
	}
}
