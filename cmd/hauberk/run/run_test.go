package run

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestParseUpstream(t *testing.T) {
	for in, want := range map[string]string{
		"web:9191":           "web 127.0.0.1:9191",
		"web:127.0.0.2:9191": "web 127.0.0.2:9191",
		"web:[::1]:9191":     "web [::1]:9191",
		"web":                "",
		"web:":               "",
		":9191":              "",
		"web:0":              "",
		"web:70000":          "",
	} {
		u, err := parseUpstream(in)
		got := ""
		if err == nil {
			got = u.Service + " " + u.Bind.String()
		}
		if got != want {
			t.Errorf("%q: got %q (%v), want %q", in, got, err, want)
		}
	}
}

func TestEnvName(t *testing.T) {
	if got := envName("order-db.v2"); got != "HAUBERK_UPSTREAM_ORDER_DB_V2" {
		t.Error(got)
	}
}

// The files registry keeps peers away until the application is ready, and
// leaves nothing behind.
func TestFilesRegistry(t *testing.T) {
	dir := t.TempDir()
	f := &filesRegistry{dir: dir}
	r := &registration{Service: "api", ID: "api-1", Node: "n1", App: hostPort{"127.0.0.1", 9001}, Mesh: hostPort{"127.0.0.1", 21000}}
	weight := func() int {
		b, err := os.ReadFile(filepath.Join(dir, "run-api-1.json"))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Service struct {
				Connect struct {
					SidecarService struct {
						Weights struct{ Passing int }
					} `json:"sidecar_service"`
				}
			}
		}
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Service.Connect.SidecarService.Weights.Passing
	}
	if err := f.Announce(t.Context(), r); err != nil || weight() != 0 {
		t.Fatalf("announce: %v, weight %d, want 0", err, weight())
	}
	if err := f.Ready(t.Context(), r); err != nil || weight() != 1 {
		t.Fatalf("ready: %v, weight %d, want 1", err, weight())
	}
	if err := f.Withdraw(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := f.Withdraw(t.Context(), r); err != nil {
		t.Errorf("withdrawing twice: %v", err)
	}
}
