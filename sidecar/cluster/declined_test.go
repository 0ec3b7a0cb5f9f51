package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"
)

// declining is a cluster of one host that is asked for tunnels and carries none. Its
// handshakes are held up.
func declining(t *testing.T) (*Cluster, *handshakes, func(sni string) *Cluster) {
	hs := newHandshakes(t)
	m := newManager(t, Options{TLS: pooled{&tls.Config{InsecureSkipVerify: true}}})
	with := func(sni string) *Cluster {
		return mustUpdate(t, m, &Config{Name: "c", TLS: &TLS{SNI: sni, ALPN: []string{TunnelALPN}}, Endpoints: hosts("c", hs.addr)})
	}
	return with("one"), hs, with
}

// TestDeclinedAfterItsOpenerLeft: the connection that asked for a tunnel, and that its opener
// did not wait for, is counted once, and taken off once.
func TestDeclinedAfterItsOpenerLeft(t *testing.T) {
	c, hs, _ := declining(t)
	ctx, cancel := context.WithCancel(t.Context())
	failure := make(chan error, 1)
	go func() {
		_, err := c.Open(ctx, "web", nil, 0)
		failure <- err
	}()
	<-hs.asked
	cancel()
	var e *Error
	if err := <-failure; !errors.As(err, &e) || e.Kind != Canceled {
		t.Errorf("whoever gave up: %v", err)
	}
	hs.goOn <- struct{}{}
	waitFor(t, func() bool {
		return c.hosts()[0].pool("web", DefaultPriority).multiplexed.declined.Load() && c.Stats()[0].Connections == 0
	})
	c.m.dials.wg.Wait() // nothing is made any more
	if n := c.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestDeclinedUnderAnotherContext: a connection that asked for a tunnel, and was verified by a
// TLS context that is not in force any more, is made again and counted once.
func TestDeclinedUnderAnotherContext(t *testing.T) {
	c, hs, with := declining(t)
	opened := make(chan *Conn, 1)
	go func() {
		conn, err := c.Open(t.Context(), "web", nil, 0)
		if err != nil {
			t.Error(err)
		}
		opened <- conn
	}()
	<-hs.asked
	with("two")
	hs.goOn <- struct{}{}
	select {
	case <-hs.asked:
		hs.goOn <- struct{}{}
	case <-time.After(5 * time.Second):
		t.Fatal("it is not made again")
	}
	conn := <-opened
	if n := c.conns.Load(); n != 1 {
		t.Errorf("%d connections are counted", n)
	}
	if conn != nil {
		_ = conn.Close()
	}
	if n := c.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted in the end", n)
	}
}

// TestDeclinedAndWithdrawn: a withdrawal that overtook such a connection takes it off once.
func TestDeclinedAndWithdrawn(t *testing.T) {
	c, hs, _ := declining(t)
	failure := make(chan error, 1)
	go func() {
		_, err := c.Open(t.Context(), "web", nil, 0)
		failure <- err
	}()
	<-hs.asked
	_ = c.m.CloseConns(ofWeb)
	hs.goOn <- struct{}{}
	if err := <-failure; !errors.Is(err, errWithdrawn) {
		t.Error(err)
	}
	if n := c.conns.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}
