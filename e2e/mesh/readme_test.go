//go:build e2e

package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

// blocks returns the fenced blocks of a section of a Markdown file.
func blocks(t *testing.T, file, section string) [][]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n"+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", file, section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var out [][]string
	for i, part := range strings.Split(rest, "\n```") {
		if i%2 == 1 {
			lines := strings.Split(strings.TrimSpace(part), "\n")
			if !strings.Contains(lines[0], " ") {
				lines = lines[1:] // the language
			}
			out = append(out, lines)
		}
	}
	return out
}

// TestReadme follows the README's own service, word by word, on a host of its
// own as far as files go: with the default ports and directories, and Consul.
func TestReadme(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root, for a mount namespace; CI is")
	}
	own := blocks(t, "../../README.md", "## Your own service")
	if len(own) != 2 || len(own[0]) != 3 {
		t.Fatalf("the section has changed, so must this test: %q", own)
	}
	consul, err := consultest.Start(t.Context(), consultest.Options{Dir: filepath.Join(t.TempDir(), "consul"), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer consul.Stop()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "api"), "#!/bin/sh\nexec python3 -m http.server 9001 --bind 127.0.0.1\n")
	if err := os.Chmod(filepath.Join(dir, "api"), 0o755); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	fmt.Fprintf(&script, `set -eu
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
until_ok() { for i in $(seq 200); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; "$@"; cat cp.log run.log; exit 1; }
ready() { hauberk status | tr -s ' ' | tr '\n' ' ' | grep -q 'api tcp 1/1 .*api-1 api synced'; }
%s > cp.log 2>&1 &
until_ok hauberk status
%s
%s > run.log 2>&1 &
until_ok ready
`, own[0][0], own[0][1], own[0][2])
	for _, line := range own[1] {
		fmt.Fprintf(&script, "echo '$ %s'\n{ %s\n} || { rc=$?; echo \"exit $rc\"; test $rc = 1; }\n", line, line)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("HAUBERK_BIN")+":"+os.Getenv("PATH"), "CONSUL_HTTP_ADDR="+consul.HTTPAddr())
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"consul", "api-1", "allowed", "spiffe://prod.example.com/ns/default/dc/dc1/svc/api", "inbound:127.0.0.1:21000"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing", want)
		}
	}
	t.Logf("%s", out)
}
