package tracing

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
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
	hold     chan struct{} // closed when answers may go; nil for at once
	arrived  chan struct{}
	clusters *cluster.Manager
}

func newCollector(t *testing.T) *collector {
	c := &collector{status: 200, arrived: make(chan struct{}, 100)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.paths, c.bodies, c.headers = append(c.paths, r.URL.Path), append(c.bodies, b), append(c.headers, r.Header)
		status, hold := c.status, c.hold
		c.mu.Unlock()
		c.arrived <- struct{}{}
		if hold != nil {
			<-hold
		}
		w.WriteHeader(status)
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
func (c *collector) set(status int, hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.hold = status, hold
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
	for name, z := range map[string]*Zipkin{"otlp": nil, "zipkin": {}} {
		t.Run(name, func(t *testing.T) {
			col := newCollector(t)
			m := telemetry.NewMetrics()
			ts := NewTracers(Options{Clusters: col.clusters, Metrics: m, Node: Node{Version: "1.0"}})
			defer ts.Close()
			c := everything()
			c.Provider = Provider{Zipkin: z, Collector: &Collector{Cluster: "collector", Path: "/v1/traces"}}
			tr, err := ts.Open(c)
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			finish(tr)
			finish(tr)
			col.wait(t)
			if agent := col.headers[0].Get("user-agent"); agent != map[string]string{"otlp": "OTel-OTLP-Exporter-Hauberk/1.0", "zipkin": "hauberk/1.0"}[name] {
				t.Error(agent)
			}
			if kind := col.headers[0].Get("content-type"); col.paths[0] != "/v1/traces" || kind != map[string]string{"otlp": "application/x-protobuf", "zipkin": "application/json"}[name] {
				t.Error(col.paths, kind)
			}
			if name == "otlp" {
				var req collectorv1.ExportTraceServiceRequest
				if err := proto.Unmarshal(col.bodies[0], &req); err != nil || len(req.ResourceSpans[0].ScopeSpans[0].Spans) != 2 {
					t.Error(err, &req)
				}
			} else if n := bytes.Count(col.bodies[0], []byte(`"traceId"`)); n != 2 || !json.Valid(col.bodies[0]) {
				t.Errorf("%s", col.bodies[0])
			}
		})
	}
}

// What is left is sent at the end, and an exporter ends with its last tracer.
func TestExporterEndsWithItsTracers(t *testing.T) {
	col := newCollector(t)
	m := telemetry.NewMetrics()
	ts := NewTracers(Options{Clusters: col.clusters, Metrics: m})
	c := everything()
	c.Provider.Collector = &Collector{Cluster: "collector", Path: "/"}
	a, err1 := ts.Open(c)
	b, err2 := ts.Open(c)
	if err1 != nil || err2 != nil || a.out != b.out || len(ts.exporters) != 1 {
		t.Fatal(err1, err2, len(ts.exporters))
	}
	finish(a)
	a.Close()
	b.Close()
	if len(ts.exporters) != 0 {
		t.Error("the exporter is still there")
	}
	col.wait(t)
	ts.Close()
	if n := m.TraceSpans.With("sent").Value(); n != 1 {
		t.Errorf("%d spans sent", n)
	}
	if _, err := ts.Open(c); err == nil {
		t.Error("opened after the end")
	}
}

// What is on its way at the end may still be answered, and what waits behind it is sent.
func TestTheEndWaitsForWhatIsOnItsWay(t *testing.T) {
	col := newCollector(t)
	col.set(200, make(chan struct{}))
	m := telemetry.NewMetrics()
	ts := NewTracers(Options{Clusters: col.clusters, Metrics: m})
	c := everything()
	c.Provider.Collector = &Collector{Cluster: "collector", Path: "/"}
	tr, err := ts.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	finish(tr)
	col.wait(t)
	finish(tr)
	over := make(chan struct{})
	go func() { ts.Close(); close(over) }()
	<-ts.closing
	for range 100 {
		runtime.Gosched()
	}
	if ts.ctx.Err() != nil {
		t.Error("what is on its way is given up at once")
	}
	close(col.hold)
	<-over
	if sent, failed := m.TraceSpans.With("sent").Value(), m.TraceSpans.With("failed").Value(); sent != 2 || failed != 0 {
		t.Errorf("%d sent, %d failed", sent, failed)
	}
	ts.Close()
}

// A collector that does not take spans costs spans, never memory.
func TestSpansAreDroppedNotKept(t *testing.T) {
	m := telemetry.NewMetrics()
	clusters := cluster.NewManager(cluster.Options{})
	defer clusters.Close()
	ts := NewTracers(Options{Clusters: clusters, Metrics: m})
	c := everything()
	c.Provider.MaxSpans = 10
	c.Provider.Collector = &Collector{Cluster: "nowhere", Path: "/"}
	tr, err := ts.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	// The goroutine is kept busy by nobody: hold the lock of the shard to see the bound.
	e := tr.out
	for range 1000 {
		finish(tr)
	}
	e.shards[0].mu.Lock()
	n := e.shards[0].n
	e.shards[0].mu.Unlock()
	ts.Close()
	lost, failed := m.TraceSpans.With("dropped").Value(), m.TraceSpans.With("failed").Value()
	if n > 10 || lost+failed != 1000 || lost == 0 {
		t.Errorf("%d wait, %d dropped, %d failed", n, lost, failed)
	}
}

func TestCollectorRefuses(t *testing.T) {
	col := newCollector(t)
	col.set(503, nil)
	m := telemetry.NewMetrics()
	ts := NewTracers(Options{Clusters: col.clusters, Metrics: m})
	c := everything()
	c.Provider.Collector = &Collector{Cluster: "collector", Path: "/"}
	tr, err := ts.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	finish(tr)
	ts.Close()
	if n := m.TraceSpans.With("failed").Value(); n != 1 {
		t.Errorf("%d failed", n)
	}
}
