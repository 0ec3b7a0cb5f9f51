package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// withTunnels has every TLS context of a bootstrap offer tunnels.
func withTunnels(bootstrap string) string {
	return regexp.MustCompile(`( +)common_tls_context:\n`).ReplaceAllString(bootstrap, "${0}${1}  alpn_protocols: ["+names.TunnelALPN+"]\n")
}

// onlyTCP takes the HTTP chain away: ALPN of tunnels is not for it.
func onlyTCP(bootstrap string) string {
	from := strings.Index(bootstrap, "    - name: http\n")
	to := strings.Index(bootstrap, "    - name: tcp\n")
	return bootstrap[:from] + bootstrap[to:]
}

// TestTunnels: byte streams share one connection where both sidecars offer it, and have
// their own where one does not; identity, authorization and logs are those of each.
func TestTunnels(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "evil", "api", "db"} {
		a.issue(s)
	}
	for _, test := range []struct {
		name           string
		client, server bool
		carriers       int // connections that the second sidecar accepts for 20 of the first
	}{{"both", true, true, 1}, {"client only", true, false, 20}, {"server only", false, true, 20}} {
		t.Run(test.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "access.log")
			server := onlyTCP(server(a, application(t), echo(t)))
			if test.server {
				server = withTunnels(server)
			}
			srv := run(t, server, func(c *Config) { c.AccessLog = &telemetry.AccessLogConfig{Path: log, JSON: true} })
			from := func(who string) net.Addr {
				c := caller(a, who, srv.Addrs().Listeners["in"])
				if test.client {
					c = withTunnels(c)
				}
				return run(t, c).Addrs().Listeners["db"]
			}
			db := from("web")
			var conns []net.Conn
			for range 20 {
				c, err := net.Dial("tcp", db.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
			}
			var wg sync.WaitGroup
			for i, c := range conns {
				wg.Go(func() {
					want := fmt.Sprintf("line %d\n", i)
					if got, err := say(c, strings.TrimSuffix(want, "\n")); err != nil || got != want {
						t.Errorf("%q %v", got, err)
					}
				})
			}
			wg.Wait()
			if n := accepted(t, srv); n != test.carriers {
				t.Errorf("%d connections between the sidecars, want %d", n, test.carriers)
			}
			// The end of one half is passed on, and the other goes on.
			tc := conns[0].(*net.TCPConn)
			_, _ = io.WriteString(tc, "last words")
			_ = tc.CloseWrite()
			if rest, err := io.ReadAll(tc); err != nil || string(rest) != "last words" {
				t.Errorf("%q %v", rest, err)
			}
			for _, c := range conns[1:] {
				_ = c.Close()
			}
			waitForLines(t, log, 20)
			if lines, _ := os.ReadFile(log); strings.Count(string(lines), id("web")) < 20 {
				t.Errorf("not every connection is logged with its peer:\n%s", lines)
			}

			// Whoever is denied is, whatever carries it.
			c, err := net.Dial("tcp", from("evil").String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := say(c, "let me in"); err == nil {
				t.Errorf("evil was answered %q", got)
			}
		})
	}
}

// TestTunnelsShareWorkers: a connection of its own goroutines would grow a stack in each of
// them, five times in all at both ends, a twentieth of what a short one costs.
func TestTunnelsShareWorkers(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	srv := run(t, withTunnels(onlyTCP(server(a, application(t), echo(t)))))
	db := run(t, withTunnels(caller(a, "web", srv.Addrs().Listeners["in"]))).Addrs().Listeners["db"]
	c, err := net.Dial("tcp", db.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b []byte
	for range 100 { // they end where nothing moves for a moment
		if got, err := say(c, "hello"); err != nil || got != "hello\n" {
			t.Fatalf("%q %v", got, err)
		}
		b = make([]byte, 1<<20)
		b = b[:runtime.Stack(b, true)]
		directions := 0
		for _, stack := range bytes.Split(b, []byte("\n\n")) {
			if bytes.Contains(stack, []byte("tcp.(*relay).copy")) {
				if directions++; !bytes.Contains(stack, []byte("workers.(*Pool).work(")) {
					t.Fatalf("by a goroutine of its own:\n%s", stack)
				}
			}
		}
		if directions == 4 {
			return
		}
	}
	t.Errorf("never two directions at each end:\n%s", b)
}

// TestTunnelsBulk: what several connections send and get at once over one arrives whole,
// however it was cut on the way.
func TestTunnelsBulk(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	srv := run(t, withTunnels(onlyTCP(server(a, application(t), echo(t)))))
	db := run(t, withTunnels(caller(a, "web", srv.Addrs().Listeners["in"]))).Addrs().Listeners["db"]
	var wg sync.WaitGroup
	for i := range 4 {
		c, err := net.Dial("tcp", db.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		data := make([]byte, 6<<20+i)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for rest := data; len(rest) > 0; {
				n, err := c.Write(rest[:min(len(rest), 1+r.IntN(200_000))])
				if err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			_ = c.(*net.TCPConn).CloseWrite()
		})
		wg.Go(func() {
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes came back, or others; %v", len(got), len(data), err)
			}
		})
	}
	wg.Wait()
}

// TestTunnelsStall: a connection whose reader stands still holds up no other, in either
// direction.
func TestTunnelsStall(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	origin := newStaller(t)
	srv := run(t, withTunnels(onlyTCP(server(a, application(t), origin.addr))))
	db := run(t, withTunnels(caller(a, "web", srv.Addrs().Listeners["in"]))).Addrs().Listeners["db"]
	dial := func() net.Conn {
		c, err := net.Dial("tcp", db.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	works := func(what string) {
		t.Helper()
		if got, err := say(dial(), "hello"); err != nil || got != "hello\n" {
			t.Errorf("%s: %q %v", what, got, err)
		}
	}
	for range 8 { // 8 sockets' buffers and streams' windows are more than 24 MB
		_, _ = io.WriteString(dial(), "flood\n")
	}
	origin.standstill()
	works("downloads that nobody reads")
	block := make([]byte, 64<<10)
	for range 24 {
		c := dial()
		_, _ = io.WriteString(c, "hold\n")
		for {
			_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := c.Write(block); err != nil {
				break // as full as it gets
			}
		}
	}
	works("uploads that nobody reads")
	if n := accepted(t, srv); n != 1 {
		t.Errorf("%d connections between the sidecars", n)
	}
}

// staller is an origin that sends without end to whoever says "flood", reads no more
// of whoever says "hold", and echoes others.
type staller struct {
	t    *testing.T
	addr net.Addr
	sent atomic.Int64
}

func newStaller(t *testing.T) *staller {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &staller{t: t, addr: ln.Addr()}
	over := make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); close(over); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(t.Context(), func() { _ = c.Close() })
				defer stop()
				defer c.Close()
				s.serve(c, over)
			})
		}
	})
	return s
}

func (s *staller) serve(c net.Conn, over <-chan struct{}) {
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	switch {
	case err != nil:
	case line == "flood\n":
		for block := make([]byte, 64<<10); err == nil; {
			var n int
			n, err = c.Write(block)
			s.sent.Add(int64(n))
		}
	case line == "hold\n":
		<-over
	default:
		_, _ = io.WriteString(c, line)
	}
}

// standstill waits until nothing is sent any more.
func (s *staller) standstill() {
	for last, same := int64(-1), 0; same < 5; time.Sleep(50 * time.Millisecond) {
		if n := s.sent.Load(); n != last || n == 0 {
			last, same = n, 0
		} else {
			same++
		}
	}
}

// TestTunnelledConnectionsAreLimited: a limit on connections counts those that tunnels
// bring as it counts others.
func TestTunnelledConnectionsAreLimited(t *testing.T) {
	for name, with := range map[string]func(string) string{"tunnels": withTunnels, "a connection each": func(s string) string { return s }} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			for _, s := range []string{"web", "api", "db"} {
				a.issue(s)
			}
			text := strings.Replace(onlyTCP(server(a, application(t), echo(t))), "      filters:\n      - name: rbac\n", `      filters:
      - name: limit
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, max_connections: 2}
      - name: rbac
`, 1)
			srv := run(t, with(text))
			db := run(t, with(caller(a, "web", srv.Addrs().Listeners["in"]))).Addrs().Listeners["db"]
			served := 0
			for range 6 {
				c, err := net.Dial("tcp", db.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if got, err := say(c, "x"); err == nil && got == "x\n" {
					served++
				}
			}
			if served != 2 {
				t.Errorf("%d connections are served, the limit is 2", served)
			}
		})
	}
}

// accepted is how many connections a sidecar's inbound listener took.
func accepted(t *testing.T, s *Sidecar) int {
	t.Helper()
	_, metrics := call(t, "GET", s.Addrs().Metrics, "/metrics", "")
	n := -1
	for _, line := range strings.Split(metrics, "\n") {
		if strings.HasPrefix(line, `hauberk_listener_accepts_total{listener="in"}`) {
			_, _ = fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
		}
	}
	return n
}

func waitForLines(t *testing.T, file string, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if b, _ := os.ReadFile(file); strings.Count(string(b), "\n") >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b, _ := os.ReadFile(file)
	t.Fatalf("%s has not %d lines:\n%s", file, n, b)
}

// TestResetThroughSidecars: a database that resets, and a client that does, is no end to
// the other, through two sidecars.
func TestResetThroughSidecars(t *testing.T) {
	a := newAuthority(t)
	for _, s := range []string{"web", "api", "db"} {
		a.issue(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, with := range map[string]func(string) string{"tunnels": withTunnels, "a connection each": func(s string) string { return s }} {
		in := run(t, with(onlyTCP(server(a, application(t), l.Addr())))).Addrs().Listeners["in"]
		db := run(t, with(caller(a, "web", in))).Addrs().Listeners["db"]
		for _, who := range []string{"the database", "the client"} {
			client, err := net.Dial("tcp", db.String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = client.Write([]byte("ping"))
			host, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			resets, stays := host, client
			if who == "the client" {
				resets, stays = client, host
			}
			b := make([]byte, 4)
			_, _ = io.ReadFull(host, b)
			_, _ = host.Write([]byte("half"))
			_, _ = io.ReadFull(client, b)
			_ = resets.(*net.TCPConn).SetLinger(0)
			_ = resets.Close()
			_ = stays.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err = stays.Read(b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: %s reset, the other reads %v", name, who, err)
			}
			_ = stays.Close()
		}
	}
}
