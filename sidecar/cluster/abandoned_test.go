package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func countedText(t *testing.T, m *Manager) string {
	t.Helper()
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WritePrometheus(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestAbandonedWhilePending: whoever gives up before a connection is there is counted once,
// whether it waits for a connection that is made for it, for one that another has asked for,
// or for one that is in use.
func TestAbandonedWhilePending(t *testing.T) {
	const counter = `hauberk_upstream_requests_abandoned_total{cluster="c",stage="pending"}`
	for name, protocol := range map[string]Protocol{"HTTP/1": SpeakHTTP1, "HTTP/2": SpeakHTTP2} {
		t.Run(name, func(t *testing.T) {
			s := newSlowHost(t)
			cfg := &Config{Name: "c", ConnectTimeout: 5 * time.Second, Endpoints: hosts("c", s.server.addr)}
			cfg.HTTP.Protocol = protocol
			cfg.Limits.MaxConnections = 1
			h := mustUpdate(t, s.m, cfg).hosts()[0]
			if strings.Contains(countedText(t, s.m), counter) {
				t.Error("shown before any was counted")
			}
			s.leave(t, acquireWithin(h)) // the dial goes on
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			var e *Error
			if err := acquireWithin(h)(ctx); !errors.As(err, &e) || e.Kind != Canceled {
				t.Errorf("whoever waits for it: %v", err)
			}
			if got := countedText(t, s.m); !strings.Contains(got, counter+" 2\n") {
				t.Errorf("no %s 2 in %s", counter, got)
			}
			close(s.goOn)
			waitFor(t, func() bool {
				return !strings.Contains(countedText(t, s.m), `hauberk_upstream_connections_total{cluster="c",result="ok"} 0`)
			})
			if got := countedText(t, s.m); !strings.Contains(got, counter+" 2\n") {
				t.Errorf("with the connection: no %s 2 in %s", counter, got)
			}
		})
	}
}
