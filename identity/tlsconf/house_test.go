package tlsconf

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forbidden is spelled in two parts so that a plain search finds only offenders.
const forbidden = "VerifyPeer" + "Certificate"

// The raw-certificate hook is skipped on resumption. No code of this repository
// may rely on it.
func TestRawCertificateHookIsNotUsed(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("not the repository's root: %v", err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != root:
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, at := range uses(t, path, src) {
			t.Errorf("%s: %s is used: verify in VerifyConnection, through identity/tlsconf", at, forbidden)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d files were searched", files)
	}
}

// uses finds the name as code: a comment may speak of it.
func uses(t *testing.T, path string, src []byte) []string {
	if !strings.Contains(string(src), forbidden) {
		return nil
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.Name == forbidden {
			out = append(out, set.Position(id.Pos()).String())
		}
		return true
	})
	return out
}

func TestRawCertificateHookIsFound(t *testing.T) {
	for src, want := range map[string]int{
		"package x\n// " + forbidden + "\nvar c = 1":                                     0,
		"package x\nfunc f(c *tls.Config) { c." + forbidden + " = nil }":                 1,
		"package x\nvar c = &tls.Config{" + forbidden + ": func() error { return nil }}": 1,
	} {
		if got := uses(t, "x.go", []byte(src)); len(got) != want {
			t.Errorf("%q: found %v", src, got)
		}
	}
}
