package tcp

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// discardEcho answers each byte.
func echoAll(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// A connection on which nothing moves is parked, and moves again when either end
// speaks, is ended, or has lasted long enough.
func TestParkedRelay(t *testing.T) {
	up := make(chan *net.TCPConn, 1)
	m := upstream(t, func(c *net.TCPConn) { up <- c; echoAll(c) })
	client, line := serve(t, Config{Cluster: "up"}, m)
	ping := func(to, from net.Conn) {
		t.Helper()
		if _, err := to.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(from, b); err != nil || string(b) != "ping" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	ping(client, client)
	waitParked(t)
	ping(client, client)
	waitParked(t)
	far := <-up
	ping(far, client) // the upstream speaks first
	waitParked(t)
	_ = client.CloseWrite()
	if b, err := io.ReadAll(client); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if got, want := line(), "- 8 12 up -"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

// A connection that moves again soon after it was parked is given more time.
func TestPatience(t *testing.T) {
	client, _ := serve(t, Config{Cluster: "up"}, upstream(t, echoAll))
	ping := func() (quiet time.Duration) {
		t.Helper()
		_, _ = client.Write([]byte("x"))
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		waitParked(t)
		return time.Since(began)
	}
	first := ping()
	for tries := 0; ping() < time.Duration(parkAfter*9/10); tries++ {
		if tries == 10 {
			t.Fatalf("parked as soon as the first time, after %s", first)
		}
	}
}

func TestParkedRelayEnds(t *testing.T) {
	idle := 2500 * time.Millisecond
	var ends []func()
	for name, cfg := range map[string]Config{
		"idle_timeout":            {Cluster: "up", IdleTimeout: &idle},
		"max_connection_duration": {Cluster: "up", MaxDuration: 2500 * time.Millisecond, MaxDurationJitter: 1},
	} {
		client, line := serve(t, cfg, upstream(t, echoAll))
		waitParked(t)
		ends = append(ends, func() {
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the connection is open", name)
			}
			if !strings.HasSuffix(line(), name) {
				t.Errorf("log %q", line())
			}
		})
	}
	for _, end := range ends { // their times pass together
		end()
	}
}

// A direction whose destination stands still does not keep the other from moving,
// however long that lasts.
func TestOneDirectionStandsStill(t *testing.T) {
	for name, block := range map[string]int{"copied": 1 << 10, "spliced": 64 << 10} {
		t.Run(name, func(t *testing.T) {
			up := make(chan *net.TCPConn, 1)
			m := upstream(t, func(c *net.TCPConn) { up <- c; <-t.Context().Done() })
			client, _ := serve(t, Config{Cluster: "up"}, m)
			far := <-up
			// As full as it gets: until nothing has been taken for longer than it takes
			// to park a connection.
			for b := make([]byte, block); ; {
				_ = client.SetWriteDeadline(time.Now().Add(3 * time.Duration(parkAfter)))
				if _, err := client.Write(b); err != nil {
					break
				}
			}
			_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, _ = far.Write([]byte("ping"))
			b := make([]byte, 4)
			if _, err := io.ReadFull(client, b); err != nil || string(b) != "ping" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// Everything arrives, in order, through buffers of all sizes and through splice,
// with pauses in which the connection may be parked.
func TestBulk(t *testing.T) {
	m := upstream(t, echoAll)
	client, _ := serve(t, Config{Cluster: "up"}, m)
	_ = client.SetDeadline(time.Now().Add(30 * time.Second))
	const total = 24 << 20
	sent, got := sha256.New(), sha256.New()
	copied := make(chan error, 1)
	go func(h hash.Hash) {
		_, err := io.CopyN(h, client, total)
		copied <- err
	}(got)
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	r := rand.New(rand.NewPCG(1, 2))
	for left := total; left > 0; {
		n := min(left, 1+r.IntN(len(chunk)))
		r.Uint64()
		b := chunk[:n]
		b[0] = byte(n)
		sent.Write(b)
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
		left -= n
	}
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("the bytes differ")
	}
}

func TestAwaitData(t *testing.T) {
	began := make(chan struct{}, 1)
	m := upstream(t, func(c *net.TCPConn) { began <- struct{}{}; echoAll(c) })
	client, line := serve(t, Config{Cluster: "up", AwaitData: true, MaxEarlyData: 2, LogOnConnect: true}, m)
	select {
	case <-began:
		t.Error("the upstream is connected before the client has spoken")
	case <-time.After(50 * time.Millisecond):
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = client.CloseWrite()
	if b, err := io.ReadAll(client); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	// The line of the connected upstream has the first words, and no answer: as Envoy's.
	if want := "- 2 0 up -\n- 5 5 up -"; line() != want {
		t.Errorf("log %q, want %q", line(), want)
	}
}

// A client that does not speak is held to the times of all connections.
func TestAwaitDataEnds(t *testing.T) {
	short := 50 * time.Millisecond
	for want, cfg := range map[string]Config{
		"DT 0 0 - max_connection_duration": {MaxDuration: short},
		"- 0 0 - idle_timeout":             {MaxDuration: time.Hour, IdleTimeout: &short},
	} {
		cfg.Cluster, cfg.AwaitData, cfg.MaxEarlyData = "up", true, 1<<20
		client, line := serve(t, cfg, clusterAt(t, 1))
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %v", want, err)
		}
		if got := line(); got != want {
			t.Errorf("log %q, want %q", got, want)
		}
	}
}

// Attempts are counted, and their pauses grow; what is logged meanwhile is what is
// known then.
func TestBackoffAndEarlyLogs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	client, line := serve(t, Config{Cluster: "up", MaxConnectAttempts: 3, Backoff: &Backoff{Base: time.Millisecond, Max: 2 * time.Millisecond}, LogOnStart: true}, clusterAt(t, port))
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is served")
	}
	if want := "- 0 0 - -\nUF,URX 0 0 up -"; line() != want {
		t.Errorf("log %q, want %q", line(), want)
	}
	client, line = serve(t, Config{Cluster: "up", LogOnConnect: true, LogInterval: 100 * time.Millisecond}, upstream(t, echoAll))
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { _ = client.CloseWrite() })
	_, _ = io.ReadAll(client)
	lines := strings.Split(line(), "\n")
	if len(lines) < 4 || lines[0] != "- 0 0 up -" || lines[len(lines)-1] != "- 1 1 up -" {
		t.Errorf("log %q", lines)
	}
}

// The lines of a connection say on which occasions they were written, have one id, and tell
// that it was as long as it may be: as Envoy 1.40 has it.
func TestLogTypes(t *testing.T) {
	client, line := serve(t, Config{Cluster: "up", LogOnStart: true, LogOnConnect: true, LogInterval: 400 * time.Millisecond, MaxDuration: time.Second,
		AccessLog: []telemetry.AccessLogConfig{{Format: "%STREAM_ID% %ACCESS_LOG_TYPE% %RESPONSE_FLAGS%"}}}, upstream(t, echoAll))
	_, _ = client.Read(make([]byte, 1))
	lines := strings.Split(line(), "\n")
	if len(lines) < 4 {
		t.Fatalf("log %q", lines)
	}
	id, _, _ := strings.Cut(lines[0], " ")
	for i, l := range lines {
		// One that is due with the end has its flag, as in Envoy.
		want := []string{"TcpPeriodic -", "TcpPeriodic DT"}
		switch i {
		case 0:
			want = []string{"TcpConnectionStart -"}
		case 1:
			want = []string{"TcpUpstreamConnected -"}
		case len(lines) - 1:
			want = []string{"TcpConnectionEnd DT"}
		}
		if got, rest, _ := strings.Cut(l, " "); got != id || len(id) != 36 || !slices.Contains(want, rest) {
			t.Errorf("line %d is %q, want one of %q and the id %q", i, l, want, id)
		}
	}
	client, line = serve(t, Config{Cluster: "up", AccessLog: []telemetry.AccessLogConfig{{Format: "%STREAM_ID%"}}}, upstream(t, echoAll))
	_ = client.CloseWrite()
	_, _ = client.Read(make([]byte, 1))
	if other := line(); other == id || len(other) != 36 {
		t.Errorf("another connection has the id %q", other)
	}
}

// TestMovesBetweenLookAndSleep: a connection that moves again, or one end of which leaves,
// after the look that found nothing to do is not slept through.
func TestMovesBetweenLookAndSleep(t *testing.T) {
	for name, happens := range map[string]func(*relay){
		"moves":       func(r *relay) { r.toUp.running = true; r.last.Store(r.p.watch.now()) },
		"moves again": func(r *relay) { r.toUp.running = true; r.last.Store(r.p.watch.now()); r.returns.Store(true) },
		"leaves":      func(r *relay) { r.leftAt.Store(r.p.watch.now()) },
	} {
		p := &Proxy{idle: time.Hour, watch: newWatch(0)}
		r := &relay{p: p, parkable: true}
		r.last.Store(p.watch.now() - int64(time.Minute))
		p.watch.relays = []*relay{r}
		wait := p.watch.look()
		if wait < int64(time.Minute) {
			t.Fatalf("%s: the connection is looked at again after %s", name, time.Duration(wait))
		}
		happens(r)
		p.watch.stir()
		if got := p.watch.rest(wait); got > parkAfter || p.watch.asleep.Load() != (got > p.watch.step) {
			t.Errorf("%s: it is slept for %s", name, time.Duration(got))
		}
	}
}

// stuck is a stream to a peer that takes nothing.
type stuck struct {
	stream.Stream
	closed chan struct{}
}

func (s *stuck) Write([]byte) (int, error) { <-s.closed; return 0, net.ErrClosed }
func (s *stuck) Close() error {
	defer close(s.closed)
	return s.Stream.Close()
}

// firstWords has p connect the upstream of a client that has said hello.
func firstWords(t *testing.T, cfg *Config) (p *Proxy, r *relay, log func() string) {
	t.Helper()
	path, logs := filepath.Join(t.TempDir(), "log"), telemetry.NewLogs(nil)
	t.Cleanup(logs.Close)
	cfg.Cluster, cfg.AwaitData, cfg.MaxEarlyData, cfg.LogOnConnect = "up", true, 5, true
	cfg.AccessLog = []telemetry.AccessLogConfig{{Path: path, Format: "%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %CONNECTION_TERMINATION_DETAILS%"}}
	p, err := New(cfg, Options{Logs: logs, Clusters: upstream(t, func(c *net.TCPConn) { _, _ = io.ReadAll(c) })})
	if err != nil {
		t.Fatal(err)
	}
	near, far := socketPair(t)
	s, err := stream.NewSocket(near, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := downstream.New(downstream.Facts{Stream: s, Peer: authz.NewPeer(s.Info(), near.LocalAddr().(*net.TCPAddr).AddrPort()), Accepted: time.Now()}, nil)
	c.Attach(&downstream.Server{Handler: p, Context: t.Context()}, releaser{})
	t.Cleanup(func() { _, _ = far.Close(), p.Close() })
	if _, err := far.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if r = p.begin(t.Context(), c); r == nil {
		t.Fatal("there is no upstream")
	}
	return p, r, func() string {
		logs.Flush()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
}

// TestFirstWordsAreNotTaken: the times of the connection hold too while its upstream
// does not take what the client said first, and no line counts it.
func TestFirstWordsAreNotTaken(t *testing.T) {
	idle := 50 * time.Millisecond
	p, r, log := firstWords(t, &Config{IdleTimeout: &idle})
	up := &stuck{r.up.Stream, make(chan struct{})}
	r.up.Stream, r.toUp.dst, r.down.src = up, up, up
	p.watch.add(r)
	served := make(chan bool)
	go func() { defer close(served); served <- p.serve(r) }()
	select {
	case finished := <-served:
		if o := r.outcome(); !finished || o.termination != "idle_timeout" || r.moved() != 0 {
			t.Errorf("finished %v, %q, %d moved", finished, o.termination, r.moved())
		}
	case <-time.After(10 * time.Second):
		t.Error("the connection is held")
		r.close()
		<-served
	}
	p.end(r)
	if got := log(); got != "TcpUpstreamConnected 0 -\nTcpConnectionEnd 0 idle_timeout\n" {
		t.Errorf("log %q", got)
	}
}

// TestNoPeriodicLineBeforeTheFirst: lines at intervals begin when that of the connected
// upstream is written, however long what the client said first is not taken; one that was
// due is not slept through.
func TestNoPeriodicLineBeforeTheFirst(t *testing.T) {
	off := time.Duration(0)
	p, r, log := firstWords(t, &Config{IdleTimeout: &off, LogInterval: time.Hour})
	due := r.began + int64(time.Hour)
	if r.look(due); r.nextLook(due-1) == due {
		t.Error("it is looked at for a line that is not due")
	}
	p.watch.asleep.Store(true)
	r.logConnected()
	if p.watch.asleep.Load() || r.nextLook(due-1) != due {
		t.Error("the line that is due is slept through")
	}
	r.look(due)
	p.watch.add(r)
	p.end(r)
	r.first.drop()
	if got := log(); got != "TcpUpstreamConnected 0 -\nTcpPeriodic 0 -\nTcpConnectionEnd 0 -\n" {
		t.Errorf("log %q", got)
	}
}
