//go:build e2e

package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"sigs.k8s.io/yaml"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

// document is what a document's reader has around him before its first command,
// and what must be there when its last one has run.
type document struct {
	// before is shell, run by root in the directory of the commands.
	before string
	// ready is the shell command that succeeds once a program that stays in the
	// foreground, by the first words of its line, is there.
	ready map[string]string
	// prints is what the commands must print.
	prints []string
	consul bool
}

// The control plane that the documents other than the README take for granted.
const catalogued = `
mkdir files
cat > files/services.hcl <<'EOF'
%s
EOF
hauberk-controlplane run --trust-domain prod.example.com --source files --files-dir files --state-dir $PWD/cp %s > cp.log 2>&1 &
until_ok hauberk status
`

const bare = `
service { name = "web" id = "web-1" address = "127.0.0.1" port = 9001 connect { sidecar_service { port = 21000 } } }
service { name = "api" id = "api-1" address = "127.0.0.1" port = 9002 connect { sidecar_service { port = 21001 } } }
service { name = "job" id = "job-1" address = "127.0.0.1" port = 9003 connect { sidecar_service { port = 21002 } } }
service {
  name = "legacy" id = "legacy-1" address = "127.0.0.1" port = 9004
  connect { sidecar_service { port = 21003 meta { hauberk-node = "host-1" } } }
}`

// as is what runs a command as a user, who may read the directory of the commands.
func as(uid string) string {
	return fmt.Sprintf("setpriv --reuid %[1]s --regid %[1]s --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search", uid)
}

var documents = map[string]document{
	"README.md": {
		consul: true,
		before: "printf '#!/bin/sh\\nexec python3 -m http.server 9001 --bind 127.0.0.1\\n' > api; chmod 755 api\n",
		ready: map[string]string{
			"hauberk-controlplane run": "hauberk status",
			"hauberk run":              "eval 'hauberk status | tr -s \" \\n\" \" \" | grep -q \"api tcp 1/1 .*api-1 api synced\"'",
		},
		prints: []string{"consul", "api-1", "allowed", "spiffe://prod.example.com/ns/default/dc/dc1/svc/api", "inbound:127.0.0.1:21000"},
	},
	"docs/operators.md": {
		before: "echo 127.0.0.1 cp.example.com >> /etc/hosts\nexport HOME=$PWD\n" + fmt.Sprintf(catalogued, bare, "--api-hostname cp.example.com"),
		prints: []string{"logged in as spiffe://prod.example.com/hauberk/operator/alice", "control plane  spiffe://prod.example.com/hauberk/controlplane/"},
	},
	"docs/envoy.md": {
		before: fmt.Sprintf(catalogued, bare, ""),
		ready: map[string]string{
			"hauberk-sidecar agent": "test -S /run/hauberk/agent.sock",
			"envoy":                 "eval 'hauberk status | tr -s \" \\n\" \" \" | grep -q \"host-1 legacy synced .*envoy\"'",
		},
	},
	"docs/host-socket.md": {
		before: fmt.Sprintf(catalogued, bare, "") + "printf '#!/bin/sh\\nexec hauberk identity fetch\\n' > web; chmod 755 web\n",
		// Its socket is there before it has joined, and says so.
		ready:  map[string]string{"hauberk-sidecar agent": as("1001") + " hauberk identity fetch --socket /run/hauberk/agent.sock"},
		prints: []string{"spiffe://prod.example.com/ns/default/dc/dc1/svc/web  "},
	},
	"docs/benchmarks.md": {
		// A static sidecar with something to do, whose admin socket is SOCKET.
		before: `
cat > b.yaml <<'EOF'
node: {id: n1}
EOF
hauberk-sidecar run --bootstrap b.yaml --admin off --metrics off --ready off --admin-socket $PWD/SOCKET > sidecar.log 2>&1 &
until_ok test -S SOCKET
`,
		prints: []string{"Type: cpu"},
	},
	"docs/bootstrap.md": {},
	"docs/files.md": {
		before: "printf '#!/bin/sh\\nexec python3 -m http.server 9001 --bind 127.0.0.1\\n' > api; chmod 755 api\n",
		ready: map[string]string{
			"hauberk-controlplane run": "hauberk status",
			"hauberk run":              "eval 'hauberk status | tr -s \" \\n\" \" \" | grep -q \"api http 1/1 .*api-1 api synced\"'",
		},
		prints: []string{"mesh is valid: 2 config entries, 0 services", "api-1", "mesh is valid: 2 config entries, 2 services", "allowed"},
	},
	"docs/consul.md":  {},
	"docs/tracing.md": {},
}

// TestDocs follows README.md and each document, word by word and in order, on a
// host of its own as far as files go: with the default ports and directories. A
// block that is neither run nor loaded says why.
func TestDocs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root, for a mount namespace and other users; CI is")
	}
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files, "../../README.md", "../../ARCHITECTURE.md") {
		name := strings.TrimPrefix(path, "../../")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "do not edit") {
			continue // made from the code, and compared with it by a test
		}
		all, err := fences(path, name)
		if err != nil {
			t.Fatal(err)
		}
		d, known := documents[name]
		var work []*fence
		for _, f := range all {
			if err := f.check(); err != nil {
				t.Error(err)
			}
			if f.lang != "text" && !strings.HasPrefix(f.ci, "not run: ") {
				work = append(work, f)
			}
		}
		if len(work) > 0 && !known {
			t.Errorf("%s has blocks and no entry in this test", name)
			continue
		}
		if known {
			t.Run(strings.TrimSuffix(filepath.Base(name), ".md"), func(t *testing.T) { d.follow(t, work) })
		}
	}
}

// foreground are programs that do not end by themselves, with the variables that
// may be set before them.
var foreground = regexp.MustCompile(`^(hauberk-controlplane run|hauberk-sidecar run|hauberk-sidecar agent|hauberk run|envoy)\b`)

func (d *document) follow(t *testing.T, work []*fence) {
	var script, envoy strings.Builder
	var entries []*fence
	commands := 0
	for _, f := range work {
		switch text := strings.Join(f.lines, "\n"); {
		case f.ci == "step":
			steps(t, f)
		case f.ci == "consul policy":
			policy(t, text)
		case strings.HasPrefix(f.ci, "config entry"):
			entries = append(entries, f)
		case f.ci == "envoy":
			envoy.WriteString(text + "\n")
		case strings.HasPrefix(f.ci, "file "):
			path := strings.TrimPrefix(f.ci, "file ")
			fmt.Fprintf(&script, "mkdir -p %s\ncat > %s <<'EOF'\n%s\nEOF\n", filepath.Dir(path), path, text)
		default:
			commands += len(f.lines)
			for _, line := range f.lines {
				script.WriteString(d.command(t, f, line))
			}
		}
	}
	if len(entries) > 0 {
		accepted(t, entries)
	}
	if envoy.Len() > 0 {
		validated(t, envoy.String())
	}
	if commands > 0 {
		d.run(t, script.String())
	}
}

// command is the shell for one line. Those of another user may pass through
// directories of root, as a checkout may be in one.
func (d *document) command(t *testing.T, f *fence, line string) string {
	shell := "bash -euo pipefail -c"
	if uid, ok := strings.CutPrefix(f.ci, "as uid "); ok {
		shell = as(uid) + " " + shell
	}
	quoted := "'" + strings.ReplaceAll(line, "'", `'\''`) + "'"
	program := foreground.FindString(line)
	if program == "" {
		return fmt.Sprintf("printf '$ %%s\\n' %[1]s\n%[2]s %[1]s < /dev/null\n", quoted, shell)
	}
	ready := d.ready[program]
	if ready == "" {
		t.Fatalf("%s: nothing says when %q is there", f, program)
	}
	return fmt.Sprintf("%s 'exec '%s > %d.log 2>&1 &\nuntil_ok %s\n", shell, quoted, f.line, ready)
}

func (d *document) run(t *testing.T, commands string) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+os.Getenv("HAUBERK_BIN")+":"+filepath.Dir(os.Getenv("ENVOY_BIN"))+":"+os.Getenv("PATH"))
	if d.consul {
		consul, err := consultest.Start(t.Context(), consultest.Options{Dir: filepath.Join(t.TempDir(), "consul"), Progress: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		defer consul.Stop()
		env = append(env, "CONSUL_HTTP_ADDR="+consul.HTTPAddr())
	}
	script := `set -euo pipefail
mkdir etc
cp -a /etc/. etc/
mount --bind etc /etc
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
until_ok() { for i in $(seq 200); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; echo "never: $*"; "$@" || true; tail -n 15 *.log; exit 1; }
` + d.before + commands
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "bash", "-c", script)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, env, 5*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range d.prints {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing", want)
		}
	}
	t.Logf("%s", out)
}

// steps: the commands are steps of .ci/run, whose output something may look at.
func steps(t *testing.T, f *fence) {
	b, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range f.lines {
		if !regexp.MustCompile(`(?m)^([A-Z_]+=\S+ )*` + regexp.QuoteMeta(line) + `( \| .*)?$`).Match(b) {
			t.Errorf("%s: %q is no step of .ci/run", f, line)
		}
	}
}

// policy: with a token of these rules, and no more, a control plane is in sync.
func policy(t *testing.T, rules string) {
	consul, err := consultest.Start(t.Context(), consultest.Options{Dir: filepath.Join(t.TempDir(), "consul"), ACL: true, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer consul.Stop()
	cfg := consulapi.DefaultConfig()
	cfg.Address, cfg.Token = consul.HTTPAddr(), consul.ManagementToken
	c, err := consulapi.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := c.ACL().PolicyCreate(&consulapi.ACLPolicy{Name: "hauberk", Rules: rules}, nil)
	if err != nil {
		t.Fatalf("Consul refuses the policy: %v", err)
	}
	token, _, err := c.ACL().TokenCreate(&consulapi.ACLToken{Policies: []*consulapi.ACLTokenPolicyLink{{ID: p.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_TOKEN", token.SecretID)
	m := &mesh{t: t, dir: t.TempDir(), bin: os.Getenv("HAUBERK_BIN"), consul: consul}
	m.startControlPlane("cp1")
	var st api.Status
	if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil || len(st.Source.Errors) > 0 {
		t.Errorf("%v %v", st.Source.Errors, err)
	}
	m.cp.stop()
}

// accepted: Consul takes the entries and registrations, and so does the control plane,
// from Consul and from a directory.
func accepted(t *testing.T, entries []*fence) {
	m, f := newMesh(t), newFilesMesh(t)
	for i, e := range entries {
		text := strings.Join(e.lines, "\n")
		name := fmt.Sprintf("entry%d.hcl", i)
		file := f.file(name, text)
		if e.ci == "config entry of files" {
			continue
		}
		args := []string{"config", "write", file}
		if strings.HasPrefix(text, "service {") {
			args = []string{"services", "register", file}
		}
		cmd := exec.CommandContext(t.Context(), os.Getenv("CONSUL_BIN"), args...)
		cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+m.consul.HTTPAddr())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: consul %s: %v\n%s", e, strings.Join(args, " "), err, out)
		}
	}
	for _, m := range []*mesh{m, f} {
		// One that starts now is in sync when it has read all of it.
		m.cp.stop()
		m.runControlPlane()
		var st api.Status
		if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
			t.Fatal(err)
		}
		if len(st.Source.Errors) > 0 || len(st.Problems) > 0 {
			t.Errorf("%s: %v %v", st.Source.Kind, st.Source.Errors, st.Problems)
		}
	}
}

// validated: an Envoy takes the fragments, the TLS context in a listener's chain.
func validated(t *testing.T, text string) {
	var b struct {
		Static map[string]any `json:"static_resources"`
		TLS    map[string]any `json:"common_tls_context"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &b); err != nil {
		t.Fatal(err)
	}
	b.Static["listeners"] = []any{map[string]any{
		"name": "in", "address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 10000}},
		"filter_chains": []any{map[string]any{
			"filters": []any{map[string]any{"name": "tcp", "typed_config": map[string]any{
				"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "hauberk_agent"}}},
			"transport_socket": map[string]any{"name": "tls", "typed_config": map[string]any{
				"@type":                      "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
				"require_client_certificate": true, "common_tls_context": b.TLS}},
		}},
	}}
	whole, err := yaml.Marshal(map[string]any{"node": map[string]any{"id": "n", "cluster": "c"}, "static_resources": b.Static})
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(t.TempDir(), "envoy.yaml"), string(whole))
	if out, err := exec.CommandContext(t.Context(), os.Getenv("ENVOY_BIN"), "--mode", "validate", "--use-dynamic-base-id", "-c", file).CombinedOutput(); err != nil {
		t.Errorf("envoy refuses it: %v\n%s\n%s", err, out, whole)
	}
}
