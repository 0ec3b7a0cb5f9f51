package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/controlplane/server/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a control plane in this process, with two services in files, and the
// commands as a shell runs them.
type bed struct {
	t    *testing.T
	dir  string
	addr string
}

const mesh = `
service {
  name = "web" id = "web-1" address = "10.0.0.1" port = 8080
  connect { sidecar_service { port = 21000 proxy { upstreams = [{ destination_name = "api" local_bind_port = 9191 }] } } }
}
`

const api = `
service {
  name = "api" id = "api-1" address = "10.0.0.2" port = 8080
  connect { sidecar_service { port = 21000 } }
}
`

const entries = `Kind = "service-intentions"
Name = "api"
Sources = [
  { Name = "web" Permissions = [
    { Action = "deny" HTTP { PathPrefix = "/admin" } },
    { Action = "allow" HTTP { PathPrefix = "/" Methods = ["GET"] } } ] },
]
`

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir()}
	b.addr = servertest.Start(t, map[string]string{
		"web.hcl": mesh, "api.hcl": api, "intentions.hcl": entries,
		"defaults.hcl": "Kind = \"proxy-defaults\"\nName = \"global\"\nConfig { protocol = \"http\" }\n",
	}).Socket
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if out, _, code := b.run("status"); code == 0 && strings.Contains(out, "api") {
			return b
		}
		if time.Now().After(end) {
			out, errs, code := b.run("status")
			t.Fatalf("not in sync: %d %s %s", code, out, errs)
		}
	}
}

// run is one command line: what it printed, and its exit code.
func (b *bed) run(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	env := &cli.Env{Out: &out, Err: &errs, In: strings.NewReader(""), OperatorTLS: cli.OperatorTLS}
	if b.addr != "" {
		args = append([]string{"--address", b.addr}, args...)
	}
	code = cli.Execute(root(env), args)
	return out.String(), errs.String(), code
}

// TestCommands: what each prints for people and for scripts, and its exit code.
func TestCommands(t *testing.T) {
	b := newBed(t)
	backup := filepath.Join(b.dir, "ca.backup")
	for _, c := range []struct {
		line string
		code int
		want string // in what is printed
		keys string // of its JSON, when it is asked for
	}{
		{"status", 0, "web      http", "control_plane sidecars services source"},
		{"intention check web api", 0, "allowed  web -> api GET /  (service-intentions/api Sources[0] (web) Permissions[1])", "allowed rule"},
		{"intention check web api --method POST", 1, "denied   web -> api POST /", "allowed"},
		{"intention check web api --path /admin/x", 1, "Permissions[0]", ""},
		{"intention check nobody api", 1, "denied", ""},
		{"intention check web nothing", 2, "nothing", ""},
		{"token create --node n1 --service api", 0, "hbt1.", "token id node expires"},
		{"token create --node n2 --service api@uid=1001,unit=api.service", 0, "hbt1.", ""},
		{"token create --node n3 --service api --ttl 48h", 2, "lifetime", ""},
		{"token create --service api", 2, `"node" not set`, ""},
		{"token list", 0, "n1", ""},
		{"sidecar config web-1", 2, "no sidecar \"web-1\" is connected", ""},
		{"sidecar clusters web-1", 2, "hauberk status", ""},
		{"sidecar routes", 2, "accepts 1 arg", ""},
		{"ca show", 0, "active", "signers"},
		{"ca withdraw nobody", 2, "no such signer in the trust bundle", ""},
		{"ca remove nobody", 2, "/hauberk/controlplane/nobody is not known here", ""},
		{"ca remove cp1", 2, "a control plane does not remove itself", ""},
		{"token revoke nothing", 2, `"nothing" is not a token's id`, ""},
		{"ca bundle", 0, "spiffe_sequence", ""},
		{"ca backup " + backup, 0, "ca.backup", ""},
		{"ca backup " + backup, 2, "exists", ""},
		{"identity show /nowhere", 2, "no such file", ""},
		{"envoy bootstrap --socket /run/a.sock --node-id e1", 0, "hauberk_agent", "node dynamic_resources"},
		{"envoy bootstrap --socket a.sock", 2, "not an absolute path", ""},
		{"nonsense", 2, "unknown command", ""},
		{"token lst", 2, `unknown command "lst" for "hauberk token"; did you mean list?`, ""},
		{"sidecar web-1", 2, `unknown command "web-1" for "hauberk sidecar"; hauberk sidecar --help lists them`, ""},
		{"token", 0, "list tokens", ""},
		{"demo --break nonsense", 2, `--break "nonsense": want one of plaintext`, ""}, // it has an action and a command below it
		{"intention check web", 2, "accepts 2 arg(s), received 1; usage: hauberk intention check SRC DST", ""},
		{"identity fetch --socket /nowhere", 2, "is the agent running? (hauberk-sidecar agent --socket PATH; another socket: --socket or SPIFFE_ENDPOINT_SOCKET)", ""},
		{"status --colour", 2, "unknown flag: --colour; hauberk status --help lists them", ""},
		{"status -o xml", 2, "table", ""},
	} {
		out, errs, code := b.run(strings.Fields(c.line)...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("hauberk %s: exit %d, want %d and %q\n%s%s", c.line, code, c.code, c.want, out, errs)
		}
		if code == 2 && out != "" && c.line != "intention check web nothing" {
			t.Errorf("hauberk %s failed and printed %q", c.line, out)
		}
		if c.keys == "" {
			continue
		}
		out, errs, code = b.run(append(strings.Fields(c.line), "--output", "json")...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != c.code {
			t.Errorf("hauberk %s --output json: exit %d, %v\n%s%s", c.line, code, err, out, errs)
			continue
		}
		for _, k := range strings.Fields(c.keys) {
			if _, ok := v[k]; !ok {
				t.Errorf("hauberk %s --output json: no %q in\n%s", c.line, k, out)
			}
		}
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v %v", info, err)
	}
	state := filepath.Join(b.dir, "restored")
	if out, errs, code := b.run("ca", "restore", backup, state); code != 0 {
		t.Errorf("restore: %d %s%s", code, out, errs)
	}
	restored, err := os.ReadDir(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range restored {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "tokens" {
			t.Errorf("the backup held %s", e.Name())
		}
	}
	if _, errs, code := b.run("ca", "restore", backup, state); code != 2 || !strings.Contains(errs, state) {
		t.Errorf("restoring over a state directory: %d %s", code, errs)
	}
}

// TestNoControlPlane: each command says what is missing and what to do.
func TestNoControlPlane(t *testing.T) {
	b := &bed{t: t, addr: "unix:///nowhere/cp.sock"}
	for _, line := range []string{"status", "intention check a b", "token list", "sidecar config a", "ca show"} {
		_, errs, code := b.run(strings.Fields(line)...)
		if code != 2 || !strings.Contains(errs, "is it running?") || !strings.Contains(errs, "HAUBERK_ADDR") {
			t.Errorf("hauberk %s: %d %s", line, code, errs)
		}
	}
	for addr, want := range map[string]string{"http://x": "want unix:///path or https://host:port", "unix:relative": "want unix:///", "https://127.0.0.1:1": "hauberk login"} {
		t.Setenv(cli.OperatorDirEnv, filepath.Join(t.TempDir(), "none"))
		b.addr = addr
		if _, errs, code := b.run("status"); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", addr, code, errs)
		}
	}
}
