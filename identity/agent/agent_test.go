package agent

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/server"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var td = spiffeid.RequireTrustDomainFromString("agent.test")

type controlPlane struct {
	*server.Server
	addr string
	stop func()
}

func startControlPlane(t *testing.T, id, dir, joinToken, addr string) *controlPlane {
	t.Helper()
	return serve(t, server.Config{Dir: dir, ControlPlane: id, JoinToken: joinToken}, addr)
}

func serve(t *testing.T, cfg server.Config, addr string) *controlPlane {
	t.Helper()
	cfg.TrustDomain, cfg.Settle, cfg.Log = td, 50*time.Millisecond, slog.New(slog.DiscardHandler)
	s, err := server.Build(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetAddresses([]string{ln.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	opts, err := s.ServerOptions()
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	s.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = s.Run(ctx); done <- struct{}{} }()
	go func() { _ = g.Serve(ln); done <- struct{}{} }()
	stopped := false
	cp := &controlPlane{Server: s, addr: ln.Addr().String(), stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		g.Stop()
		<-done
		<-done
		_ = s.Close()
	}}
	t.Cleanup(cp.stop)
	return cp
}

func serviceID(name string) spiffeid.ID {
	id, err := spiffe.ForService(td, "default", "dc1", name)
	if err != nil {
		panic(err)
	}
	return id
}

func (cp *controlPlane) mint(t *testing.T, role token.Role, name string, services ...string) string {
	t.Helper()
	spec := token.Spec{Role: role, Name: name}
	for _, s := range services {
		spec.Permitted = append(spec.Permitted, token.Permit{ID: serviceID(s)})
	}
	tok, _, err := cp.MintToken(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tok.Reveal()
}

func startAgent(t *testing.T, cfg Config) (*Agent, func()) {
	t.Helper()
	a, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return a, stop
}

func await(t *testing.T, a *Agent, what string, cond func() bool) {
	t.Helper()
	limit := time.After(15 * time.Second)
	for {
		changed := a.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s: not in time; %+v", what, a.Status())
		}
	}
}

func (a *Agent) holds(id spiffeid.ID) bool { return a.Snapshot().SVIDs[id.String()] != nil }

func TestJoinHoldRestartAndWithdraw(t *testing.T) {
	dir := t.TempDir()
	cp := startControlPlane(t, "one", filepath.Join(dir, "cp"), "", "127.0.0.1:0")
	tok := cp.mint(t, token.RoleNode, "n1", "web", "job")
	cfg := Config{StateDir: filepath.Join(dir, "agent"), Token: tok}
	a, stop := startAgent(t, cfg)
	await(t, a, "both identities", func() bool { return a.holds(serviceID("web")) && a.holds(serviceID("job")) })
	if a.holds(serviceID("other")) {
		t.Error("an identity that is not permitted is held")
	}
	stop()

	// Without a token and with the control plane away, what was held still serves.
	cp.stop()
	cfg.Token, cfg.Addresses = "", nil
	a, stop = startAgent(t, cfg)
	if !a.holds(serviceID("web")) {
		t.Error("the identity did not survive a restart")
	}
	cp = startControlPlane(t, "one", filepath.Join(dir, "cp"), "", cp.addr)
	if _, err := cp.SetPermitted("n1", []token.Permit{{ID: serviceID("web")}}); err != nil {
		t.Fatal(err)
	}
	await(t, a, "job withdrawn", func() bool { return a.holds(serviceID("web")) && !a.holds(serviceID("job")) })
	if _, err := cp.BanNode(token.RoleNode, "n1", "test"); err != nil {
		t.Fatal(err)
	}
	await(t, a, "a ban drops everything", func() bool { return len(a.Snapshot().SVIDs) == 0 })
	stop()
}

func TestTokenOnceAndOnlyFromThePinnedServer(t *testing.T) {
	dir := t.TempDir()
	cp := startControlPlane(t, "one", filepath.Join(dir, "cp"), "", "127.0.0.1:0")
	tok := cp.mint(t, token.RoleNode, "n1", "web")
	a, stop := startAgent(t, Config{StateDir: filepath.Join(dir, "a1"), Token: tok})
	await(t, a, "web", func() bool { return a.holds(serviceID("web")) })
	stop()
	again, err := Build(Config{StateDir: filepath.Join(dir, "a2"), Token: tok})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "used") {
		t.Errorf("a used token: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}

	// Another control plane with the token's address but not its key never gets
	// to see the token.
	tok2 := cp.mint(t, token.RoleNode, "n2", "web")
	cp.stop()
	evil := startControlPlane(t, "evil", filepath.Join(dir, "evil"), "", cp.addr)
	defer evil.stop()
	b, err := Build(Config{StateDir: filepath.Join(dir, "a3"), Token: tok2})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "pin") {
		t.Errorf("a wrong pin: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestStateDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(Config{StateDir: dir}); err == nil {
		t.Error("a state directory that others can read was taken")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := Build(Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	info, err := os.Stat(filepath.Join(dir, nodeKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("node key: %v %v", info, err)
	}
	if _, err := Build(Config{StateDir: dir}); err == nil {
		t.Error("two agents use one state directory")
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: %v", err)
	}
}

func TestMoveToTheSecondControlPlane(t *testing.T) {
	dir := t.TempDir()
	one := startControlPlane(t, "one", filepath.Join(dir, "one"), "", "127.0.0.1:0")
	a, _ := startAgent(t, Config{StateDir: filepath.Join(dir, "agent"), Token: one.mint(t, token.RoleNode, "n1", "web", "job")})
	await(t, a, "web", func() bool { return a.holds(serviceID("web")) })
	two := startControlPlane(t, "two", filepath.Join(dir, "two"), one.mint(t, token.RoleControlPlane, "two"), "127.0.0.1:0")
	await(t, a, "two signers", func() bool {
		an := a.Snapshot().Bundles[td.Name()]
		return an != nil && len(an.Certificates) == 2
	})
	limit := time.Now().Add(15 * time.Second)
	for two.CAStatus().Signing == "" {
		if time.Now().After(limit) {
			t.Fatalf("the second control plane never signs: %+v", two.CAStatus())
		}
		time.Sleep(20 * time.Millisecond)
	}
	one.stop()
	limit = time.Now().Add(20 * time.Second)
	for len(two.Reports()) == 0 {
		a.SetReport(Report{Warnings: []string{"hello"}})
		if time.Now().After(limit) {
			t.Fatalf("the agent did not move: %+v", a.Status())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Whoever waits for Ready may use the connection at once: no call fails for want
// of the node's SVID.
func TestReadyMeansConnected(t *testing.T) {
	dir := t.TempDir()
	cp := startControlPlane(t, "one", filepath.Join(dir, "cp"), "", "127.0.0.1:0")
	a, _ := startAgent(t, Config{StateDir: filepath.Join(dir, "agent"), Token: cp.mint(t, token.RoleNode, "n1", "web")})
	select {
	case <-a.Ready():
	case <-time.After(15 * time.Second):
		t.Fatal("not ready in time")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	stream, err := identityv1.NewIdentityClient(a.Conn()).WatchTrust(ctx, &identityv1.WatchTrustRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Errorf("the first call after Ready: %v", err)
	}
}

// A wish stands: what a removed listener named is still renewed while its
// connections drain, and nobody's wish takes back another's.
func TestWantAdds(t *testing.T) {
	a, err := Build(Config{StateDir: filepath.Join(t.TempDir(), "agent"), Workloads: []spiffeid.ID{serviceID("web")}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.record = &Record{Workloads: []Workload{{ID: serviceID("web")}, {ID: serviceID("job")}, {ID: serviceID("db")}}}
	a.Want(serviceID("job"), serviceID("elsewhere"))
	a.Want(serviceID("job"))
	a.Want()
	if got := a.due(); !slices.Equal(got, []spiffeid.ID{serviceID("web"), serviceID("job")}) {
		t.Errorf("held are %v", got)
	}
	if len(a.wanted) != 3 {
		t.Errorf("wanted are %v", a.wanted)
	}
}

// TestOnlyAControlPlaneAnswersForTheMesh: others hold SVIDs of the trust domain,
// too.
func TestOnlyAControlPlaneAnswersForTheMesh(t *testing.T) {
	a := &Agent{td: td}
	for text, may := range map[string]bool{
		"spiffe://agent.test/hauberk/controlplane/one":       true,
		"spiffe://other.test/hauberk/controlplane/one":       false,
		"spiffe://agent.test/hauberk/node/one":               false,
		"spiffe://agent.test/hauberk/operator/one":           false,
		"spiffe://agent.test/hauberk/controlplane":           false,
		"spiffe://agent.test/hauberk/controlplane/one/two":   false,
		"spiffe://agent.test/ns/default/dc/dc1/svc/one":      false,
		"spiffe://agent.test/x/hauberk/controlplane/one":     false,
		"spiffe://agent.test/hauberk/Controlplane/one":       false,
		"spiffe://agent.test/ns/hauberk/dc/controlplane/one": false,
	} {
		if err := a.authorizeControlPlane(spiffeid.RequireFromString(text)); (err == nil) != may {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRenewedOnAFullDisk: what was issued is of use though it cannot be kept, or it would expire,
// the node's for good; and it is kept as soon as the disk takes it.
func TestRenewedOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	// Of a minute's SVID, with what allows for clocks, more than half is over when it is made.
	cp := serve(t, server.Config{Dir: filepath.Join(dir, "cp"), ControlPlane: "one", LeafTTL: time.Minute}, "127.0.0.1:0")
	a, err := Build(Config{StateDir: filepath.Join(dir, "agent"), Token: cp.mint(t, token.RoleNode, "n1", "web")})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.ensureJoined(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(a.state.dir); err != nil {
		t.Fatal(err)
	}
	before := a.Status().Node.Serial
	a.keepOnce(t.Context())
	st := a.Status()
	if st.Node.Serial == before || st.Node.LastError == "" {
		t.Errorf("the node's: %+v", st.Node)
	}
	if !a.holds(serviceID("web")) || len(st.Workloads) != 1 || st.Workloads[0].LastError == "" {
		t.Errorf("the workload's: %+v", st.Workloads)
	}
	if err := os.Mkdir(a.state.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a.saveUnsaved()
	st = a.Status()
	kept, err := a.state.node(a.key)
	if err != nil || kept == nil || kept.Leaf().SerialNumber.Text(16) != st.Node.Serial || st.Node.LastError != "" {
		t.Errorf("kept of the node: %v, %v, %+v", kept, err, st.Node)
	}
	if list, err := a.state.workloads(); err != nil || len(list) != 1 || list[0].Leaf().SerialNumber.Text(16) != st.Workloads[0].Serial || st.Workloads[0].LastError != "" {
		t.Errorf("kept of the workload: %v, %v, %+v", list, err, st.Workloads)
	}
}

// TestNoKeyIsLeftBehind: a write that was cut off leaves a key in a file that nobody reads.
func TestNoKeyIsLeftBehind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	a, err := Build(Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".tmp-123")
	if err := os.WriteFile(left, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err = Build(Config{StateDir: dir}); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%s: %v", left, err)
	}
}

// TestForget: what else is in the directory is not an agent's to remove.
func TestForget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	for _, others := range []bool{false, true} {
		a, err := Build(Config{StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.state.write("workload-1.json", nil); err != nil {
			t.Fatal(err)
		}
		diary := filepath.Join(dir, "diary.txt")
		if others {
			if err := os.WriteFile(diary, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := Forget(dir); err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		list, err := os.ReadDir(dir)
		if others && (err != nil || len(list) != 1 || list[0].Name() != "diary.txt") || !others && !os.IsNotExist(err) {
			t.Errorf("left, with others' files %v: %v, %v", others, list, err)
		}
	}
}
