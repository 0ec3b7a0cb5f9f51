package otellog

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// Options are what Logs work with.
type Options struct {
	Clusters *cluster.Manager
	Metrics  *telemetry.Metrics // may be nil
	Node     tracing.Node
	Log      *slog.Logger // slog.Default when nil
}

// Logs opens logs and owns the exporters behind them: all logs that say the same of
// themselves, to one collector, share one. Safe for concurrent use.
type Logs struct {
	o         Options
	exporters *otlp.Exporters
}

// New returns an owner of exporters.
func New(o Options) *Logs {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Logs{o: o, exporters: otlp.NewExporters(otlp.Options{Clusters: o.Clusters, Log: o.Log.With("component", "access log")})}
}

// maxRecords may wait in one shard: their bytes are what is bounded.
const maxRecords = 1 << 30

// Open makes a log. It must be closed when nothing is logged to it any more.
func (l *Logs) Open(e telemetry.Export) (telemetry.ExportLog, error) {
	cfg, ok := e.(*Config)
	if !ok {
		return nil, fmt.Errorf("a %T is no access log", e)
	}
	c, err := cfg.compile()
	if err != nil {
		return nil, err
	}
	out := &log{compiled: c}
	shared := *cfg
	shared.Body, shared.Attributes, shared.Tags = nil, nil, nil
	out.to, err = l.exporters.Open(&shared, func() otlp.Config { return l.exports(&shared) })
	return out, err
}

// exports is how the records of a log are sent.
func (l *Logs) exports(c *Config) otlp.Config {
	head := appendResource(nil, c, &l.o.Node)
	out := otlp.Config{
		Collector: c.Collector, Items: "access log records", Agent: "OTel-OTLP-Exporter-Hauberk/" + l.o.Node.Version, ContentType: "application/x-protobuf",
		MaxItems: maxRecords, Interval: c.Interval, SendAt: min(c.Size, otlp.DefaultSendAt),
		Body: func(records []byte) []byte { return appendRequest(nil, head, records) },
	}
	if c.Collector.GRPC {
		out.ContentType = "application/grpc"
	}
	if m := l.o.Metrics; m != nil {
		of := func(result string) *telemetry.Counter { return m.LogRecords.With(c.StatPrefix, result) }
		out.Counters = otlp.Counters{Sent: of("written"), Dropped: of("dropped"), Failed: of("failed"), Rejected: of("rejected")}
	}
	return out
}

// Close sends what is waiting, for a bounded time. The cluster manager must still be open.
func (l *Logs) Close() { l.exporters.Close() }

// log is one access log.
type log struct {
	compiled
	to *otlp.Exporter
}

// Log encodes a record and leaves it to the exporter.
func (l *log) Log(r *telemetry.Record) {
	// A connection keeps to a shard, so that its records keep their order.
	l.to.Add(telemetry.Shard(r.ConnectionID), func(dst []byte) []byte { return l.appendRecord(dst, r) })
}

func (l *log) Close() { l.to.Release() }

var scratches = sync.Pool{New: func() any { b := make([]byte, 0, 256); return &b }}
