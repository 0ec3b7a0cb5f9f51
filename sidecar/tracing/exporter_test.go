package tracing

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// collector takes spans over HTTP/1 and answers each request as told.
type collector struct {
	mu       sync.Mutex
	paths    []string
	bodies   [][]byte
	headers  []http.Header
	status   int
	answer   []byte
	hold     chan struct{} // closed when answers may go; nil for at once
	arrived  chan struct{}
	clusters *cluster.Manager
	metrics  *telemetry.Metrics
	log      bytes.Buffer // of the tracers
}

func newCollector(t *testing.T) *collector {
	c := &collector{status: 200, arrived: make(chan struct{}, 100), metrics: telemetry.NewMetrics()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.paths, c.bodies, c.headers = append(c.paths, r.URL.Path), append(c.bodies, b), append(c.headers, r.Header)
		status, answer, hold := c.status, c.answer, c.hold
		c.mu.Unlock()
		c.arrived <- struct{}{}
		if hold != nil {
			<-hold
		}
		w.WriteHeader(status)
		_, _ = w.Write(answer)
	})}
	done := make(chan struct{})
	go func() { _ = srv.Serve(l); close(done) }()
	c.clusters = cluster.NewManager(cluster.Options{})
	a := l.Addr().(*net.TCPAddr)
	if err := c.clusters.Update(&cluster.Config{Name: "collector", ConnectTimeout: time.Second, Endpoints: &cluster.Assignment{Cluster: "collector",
		Localities: []cluster.Locality{{Endpoints: []cluster.Endpoint{{Host: "127.0.0.1", Port: a.Port}}}}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.clusters.Close(); _ = srv.Close(); <-done })
	return c
}

// set says how requests are answered from now on.
func (c *collector) set(status int, answer []byte, hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.answer, c.hold = status, answer, hold
}

// tracers are some whose cluster the collector is; they end with the test, or before.
func (c *collector) tracers(t *testing.T) *Tracers {
	ts := NewTracers(Options{
		Clusters: c.clusters, Metrics: c.metrics, Node: Node{Version: "1.0"}, Log: slog.New(slog.NewTextHandler(&c.log, nil)),
	})
	t.Cleanup(ts.Close)
	return ts
}

// reporting traces everything, for the collector.
func reporting(z *Zipkin) *Config {
	c := everything()
	c.Provider = Provider{Zipkin: z, Collector: &Collector{Cluster: "collector", Path: "/v1/traces"}}
	return c
}

func mustOpen(t *testing.T, ts *Tracers, c *Config) *Tracer {
	t.Helper()
	tr, err := ts.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// became is what became of spans: how many were sent, dropped, failed, rejected.
func (c *collector) became() [4]uint64 {
	v := c.metrics.TraceSpans
	return [4]uint64{v.With("sent").Value(), v.With("dropped").Value(), v.With("failed").Value(), v.With("rejected").Value()}
}

func (c *collector) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.arrived:
	case <-time.After(10 * time.Second):
		t.Fatal("no spans arrived")
	}
}

func finish(tr *Tracer) {
	var s Span
	r := request("x-request-id", requestID)
	tr.Start(&s, r, &Request{Begun: time.Now()})
	tr.Finish(&s, &telemetry.Record{RequestHeaders: r, Code: 200}, time.Now(), 0)
}

func TestExportOverHTTP(t *testing.T) {
	for name, tc := range map[string]struct {
		zipkin      *Zipkin
		agent, kind string
	}{
		"otlp":   {nil, "OTel-OTLP-Exporter-Hauberk/1.0", "application/x-protobuf"},
		"zipkin": {&Zipkin{}, "hauberk/1.0", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			col := newCollector(t)
			tr := mustOpen(t, col.tracers(t), reporting(tc.zipkin))
			finish(tr)
			finish(tr)
			tr.Close() // what waits is sent
			col.wait(t)
			col.mu.Lock()
			defer col.mu.Unlock()
			agent, kind, body := col.headers[0].Get("user-agent"), col.headers[0].Get("content-type"), col.bodies[0]
			if agent != tc.agent || kind != tc.kind || col.paths[0] != "/v1/traces" {
				t.Error(col.paths, agent, kind)
			}
			if name == "otlp" {
				var req collectorv1.ExportTraceServiceRequest
				if err := proto.Unmarshal(body, &req); err != nil || len(req.ResourceSpans[0].ScopeSpans[0].Spans) != 2 {
					t.Error(err, &req)
				}
			} else if n := bytes.Count(body, []byte(`"traceId"`)); n != 2 || !json.Valid(body) {
				t.Errorf("%s", body)
			}
		})
	}
}

// What is left is sent at the end, and an exporter ends with its last tracer.
func TestExporterEndsWithItsTracers(t *testing.T) {
	col := newCollector(t)
	ts := col.tracers(t)
	a, b := mustOpen(t, ts, reporting(nil)), mustOpen(t, ts, reporting(nil))
	if a.out != b.out {
		t.Fatal("two exporters of one provider")
	}
	finish(a)
	a.Close()
	b.Close()
	c := mustOpen(t, ts, reporting(nil))
	if c.out == a.out {
		t.Error("the exporter is still there")
	}
	c.Close()
	col.wait(t)
	ts.Close()
	if got := col.became(); got != [4]uint64{1} {
		t.Error(got)
	}
	if _, err := ts.Open(reporting(nil)); err == nil {
		t.Error("opened after the end")
	}
}

func TestCollectorRefuses(t *testing.T) {
	partly, err := proto.Marshal(&collectorv1.ExportTraceServiceResponse{PartialSuccess: &collectorv1.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: "too old\nlevel=ERROR"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		status int
		answer []byte
		became [4]uint64
		log    string
	}{
		"all":  {503, nil, [4]uint64{2: 2}, "the collector answers 503"},
		"some": {200, partly, [4]uint64{0: 1, 3: 1}, `too old\nlevel`},
	} {
		t.Run(name, func(t *testing.T) {
			col := newCollector(t)
			col.set(tc.status, tc.answer, nil)
			ts := col.tracers(t)
			tr := mustOpen(t, ts, reporting(nil))
			finish(tr)
			finish(tr)
			ts.Close()
			if got := col.became(); got != tc.became || strings.Count(col.log.String(), "\n") != 1 || !strings.Contains(col.log.String(), tc.log) {
				t.Errorf("%v, %s", got, &col.log)
			}
		})
	}
}

// A shard has room for as many spans as are configured: see otlp's TestItemsOfOneConnection.
func TestRoomForSpans(t *testing.T) {
	ts := newCollector(t).tracers(t)
	for configured, want := range map[int]int{0: 1024, 100: 100} {
		if got := ts.exports(&Provider{Collector: &Collector{}, MaxSpans: configured}).MaxItems; got != want {
			t.Errorf("%d for %d", got, configured)
		}
	}
}
