//go:build mutate

package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// testFile is a file of tests: what it declares for others, and every name in it.
type testFile struct {
	path           string
	declares, uses map[string]bool
}

// unneeded are the files of tests in dir that the tests called by names do without. To compile them
// is most of what a run of few tests takes, where there are many.
func unneeded(t *testing.T, dir string, names []string) (paths []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var left []testFile
	for _, path := range found {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, namesOf(path, f))
	}
	wanted := map[string]bool{"TestMain": true, "init": true}
	for _, n := range names {
		wanted[n] = true
	}
	for more := true; more; {
		more = false
		rest := left[:0]
		for _, f := range left {
			if !meets(f.declares, wanted) {
				rest = append(rest, f)
				continue
			}
			for n := range f.uses {
				wanted[n] = true
			}
			more = true
		}
		left = rest
	}
	for _, f := range left {
		paths = append(paths, f.path)
	}
	return paths
}

func meets(a, b map[string]bool) bool {
	for n := range a {
		if b[n] {
			return true
		}
	}
	return false
}

// namesOf takes a method for a declaration of its type: that may need it to be what it is used as.
func namesOf(path string, f *ast.File) testFile {
	out := testFile{path, map[string]bool{}, map[string]bool{}}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				out.declares[d.Name.Name] = true
			} else if base := receiver(d.Recv.List[0].Type); base != "" {
				out.declares[base] = true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					out.declares[s.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range s.Names {
						out.declares[n.Name] = true
					}
				}
			}
		}
	}
	// Blank declarations have no users: what they check is not wanted.
	delete(out.declares, "_")
	ast.Inspect(f, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			out.uses[id.Name] = true
		}
		return true
	})
	return out
}

// receiver is the name of the type that a method is of.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
