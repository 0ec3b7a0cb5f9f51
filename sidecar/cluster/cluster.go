package cluster

import (
	"context"
	"math"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Cluster is a set of hosts that serve the same. It lives as long as its name.
type Cluster struct {
	name    string
	stat    string // what statistics call it, "" for its name
	m       *Manager
	metrics *telemetry.ClusterMetrics

	cfg       atomic.Pointer[settings]
	set       atomic.Pointer[endpointSet]
	aggregate atomic.Pointer[aggregate]
	// destinations are the hosts of an OriginalDestination cluster. They are set
	// before the first configuration of this type is in force, once.
	destinations *destinations

	breaker         // in use by requests with default priority
	high    breaker // and with high priority

	// trafficked: a connection was made for a request once.
	trafficked atomic.Bool
	relayed    atomic.Int64 // connections that carry what is relayed byte by byte

	mu         sync.Mutex // serialises writers of the fields below and of set
	removed    bool
	assignment *Assignment
	members
	checks      map[*Host]*checker
	events      []*telemetry.EventLog // of the checks
	tried       findings              // of a trial, while its hosts come
	unanswered  map[string]bool       // on trial, its names that were not resolved yet
	unproven    bool                  // it is new, and its hosts' first checks are not all there
	nameless    bool                  // it is new, and none of its names was looked up yet
	stopDNS     context.CancelFunc
	known       map[string][]netip.Addr // what DNS names last resolved to
	resolved    []netip.Addr            // of a LogicalDNS cluster, as they are tried
	warming     *time.Timer             // while hosts start slowly
	rebuilding  *time.Timer             // while a change of health waits
	ageing      ageing                  // of endpoints that go stale
	restUntil   int64                   // changes of health wait until then
	judging     *time.Timer             // where outliers are looked for, once judgedEvery
	judgedEvery time.Duration
	ejected     int
}

// settings is a Config with defaults applied. Immutable.
type settings struct {
	*Config
	connectTimeout time.Duration
	idleTimeout    int64
	choices        int
	bias           float64
	panicPercent   float64
	// dial opens a connection with the cluster's socket options; nil for the
	// manager's.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// tlsGeneration is a new number with each change of a TLS context: a connection
	// is pooled only under the context that verified its peer.
	tlsGeneration uint64
	// picks count for the clusters that need them, nil for others.
	picks *pickCounters
	// metrics are the cluster's, nil where nothing is counted.
	metrics *telemetry.ClusterMetrics
	// tunnels: byte streams share connections with hosts that can do that.
	tunnels bool
	// particular: connections depend on the request that they are opened for.
	particular bool
	// streamDuration is how long a request's stream may last, 0 for ever.
	streamDuration int64
	// zones are nil where requests are not routed by zone.
	zones *zoneTerms
	// budgets are nil where nobody wants to know.
	budgets *telemetry.Budgets
}

// pickCounters count what came of choices: by subset, and by a header that names the
// destination.
type pickCounters struct {
	subsets            [3]*telemetry.Counter
	invalidDestination *telemetry.Counter
}

// hashes tells whether hosts are chosen by a hash of the request.
func (s *settings) hashes() bool { return s.LB == RingHash || s.LB == Maglev }

// newCluster is a cluster that can be ended, and serves nothing before it is configured.
func newCluster(m *Manager, cfg *Config) *Cluster {
	c := &Cluster{name: cfg.Name, stat: cfg.StatName, m: m}
	c.cfg.Store(&settings{Config: cfg, tlsGeneration: 1})
	c.set.Store(&endpointSet{whole: &balancer{}})
	if m.opts.Metrics != nil {
		c.metrics = m.opts.Metrics.Cluster(c.statName())
		c.metrics.Hold()
	}
	return c
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Config is the configuration in force. Immutable.
func (c *Cluster) Config() *Config { return c.cfg.Load().Config }

// Metrics are the cluster's counters; nil counts nothing.
func (c *Cluster) Metrics() *telemetry.ClusterMetrics { return c.metrics }

// Budgets count how much of their time the cluster's requests take; nil where nobody wants to know.
func (c *Cluster) Budgets() *telemetry.Budgets { return c.cfg.Load().budgets }

func (c *Cluster) wants(service string) bool {
	cfg := c.Config()
	return cfg.Type == EDS && cfg.Service() == service
}

// newSettings applies the defaults.
func newSettings(m *Manager, cfg *Config) *settings {
	s := &settings{
		Config: cfg, connectTimeout: cfg.ConnectTimeout, idleTimeout: int64(cfg.IdleTimeout),
		choices: cfg.ChoiceCount, bias: 1, panicPercent: 50, tlsGeneration: 1, dial: dialer(m, cfg),
		tunnels: cfg.TLS != nil && slices.Contains(cfg.TLS.ALPN, TunnelALPN), particular: cfg.HTTP.Names != nil || cfg.HTTP.PerClient || cfg.announces(),
		streamDuration: int64(cfg.HTTP.MaxStreamDuration),
	}
	if s.connectTimeout <= 0 {
		s.connectTimeout = 5 * time.Second
	}
	if s.idleTimeout <= 0 {
		s.idleTimeout = int64(time.Hour)
	}
	if s.choices <= 0 {
		s.choices = 2
	}
	if cfg.ActiveRequestBias != nil {
		s.bias = *cfg.ActiveRequestBias
	}
	if cfg.PanicThreshold != nil {
		share := *cfg.PanicThreshold / 100
		s.panicPercent = math.Floor(100 * share) // as Envoy does: 29 is 28
	}
	return s
}

// settingsOf are the settings that a configuration makes, with their counters.
func (c *Cluster) settingsOf(cfg *Config) *settings {
	s := newSettings(c.m, cfg)
	s.metrics = c.metrics
	s.zones = c.m.zoneTerms(s)
	if cfg.TrackBudgets {
		s.budgets = c.metrics.Budgets()
	}
	if cfg.Subsets != nil || cfg.OriginalDst != nil && cfg.OriginalDst.Header != "" {
		s.picks = &pickCounters{}
		if cfg.Subsets != nil {
			s.picks.subsets = c.metrics.SubsetPicks()
		}
		if cfg.OriginalDst != nil && cfg.OriginalDst.Header != "" {
			s.picks.invalidDestination = c.metrics.InvalidDestinations()
			c.m.looksAt(cfg.OriginalDst.Header)
		}
	}
	return s
}

// apply puts a configuration in force, an EDS cluster's with its endpoints, nil for none, and
// what a trial has found of its hosts.
// The manager's lock is held. After an error what
// was in force is, and a fresh cluster is to be removed: a fault anywhere in it is an error.
func (c *Cluster) apply(cfg *Config, a *Assignment, tried findings, fresh bool) (fault error) {
	// Files are opened, and closed, before and after the lock is held: requests take it.
	var events []*telemetry.EventLog
	err := panics.Refuse(panics.Configuration, func() (err error) { events, err = c.m.openEvents(cfg); return err })
	if err != nil {
		return err
	}
	defer func() { closeEvents(events) }()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if fault == nil {
			events, c.events = c.events, events
		}
	}()
	put := func() {
		c.tried = tried
		defer func() { c.tried = findings{} }()
		s := c.settingsOf(cfg)
		if cfg.Type == OriginalDestination && c.destinations == nil {
			c.destinations = newDestinations(c)
		}
		c.turn(s, a)
	}
	if fresh {
		return panics.Refuse(panics.Configuration, func() error {
			c.nameless = c.unanswered == nil && cfg.awaitsName()
			c.unproven = cfg.HealthCheck != nil || c.unanswered != nil || c.nameless
			put()
			return nil
		})
	}
	return c.change(put)
}

// turn goes over to other settings, and where they are of an EDS cluster, to the endpoints
// a. c.mu is held.
func (c *Cluster) turn(s *settings, a *Assignment) {
	cfg, old := s.Config, c.cfg.Load()
	s.tlsGeneration = old.tlsGeneration
	spoken := old.HTTP.Protocol == cfg.HTTP.Protocol
	tlsChanged := !spoken || !sameTLS(old.TLS, cfg.TLS) || !reflect.DeepEqual(old.Sockets, cfg.Sockets) ||
		!reflect.DeepEqual(old.HTTP.Names, cfg.HTTP.Names) || old.HTTP.PerClient != cfg.HTTP.PerClient || old.Announce != cfg.Announce ||
		!reflect.DeepEqual(old.Extensions, cfg.Extensions) ||
		!reflect.DeepEqual(old.Bind, cfg.Bind) || !reflect.DeepEqual(old.TCP, cfg.TCP)
	if tlsChanged {
		s.tlsGeneration++
	}
	var p *plan
	if !old.Type.listsHosts() && cfg.Type.listsHosts() {
		// Requests go by the old settings until the new ones have a set, which takes long to make.
		p = c.prepare(c.assignmentOf(s, a), s)
		c.set.Store(p.set)
	}
	c.cfg.Store(s)
	if !spoken {
		for _, h := range c.hosts() {
			h.retireConns() // they would take their places under the limits, and serve nobody
			h.outdate()
		}
	}
	if tlsChanged {
		if c.metrics != nil {
			c.metrics.Use().PoolsReplaced.Inc(0)
		}
		for _, h := range c.hosts() {
			h.closeIdle()
		}
	}
	c.remember(&cfg.Limits)
	c.high.remember(cfg.HighLimits)
	c.watchOutliers(cfg.Outlier)
	if c.stopDNS != nil {
		c.stopDNS()
		c.stopDNS = nil
	}
	if old.Type == OriginalDestination {
		c.destinations.drop(func(h *Host) bool { return cfg.Type != OriginalDestination || !h.isOver(s) })
	}
	if p == nil {
		if old.Type != cfg.Type || cfg.Type == EDS && !old.discoversAs(cfg) {
			c.forgetAll()
			c.known = nil
		}
		p = c.prepare(c.assignmentOf(s, a), s)
	}
	c.adopt(p)
	c.nameless = c.nameless && cfg.awaitsName()
	if cfg.Type == StrictDNS || cfg.Type == LogicalDNS {
		c.startDNS(s)
	}
	for _, h := range c.order {
		h.terms.Store(s.tlsGeneration) // also those that are resolved, or outlive it
	}
	undegraded := (cfg.Outlier == nil || !cfg.Outlier.DetectDegraded) && c.undegradeAll()
	switch { // the last: it makes a set of the hosts there are
	case cfg.Outlier == nil && c.ejected > 0:
		c.unejectAll()
	case undegraded:
		c.rebuild()
	}
}

// listsHosts tells whether the hosts of such clusters are told, or names of theirs are.
func (t Type) listsHosts() bool { return t != Aggregate && t != OriginalDestination }

// repeats tells whether an address that is named again is another host, as in Envoy: it has as many
// shares of the requests as it is named.
func (t Type) repeats() bool { return t == Static || t == StrictDNS }

// assignmentOf are the hosts by settings, where they are of an EDS cluster, those of a. c.mu is
// held.
func (c *Cluster) assignmentOf(s *settings, a *Assignment) *Assignment {
	switch s.Type {
	case Static:
		return s.Endpoints
	case StrictDNS, LogicalDNS:
		return c.expected(s)
	case EDS:
		return a
	}
	return nil
}

// assigned are the endpoints that it has.
func (c *Cluster) assigned() *Assignment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assignment
}

// end is remove, with what was counted. A fault in it ends nothing else.
func (c *Cluster) end() {
	panics.Guard(panics.Configuration, c.remove)
	c.metrics.Forget()
}

// remove ends the cluster: nothing is pooled any more.
func (c *Cluster) remove() {
	var events []*telemetry.EventLog
	defer func() { closeEvents(events) }() // when the lock is held no longer
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = true
	c.ageNoMore()
	c.watchOutliers(nil)
	if c.stopDNS != nil {
		c.stopDNS()
		c.stopDNS = nil
	}
	c.replace(nil)
	events, c.events = c.events, nil
	if c.destinations != nil {
		c.destinations.close()
	}
}

// tick is called once a second.
func (c *Cluster) tick(now int64) {
	s := c.cfg.Load()
	if s.Type == OriginalDestination {
		c.destinations.some(func(h *Host) bool {
			h.sweepIdle(now, s.idleTimeout)
			return true
		})
		c.destinations.forgetUnused(now, s.originalDst().Cleanup)
		return
	}
	for _, h := range c.set.Load().hosts {
		h.sweepIdle(now, s.idleTimeout)
	}
}

// hosts are all hosts, also those that get no requests.
func (c *Cluster) hosts() []*Host {
	if c.cfg.Load().Type == OriginalDestination {
		return c.destinations.all()
	}
	return c.set.Load().hosts
}
