package hcm

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	p := &reporter{m: &Manager{cfg: &Config{LogOptions: LogOptions{LogInterval: time.Second}}, access: access}}
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
