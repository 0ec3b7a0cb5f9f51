package sidecar

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// otlpCollector is OpenTelemetry's collector service on grpc-go.
type otlpCollector struct {
	collectorv1.UnimplementedTraceServiceServer
	spans chan *collected
}

type collected struct {
	*tracev1.Span
	service string
}

func (c *otlpCollector) Export(_ context.Context, in *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	for _, rs := range in.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans <- &collected{s, rs.Resource.Attributes[0].Value.GetStringValue()}
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func startCollector(t *testing.T) (*otlpCollector, net.Addr) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &otlpCollector{spans: make(chan *collected, 100)}
	s := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(s, c)
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return c, l.Addr()
}

func (c *otlpCollector) next(t *testing.T, n int) map[string]*collected {
	t.Helper()
	out := map[string]*collected{}
	for range n {
		select {
		case s := <-c.spans:
			out[s.service+" "+s.Name] = s
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d spans: %v", len(out), n, out)
		}
	}
	return out
}

// traced adds tracing to the connection managers of a bootstrap.
func traced(bootstrap, service, options string, collector net.Addr) string {
	bootstrap = regexp.MustCompile(`( +)stat_prefix: (in|out)\n( +)(forward|http)`).ReplaceAllString(bootstrap, "${1}stat_prefix: ${2}\n"+
		"${1}tracing: {"+options+`provider: {name: otel, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: `+service+
		`, grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 2s}}}}`+"\n${3}${4}")
	return strings.TrimRight(bootstrap, "\n") + `
  - name: collector
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: collector, endpoints: [{lb_endpoints: [` + endpoint(collector) + `]}]}
`
}

func attribute(s *collected, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// TestTraceThroughTwoSidecars: the spans of both sidecars, and of an attempt, are one
// trace, whose parents are right; what the application gets continues it, and the access
// log names it.
func TestTraceThroughTwoSidecars(t *testing.T) {
	a := newAuthority(t)
	a.issue("web")
	a.issue("api")
	a.issue("db")
	col, at := startCollector(t)
	seen := make(chan http.Header, 10)
	app := headersOf(t, seen)
	log := filepath.Join(t.TempDir(), "access.log")
	srv := run(t, traced(server(a, app, app), "api", "", at), func(c *Config) {
		c.AccessLog = &telemetry.AccessLogConfig{Path: log, JSON: true, Fields: map[string]any{"trace": "%TRACE_ID%", "span": "%SPAN_ID%"}}
	})
	in := srv.Addrs().Listeners["in"]
	out := run(t, traced(caller(a, "web", in), "web", `spawn_upstream_span: true, custom_tags: [{tag: team, literal: {value: blue}}], `, at))

	if code, body := call(t, "GET", out.Addrs().Listeners["api"], "/x?y=z", ""); code != 200 {
		t.Fatal(code, body)
	}
	spans := col.next(t, 3)
	host := out.Addrs().Listeners["api"].String()
	client, attempt, server := spans["web egress "+host], spans["web router api egress"], spans["api ingress"]
	if client == nil || attempt == nil || server == nil {
		t.Fatal(spans)
	}
	id := func(b []byte) string { return hex.EncodeToString(b) }
	for _, s := range spans {
		if id(s.TraceId) != id(client.TraceId) || s.EndTimeUnixNano < s.StartTimeUnixNano || attribute(s, "http.status_code") != "200" {
			t.Error(s)
		}
	}
	if len(client.ParentSpanId) != 0 || id(attempt.ParentSpanId) != id(client.SpanId) || id(server.ParentSpanId) != id(attempt.SpanId) {
		t.Errorf("parents: %s of %s of %s", id(server.ParentSpanId), id(attempt.ParentSpanId), id(client.ParentSpanId))
	}
	if client.Kind != tracev1.Span_SPAN_KIND_SERVER || attempt.Kind != tracev1.Span_SPAN_KIND_CLIENT || server.Kind != tracev1.Span_SPAN_KIND_SERVER {
		t.Error(client.Kind, attempt.Kind, server.Kind)
	}
	rid := attribute(client, "guid:x-request-id")
	for _, tc := range []struct {
		s         *collected
		key, want string
	}{
		{client, "http.url", "http://" + host + "/x?y=z"}, {client, "http.method", "GET"}, {client, "team", "blue"}, {client, "peer.address", "127.0.0.1"},
		{client, "upstream_cluster", "api"}, {client, "component", "proxy"}, {client, "response_flags", "-"}, {client, "http.protocol", "HTTP/1.1"},
		{attempt, "upstream_address", in.String()}, {attempt, "peer.address", in.String()}, {attempt, "team", "blue"},
		{server, "guid:x-request-id", rid}, {server, "upstream_cluster", "app"}, {server, "team", ""},
	} {
		if got := attribute(tc.s, tc.key); got != tc.want {
			t.Errorf("%s of %s: %q, want %q", tc.key, tc.s.Name, got, tc.want)
		}
	}
	h := <-seen
	if got, want := h.Get("traceparent"), fmt.Sprintf("00-%s-%s-01", id(server.TraceId), id(server.SpanId)); got != want {
		t.Errorf("the application got %s, want %s", got, want)
	}
	if v := h.Get("x-request-id"); v != rid || v[14] != '9' {
		t.Errorf("the application got the request id %s, the span has %s", v, rid)
	}
	srv.logs.Flush()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]string
	if err := json.Unmarshal(b, &line); err != nil || line["trace"] != id(server.TraceId) || line["span"] != id(server.SpanId) {
		t.Errorf("%s %v", b, err)
	}
}

// TestTraceOfAFailure: attempts that fail have spans that say how, and a request that is
// not sampled has none, and passes its context on.
func TestTraceOfAFailure(t *testing.T) {
	a := newAuthority(t)
	a.issue("web")
	a.issue("api")
	a.issue("db")
	col, at := startCollector(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := gone.Addr()
	_ = gone.Close()
	bad := run(t, traced(caller(a, "web", nobody), "web", "spawn_upstream_span: true, ", at))
	if code, _ := call(t, "GET", bad.Addrs().Listeners["api"], "/", ""); code != 503 {
		t.Fatal(code)
	}
	spans := col.next(t, 2)
	attempt := spans["web router api egress"]
	if attempt == nil || attribute(attempt, "error") != "true" || attribute(attempt, "response_flags") != "UF" || attribute(attempt, "http.status_code") != "0" ||
		attempt.Status.GetCode() != tracev1.Status_STATUS_CODE_ERROR {
		t.Error(spans)
	}

	seen := make(chan http.Header, 10)
	app := headersOf(t, seen)
	quiet := run(t, traced(server(a, app, app), "api", "random_sampling: {value: 0}, ", at))
	out := run(t, caller(a, "web", quiet.Addrs().Listeners["in"]))
	if code, _ := call(t, "GET", out.Addrs().Listeners["api"], "/", ""); code != 200 {
		t.Fatal(code)
	}
	if h := <-seen; !strings.HasSuffix(h.Get("traceparent"), "-00") || h.Get("x-request-id")[14] != '4' {
		t.Error(h)
	}
	if err := quiet.Close(); err != nil {
		t.Error(err)
	}
	// Which counts at the request's end, that may be later than its answer's.
	if n := quiet.metrics.TracedRequests.With("not_traceable").Value(); n != 1 {
		t.Errorf("%d requests were not traceable", n)
	}
	select {
	case s := <-col.spans:
		t.Error(s)
	default:
	}
}

// headersOf is an application that tells the headers it gets.
func headersOf(t *testing.T, seen chan<- http.Header) net.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr()
}
