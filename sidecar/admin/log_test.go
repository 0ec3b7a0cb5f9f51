package admin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// TestAccessLog: requests to the admin listener and its socket are logged, refused ones
// too; those for metrics and readiness are not.
func TestAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	logs := telemetry.NewLogs(nil)
	defer logs.Close()
	log, err := logs.Open([]telemetry.AccessLogConfig{{Path: path,
		Format: "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(USER-AGENT)% %PROTOCOL% %RESPONSE_CODE% %BYTES_SENT% %RESP(CONTENT-TYPE)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %ACCESS_LOG_TYPE%"}})
	if err != nil {
		t.Fatal(err)
	}
	s := startWith(t, func(o *Options) { o.AccessLog = log })
	_, body := s.admin(t, "GET", "/config_dump?x=1")
	s.do(t, "GET", "tcp", s.Addrs().Admin.String(), "/certs", "evil.example")
	s.do(t, "GET", "tcp", s.Addrs().Metrics.String(), "/metrics", "m")
	s.do(t, "GET", "tcp", s.Addrs().Ready.String(), "/ready", "r")
	s.change(t, "POST", "/logging?level=loud")
	s.stop() // an answer is there before it is logged
	logs.Flush()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 3 || len(body) != 15 {
		t.Fatalf("%d lines of %q, %d bytes", len(lines), b, len(body))
	}
	for i, want := range []string{
		"GET /config_dump?x=1 localhost Go-http-client/1.1 HTTP/1.1 200 15 application/json 127.0.0.1 DownstreamEnd",
		"GET /certs evil.example Go-http-client/1.1 HTTP/1.1 403 47 text/plain; charset=utf-8 127.0.0.1 DownstreamEnd",
		"POST /logging?level=loud localhost Go-http-client/1.1 HTTP/1.1 400 46 text/plain; charset=utf-8 " + s.socket + " DownstreamEnd",
	} {
		if lines[i] != want {
			t.Errorf("line %d is %q, want %q", i, lines[i], want)
		}
	}
}
