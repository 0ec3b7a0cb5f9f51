//go:build e2e

package mesh

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	consulapi "github.com/hashicorp/consul/api"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// span is what a collector was told of one.
type span struct {
	service, name, kind string
	trace, id, parent   string
	tags                map[string]string
	sender              string // what the collector's sidecar says of who sent it
}

// collector takes OTLP over gRPC, as an application of the mesh.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []span
}

func (c *collector) serve(ln net.Listener) (crash func()) {
	g := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(g, c)
	go func() { _ = g.Serve(ln) }()
	return g.Stop
}

func (c *collector) Export(ctx context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		service := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, read(s, service, incoming(ctx, "x-forwarded-client-cert")))
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func read(s *tracev1.Span, service, sender string) span {
	out := span{service: service, name: s.Name, kind: strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"), sender: sender, tags: map[string]string{},
		trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId)}
	for _, a := range s.Attributes {
		out.tags[a.Key] = a.Value.GetStringValue()
	}
	return out
}

// of are the spans of a trace.
func (c *collector) of(trace string) (out []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.trace == trace {
			out = append(out, s)
		}
	}
	return out
}

// call is the client's and the server's span of a trace, when both are there.
func (c *collector) call(m *mesh, trace string) (client, server span) {
	m.t.Helper()
	took := m.eventually(10*second, "the trace "+trace+" is whole", func() error {
		spans := c.of(trace)
		if len(spans) != 2 {
			return fmt.Errorf("%d spans: %v", len(spans), spans)
		}
		for _, s := range spans {
			switch s.kind {
			case "CLIENT":
				client = s
			case "SERVER":
				server = s
			}
		}
		if client.id == "" || server.id == "" {
			return fmt.Errorf("%v", spans)
		}
		return nil
	})
	m.t.Logf("two spans of %s: %v", trace, took)
	return client, server
}

// echoTrace answers with the headers of a trace that have reached the application.
var echoTrace = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	var out []string
	for _, name := range []string{"traceparent", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"} {
		out = append(out, r.Header.Get(name))
	}
	fmt.Fprint(w, strings.Join(out, " "))
})

// traceparent is what echoTrace says of W3C's header, in its parts.
func traceparent(body string) []string {
	header, _, _ := strings.Cut(body, " ")
	return strings.Split(header, "-")
}

const idPrefix = "spiffe://" + trustDomain + "/ns/default/dc/dc1/svc/"

// traces is a mesh that traces to a service of its own.
func (m *mesh) traces(sampling float64) (c *collector, at *workload) {
	m.t.Helper()
	m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: "otel-collector", Protocol: "grpc"})
	m.allow("*", "otel-collector")
	m.entry(&consulapi.ProxyConfigEntry{Kind: consulapi.ProxyDefaults, Name: "global", Config: map[string]any{
		"protocol": "http",
		"tracing": map[string]any{"otlp": map[string]any{"service": "otel-collector"}, "sampling": sampling,
			"tags": map[string]any{"team": "shop", "tenant": "%REQ(x-tenant)%"}},
	}})
	c = &collector{}
	return c, m.workload(spec{id: "otel-1", service: "otel-collector", grpc: c})
}

// sampled waits until a request through web begins a trace, and gives it.
func sampled(m *mesh, web *workload, to string) (trace, id string) {
	m.t.Helper()
	m.eventually(15*second, "the application sees a trace", func() error {
		code, body, err := web.get(to, "/shop", "x-tenant", "acme")
		parts := traceparent(body)
		if err != nil || code != 200 || len(parts) != 4 || parts[3] != "01" {
			return fmt.Errorf("%d %q %v", code, body, err)
		}
		trace, id = parts[1], parts[2]
		return nil
	})
	return trace, id
}

// check holds the two spans of one call against what they must say.
func checkCall(t *testing.T, client, server span, seen, source, destination string) {
	t.Helper()
	if client.parent != "" || server.parent != client.id || server.id != seen {
		t.Errorf("parents: client %q of %q, server %q of %q; the application saw %q", client.id, client.parent, server.id, server.parent, seen)
	}
	for _, s := range []struct {
		have    span
		service string
	}{{client, source}, {server, destination}} {
		if s.have.service != s.service || s.have.name != "GET "+destination {
			t.Errorf("%s's span is %q of %q", s.service, s.have.name, s.have.service)
		}
		for tag, want := range map[string]string{
			"source.principal": idPrefix + source, "destination.principal": idPrefix + destination,
			"team": "shop", "tenant": "acme", "http.status_code": "200",
		} {
			if s.have.tags[tag] != want {
				t.Errorf("%s's span has %s %q, want %q", s.service, tag, s.have.tags[tag], want)
			}
		}
		if !strings.Contains(s.have.sender, "URI="+idPrefix+s.service) {
			t.Errorf("%s's span was sent by %q", s.service, s.have.sender)
		}
	}
}

// TestTracing: a request through two sidecars is one trace of two spans at a collector
// that is a service of the mesh; one that is not sampled is none; and a collector
// that is away costs no request.
func TestTracing(t *testing.T) {
	m := newMesh(t)
	c, otel := m.traces(100)
	m.allow("web", "api")
	m.workload(spec{id: "api-1", service: "api", handler: echoTrace})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})

	trace, seen := sampled(m, web, "api")
	client, server := c.call(m, trace)
	checkCall(t, client, server, seen, "web", "api")

	// What a registration says of sampling holds for its sidecar, and for the trace. A
	// Consul agent would put proxy-defaults' number in the place of a bare 0.
	web.reg.Connect.SidecarService.Proxy.Config = map[string]any{"tracing": map[string]any{"sampling": "0"}}
	if err := m.catalog.Agent().ServiceRegister(web.reg); err != nil {
		t.Fatal(err)
	}
	m.eventually(consulLag, "Consul's servers have the new registration", func() error {
		p, err := web.proxy()
		if err == nil && !strings.Contains(fmt.Sprint(p.Config), "sampling:0") {
			err = fmt.Errorf("%v", p.Config)
		}
		return err
	})
	var unsampled string
	m.eventually(10*second, "a request is not sampled", func() error {
		httpClient.CloseIdleConnections() // one that is open keeps what it began with
		_, body, err := web.get("api", "/")
		if parts := traceparent(body); len(parts) == 4 && parts[3] == "00" {
			unsampled = parts[1]
			return nil
		}
		return fmt.Errorf("%q %v", body, err)
	})
	const theirs, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	if code, _, err := web.get("api", "/", "traceparent", "00-"+theirs+"-"+parent+"-01"); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	client, server = c.call(m, theirs) // sent after anything of the one before
	if client.parent != parent || server.parent != client.id {
		t.Errorf("the application's own trace: %v %v", client, server)
	}
	if s := c.of(unsampled); len(s) > 0 {
		t.Errorf("spans of a trace that is not sampled: %v", s)
	}

	// Its own deliveries are not traced.
	c.mu.Lock()
	for _, s := range c.spans {
		if s.service == "otel-collector" {
			t.Errorf("the collector traces itself: %v", s)
		}
	}
	c.mu.Unlock()

	otel.crash()
	otel.sidecar.kill()
	for i := range 300 {
		if code, _, err := web.get("api", "/", "traceparent", "00-"+theirs+"-"+parent+"-01"); err != nil || code != 200 {
			t.Fatalf("request %d without a collector: %d %v", i, code, err)
		}
	}
}

// TestTracingIsAuthorized: a collector that does not allow a workload gets nothing of it.
func TestTracingIsAuthorized(t *testing.T) {
	m := newMesh(t)
	c, _ := m.traces(100)
	m.allow("api", "otel-collector")
	m.allow("web", "api")
	m.workload(spec{id: "api-1", service: "api", handler: echoTrace})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	trace, _ := sampled(m, web, "api")
	m.eventually(10*second, "the server's span is there", func() error {
		if s := c.of(trace); len(s) != 1 || s[0].service != "api" {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	m.eventually(10*second, "web's sidecar counts what it could not send", func() error {
		if n := web.failedSpans(); n == 0 {
			return fmt.Errorf("none; the collector has %v", c.of(trace))
		}
		return nil
	})
	if s := c.of(trace); len(s) != 1 {
		t.Errorf("%v", s)
	}
}

// failedSpans is how many spans the workload's sidecar could not send.
func (w *workload) failedSpans() (n int) {
	for line := range strings.Lines(string(w.adminText("/stats/prometheus"))) {
		_, _ = fmt.Sscanf(line, `hauberk_trace_spans_total{result="failed"} %d`, &n)
	}
	return n
}

// TestRealEnvoyTraces: an Envoy beside a Hauberk sidecar makes the same trace.
func TestRealEnvoyTraces(t *testing.T) {
	m := newMesh(t)
	c, _ := m.traces(100)
	m.allow("web", "legacy")
	m.allow("legacy", "web")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"legacy"}, handler: echoTrace})
	legacy := m.envoyFor("legacy-1", m.register(spec{id: "legacy-1", service: "legacy", upstreams: []string{"web"}, handler: echoTrace}))
	trace, seen := sampled(m, web, "legacy")
	client, server := c.call(m, trace)
	checkCall(t, client, server, seen, "web", "legacy")
	trace, seen = sampled(m, legacy.workload, "web")
	client, server = c.call(m, trace)
	checkCall(t, client, server, seen, "legacy", "web")
}

// TestTracingFromFiles: Zipkin's spans to an address outside, with B3's headers.
func TestTracingFromFiles(t *testing.T) {
	var mu sync.Mutex
	var spans []map[string]any
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []map[string]any
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/api/v2/spans" || json.Unmarshal(b, &batch) != nil {
			t.Errorf("%s: %s", r.URL, b)
		}
		mu.Lock()
		spans = append(spans, batch...)
		mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()

	m := newFilesMesh(t, "--log-level", "info")
	m.file("tracing.hcl", fmt.Sprintf(`
config_entry {
  kind = "proxy-defaults"
  name = "global"
  config {
    protocol = "http"
    tracing {
      zipkin { address = %q insecure = true }
      sampling = 100
    }
  }
}
config_entry {
  kind = "service-intentions"
  name = "api"
  sources = [{ name = "web" action = "allow" }]
}`, ln.Addr()))
	m.workload(spec{id: "api-1", service: "api", handler: echoTrace})
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	web.answers(10*second, "api", "/", 200, "")
	_, body, err := web.get("api", "/")
	if err != nil {
		t.Fatal(err)
	}
	seen := strings.Fields(body)
	if len(seen) != 4 || seen[3] != "1" || !strings.HasPrefix(seen[0], "00-"+seen[1]+"-"+seen[2]) {
		t.Fatalf("the application saw %q, want W3C's and B3's headers of one trace", body)
	}
	m.eventually(10*second, "both spans are there", func() error {
		mu.Lock()
		defer mu.Unlock()
		have := map[string]string{}
		for _, s := range spans {
			if s["traceId"] == seen[1] {
				have[fmt.Sprint(s["kind"])] = fmt.Sprint(s["localEndpoint"], " ", s["name"])
			}
		}
		if have["CLIENT"] != "map[serviceName:web] GET api" || have["SERVER"] != "map[serviceName:api] GET api" {
			return fmt.Errorf("%v of %v", have, spans)
		}
		return nil
	})
}
