package listener

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// flood writes what HTTP/2 does: as much as goes at once, and then waits.
type flood struct{ waiting chan struct{} }

func (f flood) ServeStream(_ context.Context, c *downstream.Conn) {
	s := c.Stream.(stream.TryWriter)
	for {
		n, done, err := s.TryWrite(make([]byte, 64<<10))
		if err != nil {
			return
		}
		if done {
			continue
		}
		f.waiting <- struct{}{}
		if _, err := c.Stream.Write(make([]byte, 64<<10-n)); err != nil {
			return
		}
	}
}

// TestCloseDoesNotWaitForPeersThatDoNotRead: one after the other they would hold it up.
func TestCloseDoesNotWaitForPeersThatDoNotRead(t *testing.T) {
	f := flood{make(chan struct{}, 100)}
	m := newTestManager(t, func(o *Options) {
		o.TLS = testTLS{selfSigned(t, apiID)}
		o.NewHandler = func(*Config, *FilterChain) (downstream.Handler, error) { return f, nil }
	})
	mustApply(t, m, mtlsConfig())
	const peers = 3
	for range peers {
		c := tls.Client(dial(t, m, "in"), &tls.Config{ServerName: "api.example", InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, webID)}})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	for range peers {
		<-f.waiting
	}
	began := time.Now()
	_ = m.Close()
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("Close took %v", took)
	}
}
