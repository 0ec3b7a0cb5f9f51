//go:build e2e

package mesh

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/cmd/hauberk/client"
	"github.com/hauberk-mesh/hauberk/controlplane/server"
	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
	"github.com/hauberk-mesh/hauberk/controlplane/server/servertest"
	"github.com/hauberk-mesh/hauberk/e2e/consultest"
)

// refused runs a program that must end with status 1, and returns what it said.
func refused(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv("HAUBERK_BIN"), program), args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%s %s: %v, want exit status 1\n%s", program, strings.Join(args, " "), err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// says checks that a message names the thing and what to do.
func says(t *testing.T, message string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(message, w) {
			t.Errorf("want %q in: %s", w, message)
			return
		}
	}
	t.Log(message)
}

func controlPlaneArgs(dir string, more ...string) []string {
	return append([]string{"run", "--trust-domain", trustDomain, "--state-dir", filepath.Join(dir, "cp"),
		"--socket", filepath.Join(dir, "cp.sock"), "--xds-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0"}, more...)
}

func sidecarArgs(dir, node, token string, more ...string) []string {
	return append([]string{"run", "--node", node, "--state-dir", filepath.Join(dir, "sidecar"), "--token-file", token,
		"--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--ready", "127.0.0.1:0"}, more...)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// taken is an address that something listens on.
func taken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestBadFiles: what a directory of entries gets wrong ends a control plane that
// starts with it, and does not touch one that runs.
func TestBadFiles(t *testing.T) {
	mistakes := map[string]struct {
		text string
		want []string
	}{
		"wrong config entry": {"Kind = \"service-router\"\nName = \"api\"\nRoutes = [{ Match { HTTP { PathExact = \"/a\" PathPrefix = \"/b\" } } }]\n",
			[]string{"bad.hcl:1", `service-router "api"`, "Routes[0].Match.HTTP.PathExact", "only one of"}},
		"unknown kind":  {"Kind = \"service-rooter\"\nName = \"api\"\n", []string{"bad.hcl:1", "service-rooter", "did you mean service-router?"}},
		"bad HCL":       {"Kind = \"service-router\nName = \"api\"\n", []string{"bad.hcl:1", "not HCL"}},
		"unknown field": {"Kind = \"service-defaults\"\nName = \"api\"\nProtocol = \"http\"\nColour = \"red\"\n", []string{"bad.hcl:4", "Colour: unknown field", "remove it"}},
	}
	for name, m := range mistakes {
		t.Run("start/"+name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "bad.hcl"), m.text)
			says(t, refused(t, nil, "hauberk-controlplane", controlPlaneArgs(t.TempDir(), "--source", "files", "--files-dir", dir)...), m.want...)
		})
	}
	t.Run("start/no directory", func(t *testing.T) {
		says(t, refused(t, nil, "hauberk-controlplane", controlPlaneArgs(t.TempDir(), "--source", "files", "--files-dir", "/nowhere")...),
			"/nowhere", "--files-dir")
	})

	m := newFilesMesh(t)
	m.file("intentions.hcl", `Kind = "service-intentions"
Name = "api"
Sources = [{ Name = "web" Action = "allow" }]
`)
	m.file("defaults.hcl", "Kind = \"proxy-defaults\"\nName = \"global\"\nConfig { protocol = \"http\" }\n")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	m.workload(spec{id: "api-1", service: "api"})
	web.answers(5*second, "api", "/", 200, "api-1")
	for name, bad := range mistakes {
		t.Run("running/"+name, func(t *testing.T) {
			path := m.file("bad.hcl", bad.text)
			defer os.Remove(path)
			var st api.Status
			m.eventually(5*second, "the mistake is reported", func() error {
				if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
					return err
				}
				all := fmt.Sprint(st.Source.Errors)
				for _, w := range bad.want {
					if !strings.Contains(all, w) {
						return fmt.Errorf("want %q in %s", w, all)
					}
				}
				return nil
			})
			for range 20 {
				if code, body, err := web.get("api", "/"); err != nil || code != 200 || body != "api-1" {
					t.Fatalf("the last good configuration is gone: %d %q %v", code, body, err)
				}
			}
		})
	}
	m.eventually(5*second, "mended", func() error {
		var st api.Status
		if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil || len(st.Source.Errors) > 0 {
			return fmt.Errorf("%v %v", err, st.Source.Errors)
		}
		return nil
	})
}

// TestBadConsulEntry: Consul takes what we do not implement. The last usable form
// stays, and status names the field.
func TestBadConsulEntry(t *testing.T) {
	m := newMesh(t)
	m.allow("web", "api")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"api"}})
	m.workload(spec{id: "api-1", service: "api"})
	web.answers(5*second, "api", "/", 200, "api-1")
	m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: "api", Protocol: "http"})
	m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: "api", Protocol: "http", ExternalSNI: "x.example"})
	m.eventually(5*second, "status names it", func() error {
		var st api.Status
		if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
			return err
		}
		if s := fmt.Sprint(st.Source.Errors); !strings.Contains(s, "service-defaults/api") || !strings.Contains(s, "ExternalSNI") || !strings.Contains(s, "remove it") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	for range 20 {
		if code, body, err := web.get("api", "/"); err != nil || code != 200 || body != "api-1" {
			t.Fatalf("the last good configuration is gone: %d %q %v", code, body, err)
		}
	}
}

func TestPortsInUse(t *testing.T) {
	dir := t.TempDir()
	busy := taken(t)
	says(t, refused(t, nil, "hauberk-controlplane", controlPlaneArgs(dir, "--source", "files", "--files-dir", dir, "--xds-address", busy)...),
		busy, "address already in use", "is another control plane running?")
	bootstrap := write(t, filepath.Join(dir, "b.yaml"), "node: {id: x}\n")
	says(t, refused(t, nil, "hauberk-sidecar", "run", "--bootstrap", bootstrap, "--admin", busy), busy, "address already in use", "choose another")
	host, port, _ := net.SplitHostPort(busy)
	static := write(t, filepath.Join(dir, "l.yaml"), fmt.Sprintf(`node: {id: x}
static_resources:
  clusters: [{name: c, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: c}}]
  listeners:
  - name: l
    address: {socket_address: {address: %s, port_value: %s}}
    filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]}]
`, host, port))
	says(t, refused(t, nil, "hauberk-sidecar", "run", "--bootstrap", static), busy, "is in use by process")
	// Of a control plane's resources, the listener is rejected and says why.
	m := newMesh(t)
	m.allow("web", "api")
	s := spec{id: "web-1", service: "web", upstreams: []string{"api"}}
	w := m.register(s)
	l, err := net.Listen("tcp", w.upstreams["api"])
	if err != nil {
		t.Fatal(err)
	}
	m.sidecarFor("web-1", w)
	m.eventually(5*second, "status tells of the rejected listener", func() error {
		var st api.Status
		if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
			return err
		}
		if s := fmt.Sprintf("%+v", st); !strings.Contains(s, w.upstreams["api"]) || !strings.Contains(s, "is in use by process") {
			return fmt.Errorf("%+v", st.Sidecars)
		}
		return nil
	})
	l.Close()
}

func TestBadTokens(t *testing.T) {
	m := newFilesMesh(t)
	dir := t.TempDir()
	mint := func(node string, ttl time.Duration) string {
		t.Helper()
		var reply api.TokenReply
		if err := m.api.Post(t.Context(), api.TokensPath, api.TokenRequest{Node: node, Services: []string{"api"}, TTL: ttl}, &reply); err != nil {
			t.Fatal(err)
		}
		return write(t, filepath.Join(dir, node+".token"), reply.Token)
	}
	t.Run("expired", func(t *testing.T) {
		token := mint("late", time.Second)
		time.Sleep(1100 * time.Millisecond)
		says(t, refused(t, nil, "hauberk-sidecar", sidecarArgs(t.TempDir(), "late", token)...), "expired", "hauberk token create")
	})
	t.Run("reused", func(t *testing.T) {
		token := mint("twice", 0)
		first := m.start("sidecar-first", "hauberk-sidecar", sidecarArgs(t.TempDir(), "twice", token)...)
		m.eventually(5*second, "the first joins", func() error {
			b, err := os.ReadFile(first.log)
			if err == nil && !strings.Contains(string(b), "joined") {
				err = errors.New("not yet")
			}
			return err
		})
		first.stop()
		says(t, refused(t, nil, "hauberk-sidecar", sidecarArgs(t.TempDir(), "twice", token)...), "has been used", "hauberk token create")
	})
	t.Run("empty", func(t *testing.T) {
		says(t, refused(t, nil, "hauberk-sidecar", sidecarArgs(t.TempDir(), "none", write(t, filepath.Join(dir, "empty"), "\n"))...),
			"empty", "hauberk token create")
	})
	t.Run("garbage", func(t *testing.T) {
		says(t, refused(t, nil, "hauberk-sidecar", sidecarArgs(t.TempDir(), "none", write(t, filepath.Join(dir, "garbage"), "hello"))...),
			"token", "hauberk token create")
	})
	t.Run("wrong pin", func(t *testing.T) {
		b, err := os.ReadFile(mint("pinned", 0))
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(strings.TrimSpace(string(b)), ".")
		text, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		fields["pin"] = "sha256:" + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
		if text, err = json.Marshal(fields); err != nil {
			t.Fatal(err)
		}
		parts[1] = base64.RawURLEncoding.EncodeToString(text)
		token := write(t, filepath.Join(dir, "wrong-pin"), strings.Join(parts, "."))
		says(t, refused(t, nil, "hauberk-sidecar", sidecarArgs(t.TempDir(), "pinned", token)...), "pinned key", "nothing was sent", "check that the address")
	})
}

// TestClockSkew: a control plane whose clock is a day ahead.
func TestClockSkew(t *testing.T) {
	dir := t.TempDir()
	cp := servertest.Start(t, nil, func(c *server.Config) {
		c.ID, c.TrustDomain = "ahead", spiffeid.RequireTrustDomainFromString(trustDomain)
		c.Now = func() time.Time { return time.Now().Add(24 * time.Hour) }
	})
	c, err := client.New(cp.Socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	var reply api.TokenReply
	if err := c.Post(t.Context(), api.TokensPath, api.TokenRequest{Node: "n", Services: []string{"api"}}, &reply); err != nil {
		t.Fatal(err)
	}
	token := write(t, filepath.Join(dir, "n.token"), reply.Token)
	says(t, refused(t, nil, "hauberk-sidecar", sidecarArgs(dir, "n", token)...), "not yet valid", "check the clocks")
}

func TestConsulTokenWithoutARule(t *testing.T) {
	s, err := consultest.Start(t.Context(), consultest.Options{Dir: t.TempDir(), ACL: true, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	conf := consulapi.DefaultConfig()
	conf.Address, conf.Token = s.HTTPAddr(), s.ManagementToken
	c, err := consulapi.NewClient(conf)
	if err != nil {
		t.Fatal(err)
	}
	policy, _, err := c.ACL().PolicyCreate(&consulapi.ACLPolicy{Name: "nodes", Rules: `node_prefix "" { policy = "read" }`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.ACL().TokenCreate(&consulapi.ACLToken{Policies: []*consulapi.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"CONSUL_HTTP_ADDR=" + s.HTTPAddr(), "CONSUL_HTTP_TOKEN=" + token.SecretID}
	message := refused(t, env, "hauberk-controlplane", controlPlaneArgs(t.TempDir())...)
	says(t, message, "the token may not read", `service_prefix "" { policy = "read"`)
	if strings.Contains(message, token.SecretID) {
		t.Error("the message holds the token")
	}
}

func TestUnknownBootstrapField(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "b.yaml"), "node: {id: x}\nstatic_resources:\n  listeners:\n  - name: l\n    colour: red\n")
	says(t, refused(t, nil, "hauberk-sidecar", "run", "--bootstrap", file), "b.yaml", "static_resources.listeners[0].colour", "unknown field", "remove it")
}
