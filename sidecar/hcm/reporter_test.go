package hcm

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestReportsStoreNothing: a line at an interval joins the values of a field that the
// client repeats, and an exchange may last for ever: no line leaves anything behind.
func TestReportsStoreNothing(t *testing.T) {
	logs := telemetry.NewLogs(nil)
	defer logs.Close()
	format := "%REQ(USER-AGENT):10% %RESP(X-TWO)% %STREAM_ID%\n"
	access, err := logs.Open([]telemetry.AccessLogConfig{{Path: filepath.Join(t.TempDir(), "log"), Format: format}})
	if err != nil {
		t.Fatal(err)
	}
	defer access.Close()
	p := &reporter{log: access, every: int64(time.Second)}
	for range 2 {
		p.req.Fields.Add("user-agent", strings.Repeat("a", 10_000))
		p.req.Fields.Add("x-request-id", "1234")
		p.resp.Fields.Add("x-two", "2")
	}
	p.rec.RequestHeaders, p.rec.ResponseHeaders = &p.req, &p.resp
	req, resp := p.req.Fields.Stored(), p.resp.Fields.Stored()
	for range 10 {
		p.next = 0
		p.due(1)
	}
	if a, b := p.req.Fields.Stored()-req, p.resp.Fields.Stored()-resp; a != 0 || b != 0 {
		t.Errorf("ten lines left %d bytes with the request and %d with the response", a, b)
	}
}

// TestReportsOfWhatServes: a line at an interval is written beside the exchange, which goes from one
// host to the next meanwhile, and to its next request: the line has what it was told of.
func TestReportsOfWhatServes(t *testing.T) {
	b := newBed(t, "127.0.0.1:1")
	cfg := *b.clusters.Get("origin").Config()
	cfg.Metadata = map[string]map[string]any{"a": {"b": "of the cluster"}}
	if err := b.clusters.Update(&cfg); err != nil {
		t.Fatal(err)
	}
	b.start()
	x := besides(b)
	defer x.leave()
	x.d.Info = &stream.Info{}
	x.cluster, x.observed.wants = b.clusters.Get("origin"), telemetry.WantConfigured
	x.reporter = &reporter{every: 1}
	x.updateReporter()
	x.cluster = nil
	if got := x.reporter.rec.Configured.ConfiguredMetadata(telemetry.PartCluster)["a"]["b"]; got != "of the cluster" {
		t.Error(got)
	}
	x.rec.Configured, x.observed.wants = nil, 0
	x.updateReporter()
	if x.reporter.rec.Configured != nil {
		t.Error("a copy is made that nobody shows")
	}
	x.reporter = nil
}

// TestReportsOfHops: a line at an interval has of an upgrade what the last one has.
func TestReportsOfHops(t *testing.T) {
	b := newBed(t, "127.0.0.1:1")
	b.cfg.LogInterval = time.Hour
	b.start()
	x := besides(b)
	defer x.leave()
	x.d.Info = &stream.Info{}
	x.req.Upgrade, x.req.AcceptTrailers = "websocket", true
	x.startReporter()
	defer x.stopReporter()
	for _, name := range []string{"upgrade", "te", "connection"} {
		got, _ := x.reporter.req.Header(name)
		if want, _ := x.req.Header(name); got != want || want == "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got, want := x.reporter.req.Bytes(), x.req.Bytes(); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}
