package login

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/cmd/hauberk/internal/cli"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/controlplane/server/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// controlPlane is a real one in this process, asked over its socket by local and
// over TLS by remote.
type controlPlane struct {
	t             *testing.T
	local, remote string
}

func start(t *testing.T) *controlPlane {
	t.Helper()
	cp := servertest.Start(t, nil)
	return &controlPlane{t, cp.Socket, cp.API}
}

func (p *controlPlane) token(req api.TokenRequest) string {
	p.t.Helper()
	c, err := client.New(p.local, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	var reply api.TokenReply
	if err := c.Post(p.t.Context(), api.TokensPath, req, &reply); err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(reply.Token), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

func (p *controlPlane) env(in string) (*cli.Env, *bytes.Buffer) {
	var out bytes.Buffer
	return &cli.Env{Out: &out, Err: &out, In: strings.NewReader(in), Format: "table", Address: p.remote, OperatorTLS: cli.OperatorTLS}, &out
}

// run executes a command and returns what it printed.
func (p *controlPlane) run(command func(*cli.Env) *cobra.Command, in string, args ...string) (string, error) {
	p.t.Helper()
	env, out := p.env(in)
	c := command(env)
	c.SetArgs(args)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(out)
	err := c.ExecuteContext(p.t.Context())
	return out.String(), err
}

// ask reads the status over TLS, as any command does.
func (p *controlPlane) ask() error {
	env, _ := p.env("")
	c, err := env.Client()
	if err != nil {
		return err
	}
	var st api.Status
	return c.Get(p.t.Context(), api.StatusPath, &st)
}

func says(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func TestLoginAndLogout(t *testing.T) {
	p := start(t)
	dir := filepath.Join(t.TempDir(), "operator")
	t.Setenv(cli.OperatorDirEnv, dir)
	says(t, p.ask(), "hauberk login")
	if _, err := os.Stat(dir); err == nil {
		t.Error("asking made a state directory")
	}
	_, err := p.run(Command, "")
	says(t, err, "no token")
	_, err = p.run(Command, "", "--token-file", "/nowhere")
	says(t, err, "no such file")
	_, err = p.run(Command, "rubbish", "--token-file", "-")
	says(t, err, "hauberk token create")

	file := p.token(api.TokenRequest{Node: "alice", Role: "operator"})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.run(Command, string(text), "--token-file", "-")
	if err != nil || !strings.Contains(out, "logged in as spiffe://test.mesh/hauberk/operator/alice until") {
		t.Fatalf("%q %v", out, err)
	}
	if strings.Contains(out, strings.TrimSpace(string(text))) {
		t.Error("the token was printed")
	}
	for _, f := range []string{"", "node.key", "node.json"} {
		info, err := os.Stat(filepath.Join(dir, f))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", f, info.Mode(), err)
		}
	}
	// Reads and writes, several at once.
	failed := make(chan error, 4)
	for range 4 {
		go func() { failed <- p.ask() }()
	}
	for range 4 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	env, _ := p.env("")
	c, err := env.Client()
	if err != nil {
		t.Fatal(err)
	}
	var reply api.TokenReply
	if err := c.Post(t.Context(), api.TokensPath, api.TokenRequest{Node: "n", Services: []string{"api"}, TTL: time.Minute}, &reply); err != nil || reply.Token == "" {
		t.Errorf("a token by the operator: %v", err)
	}
	says(t, c.Post(t.Context(), api.BackupPath, nil, nil), "Unix socket alone")
	_, err = p.run(Command, "", "--token-file", file)
	says(t, err, "already; `hauberk logout` first")
	// Who joins in the same name takes it from whoever has it.
	t.Setenv(cli.OperatorDirEnv, filepath.Join(t.TempDir(), "other"))
	if _, err := p.run(Command, "", "--token-file", p.token(api.TokenRequest{Node: "alice", Role: "operator"})); err != nil {
		t.Fatal(err)
	}
	t.Setenv(cli.OperatorDirEnv, dir)
	says(t, p.ask(), "is not the one on record")
	if _, err := p.run(Logout, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the key is still there")
	}
	says(t, p.ask(), "hauberk login")
	_, err = p.run(Command, "", "--token-file", file)
	says(t, err, "has been used")
	_, err = p.run(Logout, "")
	says(t, err, "not logged in")
}

func TestOnlyAnOperatorsTokenLogsIn(t *testing.T) {
	p := start(t)
	dir := filepath.Join(t.TempDir(), "operator")
	t.Setenv(cli.OperatorDirEnv, dir)
	_, err := p.run(Command, "", "--token-file", p.token(api.TokenRequest{Node: "n1", Services: []string{"api"}}))
	says(t, err, "hauberk/node/n1, not for an operator")
	if _, err := os.Stat(dir); err == nil {
		t.Error("a node's identity was kept")
	}
}

// Logout removes an operator's identity and nothing else.
func TestLogoutLeavesOthersAlone(t *testing.T) {
	p := start(t)
	dir := t.TempDir()
	keep := filepath.Join(dir, "thesis.tex")
	if err := os.WriteFile(keep, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(cli.OperatorDirEnv, dir)
	_, err := p.run(Logout, "")
	says(t, err, "not logged in")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}
