//go:build e2e

package mesh

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// TestRun: hauberk run registers with Consul, starts the application when its
// upstream is there, passes signals on, warns of an application that can be
// reached beside its sidecar, deregisters at the end, and exits as it did.
func TestRun(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	m.allow("api", "back")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	m.workload(spec{id: "back-1", service: "back"})
	port, upstream := freePort(t), freePort(t)
	app := write(t, filepath.Join(m.dir, "app.sh"), fmt.Sprintf(`
echo up=$HAUBERK_UPSTREAM_BACK > %[1]s/env
python3 -c 'import urllib.request; print(urllib.request.urlopen("http://%[2]s/").read().decode())' > %[1]s/called 2>&1
trap 'echo got > %[1]s/usr1' USR1
trap 'kill $server; exit 7' TERM
cd %[1]s && echo hello > index.html
python3 -m http.server %[3]d --bind 0.0.0.0 >/dev/null 2>&1 & server=$!
while kill -0 $server; do wait $server; done
`, m.dir, fmt.Sprintf("127.0.0.1:%d", upstream), port))
	run := m.start("run", "hauberk", "run", "--service", "api", "--id", "api-1", "--port", fmt.Sprint(port),
		"--upstream", fmt.Sprintf("back:%d", upstream), "--token-file", m.token("api-1", "api"), "--state-dir", filepath.Join(m.dir, "run-state"),
		"--settle", "200ms", "--drain-time", "2s", "--", "sh", app)
	t.Logf("served by Consul after %v", m.served("api", "api-1"))
	t.Logf("in the mesh %v later", web.answers(5*second, "api", "/index.html", 200, "hello\n"))

	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(m.dir, name))
		return strings.TrimSpace(string(b))
	}
	if got := read("env"); got != fmt.Sprintf("up=127.0.0.1:%d", upstream) {
		t.Errorf("the application's environment: %q", got)
	}
	if got := read("called"); got != "back-1" {
		t.Errorf("the application's first call to its upstream: %q", got)
	}
	m.eventually(15*second, "status warns of the exposed application", func() error {
		var st api.Status
		if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
			return err
		}
		for _, s := range st.Sidecars {
			if w := fmt.Sprint(s.Exposed); s.Node == "api-1" && len(s.Exposed) == 1 && strings.Contains(w, "also listens on 0.0.0.0:"+fmt.Sprint(port)) && strings.Contains(w, "bind it to 127.0.0.1") {
				return nil
			}
		}
		return fmt.Errorf("%+v", st.Sidecars)
	})
	out, err := exec.Command(filepath.Join(m.bin, "hauberk"), "status", "--address", "unix://"+filepath.Join(m.dir, "cp1.sock")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "warning: sidecar api-1: the application of api also listens on") {
		t.Errorf("hauberk status: %v\n%s", err, out)
	}

	if err := run.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	m.eventually(5*second, "the signal arrives", func() error {
		if read("usr1") != "got" {
			return errors.New("not yet")
		}
		return nil
	})
	if err := run.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-run.done:
	case <-time.After(15 * time.Second):
		t.Fatal("hauberk run does not end")
	}
	if code := run.cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit status %d, the application's was 7", code)
	}
	services, err := m.catalog.Agent().Services()
	if err != nil {
		t.Fatal(err)
	}
	if _, there := services["api-1"]; there {
		t.Error("the service is still registered")
	}
	m.unserved("api", "api-1")
	web.answers(second, "api", "/", 503, "")
}
