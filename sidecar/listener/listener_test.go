package listener

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/internal/ports"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/tcp"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo serves a connection by sending back what comes.
type echo struct{}

func (echo) ServeStream(_ context.Context, c *downstream.Conn) {
	_, _ = io.Copy(struct{ io.Writer }{c.Stream}, struct{ io.Reader }{c.Stream})
}

func newTestManager(t *testing.T, with func(*Options)) *Manager {
	t.Helper()
	o := Options{
		NewHandler: func(*Config, *FilterChain) (downstream.Handler, error) { return echo{}, nil },
		Metrics:    telemetry.NewMetrics(),
	}
	if with != nil {
		with(&o)
	}
	m := NewManager(o)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func echoConfig(name string, rbac ...authz.NetworkFilter) *Config {
	return &Config{Name: name, Network: "tcp", Address: "127.0.0.1:0",
		Chains: []FilterChain{{Name: "c", RBAC: rbac, TCP: &tcp.Config{Cluster: "x"}}}}
}

func denyAll() authz.NetworkFilter {
	return authz.NetworkFilter{StatPrefix: "test", Rules: &authz.Rules{Action: authz.Deny, Policies: []authz.Policy{{
		Name: "nobody", Permissions: []authz.Permission{{Any: true}}, Principals: []authz.Principal{{Any: true}}}}}}
}

func dial(t *testing.T, m *Manager, name string) net.Conn {
	t.Helper()
	c, err := net.Dial(m.Addrs()[name].Network(), m.Addrs()[name].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

func roundTrip(c net.Conn) error {
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func mustApply(t *testing.T, m *Manager, cfg *Config) {
	t.Helper()
	if err := m.Apply(cfg); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateKeepsSocketAndConnections(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	before := m.Addrs()["l"].String()
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	mustApply(t, m, echoConfig("l"))
	if after := m.Addrs()["l"].String(); after != before {
		t.Errorf("address %s became %s", before, after)
	}
	if err := roundTrip(c); err != nil {
		t.Errorf("the connection ended: %v", err)
	}
}

func TestNewDenyClosesLiveConnection(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	mustApply(t, m, echoConfig("l", denyAll()))
	if err := roundTrip(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the denied connection lives: %v", err)
	}
	if err := roundTrip(dial(t, m, "l")); err == nil {
		t.Error("a new connection is served")
	}
}

// TestNewDenyWhileAListenerDrains: what a removed listener still serves is denied by an update of it,
// of which no listener is made.
func TestNewDenyWhileAListenerDrains(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	m.Remove("l")
	for i, step := range []struct {
		cfg   *Config
		lives bool
	}{{echoConfig("other", denyAll()), true}, {echoConfig("l"), true}, {echoConfig("l", denyAll()), false}} {
		if err := m.Judge(step.cfg); err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(c); (err == nil) != step.lives || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if at := m.Addrs(); len(at) > 0 {
		t.Errorf("it listens at %v", at)
	}
}

func TestWithdrawnIdentityClosesConnections(t *testing.T) {
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	cfg.Workload = "spiffe://td/ns/default/dc/dc1/svc/api"
	mustApply(t, m, cfg)
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	never := func(string, *stream.Info) bool { return false }
	if n := m.CloseConns(never, "other"); n != 0 {
		t.Errorf("closed %d of another identity", n)
	}
	if n := m.CloseConns(func(w string, _ *stream.Info) bool { return w == cfg.Workload }, "withdrawn"); n != 1 {
		t.Errorf("closed %d", n)
	}
	if err := roundTrip(c); err == nil {
		t.Error("the connection lives")
	}
	// A handshake that began before the withdrawal is covered; a later one is not.
	if _, yes := m.withdrawnSince(0, cfg.Workload, &stream.Info{}); !yes {
		t.Error("an overtaken handshake is not covered")
	}
	if err := roundTrip(dial(t, m, "l")); err != nil {
		t.Errorf("a connection after the withdrawal: %v", err)
	}
}

// TestExpiredPeerCertificate: it is told once, and the connection of a protocol
// without requests goes on.
func TestExpiredPeerCertificate(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.all() {
		for _, tr := range l.established() {
			tr.conn.Info.PeerNotAfter = time.Now().Add(-time.Second)
		}
	}
	told := map[uint64]bool{}
	for range 3 {
		m.expire(time.Now(), told)
	}
	if len(told) != 1 {
		t.Errorf("%d connections told of, want 1", len(told))
	}
	var out strings.Builder
	_ = m.opts.Metrics.Registry.WritePrometheus(&out)
	if want := `hauberk_peer_certificates_expired_total{listener="l",action="logged"} 1`; !strings.Contains(out.String(), want) {
		t.Errorf("no %s in\n%s", want, out.String())
	}
	if err := roundTrip(c); err != nil {
		t.Errorf("a TCP connection was ended: %v", err)
	}
	_ = c.Close()
	for end := time.Now().Add(5 * time.Second); len(told) > 0 && time.Now().Before(end); {
		m.expire(time.Now(), told)
	}
	if len(told) > 0 {
		t.Error("what has ended is remembered")
	}
}

// TestDrainDeadlineStays: whoever connects after the deadline of a drain is not served on
// by a process that is still there.
func TestDrainDeadlineStays(t *testing.T) {
	t.Parallel()
	trigger, watcher := drain.New()
	m := newTestManager(t, func(o *Options) { o.Drain = watcher })
	mustApply(t, m, echoConfig("l"))
	trigger.Drain(time.Now())
	for range 2 {
		c := dial(t, m, "l")
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("it is served on: %v", err)
		}
	}
}

func TestRemoveDrainsThenCloses(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.DrainTime = 50 * time.Millisecond })
	mustApply(t, m, echoConfig("l"))
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	addr := m.Addrs()["l"].String()
	m.Remove("l")
	if n, err := net.Dial("tcp", addr); err == nil {
		_ = n.Close()
		t.Error("a removed listener accepts")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection outlives the drain time: %v", err)
	}
}

// TestStopAccepting: who connects afterwards is refused, and what there is goes on.
func TestStopAccepting(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	addr := m.Addrs()["l"].String()
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	m.StopAccepting()
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	if err := roundTrip(c); err != nil || m.Serving() != 1 {
		t.Errorf("the connection that there was: %v, %d served", err, m.Serving())
	}
	_ = c.Close()
	for m.Serving() != 0 {
		runtime.Gosched()
	}
}

// TestUpdateAfterTheLastAccept: neither an update nor a listener that comes once nothing is
// accepted any more opens a socket, or holds anything up.
func TestUpdateAfterTheLastAccept(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	m.StopAccepting()
	moved := echoConfig("l")
	moved.Address = "127.0.0.2:0"
	mustApply(t, m, moved)
	addr := m.Addrs()["l"]
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		_ = c.Close()
		t.Errorf("%s accepts", addr)
	}
	mustApply(t, m, echoConfig("new"))
	if addr, ok := m.Addrs()["new"]; ok {
		t.Errorf("a new listener accepts at %s", addr)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); _ = m.Close() }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the manager does not end")
	}
}

func TestReplaceHandsTheSocketOver(t *testing.T) {
	m := newTestManager(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	old, next := echoConfig("old"), echoConfig("new")
	old.Address, next.Address = addr, addr
	mustApply(t, m, old)
	var inUse *AddressInUseError
	if err := m.Apply(next); !errors.As(err, &inUse) || !strings.Contains(err.Error(), `"old"`) {
		t.Errorf("two listeners of one address: %v", err)
	}
	c := dial(t, m, "old")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	if failed := m.Replace([]string{"old"}, []*Config{next}); len(failed) > 0 {
		t.Fatal(failed)
	}
	if err := roundTrip(dial(t, m, "new")); err != nil {
		t.Error(err)
	}
	if err := roundTrip(c); err != nil {
		t.Errorf("the old connection: %v", err)
	}
}

// TestMovesToARemovedAddress: one that is there takes the address of one that is removed, and
// another that which it leaves, in the same step.
func TestMovesToARemovedAddress(t *testing.T) {
	m := newTestManager(t, nil)
	at := func(name, address string) *Config {
		c := echoConfig(name)
		c.Address = address
		return c
	}
	free := func() string {
		port, err := ports.Free("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	first, second := free(), free()
	mustApply(t, m, at("gone", first))
	mustApply(t, m, at("moves", second))
	c := dial(t, m, "gone")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	if failed := m.Replace([]string{"gone"}, []*Config{at("moves", first), at("follows", second)}); len(failed) > 0 {
		t.Fatal(failed)
	}
	for name, want := range map[string]string{"moves": first, "follows": second} {
		if got := m.Addrs()[name].String(); got != want {
			t.Errorf("%s listens at %s, want %s", name, got, want)
		}
		if err := roundTrip(dial(t, m, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := roundTrip(c); err != nil {
		t.Errorf("the connection of the removed: %v", err)
	}
}

// TestTakenOverWithOtherOptions: the options of who takes over an address are in force, whether it
// is new or moves there; and of two who would have it one does.
func TestTakenOverWithOtherOptions(t *testing.T) {
	m := newTestManager(t, nil)
	at := func(name, path string, mode fs.FileMode) *Config {
		c := echoConfig(name)
		c.Network, c.Address, c.Socket.Mode = "unix", path, mode
		return c
	}
	dir := t.TempDir()
	path, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	mustApply(t, m, at("first", path, 0o666))
	mustApply(t, m, at("moves", other, 0o600))
	old := dial(t, m, "first")
	if err := roundTrip(old); err != nil {
		t.Fatal(err)
	}
	names, modes := []string{"first", "second", "moves", "third"}, []fs.FileMode{0o666, 0o600, 0o660, 0o660}
	var inode uint64
	for i, name := range names {
		if i > 0 {
			if failed := m.Replace(names[i-1:i], []*Config{at(name, path, modes[i])}); len(failed) > 0 {
				t.Fatal(failed)
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != modes[i] {
			t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), modes[i])
		}
		now := info.Sys().(*syscall.Stat_t).Ino
		if i > 0 && modes[i] == modes[i-1] && now != inode {
			t.Errorf("%s has another socket, with the same options", name)
		}
		inode = now
		if err := roundTrip(dial(t, m, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := roundTrip(old); err != nil {
		t.Errorf("the connection of the first: %v", err)
	}
	failed := m.Replace([]string{"third"}, []*Config{at("one", path, 0o660), at("two", path, 0o660)})
	var used *AddressInUseError
	if len(failed) != 1 || !errors.As(failed["two"], &used) || used.Holder != `listener "one" of this sidecar` {
		t.Errorf("two take over one address: %v", failed)
	}
	if err := roundTrip(dial(t, m, "one")); err != nil {
		t.Error(err)
	}
}

// TestDrainingListenersAreTold: what a removed listener names is in use until its last
// connection has ended, and the end of it is told.
func TestDrainingListenersAreTold(t *testing.T) {
	ended := make(chan struct{}, 1)
	m := newTestManager(t, func(o *Options) { o.Drained = func() { ended <- struct{}{} } })
	cfg := echoConfig("l")
	mustApply(t, m, cfg)
	c := dial(t, m, "l")
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	if d := m.Draining(); len(d) > 0 {
		t.Errorf("%d drain before any is removed", len(d))
	}
	m.Remove("l")
	if d := m.Draining(); len(d) != 1 || d[0] != cfg {
		t.Errorf("with a connection open %d drain", len(d))
	}
	select {
	case <-ended:
		t.Error("it has drained with a connection open")
	default:
	}
	_ = c.Close()
	<-ended
	if d := m.Draining(); len(d) > 0 {
		t.Errorf("%d drain without a connection", len(d))
	}
}

func TestFailedApplyKeepsWhatWas(t *testing.T) {
	m := newTestManager(t, nil)
	mustApply(t, m, echoConfig("l"))
	bad := echoConfig("l")
	bad.Chains = append(bad.Chains, bad.Chains[0])
	if err := m.Apply(bad); err == nil || !strings.Contains(err.Error(), "match the same connections") {
		t.Errorf("got %v", err)
	}
	if err := roundTrip(dial(t, m, "l")); err != nil {
		t.Error(err)
	}
}

func TestPortInUseNamesTheHolder(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	cfg.Address = held.Addr().String()
	err = m.Apply(cfg)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), cfg.Address) || !strings.Contains(err.Error(), "process") {
		t.Errorf("got %v", err)
	}
}

func TestCloseDoesNotWaitForASilentPeer(t *testing.T) {
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	cfg.Filters = []Filter{{TLSInspector: true}}
	mustApply(t, m, cfg)
	dial(t, m, "l")
	began := time.Now()
	_ = m.Close()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestInspectorLeavesTheBytes(t *testing.T) {
	m := newTestManager(t, nil)
	cfg := echoConfig("l")
	cfg.Filters = []Filter{{TLSInspector: true}}
	cfg.Chains[0].Match.ServerNames = []string{"a.example"}
	mustApply(t, m, cfg)
	c := dial(t, m, "l")
	hello := helloBytes(t, "a.example")
	// In two parts: the inspector waits for the second.
	_, _ = c.Write(hello[:10])
	time.Sleep(20 * time.Millisecond)
	_, _ = c.Write(hello[10:])
	got := make([]byte, len(hello))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, hello) {
		t.Errorf("%v; the bytes differ: %v", err, !bytes.Equal(got, hello))
	}
	if err := roundTrip(dial(t, m, "l")); err == nil {
		t.Error("a connection without a chain is served")
	}
}

func TestSocketsAreInheritedAndStaleOnesRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	a := NewSockets(nil)
	s, err := a.Listen("l", 0, Address{Network: "unix", Address: path})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	b := NewSockets(nil, Inherited{Owner: "l", Network: "unix", Address: path, File: f})
	s, err = b.Listen("l", 0, Address{Network: "unix", Address: path})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the inherited socket: %v", err)
	}
	_ = c.Close()
	s.stream.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = s.Close() // leaves a stale file
	if s, err = b.Listen("l", 0, Address{Network: "unix", Address: path}); err != nil {
		t.Fatalf("a stale file: %v", err)
	}
	_ = s.Close()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Listen("l", 0, Address{Network: "unix", Address: path}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file that is no socket: %v", err)
	}
}
