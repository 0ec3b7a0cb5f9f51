//go:build e2e

package workloadapi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hierarchies are the mounts in which systemd would keep its units: version 1's
// by name, and version 2's.
func hierarchies(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case f[2] == "cgroup2":
			out["version 2"] = f[1]
		case f[2] == "cgroup" && strings.Contains(","+f[3]+",", ",name=systemd,"):
			out["version 1"] = f[1]
		}
	}
	return out
}

// group makes a cgroup, and removes it again.
func group(t *testing.T, mount string, path ...string) string {
	t.Helper()
	dir := mount
	for _, p := range path {
		dir = filepath.Join(dir, p)
		made := os.Mkdir(dir, 0o755)
		if made != nil && !errors.Is(made, os.ErrExist) {
			t.Fatalf("a cgroup is needed here (root, and a hierarchy that can be written): %v", made)
		}
		if made == nil {
			own := dir
			t.Cleanup(func() {
				// The kernel may need a moment after the last process.
				for limit := time.Now().Add(within); os.Remove(own) != nil && time.Now().Before(limit); {
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
	}
	return dir
}

// A caller's unit is where the kernel says it is, in a real hierarchy of each
// version that this machine has.
func TestUnitOfRealCgroups(t *testing.T) {
	found := hierarchies(t)
	if len(found) == 0 {
		t.Fatal("this machine has no hierarchy that systemd could use")
	}
	unit := fmt.Sprintf("hauberk-test-%d.service", os.Getpid())
	src := newSource(t)
	src.permit(t, "web unit="+unit)
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	for version, mount := range found {
		for _, c := range []struct {
			path []string
			want string
		}{
			{[]string{"system.slice", unit}, id("web")},
			{[]string{"system.slice", unit, "below"}, id("web")},
			{[]string{"system.slice", "x" + unit}, "PermissionDenied"},
			{[]string{"user.slice", "user@1.service", unit}, "PermissionDenied"},
		} {
			if got := inside(t, group(t, mount, c.path...), s.path); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, %s: %q, want %q", version, strings.Join(c.path, "/"), got, c.want)
			}
		}
	}
}

// inside runs the helper in a cgroup.
func inside(t *testing.T, dir, socket string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+socket, helperMode+"=wait", "GORACE=atexit_sleep_ms=0")
	goOn, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	moved := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0)
	err = errors.Join(moved, goOn.Close(), cmd.Wait())
	if err != nil {
		t.Fatalf("%s: %v: %s", dir, err, out.String())
	}
	return strings.TrimSpace(out.String())
}
