//go:build mutate

package house

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDefencesAreTested takes each defence out in turn: its test must fail.
func TestDefencesAreTested(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.what, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(root, m.file)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), m.old); n != 1 {
				t.Fatalf("%s holds %q %d times, want once: the list is out of date", m.file, m.old, n)
			}
			dir := t.TempDir()
			changed := filepath.Join(dir, "changed.go")
			if err := os.WriteFile(changed, []byte(strings.Replace(string(b), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			replace := map[string]string{file: changed}
			for _, path := range unneeded(t, filepath.Join(root, m.pkg), strings.Split(m.test, "|")) {
				replace[path] = "" // as if it was not there
			}
			overlay, err := json.Marshal(map[string]any{"Replace": replace})
			if err != nil {
				t.Fatal(err)
			}
			list := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(list, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			run := func() ([]byte, error) {
				cmd := exec.Command("go", "test", "-vet=off", "-overlay", list, "-count=1", "-ldflags=-s -w", "-gcflags=-dwarf=false", "-timeout", "90s", "-run", "^("+m.test+")$", "./"+m.pkg)
				cmd.Dir = root
				return cmd.CombinedOutput()
			}
			out, err := run()
			// Where other processes have the processor, the runtime interrupts who would have
			// kept it from others, without any turns.
			for tries := 1; err == nil && strings.HasSuffix(m.test, "Turns") && tries < 4; tries++ {
				out, err = run()
			}
			switch {
			case err == nil:
				t.Errorf("%s passes without it", m.test)
			case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic:"):
				t.Errorf("not a failing test:\n%s", out)
			}
		})
	}
}
