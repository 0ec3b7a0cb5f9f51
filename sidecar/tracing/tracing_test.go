package tracing

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanHex = "00f067aa0ba902b7"
)

func request(fields ...string) *message.Request {
	r := &message.Request{Method: "GET", Scheme: "http", Authority: "api.test", Path: "/a?b=c"}
	for i := 0; i < len(fields); i += 2 {
		r.Fields.Add(fields[i], fields[i+1])
	}
	return r
}

func TestTraceparent(t *testing.T) {
	for v, want := range map[string]presence{
		"00-" + traceID + "-" + spanHex + "-01":                         present,
		"00-" + traceID + "-" + spanHex + "-00":                         present,
		"cc-" + traceID + "-" + spanHex + "-01-what-the-future-will-be": present,
		"00-" + traceID + "-" + spanHex + "-01-x":                       broken,
		"cc-" + traceID + "-" + spanHex + "-01.x":                       broken,
		"ff-" + traceID + "-" + spanHex + "-01":                         broken,
		"00-" + strings.Repeat("0", 32) + "-" + spanHex + "-01":         broken,
		"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01":         broken,
		"00-" + traceID[:31] + "g-" + spanHex + "-01":                   broken,
		"": broken,
	} {
		p, found := readW3C(&request("traceparent", v).Fields)
		if found != want {
			t.Errorf("%s: %d, want %d", v, found, want)
		}
		if found == present && (hex.EncodeToString(p.trace[:]) != traceID || hex.EncodeToString(p.span[:]) != spanHex || p.sampled != (v[54] == '1')) {
			t.Errorf("%s: %+v", v, p)
		}
	}
}

func TestB3(t *testing.T) {
	const half = "a3ce929d0e0e4736"
	for name, tc := range map[string]struct {
		fields           []string
		found            presence
		sampled, decided bool
		before           bool
	}{
		"none":          {nil, absent, false, false, false},
		"single":        {[]string{"b3", traceID + "-" + spanHex + "-1-05e3ac9a4f6e3b90"}, present, true, true, true},
		"single, 64":    {[]string{"b3", half + "-" + spanHex + "-0"}, present, false, true, false},
		"single, short": {[]string{"b3", half + "-" + spanHex}, present, false, false, false},
		"debug":         {[]string{"b3", half + "-" + spanHex + "-d"}, present, true, true, false},
		"only flag":     {[]string{"b3", "0"}, absent, false, true, false},
		"bad flag":      {[]string{"b3", "x"}, broken, false, false, false},
		"bad":           {[]string{"b3", half + "-" + spanHex + "-2"}, broken, false, false, false},
		"cut":           {[]string{"b3", half + "-" + spanHex + "-"}, broken, false, false, false},
		"multi":         {[]string{"x-b3-traceid", traceID, "x-b3-spanid", spanHex, "x-b3-sampled", "1", "x-b3-parentspanid", half}, present, true, true, true},
		"multi, true":   {[]string{"x-b3-traceid", half, "x-b3-spanid", spanHex, "x-b3-sampled", "true"}, present, true, true, false},
		"multi, debug":  {[]string{"x-b3-traceid", half, "x-b3-spanid", spanHex, "x-b3-flags", "1"}, present, true, true, false},
		"multi, bad":    {[]string{"x-b3-traceid", half, "x-b3-spanid", "x"}, broken, false, false, false},
		"sampled only":  {[]string{"x-b3-sampled", "0"}, absent, false, true, false},
	} {
		p, found, sampled, decided := readB3(&request(tc.fields...).Fields)
		if found != tc.found || decided != tc.decided || decided && sampled != tc.sampled || (p.before != SpanID{}) != tc.before && found == present {
			t.Errorf("%s: %d %t %t %+v", name, found, sampled, decided, p)
		}
	}
}

// FuzzContexts: whatever a client sends is read or refused, and what is read is
// written again as it was.
func FuzzContexts(f *testing.F) {
	f.Add("00-"+traceID+"-"+spanHex+"-01", traceID+"-"+spanHex+"-1-"+spanHex)
	f.Fuzz(func(t *testing.T, w3c, b3 string) {
		if p, found := parseTraceparent(w3c); found == present {
			s := Span{Trace: p.trace, ID: p.span, Sampled: p.sampled}
			got := string(appendTraceparent(nil, &s))
			if got[2:53] != strings.ToLower(w3c[2:53]) {
				t.Errorf("%s became %s", w3c, got)
			}
		}
		if p, found, _, _ := parseB3(b3); found == present && (p.trace == ID{} || p.span == SpanID{}) {
			t.Errorf("%q has no ids", b3)
		}
	})
}

func everything() *Config {
	return &Config{Sampling: Sampling{Client: Percent(100), Overall: Percent(100), Random: Percent(100)}, MaxPath: 256}
}

func TestSampling(t *testing.T) {
	const id = "00000063-0000-4000-8000-000000000000" // 99
	for name, tc := range map[string]struct {
		cfg    Sampling
		fields []string
		want   Reason
		digit  byte
	}{
		"all":                {everything().Sampling, []string{"x-request-id", id}, RandomSampling, '9'},
		"below the share":    {Sampling{Client: Percent(100), Overall: Percent(100), Random: Fraction{100, 10000}}, []string{"x-request-id", id}, RandomSampling, '9'},
		"at the share":       {Sampling{Client: Percent(100), Overall: Percent(100), Random: Fraction{99, 10000}}, []string{"x-request-id", id}, NotTraceable, '4'},
		"client":             {Sampling{Client: Percent(100), Overall: Percent(100)}, []string{"x-request-id", id, "x-client-trace-id", "c"}, ClientForced, 'b'},
		"client may not":     {Sampling{Overall: Percent(100)}, []string{"x-request-id", id, "x-client-trace-id", "c"}, NotTraceable, '4'},
		"forced":             {Sampling{Overall: Percent(100)}, []string{"x-request-id", id, "x-envoy-force-trace", "1"}, ServiceForced, 'a'},
		"a hop before":       {Sampling{Overall: Percent(100)}, []string{"x-request-id", id[:14] + "9" + id[15:]}, RandomSampling, '9'},
		"overall takes away": {Sampling{Overall: Percent(99)}, []string{"x-request-id", id[:14] + "a" + id[15:]}, NotTraceable, '4'},
		"by the hundred":     {Sampling{Random: Percent(50), Overall: Percent(100)}, []string{"x-request-id", "00000fa0" + id[8:]}, RandomSampling, '9'},
		"no id":              {everything().Sampling, nil, NotTraceable, 0},
		"an id that is none": {everything().Sampling, []string{"x-request-id", "what"}, NotTraceable, 0},
		"a foreign id":       {everything().Sampling, []string{"x-request-id", "0000006312"}, RandomSampling, 0},
	} {
		r := request(tc.fields...)
		got := tc.cfg.decide(r, true)
		v, _ := r.Fields.ByID(message.XRequestID)
		if got != tc.want || tc.digit != 0 && v[reasonDigit] != tc.digit {
			t.Errorf("%s: %s, id %s", name, got, v)
		}
	}
}

// An id that is no place for decisions stays as it is, and what it says is nobody's word.
func TestIDsThatAreKept(t *testing.T) {
	const id = "00000063-0000-4000-8000-000000000000"
	for _, tc := range []struct {
		id   string
		cfg  Sampling
		want Reason
	}{
		{id, everything().Sampling, RandomSampling},
		{id[:14] + "a" + id[15:], Sampling{Overall: Percent(100)}, NotTraceable},
		{id[:14] + "a" + id[15:], everything().Sampling, RandomSampling},
	} {
		r := request("x-request-id", tc.id)
		if got := tc.cfg.decide(r, false); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.id, got, tc.want)
		}
		if v, _ := r.Fields.ByID(message.XRequestID); v != tc.id {
			t.Errorf("%s became %s", tc.id, v)
		}
	}
}

// The traceable filter of access logs takes what was forced to be traced, as Envoy's does,
// and no health check.
func TestTraceableRecords(t *testing.T) {
	const id = "00000063-0000-4000-8000-000000000000"
	tr := mustTracer(t, everything())
	for name, tc := range map[string]struct {
		fields []string
		check  bool
		want   bool
	}{
		"forced":              {[]string{"x-request-id", id, "x-envoy-force-trace", "1"}, false, true},
		"forced a hop before": {[]string{"x-request-id", id[:14] + "a" + id[15:]}, false, true},
		"a health check":      {[]string{"x-request-id", id, "x-envoy-force-trace", "1"}, true, false},
		"by chance":           {[]string{"x-request-id", id}, false, false},
		"for the client":      {[]string{"x-request-id", id, "x-client-trace-id", "c"}, false, false},
	} {
		var s Span
		tr.Start(&s, request(tc.fields...), &Request{})
		r := &telemetry.Record{HealthCheck: tc.check}
		s.Show(r)
		if got := (telemetry.TraceableFilter{}).Passes(r); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func field(r *message.Request, name string) string { v, _ := r.Fields.Get(name); return v }

func mustTracer(t *testing.T, c *Config) *Tracer {
	t.Helper()
	tr, err := newTracer(c, &Node{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

const requestID = "11111111-1111-4111-8111-111111111111"

func TestPropagationW3C(t *testing.T) {
	parent := "00-" + traceID + "-" + spanHex + "-01"
	for name, tc := range map[string]struct {
		cfg    func(*Config)
		fields []string
		check  func(t *testing.T, s *Span, a *Attempt, r *message.Request)
	}{
		"of a parent": {nil, []string{"traceparent", parent, "tracestate", "a=b"}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if hex.EncodeToString(s.Parent[:]) != spanHex || field(r, "traceparent") != fmt.Sprintf("00-%s-%x-01", traceID, s.ID) || field(r, "tracestate") != "a=b" {
				t.Errorf("%+v, %s", s, field(r, "traceparent"))
			}
		}},
		"the parent decides": {func(c *Config) { c.Random = Fraction{} }, []string{"traceparent", parent}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if !s.Sampled {
				t.Error("not sampled")
			}
		}},
		"new": {nil, []string{"tracestate", "a=b"}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if s.Parent != (SpanID{}) || field(r, "traceparent") != fmt.Sprintf("00-%x-%x-01", s.Trace, s.ID) || field(r, "tracestate") != "" {
				t.Errorf("%+v, %s", s, field(r, "traceparent"))
			}
		}},
		"always": {func(c *Config) { c.Random, c.Provider.AlwaysOn = Fraction{}, true }, []string{"traceparent", parent[:len(parent)-1] + "0"}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if !s.Sampled || s.Reason != NotTraceable || field(r, "traceparent") != fmt.Sprintf("00-%s-%x-01", traceID, s.ID) {
				t.Error(field(r, "traceparent"))
			}
		}},
		"not sampled": {func(c *Config) { c.Random = Fraction{} }, nil, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if s.Sampled || !strings.HasSuffix(field(r, "traceparent"), "-00") {
				t.Error(field(r, "traceparent"))
			}
		}},
		"broken": {nil, []string{"traceparent", "what"}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if s.Live() || field(r, "traceparent") != "what" {
				t.Errorf("%+v, %s", s, field(r, "traceparent"))
			}
		}},
		"attempts have spans": {func(c *Config) { c.SpawnUpstream = true }, []string{"traceparent", parent}, func(t *testing.T, s *Span, a *Attempt, r *message.Request) {
			if a.ID == s.ID || field(r, "traceparent") != fmt.Sprintf("00-%s-%x-01", traceID, a.ID) {
				t.Error(field(r, "traceparent"))
			}
		}},
		"not passed on": {func(c *Config) { c.NoPropagation = true }, []string{"traceparent", parent}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if !s.Live() || field(r, "traceparent") != parent {
				t.Error(field(r, "traceparent"))
			}
		}},
		"no provider": {func(c *Config) { c.Provider.None = true }, []string{"traceparent", parent}, func(t *testing.T, s *Span, _ *Attempt, r *message.Request) {
			if s.Live() || field(r, "traceparent") != parent || field(r, "x-request-id")[reasonDigit] != '9' {
				t.Errorf("%+v %s", s, field(r, "x-request-id"))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := everything()
			if tc.cfg != nil {
				tc.cfg(c)
			}
			var s Span
			var a Attempt
			r := request(append(tc.fields, "x-request-id", requestID)...)
			tr := mustTracer(t, c)
			tr.Start(&s, r, &Request{})
			tr.Begin(&s, &a, r)
			tc.check(t, &s, &a, r)
		})
	}
}

func TestPropagationB3(t *testing.T) {
	multi := []string{"x-b3-traceid", traceID, "x-b3-spanid", spanHex, "x-b3-sampled", "1"}
	for name, tc := range map[string]struct {
		zipkin    Zipkin
		direction Direction
		fields    []string
		check     func(s *Span, r *message.Request) bool
	}{
		"inbound shares": {Zipkin{Shared: true}, telemetry.Inbound, multi, func(s *Span, r *message.Request) bool {
			return s.shared && field(r, "x-b3-spanid") == spanHex && field(r, "x-b3-parentspanid") == ""
		}},
		"inbound on its own": {Zipkin{}, telemetry.Inbound, multi, func(s *Span, r *message.Request) bool {
			return !s.shared && field(r, "x-b3-spanid") != spanHex && field(r, "x-b3-parentspanid") == spanHex && field(r, "x-b3-traceid") == traceID
		}},
		"outbound": {Zipkin{Shared: true}, telemetry.Outbound, multi, func(s *Span, r *message.Request) bool {
			return field(r, "x-b3-parentspanid") == spanHex && field(r, "x-b3-sampled") == "1"
		}},
		"single stays single": {Zipkin{}, telemetry.Inbound, []string{"b3", traceID + "-" + spanHex + "-0"}, func(s *Span, r *message.Request) bool {
			return !s.Sampled && field(r, "b3") == fmt.Sprintf("%s-%x-0-%s", traceID, s.ID, spanHex) && field(r, "x-b3-sampled") == ""
		}},
		"single shared": {Zipkin{Shared: true}, telemetry.Inbound, []string{"b3", traceID + "-" + spanHex + "-1"}, func(s *Span, r *message.Request) bool {
			return field(r, "b3") == traceID+"-"+spanHex+"-1"
		}},
		"new, 64 bits": {Zipkin{}, telemetry.Inbound, nil, func(s *Span, r *message.Request) bool {
			return len(field(r, "x-b3-traceid")) == 16 && field(r, "x-b3-traceid") == field(r, "x-b3-spanid") && field(r, "traceparent") == ""
		}},
		"new, 128 bits": {Zipkin{Wide: true}, telemetry.Inbound, nil, func(s *Span, r *message.Request) bool { return len(field(r, "x-b3-traceid")) == 32 }},
		"from W3C": {Zipkin{W3C: true}, telemetry.Inbound, []string{"traceparent", "00-" + traceID + "-" + spanHex + "-00"}, func(s *Span, r *message.Request) bool {
			return !s.Sampled && field(r, "x-b3-traceid") == traceID && field(r, "x-b3-parentspanid") == spanHex &&
				field(r, "traceparent") == "00-"+traceID+"-"+field(r, "x-b3-spanid")+"-00"
		}},
		"both forms": {Zipkin{}, telemetry.Inbound, append([]string{"b3", traceID + "-" + spanHex + "-1"}, multi...), func(s *Span, r *message.Request) bool {
			return field(r, "b3") == fmt.Sprintf("%s-%x-1-%s", traceID, s.ID, spanHex) && field(r, "x-b3-spanid") == hex.EncodeToString(s.ID[:])
		}},
		"W3C is not asked": {Zipkin{}, telemetry.Inbound, []string{"traceparent", "00-" + traceID + "-" + spanHex + "-00"}, func(s *Span, r *message.Request) bool {
			return s.Sampled && field(r, "x-b3-traceid") != traceID
		}},
		"broken": {Zipkin{}, telemetry.Inbound, []string{"b3", "what"}, func(s *Span, r *message.Request) bool { return !s.Live() && field(r, "x-b3-traceid") == "" }},
	} {
		c := everything()
		c.Provider.Zipkin = &tc.zipkin
		var s Span
		var a Attempt
		r := request(append(tc.fields, "x-request-id", requestID)...)
		tr := mustTracer(t, c)
		tr.Start(&s, r, &Request{Direction: tc.direction})
		tr.Begin(&s, &a, r)
		if !tc.check(&s, r) {
			t.Errorf("%s: %+v; %s %s %s", name, s, field(r, "x-b3-traceid"), field(r, "x-b3-spanid"), field(r, "x-b3-parentspanid"))
		}
	}
}

// What a request pays that is not sampled, and one that is: no allocation.
func TestRequestsAllocateNothing(t *testing.T) {
	clusters := cluster.NewManager(cluster.Options{})
	defer func() { _ = clusters.Close() }()
	es := otlp.NewExporters(otlp.Options{Clusters: clusters, Log: slog.New(slog.DiscardHandler)})
	defer es.Close()
	out, err := es.Open(nil, func() otlp.Config {
		return otlp.Config{Collector: &Collector{}, MaxItems: 1 << 30, SendAt: 1 << 30, Interval: time.Hour}
	})
	if err != nil {
		t.Fatal(err)
	}
	room := make([]byte, 0, 64<<10)
	for _, random := range []uint32{0, 10000} {
		for _, z := range []*Zipkin{nil, {W3C: true}} {
			c := everything()
			c.Random, c.Provider.Zipkin, c.SpawnUpstream = Fraction{random, 10000}, z, true
			tr := mustTracer(t, c)
			encode := tr.encode
			tr.out, tr.encode = out, func(dst []byte, p *report, t *Tracer) []byte {
				encode(room, p, t)
				return dst
			}
			r, agent := request(), strings.Repeat("agent", 40)
			var s Span
			var a Attempt
			rec := &telemetry.Record{RequestHeaders: r, Code: 200, Cluster: "origin", DownstreamDirect: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
			const notSampled, sampled = "00-" + traceID + "-" + spanHex + "-00", "00-" + traceID + "-" + spanHex + "-01"
			if n := testing.AllocsPerRun(100, func() {
				r.Reset()
				if random == 0 {
					r.Fields.Add("traceparent", notSampled)
				} else {
					r.Fields.Add("traceparent", sampled)
				}
				r.Fields.Add("x-request-id", requestID)
				r.Fields.Add("user-agent", agent)
				tr.Start(&s, r, &Request{})
				tr.Begin(&s, &a, r)
				s.Show(rec)
				if s.Sampled {
					tr.FinishAttempt(&s, &a, rec, 0, 0)
					tr.Finish(&s, rec, time.Now(), 0)
				}
			}); n != 0 {
				t.Errorf("random %d, zipkin %v: %v allocations", random, z, n)
			}
			if s.Sampled != (random > 0) {
				t.Errorf("random %d, zipkin %v: the measured request is sampled: %v", random, z, s.Sampled)
			}
		}
	}
}

// full is a span that has everything.
func full(t *testing.T, c *Config) (*Tracer, *report) {
	c.Verbose, c.MaxPath = true, 5
	c.Tags = []Tag{
		{Name: "lit", Literal: true, Value: "v%"}, {Name: "n", Literal: true, Value: "42", Type: IntTag}, {Name: "d", Literal: true, Value: "1.5", Type: DoubleTag},
		{Name: "b", Literal: true, Value: "true", Type: BoolTag}, {Name: "no", Literal: true, Value: "x", Type: IntTag}, {Name: "hdr", Header: "x-team", Default: "none"},
		{Name: "fmt", Value: "%RESPONSE_CODE%"}, {Name: "void", Header: "x-void"},
	}
	tr, err := newTracer(c, &Node{ID: "node-1", Cluster: "web", Zone: "z1", Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	r := request("x-request-id", requestID, "x-team", "blue\xff", "content-type", "application/grpc", "x-forwarded-proto", "https", "tracestate", "k=v")
	r.Path = "/long/path"
	s := &Span{live: true, wide: true, Sampled: true, start: time.Unix(1000, 0), mono: 5}
	unhex(s.Trace[:], traceID)
	unhex(s.ID[:], spanHex)
	s.Parent = SpanID{1}
	rec := &telemetry.Record{
		RequestHeaders: r, Protocol: "HTTP/2", Code: 503, Cluster: "api", BytesReceived: 3, BytesSent: 4, Flags: telemetry.FlagUpstreamOverflow,
		DownstreamDirect: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 7}, ResponseTrailers: &request("grpc-status", "14", "grpc-message", "gone").Fields,
	}
	rec.Moments[telemetry.AnswerBegan] = 5 + int64(time.Millisecond)
	return tr, &report{span: s, id: s.ID, parent: s.Parent, kind: server, name: []byte("ingress"), start: s.start, end: s.start.Add(time.Second), record: rec}
}

func attributes(s *tracev1.Span) map[string]string {
	out := map[string]string{}
	for _, a := range s.Attributes {
		out[a.Key] = strings.Trim(strings.SplitN(a.Value.String(), ":", 2)[1], `"`)
	}
	return out
}

func TestOTLP(t *testing.T) {
	tr, p := full(t, everything())
	body := wrapOTLP(nil, appendOTLP(appendOTLP(nil, p, tr), p, tr), &Provider{Service: "svc"}, &Node{Version: "1.0"})
	var req collectorv1.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		t.Fatal(err)
	}
	rs := req.ResourceSpans[0]
	if got := fmt.Sprintf("%d %s %s %d", len(rs.Resource.Attributes), rs.Resource.Attributes[0].Value.GetStringValue(), rs.ScopeSpans[0].Scope.Name, len(rs.ScopeSpans[0].Spans)); got != "4 svc hauberk 2" {
		t.Error(got)
	}
	s := rs.ScopeSpans[0].Spans[1]
	if hex.EncodeToString(s.TraceId) != traceID || hex.EncodeToString(s.SpanId) != spanHex || s.ParentSpanId[0] != 1 || s.TraceState != "k=v" || s.Name != "ingress" ||
		s.Kind != tracev1.Span_SPAN_KIND_SERVER || s.Flags != 0x301 || s.EndTimeUnixNano-s.StartTimeUnixNano != 1e9 || s.Status.GetCode() != tracev1.Status_STATUS_CODE_ERROR {
		t.Error(s)
	}
	if e := s.Events; len(e) != 1 || e[0].Name != "first_upstream_rx_byte_received" || e[0].TimeUnixNano != 1000e9+1e6 {
		t.Error(e)
	}
	have := attributes(s)
	want := map[string]string{
		"node_id": "node-1", "zone": "z1", "guid:x-request-id": requestID, "http.url": "http://api.test/long", "http.method": "GET",
		"downstream_cluster": "-", "user_agent": "-", "http.protocol": "HTTP/2", "peer.address": "10.0.0.9", "grpc.path": "/long/path",
		"grpc.authority": "api.test", "grpc.content_type": "application/grpc", "grpc.status_code": "14", "grpc.message": "gone",
		"request_size": "3", "response_size": "4", "component": "proxy", "upstream_cluster": "api", "upstream_cluster.name": "api",
		"http.status_code": "503", "response_flags": "UO", "error": "true", "lit": "v%", "n": "42", "d": "1.5", "b": "true", "no": "x",
		"hdr": "blue\ufffd", "fmt": "503",
	}
	for k, v := range want {
		if have[k] != v {
			t.Errorf("%s is %q, want %q", k, have[k], v)
		}
	}
	if len(have) != len(want) {
		t.Errorf("%v", have)
	}
}

// TestStatusOfSpans: a server's span fails for its own errors, a client's for all.
func TestStatusOfSpans(t *testing.T) {
	for _, tc := range []struct {
		code           int
		grpc           string
		server, client bool
	}{
		{200, "", false, false}, {404, "", false, true}, {503, "", true, true}, {0, "", true, true},
		{200, "0", false, false}, {200, "5", false, true}, {200, "14", true, true}, {200, "x", true, true},
	} {
		r := &telemetry.Record{Code: tc.code, RequestHeaders: request("content-type", "application/grpc"), GRPCStatus: tc.grpc}
		for k, want := range map[kind]bool{server: tc.server, client: tc.client} {
			if got := (&report{record: r, kind: k}).failed(); got != want {
				t.Errorf("%d %q of %d: %t", tc.code, tc.grpc, k, got)
			}
		}
	}
}

func TestZipkinJSON(t *testing.T) {
	c := everything()
	c.Provider.Zipkin = &Zipkin{}
	tr, p := full(t, c)
	p.shared = true
	var out []map[string]any
	b := appendZipkin(appendZipkin(nil, p, tr), p, tr)
	if err := json.Unmarshal(append(append([]byte("["), b...), ']'), &out); err != nil {
		t.Fatal(err, string(b))
	}
	s := out[1]
	tags := s["tags"].(map[string]any)
	if len(out) != 2 || s["traceId"] != traceID || s["id"] != spanHex || s["parentId"] != "0100000000000000" || s["kind"] != "SERVER" || s["shared"] != true ||
		s["timestamp"] != 1e9 || s["duration"] != 1e6 || s["localEndpoint"].(map[string]any)["serviceName"] != "web" || tags["http.status_code"] != "503" || tags["n"] != "42" {
		t.Error(s)
	}
	// A node of the mesh is in no cluster: its spans have the workload's name.
	tr.node, p.record.Service = &Node{}, "api"
	if b := string(appendZipkin(nil, p, tr)); !strings.Contains(b, `"localEndpoint":{"serviceName":"api"}`) {
		t.Error(b)
	}
}

func TestConfigurationRefused(t *testing.T) {
	for want, c := range map[string]Config{
		"every span has":       {Tags: []Tag{{Name: "component", Literal: true}}},
		"is there twice":       {Tags: []Tag{{Name: "a", Literal: true}, {Name: "a", Literal: true}}},
		"has no name":          {Tags: []Tag{{}}},
		"%NOPE% is unknown":    {Tags: []Tag{{Name: "a", Value: "%NOPE%"}}},
		"operation: access":    {Operation: "%"},
		"upstream_operation: ": {UpstreamOperation: "%"},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
