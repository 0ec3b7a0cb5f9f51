package listener

import (
	"errors"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestReserveOfDescriptors: connections are refused while there are descriptors left, but of a
// listener that is exempt, and taken again when there are more.
func TestReserveOfDescriptors(t *testing.T) {
	var limit atomic.Uint64
	limit.Store(10) // the test has more open
	m := newTestManager(t, func(o *Options) { o.Descriptors = limit.Load })
	exempt := echoConfig("exempt")
	exempt.IgnoreOverload = true
	mustApply(t, m, echoConfig("in"))
	mustApply(t, m, exempt)
	for range 3 {
		if err := roundTrip(dial(t, m, "in")); err == nil {
			t.Fatal("a connection was served beyond the limit")
		}
	}
	if err := roundTrip(dial(t, m, "exempt")); err != nil {
		t.Errorf("a listener that is exempt: %v", err)
	}
	var text strings.Builder
	if err := m.opts.Metrics.Registry.WritePrometheus(&text); err != nil {
		t.Fatal(err)
	}
	if want := `reason="file_descriptors"} 3`; !strings.Contains(text.String(), want) {
		t.Errorf("no metric has %s", want)
	}
	limit.Store(1 << 20)
	if err := roundTrip(dial(t, m, "in")); err != nil {
		t.Errorf("when there are more: %v", err)
	}
}

// TestNewestDescriptor: what is said of descriptors is true: all numbers below that of a new
// one are in use.
func TestNewestDescriptor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var newest uint64
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n, ok := descriptorOf(c)
		if !ok || n == 0 {
			t.Fatalf("descriptor %d of a socket, %v", n, ok)
		}
		newest = max(newest, n)
	}
	free := 0
	for fd := range newest {
		var st syscall.Stat_t
		if errors.Is(syscall.Fstat(int(fd), &st), syscall.EBADF) {
			free++
		}
	}
	if free > 2 { // others may have closed some
		t.Errorf("%d descriptors below %d are free", free, newest)
	}
	if _, ok := descriptorOf(&net.UDPConn{}); ok {
		t.Error("a socket that is not open has a descriptor")
	}
}

func TestLeavingReserve(t *testing.T) {
	for limit, want := range map[uint64]uint64{0: 0, 1: 1, 10: 5, 64: 32, 100: 68, 1024: 922, 20000: 18000, math.MaxUint64: math.MaxUint64 - math.MaxUint64/10} {
		if got := leavingReserve(limit); got != want {
			t.Errorf("of %d, %d", limit, got)
		}
	}
}

// TestHandshakeDefault: how long a client may take to shake hands where nothing says so.
func TestHandshakeDefault(t *testing.T) {
	m := newTestManager(t, nil)
	if d := m.opts.HandshakeTimeout; d != 5*time.Second {
		t.Errorf("%v", d)
	}
	if m.descriptors.most.Load() != leavingReserve(descriptorLimit()) {
		t.Errorf("%d descriptors of %d", m.descriptors.most.Load(), descriptorLimit())
	}
}
