//go:build e2e

package bootstrap

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestEnvoyAccepts lets the real Envoy (ENVOY_BIN, or the one of the PyPI
// package) validate what we generate. It fails where there is none.
func TestEnvoyAccepts(t *testing.T) {
	bin := os.Getenv("ENVOY_BIN")
	if bin == "" {
		bin = "/opt/envoy-venv/bin/envoy"
	}
	socket := full()
	socket.Admin, socket.AdminSocket, socket.SotW = netip.AddrPort{}, "/tmp/hauberk-admin.sock", true
	minimal := Envoy{NodeID: "n", AgentSocket: "/run/hauberk/agent.sock"}
	for name, e := range map[string]Envoy{"full": full(), "sotw and admin socket": socket, "minimal": minimal} {
		b, err := e.Proto()
		if err != nil {
			t.Fatal(err)
		}
		y, err := YAML(b)
		if err != nil {
			t.Fatal(err)
		}
		j, err := JSON(b)
		if err != nil {
			t.Fatal(err)
		}
		for ext, content := range map[string][]byte{"yaml": y, "json": j} {
			t.Run(name+"/"+ext, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "bootstrap."+ext)
				if err := os.WriteFile(file, content, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.CommandContext(t.Context(), bin, "--mode", "validate", "-c", file).CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			})
		}
	}
}
