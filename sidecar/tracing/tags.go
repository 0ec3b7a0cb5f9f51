package tracing

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// tagWriter takes the tags of a span. Values are read at once and never kept.
type tagWriter interface {
	text(key string, value []byte)
	typed(t *tag, value []byte)
}

// tagger writes tags that are made of strings and numbers.
type tagger struct {
	w    tagWriter
	b    []byte // of the value that is written, kept for the next ones
	room [256]byte
}

func (g *tagger) string(key, value string) { g.bytes(key, append(g.b[:0], value...)) }
func (g *tagger) number(key string, n int64) {
	g.bytes(key, strconv.AppendInt(g.b[:0], n, 10))
}

// bytes writes a value that was made in g.b.
func (g *tagger) bytes(key string, value []byte) {
	g.b = value
	g.w.text(key, value)
}

// release forgets what was written. The memory of a long value is not kept.
func (g *tagger) release() {
	if g.w = nil; cap(g.b) > maxKeptValue {
		g.b = nil
	}
}

const maxKeptValue = 4 << 10

// header writes a header's value, or what stands for one that is absent; with neither
// there is no tag.
func (g *tagger) header(key, name, otherwise string, h telemetry.Headers) {
	v, ok := h.Header(name)
	if ok || otherwise != "" {
		if !ok {
			v = otherwise
		}
		g.string(key, v)
	}
}

// tags writes the tags of a span, with Envoy's names and values.
func (t *Tracer) tags(p *report, w tagWriter) {
	g, r := &p.tagger, p.record
	if g.w = w; g.b == nil {
		g.b = g.room[:0]
	}
	if p.upstream {
		g.upstream(p)
	} else {
		if t.node.ID != "" {
			g.string("node_id", t.node.ID)
		}
		g.string("zone", t.node.Zone)
		if r.RequestHeaders != nil {
			g.request(r, t.cfg.MaxPath)
		}
		g.number("request_size", r.BytesReceived)
		g.number("response_size", r.BytesSent)
	}
	g.string("component", "proxy")
	if r.Cluster != "" {
		g.string("upstream_cluster", r.Cluster)
		g.string("upstream_cluster.name", r.ObservedCluster())
	}
	g.number("http.status_code", int64(r.Code))
	g.string("response_flags", r.Flags.String())
	g.grpcStatus(r)
	if r.Code == 0 || r.Code >= 500 || hostsError(r) {
		g.string("error", "true")
	}
	for i := range t.custom {
		if c := &t.custom[i]; p.span.route.tag(c.name) == nil {
			g.custom(c, r)
		}
	}
	if route := p.span.route; route != nil {
		for i := range route.custom {
			g.custom(&route.custom[i], r)
		}
	}
}

func (g *tagger) custom(t *tag, r *telemetry.Record) {
	var ok bool
	if g.b, ok = t.of(r, g.b[:0]); ok {
		g.w.typed(t, g.b)
	}
}

func (g *tagger) request(r *telemetry.Record, maxPath int) {
	h := r.RequestHeaders
	g.header("guid:x-request-id", "x-request-id", "", h)
	g.bytes("http.url", appendURL(g.b[:0], h, maxPath))
	g.header("http.method", ":method", "", h)
	g.header("downstream_cluster", "x-envoy-downstream-service-cluster", "-", h)
	g.header("user_agent", "user-agent", "-", h)
	g.string("http.protocol", r.Protocol)
	if ap := addrPort(r.DownstreamDirect); ap.IsValid() {
		g.bytes("peer.address", ap.Addr().AppendTo(g.b[:0]))
	} else if r.DownstreamDirect != nil {
		g.string("peer.address", r.DownstreamDirect.String())
	}
	g.header("guid:x-client-trace-id", "x-client-trace-id", "", h)
	if telemetry.IsGRPC(h) {
		g.header("grpc.path", ":path", "", h)
		g.header("grpc.authority", ":authority", "", h)
		g.header("grpc.content_type", "content-type", "", h)
		g.header("grpc.timeout", "grpc-timeout", "", h)
	}
}

// hostsError tells whether a gRPC status is an error that is not the client's: those of the
// calls that answer 200 and failed at the host.
func hostsError(r *telemetry.Record) bool {
	switch status, ok := r.SentGRPCStatus(); status {
	case 2, 4, 8, 12, 13, 14, 15: // unknown, deadline, exhausted, unimplemented, internal, unavailable, data loss
		return ok
	}
	return false
}

func (g *tagger) grpcStatus(r *telemetry.Record) {
	if r.ResponseHeaders == nil && r.ResponseTrailers == nil || !telemetry.IsGRPC(r.RequestHeaders) {
		return
	}
	for _, h := range [...]telemetry.Headers{r.ResponseTrailers, r.ResponseHeaders} {
		if h == nil {
			continue
		}
		if _, ok := h.Header("grpc-status"); ok {
			g.header("grpc.status_code", "grpc-status", "", h)
			g.header("grpc.message", "grpc-message", "", h)
			return
		}
	}
}

func (g *tagger) upstream(p *report) {
	r := p.record
	if p.retries > 0 {
		g.number("retry.count", int64(p.retries))
	}
	protocol := r.UpstreamProtocol
	if protocol == "" {
		protocol = "-"
	}
	g.string("http.protocol", protocol)
	if ap := addrPort(r.UpstreamHost); ap.IsValid() {
		g.bytes("upstream_address", ap.AppendTo(g.b[:0]))
		g.bytes("peer.address", ap.AppendTo(g.b[:0]))
	} else if r.UpstreamHost != nil {
		g.string("upstream_address", r.UpstreamHost.String())
		g.string("peer.address", r.UpstreamHost.String())
	}
}

// appendURL writes the URL that the client asked for, its path cut to a length: nothing where
// it asked for a tunnel, which has no path.
func appendURL(dst []byte, h telemetry.Headers, maxPath int) []byte {
	if _, ok := h.Header(":path"); !ok {
		return dst
	}
	scheme, _ := h.Header(":scheme")
	host, _ := h.Header(":authority")
	path, ok := h.Header("x-envoy-original-path")
	if !ok {
		path, _ = h.Header(":path")
	}
	if len(path) > maxPath {
		path = path[:maxPath]
	}
	dst = append(append(dst, scheme...), "://"...)
	return append(append(dst, host...), path...)
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// events are the moments that a verbose span tells, with Envoy's names.
var events = [...]struct {
	at       telemetry.Moment
	name     string
	upstream bool // an attempt's span tells it too
}{
	{telemetry.RequestEnded, "last_downstream_rx_byte_received", false},
	{telemetry.SendingBegan, "first_upstream_tx_byte_sent", true},
	{telemetry.SendingEnded, "last_upstream_tx_byte_sent", true},
	{telemetry.AnswerBegan, "first_upstream_rx_byte_received", true},
	{telemetry.AnswerEnded, "last_upstream_rx_byte_received", true},
	{telemetry.ResponseBegan, "first_downstream_tx_byte_sent", false},
	{telemetry.ResponseEnded, "last_downstream_tx_byte_sent", false},
}

// events calls with each moment of a verbose span.
func (t *Tracer) events(p *report, tell func(at time.Time, name string)) {
	if !t.cfg.Verbose {
		return
	}
	for _, e := range events {
		if p.upstream && !e.upstream {
			continue
		}
		if at := p.record.Moments[e.at]; at != 0 {
			tell(p.span.start.Add(time.Duration(at-p.span.mono)), e.name)
		}
	}
}
