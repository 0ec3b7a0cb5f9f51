package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

// fields are functions that are kept in a field, so that starting them allocates nothing.
var fields = map[string]string{
	"sidecar/http2 drain":  "drainOut",
	"sidecar/http2 runner": "run",
	"sidecar/hcm task":     "work",
}

// TestGoroutinesContainPanics: a panic that leaves its goroutine ends the process, and
// with it every connection of every workload. So whatever the data path starts by go,
// WaitGroup.Go or AfterFunc defers panics.Contain.
func TestGoroutinesContainPanics(t *testing.T) {
	p := parsed{fset: token.NewFileSet(), funcs: map[string][]*ast.FuncDecl{}}
	type start struct {
		dir string
		at  token.Pos
		fun ast.Expr
	}
	var starts []start
	goFiles(t, func(file string, src []byte) {
		dir := path.Dir(file)
		if strings.HasSuffix(file, "_test.go") || !onRequestPath(dir) && !within(dir, "sidecar/downstream") && !within(dir, "sidecar/tracing") && !within(dir, "sidecar/otlp") {
			return
		}
		f, err := parser.ParseFile(p.fset, file, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				p.funcs[dir+" "+n.Name.Name] = append(p.funcs[dir+" "+n.Name.Name], n)
			case *ast.GoStmt:
				starts = append(starts, start{dir, n.Pos(), n.Call.Fun})
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && (s.Sel.Name == "Go" || s.Sel.Name == "AfterFunc") {
					starts = append(starts, start{dir, n.Pos(), n.Args[len(n.Args)-1]})
				}
			}
			return true
		})
	})
	if len(starts) < 25 {
		t.Errorf("only %d starts of goroutines were found: the rule is stale", len(starts))
	}
	for _, s := range starts {
		if !p.contains(s.dir, s.fun) {
			t.Errorf("%s: a goroutine starts that does not defer panics.Contain", p.fset.Position(s.at))
		}
	}
}

type parsed struct {
	fset  *token.FileSet
	funcs map[string][]*ast.FuncDecl // by directory and name
}

// contains tells whether what is started defers panics.Contain. A literal that does
// nothing but call a function is that function.
func (p *parsed) contains(dir string, fun ast.Expr) bool {
	name := ""
	switch f := fun.(type) {
	case *ast.FuncLit:
		if defers(f.Body) {
			return true
		}
		call := onlyCall(f.Body)
		return call != nil && p.contains(dir, call.Fun)
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
	}
	if held := fields[dir+" "+name]; held != "" {
		name = held
	}
	found := p.funcs[dir+" "+name]
	for _, d := range found {
		// Methods of the same name that do not start are not told apart: one will do.
		if d.Body != nil && defers(d.Body) {
			return true
		}
	}
	return false
}

// defers tells whether the function's own body defers panics.Contain.
func defers(b *ast.BlockStmt) bool {
	for _, s := range b.List {
		d, ok := s.(*ast.DeferStmt)
		if !ok {
			continue
		}
		if f, ok := d.Call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Contain" {
			if x, ok := f.X.(*ast.Ident); ok && x.Name == "panics" {
				return true
			}
		}
	}
	return false
}

func onlyCall(b *ast.BlockStmt) *ast.CallExpr {
	if len(b.List) != 1 {
		return nil
	}
	e, ok := b.List[0].(*ast.ExprStmt)
	if !ok {
		return nil
	}
	call, _ := e.X.(*ast.CallExpr)
	return call
}
