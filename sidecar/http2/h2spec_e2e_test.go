//go:build e2e

package http2

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// h2spec's two programs, built from the module that pins them.
var buildH2spec = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "h2spec"); err != nil {
		return "", err
	}
	const cmds = "github.com/summerwind/h2spec/cmd/"
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), cmds+"h2spec", cmds+"h2specd")
	cmd.Dir = "../../e2e/tools/h2spec"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build h2spec: %w\n%s", err, out)
	}
	return dir, nil
})

func h2spec(t *testing.T, program string, args ...string) string {
	t.Helper()
	dir, err := buildH2spec()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, program), append(args, "-o", "2")...)
	cmd.Env = append(os.Environ(), fetchEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("%s: %v", program, err)
	}
	// A listener that h2specd has closed goes on reporting so.
	return regexp.MustCompile(`(?m)^\s*accept tcp .*\n`).ReplaceAllString(string(out), "")
}

// passedAll checks the summary line and shows the failures.
func passedAll(t *testing.T, out string, want int) {
	t.Helper()
	m := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindStringSubmatch(out)
	if m == nil || m[1] != strconv.Itoa(want) || m[2] != m[1] {
		i := max(strings.Index(out, "Failures:"), 0)
		t.Errorf("want %d passed of %d; h2spec said:\n%s", want, want, out[i:])
	}
}

func conformant() (*Config, handlerFunc) {
	cfg := Default()
	cfg.MaxConcurrentStreams = 100
	return cfg, func(s *Stream) {
		for body := s.Request().Body; body != nil; {
			if _, last, err := body.Next(); err != nil || last {
				break
			}
		}
		ok(s)
	}
}

func TestH2specServer(t *testing.T) {
	cfg, h := conformant()
	_, port, _ := net.SplitHostPort(serve(t, cfg, h).addr)
	passedAll(t, h2spec(t, "h2spec", "-p", port), 145)
	passedAll(t, h2spec(t, "h2spec", "-p", port, "-S", "http2"), 95)
}

func TestH2specServerTLS(t *testing.T) {
	cfg, h := conformant()
	_, port, _ := net.SplitHostPort(serveTLS(t, cfg, h))
	passedAll(t, h2spec(t, "h2spec", "-p", port, "-t", "-k"), 145)
}

// TestH2specClient has h2spec play a hostile server. It starts this program again for
// each case, with the address to fetch.
func TestH2specClient(t *testing.T) {
	out := h2spec(t, "h2specd", "-f", "31100", "-e", os.Args[0])
	passedAll(t, out, 57)
}

// fetch is what h2specd executes.
func fetch(target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err
	}
	s, err := stream.NewSocket(c.(*net.TCPConn), nil)
	if err != nil {
		return err
	}
	cc := NewClient(s, Default())
	done := make(chan error, 1)
	go func() { done <- cc.Run() }()
	resp, _, err := exchange(cc, newRequest("GET", "/"), "")
	if err != nil || resp.Status != 200 {
		_ = <-done
		return fmt.Errorf("status %d: %w", resp.Status, err)
	}
	return <-done
}

func init() {
	if os.Getenv(fetchEnv) != "" {
		if err := fetch(os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

const fetchEnv = "HAUBERK_TEST_FETCH"
