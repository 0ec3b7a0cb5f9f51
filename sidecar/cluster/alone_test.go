package cluster

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestConnectionsOfNoUse: at the limit a request waits for a connection that it could have,
// and for no other: those of the other version, and those of byte streams, come back to
// nobody, and those that another TLS context verified not soon.
func TestConnectionsOfNoUse(t *testing.T) {
	for name, tc := range map[string]struct {
		have, want Protocol
		make       func(c *Conn)
		waits      bool
	}{
		"HTTP/1 for HTTP/2":              {have: SpeakHTTP1, want: SpeakHTTP2},
		"HTTP/2 for HTTP/1":              {have: SpeakHTTP2, want: SpeakHTTP1},
		"bytes for HTTP/1":               {make: func(c *Conn) { c.bytes = true }},
		"bytes for HTTP/2":               {make: func(c *Conn) { c.bytes = true }, want: SpeakHTTP2},
		"another context for HTTP/1":     {make: func(c *Conn) { c.generation++ }},
		"another context for HTTP/2":     {make: func(c *Conn) { c.generation++ }, have: SpeakHTTP2, want: SpeakHTTP2},
		"HTTP/1 in use":                  {waits: true},
		"HTTP/2 that takes no more":      {have: SpeakHTTP2, want: SpeakHTTP2, waits: true},
		"being made, HTTP/1 for HTTP/2":  {make: dialling(protocolHTTP1), want: SpeakHTTP2},
		"being made, HTTP/2 for HTTP/1":  {make: dialling(protocolHTTP2), have: SpeakHTTP2, want: SpeakHTTP1},
		"being made, bytes for HTTP/1":   {make: dialling(protocolBytes)},
		"being made, HTTP/1 for another": {make: dialling(protocolHTTP1), waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
					return nil, errors.New("nobody listens")
				}})
				defer m.Close()
				h := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), HTTP: HTTP{Protocol: SpeakDownstream}, Limits: Limits{MaxConnections: 1}}).hosts()[0]
				c := kept(t, h, tc.have)
				synctest.Wait()
				p := c.pool
				c.takeUp()
				p.unshare(c)
				if tc.make != nil {
					tc.make(c)
				}
				_, err := h.Acquire(withTimeout(time.Second), "web", nil, tc.want == SpeakHTTP2, DefaultPriority, monotonic(), 0)
				if waited := err.(*Error).Kind == Canceled; waited != tc.waits {
					t.Errorf("waited %v: %v", waited, err)
				}
				c.condemned.Store(true)
				_ = c.Close()
			})
		})
	}
}

// dialling has a connection of its pool be made in place of the one that is there.
func dialling(want protocol) func(*Conn) {
	return func(c *Conn) {
		p := c.pool
		_ = c.Close()
		b, _ := p.breaker()
		b.conns.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch want {
		case protocolHTTP2:
			p.beginDial()
		case protocolBytes:
			p.dialing++
			p.apart++
		default:
			p.dialing++
		}
	}
}

// TestProtocolChanges: connections of a version that is not spoken any more end.
func TestProtocolChanges(t *testing.T) {
	for name, protocol := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewManager(Options{})
				defer m.Close()
				cfg := Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), HTTP: HTTP{Protocol: protocol}}
				h := mustUpdate(t, m, &cfg).hosts()[0]
				idle, busy := kept(t, h, protocol), kept(t, h, protocol)
				busy.takeUp()
				next := cfg
				next.HTTP.Protocol = SpeakHTTP1 + SpeakHTTP2 - protocol
				mustUpdate(t, m, &next)
				synctest.Wait()
				if !idle.closed.Load() {
					t.Error("an idle connection was left open")
				}
				if protocol == SpeakHTTP1 && busy.closed.Load() {
					t.Error("a connection in use was cut")
				}
				busy.Release()
				if synctest.Wait(); !busy.closed.Load() {
					t.Error("a connection was pooled after its use")
				}
			})
		})
	}
}
