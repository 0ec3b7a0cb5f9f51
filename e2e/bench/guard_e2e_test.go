//go:build e2e

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNothingIsLeftBehind: however the program ends, all that it started ends, the
// grandchildren (nginx's workers) too, and its files are removed.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			tmp := t.TempDir()
			cmd := exec.Command(os.Args[0], "-jobs", "plain", "-c", "1", "-rounds", "1000", "-starts", "1", "-without", "envoy,reverseproxy")
			cmd.Env = append(os.Environ(), itself+"=1", "TMPDIR="+tmp, "HAUBERK_SIDECAR="+filepath.Join(os.Getenv("HAUBERK_BIN"), "hauberk-sidecar"))
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var out bytes.Buffer
			cmd.Stderr = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			groups := map[int]bool{}
			awaited(t, "hauberk, haproxy, nginx and its worker", func() bool {
				for _, p := range processes() {
					if p.parent == cmd.Process.Pid {
						groups[p.group] = true
					}
				}
				return len(groups) == 4 && len(alive(groups)) == 5 // the guard is one
			})
			_ = syscall.Kill(-cmd.Process.Pid, sig)
			_ = cmd.Wait()
			awaited(t, "the end of all", func() bool {
				left, err := os.ReadDir(tmp)
				return err == nil && len(left) == 0 && len(alive(groups)) == 0
			})
			if strings.Contains(out.String(), "guard") {
				t.Errorf("%s", &out)
			}
		})
	}
}

func awaited(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

type procStat struct{ parent, group int }

// processes are those that have not ended.
func processes() (out []procStat) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		// After the name in parentheses: the state, the parent, the group.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 3 || fields[0] == "Z" {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		group, _ := strconv.Atoi(fields[2])
		out = append(out, procStat{parent, group})
	}
	return out
}

func alive(groups map[int]bool) (out []procStat) {
	for _, p := range processes() {
		if groups[p.group] {
			out = append(out, p)
		}
	}
	return out
}
