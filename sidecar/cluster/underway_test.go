package cluster

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowHost is a host whose connections are there when they are let.
type slowHost struct {
	*server
	m     *Manager
	goOn  chan struct{}
	dials atomic.Int64
}

func newSlowHost(t *testing.T) *slowHost {
	s := &slowHost{server: newServer(t), goOn: make(chan struct{})}
	s.m = newManager(t, Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		s.dials.Add(1)
		select {
		case <-s.goOn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	return s
}

// leave asks the host for a connection that is being made, and gives up.
func (s *slowHost) leave(t *testing.T, open func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	failure := make(chan error, 1)
	before := s.dials.Load()
	go func() { failure <- open(ctx) }()
	waitFor(t, func() bool { return s.dials.Load() > before })
	cancel()
	var e *Error
	if err := <-failure; !errors.As(err, &e) || e.Kind != Canceled {
		t.Errorf("whoever gave up: %v", err)
	}
}

func acquireWithin(h *Host) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := h.Acquire(func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }, "", nil, true, DefaultPriority, monotonic(), 0)
		return err
	}
}

// TestDialsShareWorkers: a goroutine of its own for each connection would grow its stack twice.
func TestDialsShareWorkers(t *testing.T) {
	host := newServer(t)
	var stack []byte
	m := newManager(t, Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		stack = debug.Stack()
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", host.addr)})
	if err := acquireWithin(c.hosts()[0])(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(stack, []byte("workers.(*Pool).work(")) {
		t.Errorf("made by a goroutine of its own:\n%s", stack)
	}
}

// TestConnectionsOutliveTheirRequests: a request that has less time than the connection
// needs fails alone: those who wait, or come later, get it.
func TestConnectionsOutliveTheirRequests(t *testing.T) {
	for name, cfg := range map[string]Config{
		"HTTP/1":              {},
		"HTTP/1 at the limit": {Limits: Limits{MaxConnections: 1}},
		"HTTP/1, once":        {HTTP: HTTP{MaxRequestsPerConnection: 1}},
		"HTTP/2":              {HTTP: HTTP{Protocol: SpeakHTTP2}},
	} {
		for _, waits := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				s := newSlowHost(t)
				cfg.Name, cfg.Endpoints = "c", hosts("c", s.addr)
				c := mustUpdate(t, s.m, &cfg)
				h := c.hosts()[0]
				s.leave(t, acquireWithin(h))
				if !waits {
					s.goOn <- struct{}{}
					waitFor(t, func() bool { return h.pool("", DefaultPriority).available() })
				}
				got := make(chan *Conn, 1)
				go func() {
					conn, err := connTo(h)
					if err != nil {
						t.Error(err)
					}
					got <- conn
				}()
				if waits {
					waitFor(t, func() bool { return c.pending.Load() == 1 })
					s.goOn <- struct{}{}
				}
				conn := <-got
				if n := s.dials.Load(); n != 1 || c.conns.Load() != 1 || c.pending.Load() != 0 || h.failed.Load() != 0 {
					t.Errorf("%d connections were made, %d are counted, %d requests wait; %d failures", n, c.conns.Load(), c.pending.Load(), h.failed.Load())
				}
				if conn.HTTP2 == nil && !conn.Reused() {
					t.Error("a connection that waited for its first request may be stale")
				}
				conn.Release()
			})
		}
	}
}

// available tells whether a connection waits for a request.
func (p *pool) available() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	shared := p.multiplexed.conns.Load()
	return len(p.idle) > 0 || shared != nil && len(*shared) > 0 && (*shared)[0].carries.Load() == 0
}

// TestBytesAreNotInherited: the connection of a byte stream is of use to nobody else.
func TestBytesAreNotInherited(t *testing.T) {
	s := newSlowHost(t)
	c := mustUpdate(t, s.m, &Config{Name: "c", Endpoints: hosts("c", s.addr)})
	s.leave(t, func(ctx context.Context) error {
		_, err := c.Open(ctx, "", nil, 0)
		return err
	})
	s.goOn <- struct{}{}
	ended(t, s.accepted(t, 1)[0])
	waitFor(t, func() bool { return c.conns.Load() == 0 })
	if st := c.Stats()[0]; st.Connections != 0 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// TestBlackHoleIsFoundOut: a host to which no connection can be made is ejected, also where
// no request waits as long as the connect timeout, and is not dialled for each of them.
func TestBlackHoleIsFoundOut(t *testing.T) {
	for name, open := range map[string]func(c *Cluster, ctx context.Context) error{
		"HTTP/1": func(c *Cluster, ctx context.Context) error { return acquireWithin(c.hosts()[0])(ctx) },
		"bytes": func(c *Cluster, ctx context.Context) error {
			_, err := c.Open(ctx, "", nil, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dials atomic.Int64
				m := NewManager(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					dials.Add(1)
					<-ctx.Done() // nobody answers
					return nil, ctx.Err()
				}})
				defer m.Close()
				c := mustUpdate(t, m, &Config{
					Name: "c", Endpoints: hosts("c", "10.0.0.1"), ConnectTimeout: 200 * time.Millisecond,
					Outlier: &Outlier{Consecutive5xx: 3, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100},
				})
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					if err := open(c, ctx); err == nil {
						t.Error("a connection to nowhere")
					}
					cancel()
				}
				synctest.Wait()
				if !c.hosts()[0].ejected() {
					t.Errorf("after %d connect timeouts the host is not ejected", c.Stats()[0].ConnectFailed)
				}
				if n := dials.Load(); name == "HTTP/1" && n > 6 {
					t.Errorf("%d connections were begun in a second", n)
				}
			})
		})
	}
}

// TestNoConnectionsAfterClose: whoever asks then is told so, and leaves nothing behind.
func TestNoConnectionsAfterClose(t *testing.T) {
	for _, protocol := range []Protocol{SpeakHTTP1, SpeakHTTP2} {
		s := newSlowHost(t)
		c := mustUpdate(t, s.m, &Config{Name: "c", HTTP: HTTP{Protocol: protocol}, Endpoints: hosts("c", s.addr)})
		h := c.hosts()[0]
		s.leave(t, acquireWithin(h)) // its dial ends with the manager
		_ = s.m.Close()
		var e *Error
		if _, err := connTo(h); !errors.As(err, &e) || e.Kind != Canceled || h.failed.Load() != 0 {
			t.Errorf("%v", err)
		}
		if c.conns.Load() != 0 || c.pending.Load() != 0 {
			t.Errorf("%d connections and %d waiting", c.conns.Load(), c.pending.Load())
		}
	}
}
