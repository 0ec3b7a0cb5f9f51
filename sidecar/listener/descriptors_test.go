package listener

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/descriptors"
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
	for name, l := range m.listeners {
		if got := l.current.chains[0].place.Exempt; got != (name == "exempt") {
			t.Errorf("connections of %s make no room for others: %v", name, got)
		}
	}
	limit.Store(1 << 20)
	if err := roundTrip(dial(t, m, "in")); err != nil {
		t.Errorf("when there are more: %v", err)
	}
}

// TestIdleMakeRoom: before connections are refused, those that are idle are asked to make room, and while there are
// plenty of descriptors nobody is.
func TestIdleMakeRoom(t *testing.T) {
	var limit, asked atomic.Uint64
	limit.Store(1 << 20)
	m := newTestManager(t, func(o *Options) {
		o.Descriptors, o.Relieve = limit.Load, func() { asked.Add(1) }
	})
	mustApply(t, m, echoConfig("in"))
	if err := roundTrip(dial(t, m, "in")); err != nil || asked.Load() > 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	line := m.descriptors.Line
	for fd, want := range map[uint64]bool{line.Most() - 1: true, line.Most() - line.Most()/16: true, line.Most() - line.Most()/16 - 1: false, 0: false} {
		if got := line.Near(fd); got != want || line.Beyond(fd) {
			t.Errorf("descriptor %d of %d is near the line: %v", fd, line.Most(), got)
		}
	}
	limit.Store(10) // the test has more open
	m.descriptors.Beyond(1 << 20)
	if err := roundTrip(dial(t, m, "in")); err == nil || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// TestHandshakeDefault: how long a client may take to shake hands where nothing says so.
func TestHandshakeDefault(t *testing.T) {
	m := newTestManager(t, nil)
	if d := m.opts.HandshakeTimeout; d != 10*time.Second {
		t.Errorf("%v", d)
	}
	if m.descriptors.Limit() != descriptors.Limit() {
		t.Errorf("%d descriptors of %d", m.descriptors.Limit(), descriptors.Limit())
	}
}

// TestBurstWaitsForRoom: where a connection was among the last there is room for, the next one waits a moment.
func TestBurstWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{m: &Manager{descriptors: newReserve(nil)}, ctx: t.Context()}
		for i, want := range []time.Duration{0, roomFor, 0} {
			if i == 1 {
				l.m.descriptors.short.Store(true)
			}
			began := time.Now()
			l.awaitRoom()
			if waited := time.Since(began); waited != want {
				t.Errorf("it waits for %v, want %v", waited, want)
			}
		}
	})
}
