package otlp

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// collector takes items over HTTP/1.
type collector struct {
	mu       sync.Mutex
	bodies   []string
	hold     chan struct{} // closed when answers may go; nil for at once
	arrived  chan struct{}
	clusters *cluster.Manager
	metrics  *telemetry.Metrics
}

func newCollector(t *testing.T, hold chan struct{}) *collector {
	c := &collector{hold: hold, arrived: make(chan struct{}, 100), metrics: telemetry.NewMetrics()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.bodies = append(c.bodies, string(b))
		c.mu.Unlock()
		c.arrived <- struct{}{}
		if c.hold != nil {
			<-c.hold
		}
	})}
	done := make(chan struct{})
	go func() { _ = srv.Serve(l); close(done) }()
	c.clusters = cluster.NewManager(cluster.Options{})
	if err := c.clusters.Update(&cluster.Config{Name: "collector", ConnectTimeout: time.Second, Endpoints: &cluster.Assignment{Cluster: "collector",
		Localities: []cluster.Locality{{Endpoints: []cluster.Endpoint{{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}}}}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.clusters.Close(); _ = srv.Close(); <-done })
	return c
}

func (c *collector) exporters(t *testing.T) *Exporters {
	es := NewExporters(Options{Clusters: c.clusters, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(es.Close)
	return es
}

// config sends letters as they are.
func (c *collector) config(change func(*Config)) func() Config {
	v := c.metrics.TraceSpans
	out := Config{
		Collector: &Collector{Cluster: "collector", Path: "/"}, Items: "letters", Body: bytes.Clone, MaxItems: 1000, Interval: time.Second, SendAt: DefaultSendAt,
		Counters: Counters{Sent: v.With("sent"), Dropped: v.With("dropped"), Failed: v.With("failed"), Rejected: v.With("rejected")},
	}
	if change != nil {
		change(&out)
	}
	return func() Config { return out }
}

// became is what became of letters: how many were sent, dropped, failed, rejected.
func (c *collector) became() [4]uint64 {
	v := c.metrics.TraceSpans
	return [4]uint64{v.With("sent").Value(), v.With("dropped").Value(), v.With("failed").Value(), v.With("rejected").Value()}
}

func (c *collector) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.arrived:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
	}
}

func mustOpen(t *testing.T, es *Exporters, c func() Config) *Exporter {
	t.Helper()
	e, err := es.Open("key", c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func letter(dst []byte) []byte { return append(dst, 'x') }

func TestExportersShareAndEnd(t *testing.T) {
	col := newCollector(t, nil)
	es := col.exporters(t)
	a, b := mustOpen(t, es, col.config(nil)), mustOpen(t, es, nil)
	if a != b {
		t.Fatal("two exporters of one key")
	}
	a.Add(0, letter)
	a.Add(0, letter)
	a.Release()
	b.Release() // what waits is sent
	if len(es.list) != 0 {
		t.Error("the exporter is still there")
	}
	col.wait(t)
	es.Close()
	if got := col.became(); got != [4]uint64{2} || col.bodies[0] != "xx" {
		t.Error(got, col.bodies)
	}
	if _, err := es.Open("key", col.config(nil)); err == nil {
		t.Error("opened after the end")
	}
}

// What is on its way at the end may still be answered, and what waits behind it is sent.
func TestTheEndWaitsForWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	col := newCollector(t, hold)
	es := col.exporters(t)
	e := mustOpen(t, es, col.config(nil))
	e.Add(0, letter)
	col.wait(t)
	e.Add(0, letter)
	over := make(chan struct{})
	go func() { es.Close(); close(over) }()
	<-es.closing
	for range 100 {
		runtime.Gosched()
	}
	if es.ctx.Err() != nil {
		t.Error("what is on its way is given up at once")
	}
	close(hold)
	<-over
	if got := col.became(); got != [4]uint64{2} {
		t.Error(got)
	}
}

// Nor is it waited for without end.
func TestTheEndIsBounded(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	defer close(hold)
	col := newCollector(t, hold)
	es := col.exporters(t)
	mustOpen(t, es, col.config(func(c *Config) { c.Collector.Timeout = time.Minute })).Add(0, letter)
	began := time.Now()
	es.Close()
	if took := time.Since(began); took > 2*lastFlush {
		t.Errorf("it took %v", took)
	}
	if got := col.became(); got != [4]uint64{2: 1} {
		t.Error(got)
	}
}

// A collector that does not take items costs items, never memory.
func TestItemsAreDroppedNotKept(t *testing.T) {
	col := newCollector(t, nil)
	es := col.exporters(t)
	e := mustOpen(t, es, col.config(func(c *Config) { c.MaxItems, c.Collector.Cluster = 10, "nowhere" }))
	for range 1000 {
		e.Add(0, letter)
	}
	e.shards[0].mu.Lock()
	n := e.shards[0].n
	e.shards[0].mu.Unlock()
	es.Close()
	if got := col.became(); n > 10 || got[1] == 0 || got[1]+got[2] != 1000 || got[0]+got[3] != 0 {
		t.Errorf("%d wait, %v", n, got)
	}
}

// A connection keeps to one shard: it may have as many items waiting as are configured.
func TestItemsOfOneConnection(t *testing.T) {
	col := newCollector(t, nil)
	e, err := newExporter(col.exporters(t), "key", col.config(func(c *Config) { c.MaxItems = 100 })())
	if err != nil {
		t.Fatal(err)
	}
	for range 101 { // nothing is sent meanwhile
		e.Add(1, letter)
	}
	if got := col.became(); got[1] != 1 {
		t.Errorf("%d of 101 items are dropped where 100 may wait", got[1])
	}
}

// Items are sent before there is no room for the next, and as soon as there are so many
// bytes as are configured.
func TestEnoughBytes(t *testing.T) {
	for at, want := range map[int][]int{DefaultSendAt: {0, 1, 1}, 0: {1, 1, 1}, 1: {1, 1, 1}} {
		e := &Exporter{shards: make([]pending, 1), wake: make(chan struct{}, 1), full: make(chan struct{}, 1), cfg: Config{MaxItems: 1000, SendAt: at}}
		for i := range want {
			if e.Add(0, func(dst []byte) []byte { return append(dst, make([]byte, maxPending/4)...) }); len(e.full) != want[i] {
				t.Errorf("%d: after %d items %d", at, i+1, len(e.full))
			}
		}
	}
}

// What comes after the end is lost, and counted.
func TestAfterTheEnd(t *testing.T) {
	col := newCollector(t, nil)
	es := col.exporters(t)
	e := mustOpen(t, es, col.config(nil))
	e.Add(0, letter)
	es.Close()
	e.Add(0, letter)
	if got := col.became(); got != [4]uint64{1, 1} {
		t.Error(got)
	}
}
