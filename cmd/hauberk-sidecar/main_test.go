package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func none(string) (string, bool) { return "", false }

func TestFlagsAndEnvironment(t *testing.T) {
	env := func(k string) (string, bool) {
		v, ok := map[string]string{
			"HAUBERK_DRAIN_TIME": "7s", "HAUBERK_NODE": "from-env", "HAUBERK_TOKEN": "secret", "HAUBERK_METRICS": "off",
		}[k]
		return v, ok
	}
	o, err := parse([]string{"--node", "from-flag", "--state-dir", "/x"}, env)
	if err != nil {
		t.Fatal(err)
	}
	if o.node != "from-flag" || o.drainTime != 7*time.Second || o.token != "secret" || o.metrics != "" || o.ready != "127.0.0.1:15021" {
		t.Errorf("%+v", o)
	}
	if _, err := parse(nil, func(k string) (string, bool) { return "soon", k == "HAUBERK_DRAIN_TIME" }); err == nil || !strings.Contains(err.Error(), `HAUBERK_DRAIN_TIME="soon"`) {
		t.Error(err)
	}
}

// What is wrong is one line that names the thing.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	quiet := []string{"--admin", "off", "--metrics", "off", "--ready", "off"}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"--state-dir is needed", nil},
		{`unexpected argument "extra"`, []string{"extra"}},
		{`--access-log-format "xml"`, []string{"--access-log", "/x", "--access-log-format", "xml", "--state-dir", dir}},
		{`--memory-limit: "much" is no size`, []string{"--memory-limit", "much", "--state-dir", dir}},
		{`log level "loud"`, []string{"--log-level", "loud"}},
		{"no such file", []string{"--bootstrap", filepath.Join(dir, "none.yaml")}},
		{`bad.yaml: nodes: unknown field "nodes"`, []string{"--bootstrap", write("bad.yaml", "nodes: {}\n")}},
		{"--token-file: open", []string{"--state-dir", dir, "--token-file", filepath.Join(dir, "none")}},
		{"--workloads needs --socket", []string{"--state-dir", dir, "--workloads", "/x"}},
		{`--socket-mode "rw": want octal`, []string{"--state-dir", dir, "--socket", "/x", "--socket-mode", "rw"}},
		{`--socket-mode "01777": want octal`, []string{"--state-dir", dir, "--socket", "/x", "--socket-mode", "01777"}},
		{"--socket needs --state-dir", []string{"--bootstrap", write("static.yaml", "node: {id: x}\n"), "--socket", "/x"}},
		{"host socket: the path run/agent.sock is relative", []string{"--state-dir", filepath.Join(dir, "state"), "--socket", "run/agent.sock"}},
		{"must be a loopback address", []string{"--bootstrap", write("ok.yaml", "node: {id: x}\n"), "--admin", "0.0.0.0:0"}},
	} {
		err := run(append(append([]string{}, quiet...), c.args...))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want %q", c.args, err, c.want)
		}
	}
	if err := validate([]string{"--bootstrap", filepath.Join(dir, "ok.yaml")}); err != nil {
		t.Error(err)
	}
	for want, args := range map[string][]string{
		"validate needs --bootstrap FILE":                 nil,
		`unexpected argument "x.yaml"; --bootstrap FILE`:  {"x.yaml"},
		"-drian-time; hauberk-sidecar -h lists the flags": {"--drian-time", "1s"},
		"-drain-time; hauberk-sidecar -h":                 {"--drain-time"},
	} {
		if err := validate(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("validate %v: got %v, want %q", args, err, want)
		}
	}
	log := write("log.yaml", `admin: {access_log: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /nowhere/log}}]}`)
	if err := validate([]string{"--bootstrap", log}); err == nil || !strings.Contains(err.Error(), "log.yaml: admin.access_log: access log /nowhere/log: no such file") {
		t.Error(err)
	}
}

func TestTokenIsNoFlag(t *testing.T) {
	if _, err := parse([]string{"--token", "secret"}, none); err == nil || errors.Is(err, flag.ErrHelp) {
		t.Error("a token was taken from the arguments, which every local user can read")
	}
}

func TestMainIsATableOfContents(t *testing.T) {
	b, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 130 {
		t.Errorf("main.go has %d lines", n)
	}
}
