package tracing

import "github.com/hauberk-mesh/hauberk/sidecar/otlp"

// exports is how the spans of a provider are sent.
func (ts *Tracers) exports(p *Provider) otlp.Config {
	out := otlp.Config{
		Collector: p.Collector, Items: "spans", Agent: "OTel-OTLP-Exporter-Hauberk/" + ts.o.Node.Version, ContentType: "application/x-protobuf",
		// As many in each shard: a connection, and often all traffic, has only one. Envoy's
		// workers have as many each.
		MaxItems: p.MaxSpans, Interval: otlp.DefaultInterval, SendAt: otlp.DefaultSendAt,
		Body: func(spans []byte) []byte { return wrapOTLP(nil, spans, p, &ts.o.Node) },
	}
	if out.MaxItems <= 0 {
		out.MaxItems = defaultMaxSpans
	}
	switch {
	case p.Zipkin != nil:
		out.Mute, out.Agent, out.ContentType = true, "hauberk/"+ts.o.Node.Version, "application/json"
		out.Body = func(spans []byte) []byte { return append(append([]byte{'['}, spans...), ']') }
	case p.Collector.GRPC:
		out.ContentType = "application/grpc"
	}
	if m := ts.o.Metrics; m != nil {
		v := m.TraceSpans
		out.Counters = otlp.Counters{Sent: v.With("sent"), Dropped: v.With("dropped"), Failed: v.With("failed"), Rejected: v.With("rejected")}
	}
	return out
}
