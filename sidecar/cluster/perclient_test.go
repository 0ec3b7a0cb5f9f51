package cluster

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestConnectionsOfAClient: a connection serves the requests of one connection of a client alone,
// and those of the process itself share theirs.
func TestConnectionsOfAClient(t *testing.T) {
	for name, protocol := range eitherVersion {
		t.Run(name, func(t *testing.T) {
			host := newNamesHost(t)
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			cfg := Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), HTTP: HTTP{Protocol: protocol, PerClient: true}}
			c := mustUpdate(t, m, &cfg)
			acquire := func(client uint64) *Conn {
				t.Helper()
				h := c.hosts()[0]
				terms, err := h.TermsFor(&Asker{Request: &message.Request{}, Client: client})
				if err != nil {
					t.Fatal(err)
				}
				conn, err := h.Acquire(withTimeout(5*time.Second), "web", &terms, true, DefaultPriority, monotonic(), 0)
				if err != nil {
					t.Fatal(err)
				}
				conn.Release()
				return conn
			}
			one, two, none := acquire(1), acquire(2), acquire(0)
			if one == two || one == none || two == none {
				t.Error("clients share a connection")
			}
			if acquire(1) != one || acquire(2) != two || acquire(0) != none {
				t.Error("a connection is not used again")
			}
			shared := cfg
			shared.HTTP.PerClient = false
			mustUpdate(t, m, &shared)
			if c.hosts()[0].Particular(c) {
				t.Error("still particular")
			}
		})
	}
}
