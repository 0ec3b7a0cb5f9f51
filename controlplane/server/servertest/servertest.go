// Package servertest runs a whole control plane in the process of a test.
package servertest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/controlplane/server"
	"github.com/hauberk-mesh/hauberk/controlplane/source/files"
)

// TrustDomain is what Start's control planes serve.
const TrustDomain = "test.mesh"

// ControlPlane is one that runs.
type ControlPlane struct {
	*server.Server
	// Socket and API are how `hauberk --address` names its two ends.
	Socket, API string
	// Stop ends it, as the end of the test does.
	Stop func()
}

// Start runs a control plane on loopback whose files source has these files, by
// name. Each of more changes its configuration before it is built.
func Start(t *testing.T, content map[string]string, more ...func(*server.Config)) *ControlPlane {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "files")
	if err := os.Mkdir(config, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := server.Config{
		StateDir: filepath.Join(dir, "cp"), TrustDomain: spiffeid.RequireTrustDomainFromString(TrustDomain), ID: "cp1",
		Source: files.New(files.Config{Dir: config}), XDSAddress: "127.0.0.1:0", APIAddress: "127.0.0.1:0",
		Socket: filepath.Join(dir, "cp.sock"),
	}
	for _, f := range more {
		f(&cfg)
	}
	s, err := server.Build(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	cp := &ControlPlane{Server: s, Socket: "unix://" + cfg.Socket, API: "https://" + s.Addrs().API}
	cp.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(cp.Stop)
	return cp
}
