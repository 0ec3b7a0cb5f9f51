package cluster

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestCondemnedWhileReleased: a connection that is found to be unwanted just as it is given
// back gets no more requests.
func TestCondemnedWhileReleased(t *testing.T) {
	for name, condemn := range map[string]func(m *Manager, h *Host){
		"its host was ejected":  func(_ *Manager, h *Host) { h.retireConns() },
		"its trust was lost":    func(m *Manager, _ *Host) { m.CloseConns(ofWeb) },
		"its host has moved":    func(_ *Manager, h *Host) { move(h) },
		"what is of others was": func(m *Manager, _ *Host) { m.CloseConns(func(string, *stream.Info) bool { return false }) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr)})
			h := c.hosts()[0]
			conn, err := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
			if err != nil {
				t.Fatal(err)
			}
			p := conn.pool
			p.mu.Lock()
			done := make(chan struct{})
			condemned := make(chan struct{})
			go func() { defer close(condemned); condemn(m, h) }()
			waitsForLock(t, "cluster.TestCondemnedWhileReleased") // the first to get the lock
			go func() { defer close(done); conn.Release() }()
			waitsForLock(t, "ReleaseRead")
			p.mu.Unlock()
			<-condemned
			<-done
			if got := p.takeIdle(monotonic()); (got != nil) != (name == "what is of others was") {
				t.Errorf("the next request gets %v", got)
			} else if got != nil {
				_ = got.Close()
			}
		})
	}
}

// waitsForLock returns when the goroutine with a function of that name on its stack waits for a lock.
func waitsForLock(t *testing.T, function string) {
	t.Helper()
	waitFor(t, func() bool {
		stacks := make([]byte, 1<<20)
		for _, g := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(g, function) && strings.Contains(g, "sync.(*Mutex).Lock") {
				return true
			}
		}
		return false
	})
}

// TestMovedWhileReleased: a connection that is given back after its host moved, and after what was
// idle there was closed for that, is not left among the idle ones.
func TestMovedWhileReleased(t *testing.T) {
	for name, change := range map[string]func(h *Host){
		"moved": func(h *Host) { to := *h.target.Load(); h.target.Store(&to) },
		"gone":  func(h *Host) { h.gone.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			h := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr)}).hosts()[0]
			conn, err := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
			if err != nil {
				t.Fatal(err)
			}
			p := conn.pool
			p.mu.Lock()
			done := make(chan struct{})
			go func() { defer close(done); conn.Release() }()
			waitsForLock(t, "ReleaseRead")
			change(h) // the lock is held, and nothing is idle: as when closeIdle was here
			p.mu.Unlock()
			<-done
			if p.idleCount() != 0 || !conn.closed.Load() {
				t.Errorf("%d are idle; closed: %v", p.idleCount(), conn.closed.Load())
			}
		})
	}
}

// proberFunc is a stream that looks at its peer.
type proberFunc func() bool

func (f proberFunc) Quiet() bool { return f() }
func (f proberFunc) Gone() bool  { return !f() }

// TestCondemnedWhileSwept: a connection that is found to be unwanted while it is looked at, which
// it is outside of the pool, does not come back to it.
func TestCondemnedWhileSwept(t *testing.T) {
	for name, condemn := range map[string]func(m *Manager, h *Host){
		"its host was ejected":  func(_ *Manager, h *Host) { h.retireConns() },
		"its trust was lost":    func(m *Manager, _ *Host) { m.CloseConns(ofWeb) },
		"its host has moved":    func(_ *Manager, h *Host) { move(h) },
		"what is of others was": func(m *Manager, _ *Host) { m.CloseConns(func(string, *stream.Info) bool { return false }) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr)})
			h := c.hosts()[0]
			conn, err := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
			if err != nil {
				t.Fatal(err)
			}
			conn.ReleaseRead(monotonic() - int64(5*time.Second))
			conn.prober = proberFunc(func() bool { condemn(m, h); return true })
			p := conn.pool
			p.sweep(monotonic(), int64(time.Hour))
			kept := name == "what is of others was"
			if p.idleCount() > 0 != kept || conn.closed.Load() == kept {
				t.Errorf("%d are idle; closed: %v", p.idleCount(), conn.closed.Load())
			}
		})
	}
}

// TestWaitedForWhileSwept: a request that finds no idle connection, as they are looked at just then, and
// that may not have another one, gets one of them afterwards.
func TestWaitedForWhileSwept(t *testing.T) {
	m := newManager(t, Options{})
	h := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", newServer(t).addr), Limits: Limits{MaxConnections: 1}}).hosts()[0]
	conn, err := h.Acquire(withTimeout(5*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
	if err != nil {
		t.Fatal(err)
	}
	conn.ReleaseRead(monotonic() - int64(5*time.Second))
	p, got := conn.pool, make(chan *Conn, 1)
	conn.prober = proberFunc(func() bool {
		conn.prober = nil
		go func() {
			c, _ := h.Acquire(withTimeout(2*time.Second), "web", nil, false, DefaultPriority, monotonic(), 0)
			got <- c
		}()
		waitFor(t, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.waiting) == 1
		})
		return true
	})
	p.sweep(monotonic(), int64(time.Hour))
	if c := <-got; c != conn {
		t.Errorf("the request has %v, and %d are idle", c, p.idleCount())
	}
}

// move gives a host another address, as a name that resolves to another does.
func move(h *Host) {
	to := *h.target.Load()
	h.target.Store(&to)
	h.closeIdle()
}
