//go:build e2e

package floods

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/e2e/conformance/bed"
)

// field is a sidecar under attack.
type field struct {
	t    *testing.T
	s    *bed.Sidecar
	addr string
	// hostile is another listener, for attackers, "" where it is the same.
	hostile string
}

// timeouts are short enough for a test, and otherwise what an operator would set.
const timeouts = "request_headers_timeout: 1s, request_timeout: 1s, stream_idle_timeout: 2s"

// denied are rules under which /denied is refused.
const denied = "{action: DENY, policies: {p: {permissions: [{url_path: {path: {exact: /denied}}}], principals: [{any: true}]}}}"

func newField(t *testing.T, origin, options string, rbac ...string) *field {
	f := &field{t: t, addr: bed.Addr(t)}
	f.s = bed.Start(t, origin, bed.Listener{Addr: f.addr, Options: options, RBAC: strings.Join(rbac, "")})
	return f
}

// newHostileField is a field whose attackers' listener leads to a host that speaks HTTP/2.
func newHostileField(t *testing.T, host, options string) *field {
	f := &field{t: t, addr: bed.Addr(t), hostile: bed.Addr(t)}
	f.s = bed.StartWith(t, []bed.Cluster{{Name: "origin", Addr: origin(t, nil)}, {Name: "hostile", Addr: host, HTTP2: "{}"}},
		bed.Listener{Addr: f.addr}, bed.Listener{Addr: f.hostile, Options: options, Forward: "cluster: hostile, timeout: 0s"})
	return f
}

// loss is what an attack may cost.
type loss struct {
	memory  int64         // anonymous memory above what was there before, in bytes
	latency time.Duration // of somebody else's request
}

// during runs an attack and holds it to what it may cost: another client goes on
// asking, and memory is looked at all the time.
func (f *field) during(allowed loss, attack func()) {
	f.t.Helper()
	f.ask(20) // pools and buffers have grown to what ordinary work needs
	before := f.s.Memory()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var worst time.Duration
	var asked int
	var failed error
	wg.Go(func() {
		for failed == nil {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			failed = f.one()
			worst = max(worst, time.Since(began))
			asked++
		}
	})
	var peak int64
	wg.Go(func() {
		for {
			peak = max(peak, f.s.Memory()-before)
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	began := time.Now()
	attack()
	took := time.Since(began)
	close(stop)
	wg.Wait()
	f.s.Alive()
	f.t.Logf("%v: memory +%d KB, %d requests of others, the slowest %v", took.Round(time.Millisecond), peak>>10, asked, worst.Round(time.Millisecond))
	if f.t.Failed() {
		f.t.Logf("the access log ends with %q", tail(f.s.AccessLog(), 10))
	}
	if failed != nil {
		f.t.Errorf("somebody else's request failed: %v", failed)
	}
	if worst > allowed.latency {
		f.t.Errorf("somebody else waited for %v, more than %v", worst, allowed.latency)
	}
	if peak > allowed.memory {
		f.t.Errorf("memory grew by %d KB, more than %d", peak>>10, allowed.memory>>10)
	}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// ask sends n ordinary requests, which must be answered.
func (f *field) ask(n int) {
	f.t.Helper()
	for range n {
		if err := f.one(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// one is an ordinary request on a connection of its own.
func (f *field) one() error {
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET /good HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(body) != "good" {
		return fmt.Errorf("%d %.40q %w", resp.StatusCode, body, err)
	}
	return nil
}

// attackers opens n connections and lets each be served by f at the same time.
func (f *field) attackers(n int, attack func(i int, c net.Conn) error) {
	f.t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		c, err := net.Dial("tcp", or(f.hostile, f.addr))
		if err != nil {
			f.t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(15 * time.Second))
			if err := attack(i, c); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	shown := 0
	for err := range errs {
		if shown++; shown <= 3 {
			f.t.Errorf("an attacker: %v", err)
		}
	}
	if shown > 3 {
		f.t.Errorf("and %d more", shown-3)
	}
}

// refused reads the answer that an attacker is to get, and the end of the connection.
func refused(c net.Conn, status int) error {
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != status {
		return fmt.Errorf("%d (%v), want %d", resp.StatusCode, err, status)
	}
	return over(r)
}

func over(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil && strings.Contains(err.Error(), "timeout") {
		return fmt.Errorf("the connection stays open: %w", err)
	}
	return nil
}

// origin answers /good at once; serve does what a case wants for every other path.
func origin(t *testing.T, serve func(path string, c net.Conn, r *bufio.Reader)) string {
	return serveEach(t, func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path != "/good" && serve != nil {
				serve(req.URL.Path, c, r)
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"); err != nil {
				return
			}
		}
	})
}

// serveEach listens until the test ends, and has each connection served by itself.
func serveEach(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

func tail(all []string, n int) []string { return all[max(0, len(all)-n):] }
