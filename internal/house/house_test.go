// Package house holds the rules of the house as tests: which room may import
// which, how long a file may be, and what must be unreachable from the request
// path.
package house

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hauberk-mesh/hauberk"

const root = "../.."

type goPackage struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]goPackage{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs[strings.TrimPrefix(p.ImportPath, module+"/")] = p
	}
	if len(pkgs) < 20 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

// TestImportsRunDownhill: a room may not import what stands above it or beside
// it. Own packages by path below the module, others by import path.
func TestImportsRunDownhill(t *testing.T) {
	rules := []struct {
		room string
		not  []string
		why  string
	}{
		{"identity", []string{"xds", "sidecar", "controlplane", "cmd", "e2e"}, "identity stands alone"},
		{"xds", []string{"sidecar", "controlplane", "cmd", "e2e"}, "both sides speak xds, it knows neither"},
		{"sidecar", []string{"controlplane", "cmd", "e2e", "github.com/hashicorp/consul/api", "github.com/spf13/cobra"}, "a sidecar is small and knows no Consul"},
		{"controlplane", []string{"sidecar", "cmd", "e2e"}, "the control plane does not know the data path"},
		{"controlplane/catalog", []string{"google.golang.org/protobuf", "github.com/envoyproxy", "xds"}, "the model knows no protobuf"},
		{"controlplane/compile", []string{"google.golang.org/protobuf", "github.com/envoyproxy", "xds"}, "compile knows no protobuf"},
		{"controlplane/store", []string{"google.golang.org/protobuf", "github.com/envoyproxy", "xds"}, "the store knows no protobuf"},
		{"internal", []string{"sidecar", "controlplane", "cmd", "xds", "identity"}, "internal is at the bottom"},
	}
	pkgs := packages(t)
	for path, p := range pkgs {
		for _, r := range rules {
			if !within(path, r.room) {
				continue
			}
			for _, imp := range p.Imports {
				own := strings.TrimPrefix(imp, module+"/")
				for _, not := range r.not {
					if within(own, not) {
						t.Errorf("%s imports %s: %s", path, imp, r.why)
					}
				}
			}
		}
	}
	// What a sidecar links counts, not only what it names.
	for _, banned := range []string{"github.com/hashicorp/consul/api", "github.com/spf13/cobra", module + "/controlplane/server"} {
		if slices.Contains(pkgs["cmd/hauberk-sidecar"].Deps, banned) {
			t.Errorf("hauberk-sidecar links %s", banned)
		}
	}
}

// TestProtobufStopsAtConfig: the data path reads plain structs.
func TestProtobufStopsAtConfig(t *testing.T) {
	for path, p := range packages(t) {
		if !onRequestPath(path) {
			continue
		}
		for _, d := range p.Deps {
			if strings.HasPrefix(d, "google.golang.org/protobuf") || strings.HasPrefix(d, "github.com/envoyproxy") {
				t.Errorf("%s reaches %s: protobuf stops at sidecar/config", path, d)
			}
		}
	}
}

func onRequestPath(path string) bool {
	for _, room := range []string{"listener", "message", "http1", "http2", "tunnel", "tcp", "route", "cluster", "filter", "hcm", "authz", "stream"} {
		if within(path, "sidecar/"+room) {
			return true
		}
	}
	return false
}

// TestNetHTTPIsUnreachableFromTheRequestPath: its Server and Transport cost
// three times the kernel's floor per request, and its parsing is not ours.
func TestNetHTTPIsUnreachableFromTheRequestPath(t *testing.T) {
	found := 0
	for path, p := range packages(t) {
		if !onRequestPath(path) {
			continue
		}
		found++
		for _, banned := range []string{"net/http", "net/http/httputil"} {
			if slices.Contains(p.Deps, banned) {
				t.Errorf("%s reaches %s", path, banned)
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d packages are on the request path: the list of rooms is stale", found)
	}
}

// longFiles may pass 600 lines, each for a stated reason.
var longFiles = map[string]string{
	"sidecar/hcm/behaviour_test.go": "one table of behaviours over one harness; parts of it alone say little",
}

func goFiles(t *testing.T, visit func(path string, src []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		visit(filepath.ToSlash(rel), src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func TestFilesAreShort(t *testing.T) {
	goFiles(t, func(path string, src []byte) {
		if generated.Match(src) || longFiles[path] != "" {
			return
		}
		if n := bytes.Count(src, []byte("\n")); n > 600 {
			t.Errorf("%s has %d lines, more than 600: one idea each", path, n)
		}
	})
}

func TestMainsAreTablesOfContents(t *testing.T) {
	goFiles(t, func(path string, src []byte) {
		if ok, _ := filepath.Match("cmd/*/main.go", path); ok {
			if n := bytes.Count(src, []byte("\n")); n > 130 {
				t.Errorf("%s has %d lines, more than 130", path, n)
			}
		}
	})
}

func TestPackagesHaveDocs(t *testing.T) {
	for path, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("package %s has no doc comment", path)
		}
	}
}

// TestNoBannedCalls: a wait that ignores its context cannot be ended, and
// VerifyPeerCertificate does not run on resumed TLS sessions.
func TestNoBannedCalls(t *testing.T) {
	banned := map[string]string{
		"time.Sleep(":                       "wait on a context and a timer",
		"VerifyPeerCertificate:":            "verify in VerifyConnection",
		"VerifyPeerCertificate =":           "verify in VerifyConnection",
		"SessionTicketsDisabled: false":     "no session tickets anywhere",
		"tls.NewLRUClientSessionCache":      "no session cache anywhere",
		"PermitWithoutStream: true, // any": "never",
	}
	goFiles(t, func(path string, src []byte) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "e2e/") || generated.Match(src) {
			return
		}
		for call, instead := range banned {
			if bytes.Contains(src, []byte(call)) {
				t.Errorf("%s uses %s: %s", path, call, instead)
			}
		}
	})
}

func TestFilesParseAndCarryNoLeftovers(t *testing.T) {
	leftover := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	goFiles(t, func(path string, src []byte) {
		if _, err := parser.ParseFile(token.NewFileSet(), path, src, parser.SkipObjectResolution); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if path != "internal/house/house_test.go" && leftover.Match(src) {
			t.Errorf("%s says it is unfinished: %s", path, leftover.Find(src))
		}
	})
}

// leakChecked: a package that starts goroutines checks in TestMain that they
// end.
func TestPackagesWithGoroutinesCheckForLeaks(t *testing.T) {
	starts := regexp.MustCompile(`(?m)^\s+go (func\(|[a-zA-Z_.]+\()|\.Go\(`)
	starting := map[string]bool{}
	checking := map[string]bool{}
	goFiles(t, func(path string, src []byte) {
		dir := filepath.ToSlash(filepath.Dir(path))
		switch {
		case strings.HasSuffix(path, "_test.go"):
			if bytes.Contains(src, []byte("goleak.VerifyTestMain")) {
				checking[dir] = true
			}
		case strings.HasPrefix(dir, "e2e"), strings.HasPrefix(dir, "cmd/"):
		case strings.HasPrefix(dir, "controlplane/source/sourcetest"), dir == "xds/sdstest":
			// Test support: the packages that use it check for leaks.
		case starts.Match(src):
			starting[dir] = true
		}
	})
	for dir := range starting {
		if !checking[dir] {
			t.Errorf("%s starts goroutines, but no test of it checks for leaks (goleak.VerifyTestMain)", dir)
		}
	}
}
