//go:build e2e

package mesh

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// newFilesMesh is a mesh whose source is a directory.
func newFilesMesh(t *testing.T, flags ...string) *mesh {
	t.Helper()
	m := &mesh{t: t, dir: t.TempDir(), bin: os.Getenv("HAUBERK_BIN")}
	if m.bin == "" {
		t.Fatal("HAUBERK_BIN is not set: run `make e2e`")
	}
	m.files = filepath.Join(m.dir, "files")
	if err := os.Mkdir(m.files, 0o755); err != nil {
		t.Fatal(err)
	}
	m.startControlPlane("cp1", append([]string{"--source", "files", "--files-dir", m.files}, flags...)...)
	return m
}

// file puts a file into the directory, whole from the first moment.
func (m *mesh) file(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.files, name)
	tmp := filepath.Join(m.files, "."+name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// stanza writes a workload's registration.
func (m *mesh) stanza(w *workload) {
	m.t.Helper()
	side := w.reg.Connect.SidecarService
	proxy := map[string]any{"local_service_port": side.Proxy.LocalServicePort}
	var upstreams []map[string]any
	for _, u := range side.Proxy.Upstreams {
		upstreams = append(upstreams, map[string]any{"destination_name": u.DestinationName, "local_bind_port": u.LocalBindPort})
	}
	if len(upstreams) > 0 {
		proxy["upstreams"] = upstreams
	}
	b, err := json.Marshal(map[string]any{"service": map[string]any{
		"id": w.reg.ID, "name": w.reg.Name, "address": w.reg.Address, "port": w.reg.Port, "meta": w.reg.Meta,
		"connect": map[string]any{"sidecar_service": map[string]any{"port": side.Port, "proxy": proxy}},
	}})
	if err != nil {
		m.t.Fatal(err)
	}
	m.file(w.id+".json", string(b))
}
