//go:build e2e

package h2spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// result is what the program tells of a case.
type result struct {
	Case    string
	Addr    string
	Strict  bool
	Skipped bool
	Error   string
}

// id is the section and number of a case.
func (r result) id() string {
	id, _, _ := strings.Cut(r.Case, " ")
	return id
}

// build is the program that plays the cases, from the module that pins them.
var build = sync.OnceValues(func() (program string, err error) {
	dir, err := os.MkdirTemp("", "h2spec")
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "cases")
	cmd := exec.Command("go", "build", "-o", program, "./cases")
	cmd.Dir = "../../tools/h2spec"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build h2spec: %w\n%s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if program, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(program, args...)
}

// asClient plays all cases of a client to the server at addr. Those of what a server only
// ought to do come last.
func asClient(t testing.TB, addr string, options ...string) (results []result) {
	t.Helper()
	cmd := command(t, append(append([]string{"server"}, options...), addr)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("h2spec against %s: %v\n%s", addr, err, &stderr)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var r result
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	slices.SortFunc(results, func(a, b result) int { return strings.Compare(a.Case, b.Case) })
	return results
}

// passed counts the cases that did, of those that are not strict, and of those that are.
func passed(results []result) (of, all, strict int) {
	for _, r := range results {
		switch ok := r.Error == "" && !r.Skipped; {
		case r.Strict && ok:
			strict++
		case !r.Strict && ok:
			of++
			all++
		case !r.Strict:
			all++
		}
	}
	return of, all, strict
}
