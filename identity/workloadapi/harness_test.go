package workloadapi

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/selector"
	"github.com/hauberk-mesh/hauberk/identity/svid"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
		return
	}
	goleak.VerifyTestMain(m)
}

const td = "host.test"

func id(service string) string { return "spiffe://" + td + "/ns/default/dc/dc1/svc/" + service }

// source is an agent in miniature.
type source struct {
	*svid.Holder
	signer *idtest.Signer
	more   []*idtest.Signer

	mu     sync.Mutex
	record *agent.Record
	held   map[string]*svid.SVID
}

func newSource(t *testing.T) *source {
	return &source{Holder: svid.NewHolder(nil), signer: idtest.NewSigner(t, td), held: map[string]*svid.SVID{}}
}

func (s *source) Record() *agent.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// permit replaces the node's record: "web uid=1 gid=2".
func (s *source) permit(t *testing.T, workloads ...string) {
	t.Helper()
	r := &agent.Record{Node: "n1"}
	for _, w := range workloads {
		f := strings.Fields(w)
		r.Workloads = append(r.Workloads, agent.Workload{ID: spiffeid.RequireFromString(id(f[0])), Selectors: f[1:]})
	}
	s.setRecord(r)
}

func (s *source) setRecord(r *agent.Record) {
	s.mu.Lock()
	s.record = r
	s.mu.Unlock()
	s.publish()
}

// issue makes a new SVID of each service.
func (s *source) issue(t *testing.T, services ...string) {
	t.Helper()
	for _, name := range services {
		v := s.signer.SVID(t, id(name))
		s.mu.Lock()
		s.held[id(name)] = v
		s.mu.Unlock()
	}
	s.publish()
}

func (s *source) hold(v *svid.SVID) {
	s.mu.Lock()
	s.held[v.ID.String()] = v
	s.mu.Unlock()
	s.publish()
}

func (s *source) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*svid.SVID
	for _, v := range s.held {
		if s.record.Permits(v.ID) {
			all = append(all, v)
		}
	}
	s.Set(idtest.Snapshot(append([]*idtest.Signer{s.signer}, s.more...), all...))
}

// serial is of the SVID that is held now.
func (s *source) serial(service string) string {
	return s.Snapshot().SVIDs[id(service)].Leaf().SerialNumber.String()
}

// logs collects what the server logs.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type server struct {
	*Server
	path string
	log  *logs
	stop func()
}

// serve runs a server on a socket that every user of the machine can reach.
func serve(t *testing.T, cfg Config, change ...func(*Server)) *server {
	t.Helper()
	l := &logs{}
	cfg.Log = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(socketDir(t), "s.sock")
	}
	s, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(s)
	}
	if os.Geteuid() == nobody {
		s.reads = renamed{s.reads}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(stop)
	return &server{s, cfg.Socket, l, stop}
}

// socketDir is short, and others may pass through it.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// settle waits until the server has seen what the source holds.
func (s *server) settle(t *testing.T) {
	t.Helper()
	limit := time.After(within)
	for {
		w := s.world.Load()
		if w.snapshot == s.cfg.Source.Snapshot() && w.record == s.cfg.Source.Record() {
			return
		}
		select {
		case <-w.changed:
		case <-limit:
			t.Fatal("the server does not see what its source holds")
		}
	}
}

// dial connects to a server that has seen what the source holds.
func (s *server) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	s.settle(t)
	c, err := grpc.NewClient("unix://"+s.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// within is the bound of every wait; nothing takes nearly as long.
const within = 10 * time.Second

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	t.Cleanup(cancel)
	return ctx
}

// nobody is the user that the socket serves nothing to (package selector), and
// somebody is who stands for him when he runs the tests.
const (
	nobody   = 65534
	somebody = 1001
)

// renamed is the kernel, but that nobody is somebody.
type renamed struct{ peerReader }

func (r renamed) peer(c *net.UnixConn) (process, error) {
	p, err := r.peerReader.peer(c)
	p.uid, p.gid = rename(p.uid), rename(p.gid)
	return p, err
}

func rename(id uint32) uint32 {
	if id == nobody && os.Geteuid() == nobody {
		return somebody
	}
	return id
}

// myUID and myGID are who runs the test, as its servers see it.
func myUID() uint32 { return rename(uint32(os.Geteuid())) }
func myGID() uint32 { return rename(uint32(os.Getegid())) }

// me is a selector that matches the process of the test.
func me() string { return selector.Selector{Kind: selector.UID, Number: myUID()}.String() }

// notMe matches another user.
func notMe() string {
	return selector.Selector{Kind: selector.UID, Number: myUID() + 1}.String()
}

// entries writes a file of workloads.
func entries(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "workloads.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
