package cluster

import (
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestPoolLimit: beyond the limit on pools no further one has a connection, but where one of its host
// is idle and makes room; what has one already goes on.
func TestPoolLimit(t *testing.T) {
	for name, protocol := range eitherVersion {
		t.Run(name, func(t *testing.T) {
			host := newNamesHost(t)
			m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
			cfg := Config{Name: "c", TLS: &TLS{}, Endpoints: hosts("c", host.addr), HTTP: HTTP{Protocol: protocol, PerClient: true}, Limits: Limits{MaxPools: 2}}
			c := mustUpdate(t, m, &cfg)
			acquire := func(client uint64, at Priority) (*Conn, error) {
				h := c.hosts()[0]
				terms, err := h.TermsFor(&Asker{Request: &message.Request{}, Client: client})
				if err != nil {
					t.Fatal(err)
				}
				return h.Acquire(withTimeout(5*time.Second), "web", &terms, true, at, monotonic(), 0)
			}
			must := func(client uint64, at Priority) *Conn {
				t.Helper()
				conn, err := acquire(client, at)
				if err != nil {
					t.Fatal(err)
				}
				return conn
			}
			one, two := must(1, DefaultPriority), must(2, DefaultPriority)
			var e *Error
			if _, err := acquire(3, DefaultPriority); !errors.As(err, &e) || e.Kind != OverflowPools {
				t.Errorf("a third pool: %v", err)
			}
			must(3, HighPriority).Release() // which has no limit
			two.Release()
			if again := must(2, DefaultPriority); again != two {
				t.Error("a pool that there is already is not used")
			}
			two.Release()
			three := must(3, DefaultPriority)
			if _, err := acquire(2, DefaultPriority); !errors.As(err, &e) || e.Kind != OverflowPools {
				t.Errorf("of the pool that made room: %v", err)
			}
			three.Release()
			one.Release()
			none := cfg
			none.Limits.MaxPools = NoneAllowed
			mustUpdate(t, m, &none)
			if _, err := acquire(4, DefaultPriority); !errors.As(err, &e) || e.Kind != OverflowPools {
				t.Errorf("where there are to be none: %v", err)
			}
		})
	}
}
