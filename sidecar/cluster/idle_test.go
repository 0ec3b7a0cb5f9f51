package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
)

// kept is a connection of a host's pool that its request has just left.
func kept(t *testing.T, h *Host, protocol Protocol) *Conn {
	t.Helper()
	p, cfg := h.pool("web", DefaultPriority), h.cluster.cfg.Load()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	go func() { _, _ = io.Copy(io.Discard, far) }()
	c := &Conn{Stream: pipe{near}, pool: p, generation: cfg.tlsGeneration, aimed: h.target.Load(), until: cfg.lifetime()}
	c.uses.Store(1)
	p.all[c] = struct{}{}
	h.gained()
	p.breakerConns(1)
	if protocol == SpeakHTTP2 {
		terms := http2.Default()
		terms.HeaderTimeout = 0
		c.HTTP2 = http2.NewClient(c.Stream, terms)
		c.carries.Store(1)
		p.share(c)
	}
	c.Release()
	return c
}

// takeUp has a request use such a connection.
func (c *Conn) takeUp() {
	if c.HTTP2 != nil {
		c.carries.Add(1)
		return
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.pool.idle = slices.DeleteFunc(c.pool.idle, func(o *Conn) bool { return o == c })
}

// breakerConns counts connections that nobody dialled.
func (p *pool) breakerConns(n int64) {
	b, _ := p.breaker()
	b.conns.Add(n)
}

// TestIdleTimesAreKept: a connection whose time is over takes no request, also before
// anybody swept it up.
func TestIdleTimesAreKept(t *testing.T) {
	const most = 700 * time.Millisecond // the sweeper comes once a second
	for name, protocol := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		for limit, cfg := range map[string]Config{
			"idle":     {IdleTimeout: most},
			"lifetime": {HTTP: HTTP{MaxConnectionDuration: most}},
		} {
			for _, over := range []bool{false, true} {
				t.Run(name+" "+limit, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := NewManager(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
							return nil, errors.New("nobody listens")
						}})
						defer m.Close()
						cfg.Name, cfg.Endpoints, cfg.HTTP.Protocol = "c", hosts("c", "10.0.0.1"), protocol
						h := mustUpdate(t, m, &cfg).hosts()[0]
						old := kept(t, h, protocol)
						time.Sleep(most - 1)
						if over {
							time.Sleep(time.Nanosecond)
						}
						c, err := h.Acquire(withTimeout(time.Second), "web", nil, true, DefaultPriority, monotonic(), 0)
						switch {
						case over && c != nil:
							t.Error("a connection was used after its time")
						case over && !old.closed.Load():
							synctest.Wait()
							if !old.closed.Load() {
								t.Error("it was left open")
							}
						case !over && c != old:
							t.Errorf("a connection was not used within its time: %v", err)
						}
						if c != nil {
							_ = c.Close()
						}
					})
				})
			}
		}
	}
}

// TestConnectionsInPanic: where requests go to all hosts because too few are healthy, the
// connections to those that are not are used again like others. They are ended once, when
// the control plane says so of the host.
func TestConnectionsInPanic(t *testing.T) {
	for name, protocol := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		for _, health := range []string{"unhealthy", "draining"} {
			t.Run(name+" "+health, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := NewManager(Options{})
					defer m.Close()
					c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, HTTP: HTTP{Protocol: protocol}})
					set := func(state string) *Host {
						if err := m.SetEndpoints(hosts("c", "10.0.0.1"+state)); err != nil {
							t.Fatal(err)
						}
						return c.hosts()[0]
					}
					before := kept(t, set(""), protocol)
					h := set(" " + health)
					synctest.Wait()
					if !before.closed.Load() {
						t.Error("a connection from before was left open")
					}
					then := kept(t, h, protocol)
					set(" " + health)
					again, err := h.Acquire(withTimeout(time.Second), "web", nil, true, DefaultPriority, monotonic(), 0)
					if err != nil || again != then {
						t.Fatalf("another connection: %v", err)
					}
					again.Release()
				})
			})
		}
	}
}

// TestConnectionsOfAHostThatIsDown: whoever finds that a host is down, the connections from
// before are not used again, also when it is back.
func TestConnectionsOfAHostThatIsDown(t *testing.T) {
	for name, protocol := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		for _, by := range []string{"outliers", "checks"} {
			t.Run(name+" "+by, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := NewManager(Options{})
					defer m.Close()
					c := mustUpdate(t, m, &Config{Name: "c", Type: EDS, HTTP: HTTP{Protocol: protocol},
						Outlier: &Outlier{Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}})
					if err := m.SetEndpoints(hosts("c", "10.0.0.1")); err != nil {
						t.Fatal(err)
					}
					h := c.hosts()[0]
					idle, busy := kept(t, h, protocol), kept(t, h, protocol)
					busy.takeUp()
					if by == "outliers" {
						h.Report(500)
					} else {
						c.mu.Lock()
						h.check.set(checkFailed)
						c.healthChanged()
						c.mu.Unlock()
					}
					synctest.Wait()
					if state, _ := h.state(); state != hostDown || !idle.closed.Load() || busy.closed.Load() {
						t.Errorf("state %v, the idle connection closed %v, the busy one %v", state, idle.closed.Load(), busy.closed.Load())
					}
					busy.Release()
					synctest.Wait()
					if !busy.closed.Load() {
						t.Error("a connection from before waits for another request")
					}
				})
			})
		}
	}
}
