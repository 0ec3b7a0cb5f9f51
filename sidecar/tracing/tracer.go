package tracing

import (
	"fmt"
	"log/slog"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Options are what Tracers work with.
type Options struct {
	Clusters *cluster.Manager
	Metrics  *telemetry.Metrics // may be nil
	Node     Node
	Log      *slog.Logger // slog.Default when nil
}

// Tracers opens tracers and owns the exporters behind them: all tracers of one
// provider share one. Safe for concurrent use.
type Tracers struct {
	o         Options
	exporters *otlp.Exporters
}

// NewTracers returns an owner of exporters.
func NewTracers(o Options) *Tracers {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Log = o.Log.With("component", "tracing")
	return &Tracers{o: o, exporters: otlp.NewExporters(otlp.Options{Clusters: o.Clusters, Log: o.Log})}
}

// Tracer is the tracing of one connection manager. Immutable; Close gives its
// exporter back.
type Tracer struct {
	cfg    *Config
	node   *Node
	custom []tag
	names  names // nil for Envoy's
	encode func(dst []byte, p *report, t *Tracer) []byte
	counts [reasons]*telemetry.Counter
	out    *otlp.Exporter // nil where nothing is exported
}

// Check tells whether a tracer can be made of a configuration.
func (c *Config) Check() error {
	_, err := newTracer(c, &Node{})
	return err
}

func newTracer(cfg *Config, n *Node) (t *Tracer, err error) {
	t = &Tracer{cfg: cfg, node: n, encode: appendOTLP}
	if cfg.Provider.Zipkin != nil {
		t.encode = appendZipkin
	}
	if t.custom, err = compileSpanTags(cfg.Tags); err != nil {
		return nil, err
	}
	t.names, err = compileNames(cfg.Operation, cfg.UpstreamOperation)
	return t, err
}

func compileName(field, text string) (*telemetry.Format, error) {
	if text == "" {
		return nil, nil
	}
	f, err := telemetry.ParseFormat(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return f, nil
}

// Open makes a tracer. It must be closed when no request uses it any more.
func (ts *Tracers) Open(cfg *Config) (*Tracer, error) {
	t, err := newTracer(cfg, &ts.o.Node)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if m := ts.o.Metrics; m != nil {
		for r := range t.counts {
			t.counts[r] = m.TracedRequests.With(Reason(r).String())
		}
	}
	if cfg.Provider.Collector == nil {
		return t, nil
	}
	p := &cfg.Provider
	if t.out, err = ts.exporters.Open(p, func() otlp.Config { return ts.exports(p) }); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return t, nil
}

// Wants is what a tracer wants to know of requests that are sampled.
func (t *Tracer) Wants() telemetry.Want {
	if t.out == nil {
		return 0
	}
	if t.cfg.Verbose {
		return telemetry.WantMoments | telemetry.WantTrailers
	}
	return telemetry.WantTrailers
}

// Close gives the exporter back; with its last tracer it sends what it has, and ends.
// A nil Tracer has nothing to give.
func (t *Tracer) Close() {
	if t == nil || t.out == nil {
		return
	}
	t.out.Release()
}

// Close sends what is waiting, for a bounded time, and waits for every exporter. The
// cluster manager must still be open.
func (ts *Tracers) Close() { ts.exporters.Close() }
