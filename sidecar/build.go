package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/workloadapi"
	"github.com/hauberk-mesh/hauberk/sidecar/admin"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/files"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/otellog"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Sidecar is a data plane process, or one of several in a test.
type Sidecar struct {
	// Set by Build.
	cfg       Config
	log       *slog.Logger
	identity  svid.Source
	agent     *agent.Agent
	host      *workloadapi.Server // nil without a host socket
	metrics   *telemetry.Metrics
	logs      *telemetry.Logs
	tracers   *tracing.Tracers
	exports   *otellog.Logs
	timers    *hcm.Timers
	clusters  *cluster.Manager
	sockets   *listener.Sockets
	listeners *listener.Manager
	overload  *overload.Manager // nil when nothing is limited
	secrets   *secrets.Store
	files     *files.Source // of resources, nil without a bootstrap
	tls       *tlsProvider
	state     *state
	admin     *admin.Server
	trigger   *drain.Trigger
	watcher   *drain.Watcher
	inbound   *drain.Trigger // of the inbound side alone
	quit      context.CancelFunc
	quitting  context.Context
	close     sync.Once

	streams *streams // of endpoints and routes
	caches  opened
	// clustersIn is closed once a control plane has sent clusters.
	clustersIn   chan struct{}
	clustersOnce sync.Once

	mu    sync.Mutex
	bases []*base // none before there is a node identity
}

// Build checks the configuration and binds everything but the listeners that
// carry traffic, which need identity and configuration first.
func Build(cfg Config) (_ *Sidecar, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Sidecar{cfg: cfg, log: cfg.Log.With("component", "sidecar"), identity: cfg.Identity, metrics: telemetry.NewMetrics(), clustersIn: make(chan struct{})}
	panics.LogTo(s.log)
	s.quitting, s.quit = context.WithCancel(context.Background())
	s.trigger, s.watcher = drain.New()
	var inbound *drain.Watcher
	s.inbound, inbound = s.watcher.Child()
	s.logs = telemetry.NewLogs(s.metrics)
	s.timers = hcm.NewTimers()
	s.timers.Expose(s.metrics)
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if cfg.Agent != nil {
		own := *cfg.Agent
		own.StaleAfter = cfg.StaleAfter
		if s.agent, err = agent.Build(own); err != nil {
			return nil, err
		}
		s.identity = s.agent
	}
	if err = s.buildHostSocket(); err != nil {
		return nil, err
	}
	s.secrets = secrets.New(secrets.Options{Sockets: cfg.Bootstrap.Sockets(), Node: secretsNode(cfg.Bootstrap), Changed: s.secretsChanged, Log: cfg.Log})
	s.tls = newTLSProvider(s.quitting, s.identity, s.secrets, cfg.Log)
	outliers, err := s.outlierEvents()
	if err != nil {
		return nil, err
	}
	s.clusters = cluster.NewManager(cluster.Options{
		Logs: s.logs, OutlierEvents: outliers, Nameservers: nameservers(cfg.Bootstrap), Bind: bind(cfg.Bootstrap),
		TLS: s.tls, Metrics: s.metrics, Log: cfg.Log,
		Source: func(name string) string { return s.state.checkSource(name) },
		Proven: func() { s.state.proven() },
		Shed:   func() bool { return s.overload.Signals(false).RefusePooled() },
		Own:    own(cfg.Bootstrap), MostDropped: mostDropped(cfg.Bootstrap),
	})
	spans := tracing.Options{Clusters: s.clusters, Metrics: s.metrics, Node: tracing.Node{ID: cfg.Node, Version: cfg.Version}, Log: cfg.Log}
	if cfg.Bootstrap != nil {
		n := cfg.Bootstrap.Node
		spans.Node.ID, spans.Node.Cluster, spans.Node.Zone = cmp.Or(n.ID, cfg.Node), n.Cluster, n.Zone
	}
	s.tracers = tracing.NewTracers(spans)
	s.exports = otellog.New(otellog.Options{Clusters: s.clusters, Metrics: s.metrics, Node: spans.Node, Log: cfg.Log})
	s.logs.ExportTo(s.exports)
	routes := newRoutes()
	h := &handlers{clusters: s.clusters, routes: routes, logs: s.logs, tracers: s.tracers, metrics: s.metrics, timers: s.timers, log: cfg.Log,
		drain: s.watcher, inbound: inbound, patience: cfg.Patience}
	if err := s.buildOverload(); err != nil {
		return nil, err
	}
	s.timers.ReduceBy(s.overload.Reducer())
	if cfg.Bootstrap != nil {
		h.cluster, h.node = cfg.Bootstrap.Node.Cluster, cfg.Bootstrap.Node.ID
	}
	s.sockets = listener.NewSockets(cfg.Log, cfg.Inherited...)
	s.listeners = listener.NewManager(listener.Options{
		NewHandler: h.build, TLS: s.tls, Metrics: s.metrics, Logs: s.logs, Log: cfg.Log, Drain: s.watcher, DrainTime: cfg.DrainTime,
		Sockets: s.sockets, Overload: s.overload, HandshakeTimeout: cfg.Patience.Handshake, Relieve: s.timers.Relieve, Drained: func() { s.state.drained() },
	})
	s.state = newState(&state{
		log: s.log, listeners: s.listeners, clusters: s.clusters, routes: routes, accessLog: cfg.AccessLog,
		metrics: s.metrics, warmUp: cfg.WarmUp, wanted: s.want, checkTLS: s.tls.check,
		secrets: s.secrets, pinned: cfg.Bootstrap.PinnedSecrets(),
	})
	s.streams = newStreams(&streams{
		usable: s.usable, open: s.ofStream, closed: s.caches.release, apply: s.state.applyLive, log: s.log,
	})
	s.state.sub.streams = s.streams
	s.state.unaggregated = cfg.Bootstrap != nil && cfg.Bootstrap.ADS == nil && cfg.Agent == nil && len(cfg.Servers) == 0
	if cfg.Bootstrap != nil {
		s.state.runtime = cfg.Bootstrap.Runtime
		// Reading a file takes several times the memory of what it says. What is
		// made of it fills the holes that the reading left, if they are known.
		runtime.GC()
		if err = s.state.load(cfg.Bootstrap); err != nil {
			return nil, err
		}
		s.files = files.New(files.Options{All: cfg.Bootstrap.Files, Handler: s.state, Log: cfg.Log})
		s.state.followFiles(s.files)
		s.state.clustersCome = cfg.Bootstrap.StreamsClusters() || s.discovers() && !cfg.Bootstrap.Streams()
		if err = s.files.Load(); err != nil {
			return nil, fmt.Errorf("dynamic resources: %w", err)
		}
		debug.FreeOSMemory()
	}
	s.metrics.TrustAge.Collect(s.trustAge)
	s.metrics.ConfigAge.Collect(s.configAge)
	s.metrics.BuildInfo.With(cfg.Version, goVersion()).Set(1)
	s.metrics.ProcessStart.With().Set(float64(time.Now().Unix()))
	var log *telemetry.Log // its files end with all others
	if cfg.Bootstrap != nil {
		if log, err = s.logs.Open(cfg.Bootstrap.AdminLog); err != nil {
			return nil, fmt.Errorf("admin.access_log: %w", err)
		}
	}
	s.admin, err = admin.Listen(admin.Options{
		Admin: cfg.Admin, Socket: cfg.AdminSocket, Metrics: cfg.Metrics, Ready: cfg.Ready,
		View: (*view)(s), Level: cfg.Level, Log: cfg.Log, AccessLog: log,
		MadeRoom: func() { s.metrics.MadeRoom.With("admin").Inc(0) },
	})
	return s, err
}

// sendLast has spans and records sent that are still there; they go through the clusters.
func (s *Sidecar) sendLast() {
	if s.tracers == nil {
		return
	}
	var both sync.WaitGroup
	both.Go(s.tracers.Close)
	both.Go(s.exports.Close)
	both.Wait()
}

// own is the cluster of which the sidecar is a host, nil where that is not said.
func own(b *config.Bootstrap) *cluster.Own {
	if b == nil {
		return nil
	}
	return b.Own
}

// outlierEvents is the log of what outlier detection finds, nil for none.
func (s *Sidecar) outlierEvents() (*telemetry.EventLog, error) {
	b := s.cfg.Bootstrap
	if b == nil || b.OutlierEvents == "" {
		return nil, nil
	}
	l, err := s.logs.OpenEvents(b.OutlierEvents)
	if err != nil {
		return nil, fmt.Errorf("cluster_manager.outlier_detection.event_log_path: %w", err)
	}
	return l, nil
}

// nameservers are asked by clusters that do not say whom they ask, nil for the host's.
func nameservers(b *config.Bootstrap) *cluster.DNS {
	if b == nil {
		return nil
	}
	return b.Nameservers
}

// bind is where connections come from of clusters that do not say it, nil for any address.
func bind(b *config.Bootstrap) *cluster.Bind {
	if b == nil {
		return nil
	}
	return b.Bind
}

// mostDropped is the bound of what assignments have dropped, nil for none.
func mostDropped(b *config.Bootstrap) *uint32 {
	if b == nil {
		return nil
	}
	return b.MostDropped
}

// secretsChanged puts discovered secrets in use, and goes on with what waited for them.
func (s *Sidecar) secretsChanged() {
	s.tls.contexts.Refresh()
	s.state.secretsChanged()
}

// want asks the agent for the identities that listeners name.
func (s *Sidecar) want(ids []string) {
	if s.agent == nil || len(ids) == 0 {
		return
	}
	var out []spiffeid.ID
	for _, id := range ids {
		if parsed, err := spiffeid.FromString(id); err == nil {
			out = append(out, parsed)
		}
	}
	s.agent.Want(out...)
}

// Run serves until ctx ends, then drains, at most for the drain time. It returns
// early for what waiting cannot mend.
func (s *Sidecar) Run(ctx context.Context) error {
	work, stop := context.WithCancel(s.quitting)
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	fail := func(err error) {
		if err != nil && work.Err() == nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	wg.Go(func() { fail(s.admin.Serve(work)) })
	if s.agent != nil {
		wg.Go(func() { fail(s.agent.Run(work)) })
	}
	if s.host != nil {
		wg.Go(func() { fail(s.host.Run(work)) })
	}
	wg.Go(func() { fail(s.discover(work)) })
	if s.overload != nil {
		wg.Go(func() { s.overload.Run(work) })
	}
	if s.identity != nil {
		wg.Go(func() { s.watchIdentity(work) })
	}
	wg.Go(func() { s.secrets.Run(work) })
	if s.files != nil {
		wg.Go(func() { s.files.Run(work) })
	}
	wg.Go(func() { s.watchExposure(work) })
	wg.Go(func() { s.watchAge(work) })
	var err error
	select {
	case <-ctx.Done():
		s.drain()
	case <-s.quitting.Done():
	case err = <-failed:
	}
	stop()
	wg.Wait()
	return err
}

// drain lets what is under way finish. The streams of the control plane and the
// renewal of identities go on meanwhile.
func (s *Sidecar) drain() {
	s.log.Info("draining", "limit", s.cfg.DrainTime)
	s.metrics.Draining.With().Set(1)
	until := time.Now().Add(s.cfg.DrainTime)
	s.trigger.Drain(until)
	if s.state.endHold() {
		// Those who wait in a socket's queue are accepted before it is asked who is left.
		s.pause(s.quitting, 50*time.Millisecond)
	}
	left := func() int { return int(s.listeners.Serving()) }
	// Who has not heard of the end yet still connects. Those are served at first, and
	// refused while there is time for what they began; at the end nobody is cut off.
	s.settle(s.quitting, s.cfg.DrainTime/2, left)
	s.listeners.StopAccepting()
	s.settled(s.quitting, time.Until(until), left)
}

// pause waits.
func (s *Sidecar) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// settled is settle, and says so when connections are left.
func (s *Sidecar) settled(ctx context.Context, limit time.Duration, left func() int) int {
	n := s.settle(ctx, limit, left)
	if n > 0 {
		s.log.Warn("drain ended with connections open", "connections", n)
	}
	return n
}

// settle waits until there are no connections, for a bounded time; it returns how many
// there were at its end, before the end may have closed them.
func (s *Sidecar) settle(ctx context.Context, limit time.Duration, left func() int) int {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	n := left()
	for n > 0 {
		select {
		case <-tick.C:
			n = left()
		case <-ctx.Done():
			return n
		}
	}
	return 0
}

// Addrs tells where the sidecar listens now.
func (s *Sidecar) Addrs() Addrs {
	a := Addrs{AdminSocket: s.cfg.AdminSocket, Listeners: s.listeners.Addrs()}
	bound := s.admin.Addrs()
	if s.host != nil {
		a.HostSocket = s.host.Addr().String()
	}
	a.Admin, a.Metrics, a.Ready = bound.Admin, bound.Metrics, bound.Ready
	return a
}

// IDs are the SPIFFE IDs that the sidecar holds, sorted.
func (s *Sidecar) IDs() []string {
	set := map[string]bool{}
	if snap := s.tls.snapshot(); snap != nil {
		for id := range snap.SVIDs {
			set[id] = true
		}
	}
	for _, leaf := range s.tls.files() {
		if id := nameOf(leaf); strings.HasPrefix(id, "spiffe://") {
			set[id] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Quit ends Run at once.
func (s *Sidecar) Quit() { s.quit() }

// ReopenLogs opens the access logs anew, after they were rotated.
func (s *Sidecar) ReopenLogs() { s.logs.Reopen() }

// Close releases everything. Run must have ended.
func (s *Sidecar) Close() error {
	var errs []error
	s.close.Do(func() {
		s.quit()
		if s.state != nil {
			s.state.stop()
		}
		if s.listeners != nil {
			errs = append(errs, s.listeners.Close())
		}
		s.sendLast()
		if s.clusters != nil {
			errs = append(errs, s.clusters.Close())
		}
		if s.admin != nil {
			errs = append(errs, s.admin.Close())
		}
		if s.secrets != nil {
			s.secrets.Close()
		}
		if s.tls != nil {
			s.tls.wait()
		}
		if s.host != nil {
			errs = append(errs, s.host.Close())
		}
		if s.agent != nil {
			errs = append(errs, s.agent.Close())
		}
		s.timers.Close()
		s.logs.Close()
	})
	return errors.Join(errs...)
}

// CloseInherited closes the inherited sockets that no listener has taken. Call it
// when the sidecar is ready: clients that connect to one would wait for ever.
func (s *Sidecar) CloseInherited() { s.sockets.CloseInherited() }

// Ready tells whether traffic can be served, and if not, why.
func (s *Sidecar) Ready() (bool, string) { return (*view)(s).Ready() }
