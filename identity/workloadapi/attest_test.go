package workloadapi

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// probe is a service of another package: its one call hands out the caller.
func probe(callers chan<- *Caller) func(grpc.ServiceRegistrar) {
	return func(r grpc.ServiceRegistrar) {
		r.RegisterService(&grpc.ServiceDesc{
			ServiceName: "test.Probe", HandlerType: (*any)(nil),
			Streams: []grpc.StreamDesc{{StreamName: "Hold", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
				c, ok := CallerFromContext(stream.Context())
				if !ok {
					return errors.New("no caller")
				}
				callers <- c
				<-stream.Context().Done()
				return nil
			}}},
		}, nil)
	}
}

func (s *server) hold(t *testing.T, c *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := c.NewStream(limited(t), &grpc.StreamDesc{ServerStreams: true}, "/test.Probe/Hold")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(&emptypb.Empty{}), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestServicesFindTheirCaller(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+notMe(), "coming "+me())
	src.issue(t, "web", "db")
	callers := make(chan *Caller, 1)
	s := serve(t, Config{Source: src, Register: probe(callers)})
	s.hold(t, s.dial(t))
	c := <-callers
	if c.UID != myUID() || c.GID != myGID() || c.PID != int32(os.Getpid()) {
		t.Errorf("%s", c)
	}
	if got := c.Entitled(); len(got) != 2 || got[0].String() != id("web") || got[1].String() != id("coming") {
		t.Errorf("entitled to %v", got)
	}
	for _, change := range []struct {
		to   []string
		want int
	}{{[]string{"db " + me()}, 1}, {nil, 0}, {[]string{"web " + me(), "db " + me(), "job " + me()}, 3}} {
		changed := c.Changed()
		src.permit(t, change.to...)
		// The change may have been published while the one before was looked at.
		for limit := time.After(within); len(c.Entitled()) != change.want; changed = c.Changed() {
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("entitled to %v after %v", c.Entitled(), change.to)
			}
		}
	}
	if _, ok := CallerFromContext(context.Background()); ok {
		t.Error("a context without a call has a caller")
	}
}

// facade is the kernel with some answers replaced.
type facade struct {
	kernel
	cgroups func(pid int32) ([]byte, error)
	change  func(*process)
}

func (f *facade) cgroup(pid int32) ([]byte, error) {
	if f.cgroups == nil {
		return f.kernel.cgroup(pid)
	}
	return f.cgroups(pid)
}

func (f *facade) peer(c *net.UnixConn) (process, error) {
	p, err := f.kernel.peer(c)
	if err == nil && f.change != nil {
		f.change(&p)
	}
	return p, err
}

func TestUnitSelector(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web unit=web.service", "db "+me()+" unit=db.service")
	src.issue(t, "web", "db")
	var file atomic.Pointer[string]
	set := func(s string) { file.Store(&s) }
	f := &facade{cgroups: func(pid int32) ([]byte, error) {
		if pid != int32(os.Getpid()) {
			return nil, errors.New("another process")
		}
		if *file.Load() == "" {
			return nil, os.ErrPermission
		}
		return []byte(*file.Load()), nil
	}}
	set("")
	s := serve(t, Config{Source: src}, func(s *Server) { s.reads = f })
	for _, c := range []struct{ cgroup, want, text string }{
		{"0::/system.slice/web.service\n", id("web"), ""},
		{"9:name=systemd:/system.slice/db.service\n0::/\n", id("db"), ""},
		{"0::/user.slice/user-1.slice/user@1.service/app.slice/web.service\n", "", "unit=user@1.service"},
		{"0::/\n", "", "no entry of this host"},
		{"", "", "no entry of this host"},
	} {
		set(c.cgroup)
		m, err := s.svids(t)
		if c.want == "" {
			wantCode(t, c.cgroup, err, codes.PermissionDenied, c.text)
			continue
		}
		if err != nil || len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != c.want {
			t.Errorf("%q: %v %v", c.cgroup, m, err)
		}
	}
	// A caller that is moved to another unit loses the identity at the next look.
	set("0::/system.slice/web.service\n")
	stream := s.fetch(t, withHeader(limited(t)))
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	set("0::/system.slice/other.service\n")
	src.issue(t, "web")
	_, err := stream.Recv()
	wantCode(t, "moved to another unit", err, codes.PermissionDenied, "unit=other.service")
}

// child runs until its standard input ends.
func child(t *testing.T) (*exec.Cmd, *os.File) {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pollable(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return cmd, f
}

// What /proc says of a number is believed only while the process that had the
// number is known to live.
func TestProcessThatEndsWhileItIsLookedAt(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web unit=web.service", "db uid=7")
	src.issue(t, "web", "db")
	cmd, pidfd := child(t)
	var kill bool
	s := serve(t, Config{Source: src}, func(s *Server) {
		s.reads = &facade{cgroups: func(int32) ([]byte, error) {
			if kill {
				// The number is free for another process from here on.
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			return []byte("0::/system.slice/web.service\n"), nil
		}}
	})
	c := &Caller{UID: 7, PID: int32(cmd.Process.Pid), server: s.Server, pidfd: pidfd}
	if got := c.Entitled(); len(got) != 2 {
		t.Fatalf("a living process is entitled to %v", got)
	}
	kill = true
	if got := c.Entitled(); len(got) != 0 {
		t.Errorf("a process that ended is entitled to %v", got)
	}
	_, err := s.identitiesOf(c, s.world.Load())
	wantCode(t, "ended", err, codes.PermissionDenied, "the process has ended")
	waitExit(pidfd) // returns
	if err := pidfd.Close(); err != nil || !exited(pidfd) {
		t.Errorf("a process that is not watched counts as living: %v", err)
	}
}

// On kernels that give no pidfd of a peer, its number must be its own.
func TestPinByNumber(t *testing.T) {
	cmd, _ := child(t)
	pid := int32(cmd.Process.Pid)
	uid := uint32(os.Geteuid())
	started, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := pinByNumber(&unix.Ucred{Pid: pid, Uid: uid}, now())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		cred     unix.Ucred
		accepted time.Duration
		want     string
	}{
		"started after it connected": {unix.Ucred{Pid: pid, Uid: uid}, started - time.Nanosecond, "started after"},
		"another user":               {unix.Ucred{Pid: pid, Uid: uid + 1}, now(), "process of user"},
		"nobody":                     {unix.Ucred{Pid: 1<<30 - 1, Uid: uid}, now(), "has ended"},
	} {
		if fd, err := pinByNumber(&c.cred, c.accepted); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d %v, want %q", name, fd, err, c.want)
		}
	}
	for _, status := range []string{"", "Uid:\n", "Uid:\t1\t2\n", "Uid:\tx\ty\tz\tz\n", "Name:\tUid: 1 2 3 4\n"} {
		if uid, err := parseUser([]byte(status)); err == nil {
			t.Errorf("%q: user %d", status, uid)
		}
	}
}

// The same end to end, on a kernel that is made to look like an old one.
func TestOldKernel(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me(), "db "+notMe())
	src.issue(t, "web", "db")
	s := serve(t, Config{Source: src}, func(s *Server) { s.reads = kernel{old: true} })
	m, err := s.svids(t)
	if err != nil || len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != id("web") {
		t.Errorf("%v %v", m, err)
	}
}

func TestCallersThatCannotBeAttested(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	f := &facade{change: func(p *process) { p.pid = 0 }}
	s := serve(t, Config{Source: src}, func(s *Server) { s.reads = f })
	if _, err := s.svids(t); err == nil {
		t.Error("a caller of an invisible PID namespace was served")
	}
	if !strings.Contains(s.log.String(), "PID namespace") {
		t.Errorf("the log does not say why:\n%s", s.log)
	}
}

// A process that inherits the descriptor does not inherit the identity.
func TestConnectionEndsWithItsProcess(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	s := serve(t, Config{Source: src})
	ctx, cancel := context.WithTimeout(context.Background(), 2*within)
	defer cancel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+s.path, helperMode+"=leave")
	// The heir writes to it too, so this ends when the heir does.
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), "heir: closed") {
		t.Errorf("%s", out)
	}
}

func TestLimits(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	callers := make(chan *Caller, 8)
	for name, l := range map[string]Limits{"of a user": {ConnectionsPerUser: 2}, "of all": {Connections: 2}} {
		s := serve(t, Config{Source: src, Register: probe(callers), Limits: l})
		var conns []*grpc.ClientConn
		for range 2 {
			conns = append(conns, s.dial(t))
			s.hold(t, conns[len(conns)-1])
			<-callers
		}
		if _, err := s.svids(t); err == nil {
			t.Errorf("%s: one connection too many was taken", name)
		}
		if !strings.Contains(s.log.String(), "2 connections already, which is the limit") {
			t.Errorf("%s: the log does not say why:\n%s", name, s.log)
		}
		if err := conns[0].Close(); err != nil {
			t.Fatal(err)
		}
		// The server may not have noticed the end of that one yet.
		ctx := limited(t)
		for _, err := s.svids(t); err != nil; _, err = s.svids(t) {
			if ctx.Err() != nil {
				t.Fatalf("%s: a place that is free again is not given: %v", name, err)
			}
		}
		s.stop()
		if len(s.use.users) != 0 || s.use.connections != 0 {
			t.Errorf("%s: at the end %d users hold %d connections", name, len(s.use.users), s.use.connections)
		}
	}
	s := serve(t, Config{Source: src, Register: probe(callers), Limits: Limits{StreamsPerUser: 1}})
	s.hold(t, s.dial(t))
	<-callers
	_, err := s.svids(t)
	wantCode(t, "one call too many", err, codes.ResourceExhausted, "which is the limit")
	if _, err := Build(Config{Source: src, Socket: filepath.Join(socketDir(t), "s"), Limits: Limits{Connections: -1}}); err == nil {
		t.Error("a negative limit")
	}
}

// One user's connections do not count for another.
func TestLimitsArePerUser(t *testing.T) {
	u := newUsage(Limits{Connections: 3, ConnectionsPerUser: 2, StreamsPerUser: 1}, func(int) {})
	var releases []func()
	take := func(uid uint32, want bool) {
		t.Helper()
		release, err := u.connection(uid)
		if (err == nil) != want {
			t.Errorf("user %d: %v", uid, err)
		}
		if err == nil {
			releases = append(releases, release)
		}
	}
	take(1, true)
	take(1, true)
	take(1, false)
	take(2, true)
	take(3, false) // all are taken
	done, err := u.stream(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.stream(1); err == nil {
		t.Error("a second call")
	}
	if other, err := u.stream(2); err != nil {
		t.Error(err)
	} else {
		other()
	}
	done()
	for _, r := range releases {
		r()
	}
	if u.connections != 0 || len(u.users) != 0 {
		t.Errorf("%+v", u.users)
	}
}

func TestHealthAndReflection(t *testing.T) {
	src := newSource(t)
	s := serve(t, Config{Source: src})
	check := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		stream, err := healthv1.NewHealthClient(s.dial(t)).Watch(limited(t), &healthv1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				t.Fatalf("never %s: %v", want, err)
			}
			if m.GetStatus() == want {
				return
			}
		}
	}
	check(healthv1.HealthCheckResponse_NOT_SERVING)
	src.permit(t, "web "+me())
	check(healthv1.HealthCheckResponse_SERVING)
	r, err := reflectionv1.NewServerReflectionClient(s.dial(t)).ServerReflectionInfo(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	m, err := r.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range m.GetListServicesResponse().GetService() {
		got = append(got, x.GetName())
	}
	for _, want := range []string{"SpiffeWorkloadAPI", "envoy.service.secret.v3.SecretDiscoveryService", "grpc.health.v1.Health"} {
		if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+want+" ") {
			t.Errorf("%s is not among %v", want, got)
		}
	}
}

// counts is an Observer.
type counts struct {
	mu      sync.Mutex
	open    int
	refused int
	ended   map[string]int
}

func (c *counts) Connections(open int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = open
}

func (c *counts) Refused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused++
}

func (c *counts) Ended(method, code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[method+" "+code]++
}

func TestObserver(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web "+me())
	src.issue(t, "web")
	c := &counts{ended: map[string]int{}}
	s := serve(t, Config{Source: src, Observer: c, Limits: Limits{Connections: 1}})
	stream := s.fetch(t, withHeader(limited(t)))
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.svids(t); err == nil {
		t.Error("a second connection")
	}
	c.mu.Lock()
	if c.open != 1 || c.refused < 1 || len(c.ended) != 0 {
		t.Errorf("%+v", c)
	}
	c.mu.Unlock()
	src.permit(t)
	_, err := stream.Recv()
	wantCode(t, "withdrawn", err, codes.PermissionDenied, "")
	s.stop()
	if c.open != 0 || c.ended["/SpiffeWorkloadAPI/FetchX509SVID PermissionDenied"] != 1 {
		t.Errorf("%+v", c)
	}
}
