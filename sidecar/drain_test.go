package sidecar

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestDrainTellsWhatIsLeft: a drain that is over while connections are left is no success,
// and says how many there are.
func TestDrainTellsWhatIsLeft(t *testing.T) {
	for name, inbound := range map[string]bool{"inbound": true, "all": false} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			for _, s := range []string{"web", "api", "db"} {
				a.issue(s)
			}
			srv := run(t, onlyTCP(server(a, application(t), echo(t))))
			db := run(t, caller(a, "web", srv.Addrs().Listeners["in"])).Addrs().Listeners["db"]
			c, err := net.Dial("tcp", db.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := say(c, "x"); err != nil {
				t.Fatal(got, err)
			}
			if err := (*view)(srv).Drain(t.Context(), inbound, 50*time.Millisecond); err == nil || !strings.HasSuffix(err.Error(), ": 1") {
				t.Errorf("with a connection open: %v", err)
			}
			_ = c.Close()
			// That time was over is told to whom it was over for.
			for begin := time.Now(); !inbound && srv.listeners.Cut() == 0 && time.Since(begin) < 30*time.Second; {
				time.Sleep(time.Millisecond)
			}
			if err := (*view)(srv).Drain(t.Context(), inbound, 0); err != nil {
				t.Errorf("with none: %v", err)
			}
		})
	}
}
