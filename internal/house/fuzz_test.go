package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFuzzTargets: docs/conformance.md names every target with its package and no other, and each
// has inputs that plain tests run, spelt out or kept of what was found.
func TestFuzzTargets(t *testing.T) {
	const doc = "docs/conformance.md"
	text, err := os.ReadFile(filepath.Join(root, doc))
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	_, table, _ := strings.Cut(string(text), "\n## Fuzzing\n")
	for line := range strings.Lines(table) {
		pkg := ""
		for _, m := range regexp.MustCompile("`([a-z0-9/]+)`|\\b(Fuzz[A-Za-z0-9]+)").FindAllStringSubmatch(line, -1) {
			if m[1] != "" {
				pkg = m[1]
			} else {
				told[pkg+" "+m[2]] = true
			}
		}
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9_]+)\(`)
	goFiles(t, func(path string, src []byte) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		for _, m := range target.FindAllStringSubmatch(string(src), -1) {
			name := pkg + " " + m[1]
			if !told[name] {
				t.Errorf("%s: %s is not in the table of %s", path, m[1], doc)
			}
			delete(told, name)
			kept, err := filepath.Glob(filepath.Join(root, pkg, "testdata/fuzz", m[1], "*"))
			if _, body, _ := strings.Cut(string(src), m[0]); err != nil || len(kept) == 0 && !addsInput(body) {
				t.Errorf("%s: %s has no input: f.Add, or make fuzz fuzz-keep", path, m[1])
			}
		}
	})
	for name := range told {
		t.Errorf("%s tells of %s, which there is not", doc, name)
	}
}

// addsInput tells whether a target, which src begins with, adds an input of its own.
func addsInput(src string) bool {
	body, _, _ := strings.Cut(src, "\n}\n")
	return strings.Contains(body, "f.Add(")
}
