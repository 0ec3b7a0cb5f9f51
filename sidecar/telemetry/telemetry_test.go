package telemetry

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write docs/METRICS.md")

type headers map[string]string

func (h headers) HeaderFrom(name message.Name, from int) (string, int, bool) {
	v, ok := h[name.String()]
	return v, 1, ok && from == 0
}

func (h headers) Header(lower string) (string, bool) { v, ok := h[lower]; return v, ok }

func sample() *Record {
	return &Record{
		Start: time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC), Duration: 1500 * time.Millisecond,
		Direction: Inbound, Protocol: "HTTP/1.1", Code: 403, Flags: FlagDownstreamProtocolError | FlagDownstreamTermination,
		PeerID: "spiffe://td/ns/default/dc/dc1/svc/web", Denied: true, Rule: "default deny", Attempts: 3,
		DownstreamRemote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5},
		RequestHeaders:   headers{":method": "GET", ":path": "/a\" b\r\nfake", "x": "abcdef"},
	}
}

func TestFormat(t *testing.T) {
	for _, tc := range []struct{ format, want string }{
		{"%START_TIME%", "2026-01-02T03:04:05.678Z"},
		{"%START_TIME(%Y/%m/%d %H:%M:%E3S %s %3f %%)%", "2026/01/02 03:04:05.678 1767323045 678 %"},
		{"%REQ(:METHOD)% %REQ(NONE?X):3% %RESP(Y)%", "GET abc -"},
		{`"%REQ(:PATH)%"`, `"/a\" b\x0d\x0afake"`},
		{"%RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION%", "403 DC,DPE 1500"},
		{"%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", "127.0.0.1:5 127.0.0.1 5"},
		{"%HAUBERK_SRC_ID% %HAUBERK_DECISION% %HAUBERK_RULE% %HAUBERK_RETRIES%", "spiffe://td/ns/default/dc/dc1/svc/web deny default deny 2"},
		{"100%%", "100%"},
		{"%REQ(X):0%|%REQ(NONE):0%", "|-"}, // what it has none of is still absent
	} {
		f, err := ParseFormat(tc.format)
		if err != nil {
			t.Errorf("%s: %v", tc.format, err)
			continue
		}
		if got := string(f.Append(nil, sample())); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.format, got, tc.want)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, format := range []string{"%NO_SUCH%", "%REQ%", "%REQ()%", "%REQ(?x)%", "%DURATION(x)%", "%DURATION:3%", "% x", "%REQ(x", "%START_TIME(%Q)%", "%REQ(x):-1%", "50% of"} {
		if _, err := ParseFormat(format); err == nil {
			t.Errorf("%s was accepted", format)
		}
	}
}

func TestDefaults(t *testing.T) {
	text, err := CompileAccessLog(AccessLogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if line := text.Append(nil, sample()); bytes.Count(line, []byte("\n")) != 1 {
		t.Errorf("not one line: %q", line)
	}
	f, err := CompileAccessLog(AccessLogConfig{JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(f.Append(nil, sample()), &got); err != nil {
		t.Fatal(err)
	}
	if got["code"] != 403.0 || got["path"] != "/a\" b\r\nfake" || got["upstream"] != nil || got["rule"] != "default deny" {
		t.Errorf("got %v", got)
	}
}

func FuzzAccessLogIsOneLine(f *testing.F) {
	f.Add("\r\n", "\"\\")
	f.Add("\x80\xff\u2028", "\x00")
	text, err1 := CompileAccessLog(AccessLogConfig{Format: `"%REQ(A)%" %REQ(B):5%`})
	object, err2 := CompileAccessLog(AccessLogConfig{JSON: true, Fields: map[string]any{"a": "%REQ(A)%", "b": "x%REQ(B)%y"}})
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		r := &Record{RequestHeaders: headers{"a": a, "b": b}}
		line := text.Append(nil, r)
		if bytes.ContainsAny(line[:len(line)-1], "\r\n") {
			t.Errorf("%q", line)
		}
		if !json.Valid(object.Append(nil, r)) {
			t.Errorf("%q", object.Append(nil, r))
		}
	})
}

// TestUnusedCluster: a cluster that nothing was counted of has its series, and no
// counters of its own.
func TestUnusedCluster(t *testing.T) {
	m := NewMetrics()
	idle, busy := m.Cluster("idle"), m.Cluster("busy")
	idle.SetEndpoints(3, 0, 1, 0, 0)
	busy.Answered(0, 200)
	busy.Use().ConnectDuration.Observe(0, time.Second)
	var out bytes.Buffer
	if err := m.Registry.WritePrometheus(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`hauberk_upstream_requests_total{cluster="idle",code_class="2xx"} 0`, `hauberk_upstream_requests_total{cluster="busy",code_class="2xx"} 1`,
		`hauberk_upstream_endpoints{cluster="idle",state="healthy"} 3`, `hauberk_upstream_endpoints{cluster="idle",state="draining"} 1`,
		`hauberk_upstream_connect_duration_seconds_count{cluster="idle"} 0`, `hauberk_upstream_connect_duration_seconds_count{cluster="busy"} 1`,
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if idle.used.Load() != nil || busy.used.Load() == nil {
		t.Error("counters of an idle cluster, or none of a busy one")
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// everySeries makes one series of each family.
func everySeries(m *Metrics) {
	p := m.Service(Inbound, "api").Peer("web")
	p.Request(NextShard(), 200, 0, time.Millisecond)
	p.ConnectionOpened(0)
	c := m.Cluster("c")
	c.Answered(0, 503)
	c.TLSFailure("verify")
	for _, f := range m.Registry.families {
		labels := make([]string, len(f.Labels))
		for i := range labels {
			labels[i] = "x\"\n\\"
		}
		switch f.Kind {
		case CounterKind:
			(&CounterVec{f}).With(labels...).Inc(0)
		case GaugeKind:
			(&GaugeVec{f}).With(labels...).Set(1)
		case HistogramKind:
			(&HistogramVec{f}).With(labels...).Observe(0, time.Second)
		}
	}
}

func TestExpositionPassesPromlint(t *testing.T) {
	m := NewMetrics()
	everySeries(m)
	var out bytes.Buffer
	if err := m.Registry.WritePrometheus(&out); err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(&out).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestBounds(t *testing.T) {
	m := NewMetrics()
	s := m.Service(Inbound, "api")
	for i := range maxPeers + 50 {
		s.Peer(fmt.Sprint(i))
	}
	if n := len(*s.peers.Load()); n > maxPeers+1 {
		t.Errorf("%d peers", n)
	}
	p := s.Peer("0")
	for code := 100; code < 600; code++ {
		p.Request(0, code, 0, 0)
	}
	if n := len(*p.results.Load()); n > maxPeerResults || p.overflow.Value() == 0 {
		t.Errorf("%d results, %d in overflow", n, p.overflow.Value())
	}
	if n := testing.AllocsPerRun(100, func() { s.Peer("0").Request(1, 200, 0, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func TestPeerName(t *testing.T) {
	for id, want := range map[string]string{
		"": PeerNone, "spiffe://td/ns/default/dc/dc1/svc/web": "web", "spiffe://td/hauberk/node/n": PeerOther,
		"spiffe://td/x/svc/web": PeerOther, "https://td/ns/a/dc/b/svc/web": PeerOther, "spiffe://td/ns/a/dc/b/svc/": PeerOther,
	} {
		if got := PeerName(id); got != want {
			t.Errorf("%s: got %s", id, got)
		}
	}
}

// What is gone is not shown; what somebody else still uses is.
func TestGoneIsForgotten(t *testing.T) {
	m := NewMetrics()
	gone, kept, both := m.Service(Inbound, "gone"), m.Service(Inbound, "kept"), m.Service(Inbound, "both")
	out, again := m.Service(Outbound, "gone"), m.Service(Inbound, "both")
	for _, s := range []*ServiceMetrics{gone, kept, both, out, again} {
		s.Peer("x").Request(0, 200, 0, time.Second)
		s.Peer("x").Bytes(0, 1, 1)
	}
	for _, l := range []string{"gone-l", "kept-l"} {
		m.Accepted(l)
		m.Refused(l, "r")
		m.PolicyClosed(l, "r")
		m.AcceptFailed(l, "r")
		m.PeerExpired(l, "logged")
	}
	gone.Release()
	both.Release()
	m.ForgetListener("gone-l")
	exposed := func() string {
		var out bytes.Buffer
		_ = m.Registry.WritePrometheus(&out)
		return out.String()
	}
	s := exposed()
	for want, counts := range map[int][]string{
		0: {`inbound",service="gone"`, `"gone-l"`},
		1: {`hauberk_requests_total{direction="inbound",service="kept"`, `hauberk_requests_total{direction="inbound",service="both"`, `hauberk_requests_total{direction="outbound",service="gone"`},
		5: {`{listener="kept-l"`},
	} {
		for _, c := range counts {
			if n := strings.Count(s, c); n != want {
				t.Errorf("%d of %s, want %d", n, c, want)
			}
		}
	}
	again.Release()
	if s := exposed(); strings.Contains(s, `"both"`) {
		t.Error("nobody has it, and it is there")
	}
	m.Service(Inbound, "both").Peer("x").ConnectionOpened(0)
	if s := exposed(); !strings.Contains(s, `hauberk_connections_total{direction="inbound",service="both",peer="x"} 1`) {
		t.Error("it came back, and does not count anew")
	}
}

func TestAccessLogWritesReopensAndDrops(t *testing.T) {
	m := NewMetrics()
	logs := NewLogs(m)
	path := filepath.Join(t.TempDir(), "log")
	l, err := logs.Open([]AccessLogConfig{{Path: path, Format: "%RESPONSE_CODE%"}})
	if err != nil {
		t.Fatal(err)
	}
	l.Log(sample())
	logs.Flush()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	logs.Reopen()
	logs.Flush()
	l.Log(sample())
	logs.Close()
	for _, p := range []string{path, path + ".1"} {
		if b, err := os.ReadFile(p); err != nil || string(b) != "403\n" {
			t.Errorf("%s: %q %v", p, b, err)
		}
	}
	l.Log(sample())
	l.Close()
	if w, d := logs.written.Value(), logs.dropped.Value(); w != 2 || d != 1 {
		t.Errorf("written %d, dropped %d", w, d)
	}
}

// TestClosedLogsAreWritten: the end waits for files too that their last log gave back.
func TestClosedLogsAreWritten(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), "access.log")
		logs := NewLogs(nil)
		l, err := logs.Open([]AccessLogConfig{{Path: path, Format: "%RESPONSE_CODE%\n"}})
		if err != nil {
			t.Fatal(err)
		}
		l.Log(sample())
		l.Close()
		logs.Close()
		if b, err := os.ReadFile(path); err != nil || len(b) == 0 {
			t.Fatalf("%q %v", b, err)
		}
	}
}

// docs/METRICS.md is made from the code; go test -run Docs -update writes it.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "METRICS.md")
	want := Markdown()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("docs/METRICS.md is not up to date (%v): go test ./sidecar/telemetry -run Docs -update", err)
	}
}

// TestOperatorsOfTheGrammar: the grammar's operators are those that have values,
// and each takes what the grammar says.
func TestOperatorsOfTheGrammar(t *testing.T) {
	have := map[string]bool{}
	for _, o := range operators {
		have[o.Name] = true
		g, ok := logformat.Operators[o.Name]
		if !ok {
			t.Errorf("%s is not in the grammar", o.Name)
		}
		if takes := g.Kind != logformat.Text && g.Kind != logformat.Number; takes != (o.withArgument != nil || o.compile != nil) {
			t.Errorf("%s: the grammar's kind %d, with an argument %t", o.Name, g.Kind, o.withArgument != nil)
		}
	}
	for name := range logformat.Operators {
		if !have[name] {
			t.Errorf("%s has no value", name)
		}
	}
}
