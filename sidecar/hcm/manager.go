package hcm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Options are a Manager's collaborators.
type Options struct {
	// Routes returns the route table in force, nil before there is one. It is
	// asked for each request. Config.Routes needs none.
	Routes   func() *route.Table
	Clusters *cluster.Manager
	// Logs opens the access logs; needed when there are any.
	Logs    *telemetry.Logs
	Metrics *telemetry.Metrics
	// Timers are shared by all managers of a process; made when nil.
	Timers *Timers
	Log    *slog.Logger // slog.Default when nil
}

// Manager serves the connections of a filter chain. It implements
// downstream.Handler and io.Closer.
type Manager struct {
	cfg      *Config
	routes   func() *route.Table
	clusters *cluster.Manager
	metrics  *telemetry.Metrics
	log      *slog.Logger
	access   *telemetry.Log
	timers   *Timers
	ownTimer bool

	limits         http1.Limits
	upstreamLimits http1.Limits
	paths          pathRules
	idle           int64 // of a connection
	streamIdle     int64
	requestTimeout int64
	headersTimeout int64
	serverName     string
	http2          *http2.Config

	formats atomic.Pointer[formats]
	build   sync.Mutex // of formats
	date    atomic.Pointer[dateLine]
}

// formats are the header values of a route table that hold operators.
type formats struct {
	table *route.Table
	byAdd map[*route.HeaderAdd]*telemetry.Format
}

var _ downstream.Handler = (*Manager)(nil)

// New checks the configuration and prepares to serve.
func New(cfg *Config, o Options) (*Manager, error) {
	if o.Clusters == nil {
		return nil, errors.New("hcm: there is no cluster manager")
	}
	m := &Manager{
		cfg: cfg, routes: o.Routes, clusters: o.Clusters, metrics: o.Metrics, log: o.Log, timers: o.Timers,
		paths:          pathRules{cfg.NormalizePath, cfg.MergeSlashes, cfg.EscapedSlashes},
		limits:         http1.Limits{HeadBytes: cfg.MaxRequestHeadersKB << 10, Fields: cfg.MaxHeaders}.WithDefaults(),
		upstreamLimits: http1.Limits{}.WithDefaults(),
		idle:           int64(orDefault(cfg.IdleTimeout, time.Hour)),
		streamIdle:     int64(orDefault(cfg.StreamIdleTimeout, 5*time.Minute)),
		requestTimeout: int64(cfg.RequestTimeout), headersTimeout: int64(cfg.RequestHeadersTimeout),
		serverName: cfg.ServerName,
	}
	if m.log == nil {
		m.log = slog.Default()
	}
	m.log = m.log.With("component", "hcm")
	var err error
	switch {
	case cfg.Routes != nil:
		table, err := route.Compile(cfg.Routes)
		if err != nil {
			return nil, fmt.Errorf("hcm: %w", err)
		}
		m.routes = func() *route.Table { return table }
	case o.Routes == nil:
		return nil, errors.New("hcm: there are neither inline routes nor a source of them")
	}
	if cfg.Routes != nil {
		if err := CheckFormats(cfg.Routes); err != nil {
			return nil, fmt.Errorf("hcm: %w", err)
		}
	}
	if len(cfg.AccessLog) > 0 {
		if o.Logs == nil {
			return nil, errors.New("hcm: there is nothing that writes access logs")
		}
		log, err := o.Logs.Open(cfg.AccessLog)
		if err != nil {
			return nil, fmt.Errorf("hcm: %w", err)
		}
		m.access = log
	}
	if m.http2, err = m.http2Config(); err != nil {
		return nil, err
	}
	if m.timers == nil {
		m.timers, m.ownTimer = NewTimers(), true
	}
	return m, nil
}

// Close releases what the manager opened. No connection may be served any more.
func (m *Manager) Close() error {
	m.access.Close()
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
		m.serveHTTP2(ctx, d, d.Stream)
		return
	}
	c, held := d.Held.(*http1Conn)
	if !held {
		c = newHTTP1Conn(ctx, m, d)
		d.Held = c
		d.OnDrain(c)
	}
	c.serve()
	if c.parked {
		return
	}
	d.OnDrain(nil)
	preface := c.preface
	c.end()
	if preface != nil {
		m.serveHTTP2(ctx, d, stream.WithPrefix(d.Stream, preface))
	}
}

// CheckFormats refuses a route configuration whose header values hold operators
// that do not exist. A source of tables calls it before it hands out a table.
func CheckFormats(c *route.Config) error {
	_, err := compileFormats(c)
	return err
}

func compileFormats(c *route.Config) (map[*route.HeaderAdd]*telemetry.Format, error) {
	out := map[*route.HeaderAdd]*telemetry.Format{}
	var failed error
	each := func(where string, h *route.HeaderMutations) {
		for _, adds := range [][]route.HeaderAdd{h.RequestAdd, h.ResponseAdd} {
			for i := range adds {
				if !strings.Contains(adds[i].Value, "%") {
					continue
				}
				f, err := telemetry.ParseFormat(adds[i].Value)
				if err != nil && failed == nil {
					failed = fmt.Errorf("%s: header %s: %w", where, adds[i].Name, err)
				}
				out[&adds[i]] = f
			}
		}
	}
	for i := range c.VirtualHosts {
		vh := &c.VirtualHosts[i]
		each("virtual host "+vh.Name, &vh.Headers)
		for j := range vh.Routes {
			r := &vh.Routes[j]
			where := fmt.Sprintf("virtual host %s route %d", vh.Name, j)
			each(where, &r.Headers)
			if r.Forward != nil {
				for k := range r.Forward.Weighted {
					each(where, &r.Forward.Weighted[k].Headers)
				}
			}
		}
	}
	return out, failed
}

// formatsOf returns the compiled formats of a table, compiling them when the table
// is new.
func (m *Manager) formatsOf(t *route.Table) *formats {
	if f := m.formats.Load(); f != nil && f.table == t {
		return f
	}
	m.build.Lock()
	defer m.build.Unlock()
	if f := m.formats.Load(); f != nil && f.table == t {
		return f
	}
	byAdd, err := compileFormats(t.Config())
	if err != nil {
		m.log.Error("route table with an invalid header format", "err", err)
	}
	f := &formats{table: t, byAdd: byAdd}
	m.formats.Store(f)
	return f
}

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
