package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/clock"
	"github.com/hauberk-mesh/hauberk/sidecar/descriptors"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TLSProvider turns the secret names of an upstream TLS context into a
// configuration. It is asked for each connection, not for each request, so that a
// rotated certificate is used from the next handshake on.
type TLSProvider interface {
	// ClientTLS returns the configuration for one handshake with a host of a
	// cluster, opened for the workload source (a SPIFFE ID, which the secret name
	// "default" means). own is who will be presented, without an ID where nobody is.
	// The configuration verifies t.PeerIDs.
	ClientTLS(source, cluster string, t *TLS) (cfg *tls.Config, own *handshake.Own, err error)
}

// Resolver resolves the names of DNS clusters; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are a Manager's collaborators.
type Options struct {
	TLS      TLSProvider // nil refuses clusters with TLS
	Metrics  *telemetry.Metrics
	Log      *slog.Logger // slog.Default when nil
	Resolver Resolver     // the system's when nil
	// Dial opens a transport connection; a net.Dialer's DialContext, without probes, when nil. The
	// result must be a stream.Conn.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Descriptors is how many file descriptors the process may have open: RLIMIT_NOFILE's when nil.
	// A part of them is kept from connections, but of those that Dial opens. Safe for concurrent use.
	Descriptors func() uint64
	// Shed tells whether a connection that a pool is about to make is not to be made, because of an overload;
	// nil refuses none. Checks are not asked for. Safe for concurrent use.
	Shed func() bool
	// Source is a workload that uses a cluster: health checks present its identity
	// where the cluster's certificate is that of whoever opens the connection. Nil,
	// or "", where there is none.
	Source func(cluster string) string
	// Own is the cluster that the sidecar is a host of; nil has no requests routed by zone.
	Own *Own
	// MostDropped bounds, in percent, what assignments have dropped of the requests; nil does not.
	MostDropped *uint32
	// Nameservers say whom the names of clusters are asked of that do not say it themselves, and
	// Bind where connections come from of those that do not; nil for the host's.
	Nameservers *DNS
	Bind        *Bind
	// Logs open the logs of health checks; nil refuses clusters that have any. OutlierEvents is the
	// log of what outlier detection finds, nil for none.
	Logs          *telemetry.Logs
	OutlierEvents *telemetry.EventLog
	// Proven is called, by a goroutine of its own, when a cluster awaits its first checks
	// no longer. May be nil.
	Proven func()
}

// Manager owns the clusters. Reads take no lock.
type Manager struct {
	opts Options
	log  *slog.Logger
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// quiet is what opens connections with socket options, and dial where nothing else was given.
	quiet net.Dialer

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	// openCheck opens the connection of a health check.
	openCheck func(ctx context.Context, p *pool, s *settings, want protocol) (stream.Stream, Kind, error)

	mu     sync.Mutex // serialises writers
	trials map[*Cluster]bool
	// version is another number with each cluster that comes or goes, and each change of
	// what an aggregate lists.
	version atomic.Uint64
	seed    maphash.Seed
	table   [tableShards]atomic.Pointer[map[string]*Cluster]

	departed departed
	dials    dials
	// own is what the own cluster is; regarding is set while clusters are yet to see it.
	own       atomic.Pointer[ownHosts]
	regarding atomic.Bool
	// destinationHeaders are those that clusters have looked at. Immutable.
	destinationHeaders atomic.Pointer[map[string]bool]
}

// tableShards keeps the copies that an update makes short with 10,000 clusters.
const tableShards = 256

// mostIdleDialers are kept for the next connections, each with a stack that has grown.
const mostIdleDialers = 8

// NewManager starts a manager; Close ends it.
func NewManager(opts Options) *Manager {
	m := &Manager{opts: opts, log: opts.Log, dial: opts.Dial, quiet: dialWithin(descriptors.ForHosts(opts.Descriptors)), seed: maphash.MakeSeed()}
	if m.log == nil {
		m.log = slog.Default()
	}
	m.log = m.log.With("component", "cluster")
	if m.dial == nil {
		m.dial = m.quiet.DialContext
	}
	if m.opts.Resolver == nil {
		m.opts.Resolver = system
	}
	m.own.Store(&ownHosts{})
	empty := map[string]*Cluster{}
	for i := range m.table {
		m.table[i].Store(&empty)
	}
	m.openCheck = func(ctx context.Context, p *pool, s *settings, want protocol) (stream.Stream, Kind, error) {
		return p.open(ctx, s, want, new(Opening))
	}
	if opts.Metrics != nil {
		opts.Metrics.UpstreamActive.Collect(m.gather((*Cluster).active))
		opts.Metrics.UpstreamRemaining.Collect(m.gather((*Cluster).remaining))
		opts.Metrics.UpstreamReached.Collect(m.gather((*Cluster).reached))
	}
	m.dials.workers.MostIdle = mostIdleDialers
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.wg.Go(m.sweep)
	return m
}

// Close closes every pooled connection and ends the manager's goroutines.
// Exchanges in flight keep their connection until they finish.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.stop()
	m.mu.Unlock()
	for _, c := range m.All() {
		m.Remove(c.name)
	}
	m.dials.close()
	m.wg.Wait()
	return nil
}

func (m *Manager) shard(name string) *atomic.Pointer[map[string]*Cluster] {
	return &m.table[maphash.String(m.seed, name)%tableShards]
}

// Get returns a cluster by name, nil when there is none.
func (m *Manager) Get(name string) *Cluster { return (*m.shard(name).Load())[name] }

// All returns the clusters sorted by name.
func (m *Manager) All() []*Cluster {
	var all []*Cluster
	for i := range m.table {
		all = slices.AppendSeq(all, maps.Values(*m.table[i].Load()))
	}
	slices.SortFunc(all, func(a, b *Cluster) int { return strings.Compare(a.name, b.name) })
	return all
}

func (m *Manager) store(name string, c *Cluster) {
	p := m.shard(name)
	next := maps.Clone(*p.Load())
	if c == nil {
		delete(next, name)
	} else {
		next[name] = c
	}
	p.Store(&next)
	m.version.Add(1)
}

// Update adds a cluster or changes it. A changed cluster keeps its identity: its
// hosts, connections and counters stay, except that connections of another TLS
// context are not used for new requests. After an error the one before is in force.
func (m *Manager) Update(cfg *Config) error { return m.UpdateWith(cfg, nil) }

// UpdateWith is Update together with the endpoints of an EDS cluster, where they are known:
// no request chooses a host by the one without the other. One that chose before it connects to
// that host by the terms that it finds, if it has not begun to.
func (m *Manager) UpdateWith(cfg *Config, a *Assignment) error { return m.UpdateTried(cfg, a, nil) }

// UpdateTried is UpdateWith, of what has been tried; nil has not been.
func (m *Manager) UpdateTried(cfg *Config, a *Assignment, t *Trial) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := panics.Refuse(panics.Configuration, func() error { return m.update(cfg, a, t.found()) })
	if err != nil {
		return fmt.Errorf("cluster %s: %w", cfg.Name, err)
	}
	return nil
}

// update is UpdateTried. m.mu is held.
func (m *Manager) update(cfg *Config, a *Assignment, tried findings) error {
	if err := m.validate(cfg); err != nil {
		return err
	}
	if cfg.Type != EDS {
		a = nil
	}
	if m.ctx.Err() != nil {
		return errors.New("manager is closed")
	}
	c := m.Get(cfg.Name)
	fresh := c == nil
	if err := cfg.holds(cfg.Endpoints); err != nil {
		return err
	}
	if cfg.Type == EDS && a == nil {
		if a = cfg.Endpoints; !fresh && c.Config().discoversAs(cfg) {
			a = c.assigned()
		}
	}
	if a != nil && a.arrived == 0 {
		a.arrives()
	}
	if err := cmp.Or(cfg.holds(a), m.opts.Own.Takes(cfg.Name, a)); err != nil {
		return fmt.Errorf("its endpoints: %w", err)
	}
	if fresh {
		c = newCluster(m, cfg)
	}
	was := c.Config().Type
	err := c.apply(cfg, a, tried, fresh)
	switch {
	case fresh && err != nil:
		c.end()
	case fresh:
		m.store(cfg.Name, c)
		c.regardOwn() // which may have changed before it could be found
	case was == Aggregate || cfg.Type == Aggregate:
		m.version.Add(1)
	}
	return err
}

// Check says why Update would refuse a cluster that is new.
func (m *Manager) Check(cfg *Config) error {
	err := m.validate(cfg)
	if err == nil {
		err = cfg.holds(cfg.Endpoints)
	}
	if err != nil {
		return fmt.Errorf("cluster %s: %w", cfg.Name, err)
	}
	return nil
}

func (m *Manager) validate(cfg *Config) error {
	dns := cfg.Type == StrictDNS || cfg.Type == LogicalDNS
	switch {
	case cfg.Name == "":
		return errors.New("a cluster needs a name")
	case cfg.Type > OriginalDestination:
		return fmt.Errorf("unknown cluster type %d", cfg.Type)
	case cfg.LB > Maglev:
		return fmt.Errorf("unknown load-balancing policy %d", cfg.LB)
	case cfg.Type == Aggregate && len(cfg.Aggregate) == 0:
		return errors.New("an aggregate cluster needs at least one cluster")
	case cfg.Type != Aggregate && len(cfg.Aggregate) != 0:
		return errors.New("only an aggregate cluster lists clusters")
	case dns && cfg.Endpoints == nil:
		return errors.New("a DNS cluster needs endpoints to resolve")
	case cfg.Type == LogicalDNS && (len(cfg.Endpoints.Localities) != 1 || len(cfg.Endpoints.Localities[0].Endpoints) != 1):
		return errors.New("a logical DNS cluster has exactly one endpoint")
	case cfg.usesTLS() && m.opts.TLS == nil:
		return errors.New("TLS is configured and there is no source of certificates")
	case cfg.HealthCheck != nil && (cfg.Type == Aggregate || cfg.Type == OriginalDestination):
		return errors.New("health checks need endpoints that are known")
	case cfg.HealthCheck != nil && !cfg.HealthCheck.valid():
		return errors.New("a health check needs one kind of check, and intervals, a timeout and thresholds above 0")
	case cfg.Hash != nil && cfg.Hash.TableSize != 0 && !Prime(cfg.Hash.TableSize):
		return fmt.Errorf("a maglev table of %d slots, which is not a prime", cfg.Hash.TableSize)
	}
	if cfg.HealthCheck != nil {
		if _, err := cfg.HealthCheck.headers(); err != nil {
			return fmt.Errorf("health check: %w", err)
		}
	}
	if cfg.Type != LogicalDNS {
		if err := m.opts.Own.Takes(cfg.Name, cfg.Endpoints); err != nil {
			return err
		}
	}
	if cfg.Type == Static {
		return checkAddresses(cfg.Endpoints)
	}
	return nil
}

// valid tells whether the check can be made, and does not run without a pause.
func (c *HealthCheck) valid() bool {
	kinds := 0
	for _, set := range []bool{c.HTTP != nil, c.TCP != nil, c.GRPC != nil} {
		if set {
			kinds++
		}
	}
	return kinds == 1 && c.UnhealthyThreshold > 0 && c.HealthyThreshold > 0 &&
		min(c.Timeout, c.Interval, c.NoTraffic, c.NoTrafficHealthy, c.Unhealthy, c.UnhealthyEdge, c.HealthyEdge) > 0
}

func (cfg *Config) usesTLS() bool {
	return cfg.TLS != nil || slices.ContainsFunc(cfg.Sockets, func(m SocketMatch) bool { return m.TLS != nil })
}

// Remove forgets a cluster, and what was counted of it. Exchanges in flight finish; idle
// connections close.
func (m *Manager) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.Get(name); c != nil {
		m.store(name, nil)
		c.end()
	}
}

// SetEndpoints replaces the endpoints of every EDS cluster that asks for the
// assignment's name. Hosts that stay keep their connections and counters. After an
// error each cluster has the hosts that it had, as they were.
func (m *Manager) SetEndpoints(a *Assignment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := panics.Refuse(panics.Configuration, func() error { return m.setEndpoints(a) })
	if err != nil {
		return fmt.Errorf("endpoints of %s: %w", a.Cluster, err)
	}
	return nil
}

// setEndpoints is SetEndpoints. m.mu is held.
func (m *Manager) setEndpoints(a *Assignment) error {
	if err := checkAddresses(a); err != nil {
		return err
	}
	users := m.services(a.Cluster)
	// The usual case first: the cluster that has the assignment's own name.
	if c := m.Get(a.Cluster); c != nil && c.wants(a.Cluster) {
		users = slices.Insert(users, 0, c)
	}
	for _, c := range users {
		if err := cmp.Or(c.Config().holds(a), m.opts.Own.Takes(c.name, a)); err != nil {
			return fmt.Errorf("for cluster %s: %w", c.name, err)
		}
	}
	a.arrives()
	return setTogether(users, a)
}

// services returns the EDS clusters whose service name differs from their own.
func (m *Manager) services(service string) []*Cluster {
	var out []*Cluster
	for i := range m.table {
		for _, c := range *m.table[i].Load() {
			if cfg := c.Config(); cfg.ServiceName == service && c.name != service && cfg.Type == EDS {
				out = append(out, c)
			}
		}
	}
	return out
}

// checkAddresses refuses endpoints that could never be dialled. Names are
// resolved only for DNS clusters.
func checkAddresses(a *Assignment) error {
	if a == nil {
		return nil
	}
	for i, l := range a.Localities {
		for j, e := range l.Endpoints {
			at := fmt.Sprintf("localities[%d].endpoints[%d]", i, j)
			if e.Pipe != "" {
				if e.Host != "" {
					return fmt.Errorf("%s: has both a pipe and an address", at)
				}
				continue
			}
			if _, err := netip.ParseAddr(e.Host); err != nil {
				return fmt.Errorf("%s: address %q is not an IP address, which only a DNS cluster may have", at, e.Host)
			}
			if e.Port < 1 || e.Port > 65535 {
				return fmt.Errorf("%s: port %d is not between 1 and 65535", at, e.Port)
			}
		}
	}
	return nil
}

// sweep does what time brings: idle connections end, unused destinations are forgotten.
func (m *Manager) sweep() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	const tick = time.Second
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		now := monotonic()
		for i := range m.table {
			for _, c := range *m.table[i].Load() {
				panics.Guard(panics.Housekeeper, func() { c.tick(now) })
			}
		}
	}
}

// monotonic is the time in nanoseconds since some moment.
func monotonic() int64 { return clock.Now() }

func sameTLS(a, b *TLS) bool { return reflect.DeepEqual(a, b) }
