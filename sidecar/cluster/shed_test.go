package cluster

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestShedConnections: while they are shed a pool makes none, which says nothing of its host, and what it has
// is used; a check's connection is made.
func TestShedConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var sheds atomic.Bool
	m := newManager(t, Options{Shed: sheds.Load})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", l.Addr().String())})
	h := c.hosts()[0]
	acquire := func() (*Conn, error) {
		ctx := func() (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) }
		return h.Acquire(ctx, "", nil, false, DefaultPriority, monotonic(), 0)
	}
	first, err := acquire()
	if err != nil {
		t.Fatal(err)
	}
	first.Release()
	sheds.Store(true)
	again, err := acquire()
	if err != nil {
		t.Fatalf("one that is there: %v", err)
	}
	defer again.Close()
	var e *Error
	if _, err := acquire(); !errors.As(err, &e) || e.Kind != Shed || e.Kind.OfHost() || !errors.Is(err, ErrShed) {
		t.Errorf("another: %v", err)
	}
	if _, err := c.Open(t.Context(), "", nil, 0); !errors.As(err, &e) || e.Kind != Shed || e.Addr == nil {
		t.Errorf("a byte stream: %v", err)
	}
	check := &checker{h: h, cfg: &HealthCheck{TCP: &TCPCheck{}}}
	var s stream.Stream
	if s, err = check.connect(t.Context(), c.cfg.Load()); err != nil {
		t.Errorf("a check: %v", err)
	} else {
		_ = s.Close()
	}
	sheds.Store(false)
	other, err := acquire()
	if err != nil {
		t.Fatalf("when they are not shed any more: %v", err)
	}
	_ = other.Close()
}

// TestShedAloneHasNoFlag: logs of byte streams tell by that what was shed.
func TestShedAloneHasNoFlag(t *testing.T) {
	for k := NoHealthyHost; int(k) < len(kindNames); k++ {
		if none := k.Flags() == 0; none != (k == Shed) {
			t.Errorf("%v has no flag: %v", k, none)
		}
	}
}
