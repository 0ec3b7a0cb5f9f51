package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
)

// TestAdminAccessLog: a bootstrap's access logs of the admin listener are written.
func TestAdminAccessLog(t *testing.T) {
	dir := t.TempDir()
	b, err := config.ParseBootstrap(fmt.Appendf(nil, `
admin:
  access_log_path: %[1]s/path
  access_log:
  - {name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %[1]s/log, format: "%%REQ(:PATH)%% %%RESPONSE_CODE%%"}}
`, dir))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(Config{Bootstrap: b, Admin: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	page(t, s, "/certs")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"log": "/certs 200\n", "path": `"GET /certs HTTP/1.1" 200 - 0 `} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	b.AdminLog[0].Path = filepath.Join(dir, "nowhere", "log")
	if _, err := Build(Config{Bootstrap: b, Admin: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "admin.access_log: ") {
		t.Error(err)
	}
}
