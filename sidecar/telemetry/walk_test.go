package telemetry

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// walkGo visits every Go file below a directory.
func walkGo(t *testing.T, root string, visit func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		b, err := os.ReadFile(path)
		visit(filepath.ToSlash(path), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
