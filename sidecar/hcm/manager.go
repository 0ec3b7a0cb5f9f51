package hcm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

// Options are a Manager's collaborators.
type Options struct {
	// Routes returns the route table in force, nil before there is one. It is
	// asked for each request. Config.Routes needs none.
	Routes   func() *route.Table
	Clusters *cluster.Manager
	// Logs opens the access logs; needed when there are any.
	Logs *telemetry.Logs
	// Tracers opens the tracer; needed when tracing is configured.
	Tracers *tracing.Tracers
	Metrics *telemetry.Metrics
	// ServiceCluster is the cluster that this node says it belongs to.
	ServiceCluster string
	// Node is what the node calls itself.
	Node string
	// Drain is that of the process, or of the side of it which the listener is on: once it
	// has begun, health checks fail. nil never drains.
	Drain *drain.Watcher
	// Timers are shared by all managers of a process; made when nil.
	Timers   *Timers
	Patience Patience
	Log      *slog.Logger // slog.Default when nil
}

// Manager serves the connections of a filter chain. It implements
// downstream.Handler and io.Closer.
type Manager struct {
	cfg      *Config
	policy   policy
	shown    *downstream.Policy // &policy
	clusters *cluster.Manager
	metrics  *telemetry.Metrics
	log      *slog.Logger
	access   *telemetry.Log
	attempts *attemptLogs    // nil where attempts are not logged
	tracer   *tracing.Tracer // nil without tracing
	drain    *drain.Watcher
	timers   *Timers
	ownTimer bool

	limits         http1.Limits
	upstreamLimits http1.Limits
	parsing        http1.RequestParsing
	idle           int64 // of a connection
	streamIdle     int64
	requestTimeout int64
	headersTimeout int64
	maxDuration    time.Duration
	patience       Patience
	serverName     string
	http2          *http2.Config
	keepHTTP1      int32 // bytes of a body
	keepHTTP2      int32
	workers        workers.Pool
	tunnels        tunnels
	replies        *replyRules
	serviceCluster string
	node           string
	drainGrace     int64 // how long a connection that drains may be idle
	delayedClose   int64

	date atomic.Pointer[dateLine]

	// What runs beside exchanges ends with the manager.
	background sync.WaitGroup
	ctx        context.Context
	stop       context.CancelFunc
}

var _ downstream.Handler = (*Manager)(nil)

// New checks the configuration and prepares to serve.
func New(cfg *Config, o Options) (*Manager, error) {
	if o.Clusters == nil {
		return nil, errors.New("hcm: there is no cluster manager")
	}
	m := &Manager{
		cfg: cfg, clusters: o.Clusters, metrics: o.Metrics, log: o.Log, timers: o.Timers,
		policy:         policy{cfg: cfg, paths: pathRules{cfg.NormalizePath, cfg.MergeSlashes, cfg.EscapedSlashes}, routes: o.Routes},
		limits:         http1.Limits{HeadBytes: cfg.MaxRequestHeadersKB << 10, Fields: cfg.MaxHeaders}.WithDefaults(),
		upstreamLimits: http1.Limits{}.WithDefaults(),
		idle:           int64(orDefault(cfg.IdleTimeout, time.Hour)),
		streamIdle:     int64(orDefault(cfg.StreamIdleTimeout, 5*time.Minute)),
		requestTimeout: int64(cfg.RequestTimeout), headersTimeout: int64(cfg.RequestHeadersTimeout),
		maxDuration: cfg.MaxStreamDuration, serverName: cfg.ServerName,
		patience: o.Patience, serviceCluster: o.ServiceCluster, node: o.Node, drain: o.Drain,
		drainGrace: int64(orDefault(cfg.DrainTimeout, drainGrace)), delayedClose: int64(delayedClose),
	}
	m.parsing = http1.RequestParsing{
		AcceptHTTP10: cfg.AcceptHTTP10, DefaultHost: cfg.DefaultHost, RegisteredMethods: !cfg.AllowCustomMethods,
	}
	if ignored := cfg.IgnoreUpgrade; len(ignored) > 0 {
		m.parsing.IgnoreUpgrade = func(v string) bool {
			return slices.ContainsFunc(ignored, func(s route.StringMatch) bool { return s.Match(v) })
		}
	}
	if cfg.DelayedClose != nil {
		m.delayedClose = int64(*cfg.DelayedClose)
	}
	if m.log == nil {
		m.log = slog.Default()
	}
	m.log = m.log.With("component", "hcm")
	var err error
	if m.replies, err = newReplyRules(cfg.LocalReplies); err != nil {
		return nil, fmt.Errorf("hcm: %w", err)
	}
	if m.policy.early, err = newEarly(cfg); err != nil {
		return nil, fmt.Errorf("hcm: %w", err)
	}
	if m.policy.certs, err = newClientCertChoice(cfg.ClientCertCases); err != nil {
		return nil, fmt.Errorf("hcm: %w", err)
	}
	m.shown = &downstream.Policy{Held: &m.policy}
	if err = m.policy.build(m, o); err != nil {
		return nil, fmt.Errorf("hcm: %w", err)
	}
	switch {
	case cfg.Routes != nil:
		table, err := route.Compile(cfg.Routes)
		if err != nil {
			return nil, fmt.Errorf("hcm: %w", err)
		}
		m.policy.routes = func() *route.Table { return table }
		if err := m.policy.fits(table); err != nil {
			return nil, fmt.Errorf("hcm: %w", err)
		}
	case o.Routes == nil:
		return nil, errors.New("hcm: there are neither inline routes nor a source of them")
	}
	if m.http2, err = m.http2Config(); err != nil {
		return nil, err
	}
	m.keepLimits()
	if err = m.openLogs(o.Logs); err != nil {
		return nil, fmt.Errorf("hcm: %w", err)
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	if cfg.Tracing != nil {
		if o.Tracers == nil {
			m.closeLogs()
			return nil, errors.New("hcm: there is nothing that takes spans")
		}
		if m.tracer, err = o.Tracers.Open(cfg.Tracing); err != nil {
			m.closeLogs()
			return nil, fmt.Errorf("hcm: %w", err)
		}
	}
	if m.timers == nil {
		m.timers, m.ownTimer = NewTimers(), true
	}
	return m, nil
}

// Close releases what the manager opened. No connection may be served any more.
func (m *Manager) Close() error {
	m.stop()
	m.background.Wait()
	m.workers.Close()
	m.closeLogs()
	m.tracer.Close()
	if m.ownTimer {
		m.timers.Close()
	}
	return nil
}

func orDefault(d, or time.Duration) time.Duration {
	if d <= 0 {
		return or
	}
	return d
}

// ServeStream implements downstream.Handler.
func (m *Manager) ServeStream(ctx context.Context, d *downstream.Conn) {
	if m.speaksHTTP2(d.Info) {
		m.serveHTTP2(ctx, d, d.Stream, false)
		return
	}
	c, held := d.Held.(*http1Conn)
	if !held {
		c = newHTTP1Conn(m, d)
		d.Held = c
		d.OnDrain(c)
	}
	c.serveGuarded()
	if c.parked {
		return
	}
	d.OnDrain(nil)
	var preface []byte
	if c.http2 {
		preface = bytes.Clone(c.x.h1.in.bytes())
	}
	c.end()
	if c.http2 {
		m.serveHTTP2(ctx, d, stream.WithPrefix(d.Stream, preface), true)
	}
}

// delayedClose is how long a client may take to read the last answer, as in Envoy.
const delayedClose = time.Second

// dateLine is the Date of one second, made once in it.
type dateLine struct {
	second int64
	text   string
}

func (m *Manager) dateNow(now time.Time) string {
	sec := now.Unix()
	if d := m.date.Load(); d != nil && d.second == sec {
		return d.text
	}
	text := now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	m.date.Store(&dateLine{sec, text})
	return text
}
