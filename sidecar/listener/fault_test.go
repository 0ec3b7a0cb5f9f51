package listener

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// bomb is a handler that panics.
type bomb struct{}

func (bomb) ServeStream(context.Context, *downstream.Conn) { panic("handler") }

// TestFaultsOfConnections: a fault ends the connection that it occurs in, wherever that
// is on its way, and the listener takes others and can end.
func TestFaultsOfConnections(t *testing.T) {
	panics.LogTo(slog.New(slog.DiscardHandler))
	for name, tc := range map[string]struct {
		place panics.Place
		spoil func(*listener) (mend func())
	}{
		"facts": {panics.Accept, func(l *listener) func() {
			c := l.current.chains[0]
			place := c.place
			c.place = nil
			return func() { c.place = place }
		}},
		"admission": {panics.Accept, func(l *listener) func() {
			c := l.current.chains[0]
			cfg := c.cfg
			c.cfg = nil
			return func() { c.cfg = cfg }
		}},
		"serving": {panics.Connection, func(l *listener) func() {
			c := l.current.chains[0]
			c.server = c.serverOf(l).With(bomb{})
			return func() { c.server = c.server.With(echo{}) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			before := panics.Count(tc.place)
			m := newTestManager(t, nil)
			mustApply(t, m, echoConfig("l"))
			l := m.listeners["l"]
			l.mu.Lock()
			mend := tc.spoil(l)
			l.mu.Unlock()
			if err := roundTrip(dial(t, m, "l")); err == nil {
				t.Error("the connection was served")
			}
			deadline := time.Now().Add(5 * time.Second)
			for m.Serving() != 0 && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
			}
			l.mu.Lock()
			left := len(l.conns) + len(l.arriving) + int(l.open)
			mend()
			l.mu.Unlock()
			if left != 0 {
				t.Errorf("%d connections are left", left)
			}
			if err := roundTrip(dial(t, m, "l")); err != nil {
				t.Errorf("the next connection: %v", err)
			}
			if n := panics.Count(tc.place) - before; n != 1 {
				t.Errorf("contained %d panics", n)
			}
		})
	}
}

// TestFaultyConfigurationIsRefused: a fault while a listener is made refuses it, and the
// one in force stays.
func TestFaultyConfigurationIsRefused(t *testing.T) {
	faulty := false
	m := newTestManager(t, func(o *Options) {
		o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) {
			if faulty {
				panic("not thought of")
			}
			return echo{}, nil
		}
	})
	mustApply(t, m, echoConfig("l"))
	faulty = true
	before := panics.Count(panics.Configuration)
	if err := m.Apply(echoConfig("l")); err == nil || panics.Count(panics.Configuration) != before+1 {
		t.Errorf("%v, %d panics contained", err, panics.Count(panics.Configuration)-before)
	}
	if err := roundTrip(dial(t, m, "l")); err != nil {
		t.Error(err)
	}
}
