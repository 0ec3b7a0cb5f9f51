package cluster

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Cluster is a set of hosts that serve the same. It lives as long as its name.
type Cluster struct {
	name    string
	m       *Manager
	metrics *telemetry.ClusterMetrics

	cfg atomic.Pointer[settings]
	set atomic.Pointer[endpointSet]
	rr  atomic.Uint64

	requests, pending, conns, retries atomic.Int64

	mu         sync.Mutex // serialises writers of the fields below and of set
	assignment *Assignment
	byKey      map[string]*Host
	removed    bool
	stopDNS    context.CancelFunc
	checked    int64 // when outliers were last looked at
	ejected    int
}

// settings is a Config with defaults applied. Immutable.
type settings struct {
	*Config
	connectTimeout time.Duration
	idleTimeout    int64
	choices        int
	panicPercent   float64
	// tls is a new number with each change of the TLS context: a connection is
	// pooled only under the context that verified its peer.
	tlsGeneration uint64
}

func newCluster(m *Manager, cfg *Config) *Cluster {
	c := &Cluster{name: cfg.Name, m: m, byKey: map[string]*Host{}}
	if m.opts.Metrics != nil {
		c.metrics = m.opts.Metrics.Cluster(cfg.Name)
	}
	return c
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Config is the configuration in force. Immutable.
func (c *Cluster) Config() *Config { return c.cfg.Load().Config }

// Metrics are the cluster's counters; nil counts nothing.
func (c *Cluster) Metrics() *telemetry.ClusterMetrics { return c.metrics }

// HasHealthy tells whether a request would find a host now.
func (c *Cluster) HasHealthy() bool {
	h, _ := c.Pick(nil)
	return h != nil
}

func (c *Cluster) wants(service string) bool {
	cfg := c.Config()
	return cfg.Type == EDS && (cfg.ServiceName == service || cfg.ServiceName == "" && c.name == service)
}

// apply puts a configuration in force. The manager's lock is held.
func (c *Cluster) apply(cfg *Config, fresh bool) {
	s := &settings{
		Config: cfg, connectTimeout: cfg.ConnectTimeout, idleTimeout: int64(cfg.IdleTimeout),
		choices: cfg.ChoiceCount, panicPercent: 50, tlsGeneration: 1,
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
	if cfg.PanicThreshold != nil {
		s.panicPercent = *cfg.PanicThreshold
	}
	if fresh {
		c.cfg.Store(s)
		c.set.Store(&endpointSet{})
	}
	old := c.cfg.Load()
	s.tlsGeneration = old.tlsGeneration
	tlsChanged := !sameTLS(old.TLS, cfg.TLS)
	if tlsChanged {
		s.tlsGeneration++
	}
	c.cfg.Store(s)

	c.mu.Lock()
	defer c.mu.Unlock()
	if tlsChanged {
		if c.metrics != nil {
			c.metrics.PoolsReplaced.Inc(0)
		}
		for _, h := range c.byKey {
			h.closeIdle()
		}
	}
	if cfg.Outlier == nil && c.ejected > 0 {
		c.unejectAll()
	}
	if c.stopDNS != nil {
		c.stopDNS()
		c.stopDNS = nil
	}
	switch cfg.Type {
	case Static:
		c.replace(cfg.Endpoints)
	case StrictDNS:
		c.startDNS(s)
	case Aggregate:
		c.replace(nil)
	case EDS:
		if fresh || old.Type != EDS {
			c.replace(cfg.Endpoints)
		} else {
			c.rebuild()
		}
	}
}

// setEndpoints is SetEndpoints of one cluster.
func (c *Cluster) setEndpoints(a *Assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.removed {
		c.replace(a)
	}
}

// remove ends the cluster: nothing is pooled any more.
func (c *Cluster) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = true
	if c.stopDNS != nil {
		c.stopDNS()
		c.stopDNS = nil
	}
	c.replace(nil)
}

// tick is called once a second.
func (c *Cluster) tick(now int64) {
	idle := c.cfg.Load().idleTimeout
	for _, h := range c.hosts() {
		h.sweepIdle(now, idle)
	}
	c.tickOutliers(now)
}

// hosts are all hosts, also those that get no requests.
func (c *Cluster) hosts() []*Host { return c.set.Load().hosts }

// StartRequest counts a request against the limit; false refuses it. The caller
// of a true result calls EndRequest.
func (c *Cluster) StartRequest(s telemetry.Shard) bool {
	n := c.requests.Add(1)
	if limit := c.cfg.Load().Limits.MaxRequests; limit > 0 && n > int64(limit) {
		c.requests.Add(-1)
		if c.metrics != nil {
			c.metrics.OverflowRequests.Inc(s)
		}
		return false
	}
	return true
}

// EndRequest takes a request off the count.
func (c *Cluster) EndRequest() { c.requests.Add(-1) }

// StartRetry counts a concurrent retry against the budget or the limit; false
// refuses it. The caller of a true result calls EndRetry.
func (c *Cluster) StartRetry(s telemetry.Shard) bool {
	n := c.retries.Add(1)
	limits := &c.cfg.Load().Limits
	most := int64(math.MaxInt64)
	switch b := limits.RetryBudget; {
	case b != nil:
		most = max(int64(b.MinConcurrency), int64(float64(c.requests.Load())*b.Percent/100))
	case limits.MaxRetries > 0:
		most = int64(limits.MaxRetries)
	}
	if n > most {
		c.retries.Add(-1)
		if c.metrics != nil {
			c.metrics.OverflowRetries.Inc(s)
			c.metrics.RetryOverflow.Inc(s)
		}
		return false
	}
	return true
}

// EndRetry takes a retry off the count.
func (c *Cluster) EndRetry() { c.retries.Add(-1) }
