package sidecar

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// tunnelsTo makes identities for tunnels' ends, and what they lead to.
func tunnelsTo(t *testing.T) (*authority, net.Listener) {
	t.Helper()
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = origin.Close() })
	return a, origin
}

// TestIdleTunnels: a tunnel on which nothing moves has no goroutine at either hop, and
// whatever happens to a connection then happens to it.
func TestIdleTunnels(t *testing.T) {
	a, origin := tunnelsTo(t)
	log := filepath.Join(t.TempDir(), "access.log")
	srv := run(t, withTunnels(onlyTCP(server(a, application(t), origin.Addr()))),
		func(c *Config) {
			c.AccessLog = &telemetry.AccessLogConfig{Path: log, Format: "%BYTES_RECEIVED% %BYTES_SENT% [%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS%]"}
		})
	between := newWire(t, srv.Addrs().Listeners["in"])
	db := run(t, withTunnels(caller(a, "web", between.Addr()))).Addrs().Listeners["db"]
	lines := 0
	for _, c := range []struct {
		name string
		act  func(t *testing.T, near, far *net.TCPConn)
		log  string // how the line begins
	}{
		{"the client speaks", func(t *testing.T, near, far *net.TCPConn) {
			passes(t, near, far)
			waitIdle(t)
			passes(t, near, far)
			bothEnd(t, near, far)
		}, "12 4 [- -]"},
		{"the server speaks", func(t *testing.T, near, far *net.TCPConn) {
			passes(t, far, near)
			waitIdle(t)
			passes(t, far, near)
			bothEnd(t, far, near)
		}, "4 12 [- -]"},
		{"the client ends its half", func(t *testing.T, near, far *net.TCPConn) { halfEnds(t, near, far) }, "4 12 [- -]"},
		{"the server ends its half", func(t *testing.T, near, far *net.TCPConn) { halfEnds(t, far, near) }, "12 4 [- -]"},
		{"the client resets", func(t *testing.T, near, far *net.TCPConn) { resets(t, near, far) }, "4 4 [- downstream_reset]"},
		{"the server resets", func(t *testing.T, near, far *net.TCPConn) { resets(t, far, near) }, "4 4 [UR upstream_reset]"},
		{"the connection between them is lost", func(t *testing.T, near, far *net.TCPConn) {
			between.cut()
			isReset(t, near)
			isReset(t, far)
		}, "4 4 [- downstream_reset]"},
		{"the identity is withdrawn", func(t *testing.T, near, far *net.TCPConn) {
			srv.identityChanged(&svid.Snapshot{Bundles: map[string]*svid.Anchors{"td": svid.NewAnchors(1, []*x509.Certificate{a.cert})}}, &svid.Snapshot{})
			ends(t, near)
			ends(t, far)
		}, "4 4 [PC trust_withdrawn]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := ofBoth(t, origin, db)
			passes(t, near, far)
			passes(t, far, near)
			waitIdle(t)
			c.act(t, near, far)
			lines++
			waitForLines(t, log, lines)
			b, _ := os.ReadFile(log)
			all := strings.Split(strings.TrimSpace(string(b)), "\n")
			if got := all[len(all)-1]; !strings.HasPrefix(got, c.log) {
				t.Errorf("log %q, want %q", got, c.log)
			}
			waitIdle(t)
		})
	}
}

// TestIdleTunnelsTimeOut: what limits a connection's time limits one without a goroutine.
func TestIdleTunnelsTimeOut(t *testing.T) {
	a, origin := tunnelsTo(t)
	var opens, over []func()
	for limit, reason := range map[string]string{"idle_timeout: 2s": "idle_timeout", "max_downstream_connection_duration: 2s": "max_connection_duration"} {
		for _, end := range []string{"inbound", "outbound"} {
			limited := func(bootstrap string) string {
				return strings.Replace(bootstrap, "stat_prefix: db", limit+", stat_prefix: db", 1)
			}
			log := filepath.Join(t.TempDir(), "access.log")
			logged := func(c *Config) {
				c.AccessLog = &telemetry.AccessLogConfig{Path: log, Format: "%BYTES_RECEIVED% %BYTES_SENT% %CONNECTION_TERMINATION_DETAILS%"}
			}
			in, out := withTunnels(onlyTCP(server(a, application(t), origin.Addr()))), withTunnels
			inLog, outLog := func(*Config) {}, logged
			if end == "inbound" {
				in, inLog, outLog = limited(in), logged, inLog
			} else {
				out = func(b string) string { return limited(withTunnels(b)) }
			}
			srv := run(t, in, inLog)
			db := run(t, out(caller(a, "web", srv.Addrs().Listeners["in"])), outLog).Addrs().Listeners["db"]
			opens = append(opens, func() {
				near, far := ofBoth(t, origin, db)
				passes(t, near, far)
				over = append(over, func() {
					ends(t, near)
					ends(t, far)
					waitForLines(t, log, 1)
					if b, _ := os.ReadFile(log); strings.TrimSpace(string(b)) != "4 0 "+reason {
						t.Errorf("%s %s: log %q", reason, end, b)
					}
				})
			})
		}
	}
	for _, open := range opens {
		open()
	}
	waitIdle(t)
	for _, end := range over { // their times pass together
		end()
	}
}

// TestIdleTunnelsAreMany: they wake together, and each gets what is its.
func TestIdleTunnelsAreMany(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	srv := run(t, withTunnels(onlyTCP(server(a, application(t), echo(t)))))
	db := run(t, withTunnels(caller(a, "web", srv.Addrs().Listeners["in"]))).Addrs().Listeners["db"]
	var conns []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", db.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for range 3 {
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() {
				want := strings.Repeat(string(rune('a'+i%26)), 1+i*40)
				if got, err := say(c, want); err != nil || got != want+"\n" {
					t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
				}
			})
		}
		wg.Wait()
		waitIdle(t)
	}
}

// ofBoth makes a connection through the sidecars, and returns both ends.
func ofBoth(t *testing.T, origin net.Listener, db net.Addr) (near, far *net.TCPConn) {
	t.Helper()
	n, err := net.Dial("tcp", db.String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := origin.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = n.Close(), f.Close() })
	for _, c := range []net.Conn{n, f} {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return n.(*net.TCPConn), f.(*net.TCPConn)
}

func passes(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if _, err := io.WriteString(from, "ping"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(to, b); err != nil || string(b) != "ping" {
		t.Fatalf("%q, %v", b, err)
	}
}

// ends waits until a connection has ended, one way or another.
func ends(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
		t.Errorf("%q, %v", b, err)
	}
	_ = c.Close()
}

func isReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", b, err)
	}
	_ = c.Close()
}

func bothEnd(t *testing.T, one, other *net.TCPConn) {
	t.Helper()
	_ = one.Close()
	ends(t, other)
}

// halfEnds: the other half goes on, through another rest.
func halfEnds(t *testing.T, one, other *net.TCPConn) {
	t.Helper()
	_ = one.CloseWrite()
	if b, err := io.ReadAll(other); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	passes(t, other, one)
	waitIdle(t)
	passes(t, other, one)
	bothEnd(t, other, one)
}

func resets(t *testing.T, one, other *net.TCPConn) {
	t.Helper()
	_ = one.SetLinger(0)
	bothEnd(t, one, other)
}

// waitIdle waits until no connection of any sidecar here has a goroutine that serves it.
func waitIdle(t *testing.T) {
	t.Helper()
	buf := make([]byte, 4<<20)
	deadline := time.Now().Add(10 * time.Second)
	for ; ; time.Sleep(10 * time.Millisecond) {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "tcp.(*relay).") && !strings.Contains(stacks, "tunnel.(*conn).") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("an idle connection keeps a goroutine:\n%s", stacks)
		}
	}
}

// wire passes connections on, until it is cut.
type wire struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func newWire(t *testing.T, to net.Addr) *wire {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: ln}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); w.cut(); wg.Wait() })
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.String())
			if err != nil {
				_ = in.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, in, out)
			w.mu.Unlock()
			for _, ends := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(ends[0], ends[1])
					_, _ = ends[0].Close(), ends[1].Close()
				})
			}
		}
	})
	return w
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}
