package otellog

import (
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is how a collector answers.
type answers struct {
	status int // 200 when 0
	body   []byte
	hold   chan struct{} // closed when answers may go; nil for at once
}

// collector takes requests over HTTP/1.
type collector struct {
	requests chan *collectorv1.ExportLogsServiceRequest
	headers  chan http.Header
	clusters *cluster.Manager
	metrics  *telemetry.Metrics
}

func newCollector(t *testing.T, answer answers) *collector {
	c := &collector{requests: make(chan *collectorv1.ExportLogsServiceRequest, 100), headers: make(chan http.Header, 100), metrics: telemetry.NewMetrics()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		in := &collectorv1.ExportLogsServiceRequest{}
		if err := proto.Unmarshal(b, in); err != nil {
			t.Error(err)
		}
		c.headers <- r.Header
		c.requests <- in
		if answer.hold != nil {
			<-answer.hold
		}
		w.WriteHeader(max(answer.status, 200))
		_, _ = w.Write(answer.body)
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

// logs are those of an owner of files whose records the collector gets.
func (c *collector) logs(t *testing.T) (files *telemetry.Logs, exports *Logs) {
	exports = New(Options{Clusters: c.clusters, Metrics: c.metrics, Node: tracing.Node{ID: "n", Cluster: "k", Zone: "z", Version: "1.0"}, Log: slog.New(slog.DiscardHandler)})
	files = telemetry.NewLogs(c.metrics)
	files.ExportTo(exports)
	t.Cleanup(func() { exports.Close(); files.Close() })
	return files, exports
}

func mustOpen(t *testing.T, files *telemetry.Logs, filter telemetry.Filter, c *Config) *telemetry.Log {
	t.Helper()
	l, err := files.Open([]telemetry.AccessLogConfig{{Export: c, Filter: filter}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (c *collector) next(t *testing.T) *collectorv1.ExportLogsServiceRequest {
	t.Helper()
	select {
	case r := <-c.requests:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
		return nil
	}
}

// became is what became of the records of a prefix: written, dropped, failed, rejected.
func (c *collector) became(prefix string) [4]uint64 {
	of := func(result string) uint64 { return c.metrics.LogRecords.With(prefix, result).Value() }
	return [4]uint64{of("written"), of("dropped"), of("failed"), of("rejected")}
}

func config() *Config {
	return &Config{Collector: &otlp.Collector{Cluster: "collector", Path: "/v1/logs"}, Name: "l", StatPrefix: "p", Interval: time.Hour, Size: DefaultSize}
}

func text(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

// TestRecords: two logs that say the same of themselves share a request; each has its own
// format and filter.
func TestRecords(t *testing.T) {
	col := newCollector(t, answers{})
	files, exports := col.logs(t)
	one, two := config(), config()
	one.Body, one.Attributes = "%REQ(:PATH)% %REQ(X-NONE)%", []KeyValue{{"code", "%RESPONSE_CODE%"}, {"l", []any{"%PROTOCOL%", []KeyValue{{"", ""}}, []any{}}}}
	two.Tags = []tracing.Tag{{Name: "lit", Literal: true, Value: "x"}, {Name: "none", Header: "x-none"}, {Name: "path", Value: "%REQ(:PATH)%", Type: tracing.IntTag}}
	a, b := mustOpen(t, files, nil, one), mustOpen(t, files, telemetry.StatusFilter{Op: telemetry.GreaterOrEqual, Value: 500}, two)
	req := &message.Request{Method: "GET", Path: "/a\"b\xff"}
	start := time.Unix(5, 7)
	for _, code := range []int{200, 503} {
		r := &telemetry.Record{Start: start, RequestHeaders: req, Code: code, Protocol: "HTTP/1.1", ConnectionID: 3,
			TraceID: []byte("4bf92f3577b34da6a3ce929d0e0e4736"), SpanID: []byte("00f067aa0ba902b7")}
		a.Log(r)
		b.Log(r)
	}
	if n := len(exportersOf(exports)); n != 1 {
		t.Errorf("%d exporters", n)
	}
	a.Close()
	b.Close() // what waits is sent
	got := col.next(t)
	list := func(vs ...*commonv1.AnyValue) *commonv1.AnyValue {
		return &commonv1.AnyValue{Value: &commonv1.AnyValue_ArrayValue{ArrayValue: &commonv1.ArrayValue{Values: vs}}}
	}
	record := func(body *commonv1.AnyValue, kvs ...*commonv1.KeyValue) *logsv1.LogRecord {
		trace, _ := hex.DecodeString("4bf92f3577b34da6a3ce929d0e0e4736")
		span, _ := hex.DecodeString("00f067aa0ba902b7")
		return &logsv1.LogRecord{TimeUnixNano: 5_000_000_007, Body: body, Attributes: kvs, TraceId: trace, SpanId: span}
	}
	pairs := &commonv1.AnyValue{Value: &commonv1.AnyValue_KvlistValue{KvlistValue: &commonv1.KeyValueList{Values: []*commonv1.KeyValue{{Value: text("")}}}}}
	l := &commonv1.KeyValue{Key: "l", Value: list(text("HTTP/1.1"), pairs, list())}
	const path = "/a\"b\ufffd" // which would not be UTF-8
	want := &collectorv1.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{Resource: got.ResourceLogs[0].Resource, ScopeLogs: []*logsv1.ScopeLogs{{LogRecords: []*logsv1.LogRecord{
		record(text(path+" -"), &commonv1.KeyValue{Key: "code", Value: text("200")}, l),
		record(text(path+" -"), &commonv1.KeyValue{Key: "code", Value: text("503")}, l),
		record(nil, &commonv1.KeyValue{Key: "lit", Value: text("x")}, &commonv1.KeyValue{Key: "path", Value: text(path)}),
	}}}}}}
	if !proto.Equal(got, want) {
		t.Errorf("%s\nwant %s", prototext.Format(got), prototext.Format(want))
	}
	if h := <-col.headers; h.Get("content-type") != "application/x-protobuf" || h.Get("user-agent") != "OTel-OTLP-Exporter-Hauberk/1.0" {
		t.Error(h)
	}
	exports.Close()
	if got := col.became("p"); got != [4]uint64{3} {
		t.Error(got)
	}
}

func exportersOf(l *Logs) map[*otlp.Exporter]bool {
	out := map[*otlp.Exporter]bool{}
	for range 2 {
		e, err := l.Open(config())
		if err != nil {
			continue
		}
		out[e.(*log).to] = true
		defer e.Close()
	}
	return out
}

// TestResource: labels come first, attributes take their places, and the last of a name counts.
func TestResource(t *testing.T) {
	node := &tracing.Node{ID: "n", Cluster: "k", Zone: "z"}
	further := []KeyValue{{"zone_name", int64(-5)}, {"a", true}, {"b", []byte("hi")}, {"a", 1.5}, {"c", nil}, {"d", []any{false, nil, []KeyValue{{"e", "%PROTOCOL%"}}}}}
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"labels":  {Config{Name: "l"}, `[log_name="l" zone_name="z" cluster_name="k" node_name="n"]`},
		"nothing": {Config{Name: "l", NoLabels: true}, `[]`},
		"further": {Config{Name: "l", Resource: further}, `[log_name="l" zone_name=-5 cluster_name="k" node_name="n" a=1.5 b="hi" c=none d=[false none {e="%PROTOCOL%"}]]`},
		"alone":   {Config{Name: "l", NoLabels: true, Resource: further[1:2]}, `[a=true]`},
	} {
		var got logsv1.ResourceLogs
		if err := proto.Unmarshal(appendResource(nil, &tc.cfg, node), &got); err != nil {
			t.Fatal(err)
		}
		if s := "[" + pairsText(got.Resource.Attributes) + "]"; s != tc.want {
			t.Errorf("%s: %s, want %s", name, s, tc.want)
		}
	}
}

func pairsText(kvs []*commonv1.KeyValue) string {
	var out []string
	for _, kv := range kvs {
		out = append(out, kv.Key+"="+valueText(kv.Value))
	}
	return strings.Join(out, " ")
}

func valueText(a *commonv1.AnyValue) string {
	switch v := a.GetValue().(type) {
	case nil:
		return "none"
	case *commonv1.AnyValue_ArrayValue:
		var out []string
		for _, e := range v.ArrayValue.Values {
			out = append(out, valueText(e))
		}
		return "[" + strings.Join(out, " ") + "]"
	case *commonv1.AnyValue_KvlistValue:
		return "{" + pairsText(v.KvlistValue.Values) + "}"
	case *commonv1.AnyValue_BytesValue:
		return fmt.Sprintf("%q", v.BytesValue)
	}
	return fmt.Sprint(single(a))
}

func single(v *commonv1.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonv1.AnyValue_StringValue:
		return strconv.Quote(v.StringValue)
	case *commonv1.AnyValue_BoolValue:
		return v.BoolValue
	case *commonv1.AnyValue_IntValue:
		return v.IntValue
	case *commonv1.AnyValue_DoubleValue:
		return v.DoubleValue
	}
	return v
}

// TestTraceOfARecord: a trace of 64 bits is padded, what is none is left out.
func TestTraceOfARecord(t *testing.T) {
	for _, tc := range []struct{ trace, span, want, wantSpan string }{
		{"", "", "", ""},
		{"a3ce929d0e0e4736", "00f067aa0ba902b7", "0000000000000000a3ce929d0e0e4736", "00f067aa0ba902b7"},
		{"4bf92f3577b34da6a3ce929d0e0e4736", "", "4bf92f3577b34da6a3ce929d0e0e4736", ""},
		{"4bf92f3577b34da6a3ce929d0e0e47", "00f067aa0ba902", "", ""},
	} {
		var got logsv1.LogRecord
		if err := proto.Unmarshal(appendTrace(nil, &telemetry.Record{TraceID: []byte(tc.trace), SpanID: []byte(tc.span)}), &got); err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got.TraceId) != tc.want || hex.EncodeToString(got.SpanId) != tc.wantSpan {
			t.Errorf("%+v: %x %x", tc, got.TraceId, got.SpanId)
		}
	}
}

// TestLosses: whatever does not arrive is counted, by what became of it.
func TestLosses(t *testing.T) {
	partly, err := proto.Marshal(&collectorv1.ExportLogsServiceResponse{PartialSuccess: &collectorv1.ExportLogsPartialSuccess{RejectedLogRecords: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cluster string
		status  int
		answer  []byte
		want    [4]uint64
	}{
		"taken":         {"collector", 200, nil, [4]uint64{2}},
		"some rejected": {"collector", 200, partly, [4]uint64{0: 1, 3: 1}},
		"refused":       {"collector", 503, nil, [4]uint64{2: 2}},
		"no cluster":    {"nowhere", 200, nil, [4]uint64{2: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			col := newCollector(t, answers{status: tc.status, body: tc.answer})
			files, exports := col.logs(t)
			c := config()
			c.Collector.Cluster = tc.cluster
			l := mustOpen(t, files, nil, c)
			l.Log(&telemetry.Record{})
			l.Log(&telemetry.Record{})
			exports.Close()
			if got := col.became("p"); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

// A collector that is behind costs records, never memory or time.
func TestRecordsAreDropped(t *testing.T) {
	hold := make(chan struct{})
	col := newCollector(t, answers{hold: hold})
	files, exports := col.logs(t)
	c := config()
	c.Size, c.Attributes = 0, []KeyValue{{"a", strings.Repeat("x", 100<<10)}}
	l := mustOpen(t, files, nil, c)
	l.Log(&telemetry.Record{}) // sent at once
	col.next(t)
	for range 20 {
		l.Log(&telemetry.Record{})
	}
	if got := col.became("p"); got[1] != 9 { // there is room for 1 MB
		t.Error(got)
	}
	close(hold)
	exports.Close()
	if got := col.became("p"); got != [4]uint64{12, 9} {
		t.Error(got)
	}
}

// TestSize: so many bytes of records wait for no more, and with none no record waits.
func TestSize(t *testing.T) {
	for size, want := range map[int]int{0: 1, 250: 3} {
		col := newCollector(t, answers{})
		files, _ := col.logs(t)
		c := config()
		c.Size, c.Attributes = size, []KeyValue{{"a", strings.Repeat("x", 80)}}
		l := mustOpen(t, files, nil, c)
		for range want {
			l.Log(&telemetry.Record{})
		}
		if n := len(col.next(t).ResourceLogs[0].ScopeLogs[0].LogRecords); n != want {
			t.Errorf("%d: %d records", size, n)
		}
		l.Close()
	}
}

// A record allocates nothing.
func TestRecordsAllocateNothing(t *testing.T) {
	c := config()
	c.Body, c.Attributes = "%REQ(:PATH)%", []KeyValue{{"a", []any{"%RESPONSE_CODE%"}}, {"b", []KeyValue{{"x", "y"}}}}
	c.Tags = []tracing.Tag{{Name: "t", Value: "%RESPONSE_CODE%"}}
	compiled, err := c.compile()
	if err != nil {
		t.Fatal(err)
	}
	room := make([]byte, 0, 4<<10)
	r := &telemetry.Record{RequestHeaders: &message.Request{Method: "GET", Path: "/"}, TraceID: []byte("a3ce929d0e0e4736")}
	if n := testing.AllocsPerRun(100, func() { compiled.appendRecord(room, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	col := newCollector(t, answers{})
	files, exports := col.logs(t)
	for want, c := range map[string]telemetry.Export{
		"body: access log format":       &Config{Body: "%NOPE%"},
		"attributes: a: [0]: there are": &Config{Attributes: []KeyValue{{"a", []any{int64(5)}}}},
		"custom_tags: custom tag a":     &Config{Tags: []tracing.Tag{{Name: "a", Value: "%NOPE%"}}},
		"is no access log":              other{},
	} {
		if _, err := files.Open([]telemetry.AccessLogConfig{{Export: c}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	exports.Close()
	if _, err := files.Open([]telemetry.AccessLogConfig{{Export: config()}}); err == nil {
		t.Error("opened after the end")
	}
	alone := telemetry.NewLogs(nil)
	defer alone.Close()
	if _, err := alone.Open([]telemetry.AccessLogConfig{{Export: config()}}); err == nil || !strings.Contains(err.Error(), "nothing that sends") {
		t.Error(err)
	}
}

type other struct{}

func (other) Check() error { return nil }
