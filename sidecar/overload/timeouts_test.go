package overload

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTimeouts: each is reduced by as much as the action's share says, to its least and never
// beyond what it was; who is to look anew is told when the share changes.
func TestTimeouts(t *testing.T) { synctest.Test(t, testTimeouts) }

func testTimeouts(t *testing.T) {
	heap, told := uint64(0), 0
	cfg := &Config{MaxHeap: 100, Actions: []Action{{ReduceTimeouts, []Trigger{{Resource: Heap, Scaled: true, Scaling: 0.5, Threshold: 1}}}}}
	cfg.Timeouts[ConnectionIdle] = &Least{Absolute: true, Time: 2 * time.Second}
	cfg.Timeouts[StreamIdle] = &Least{Share: 0.5}
	m := New(cfg, Options{Heap: func() uint64 { return heap }, Collect: func() {}, Reduced: func() { told++ }})
	r := m.Reducer()
	for _, step := range []struct {
		heap        uint64
		idle, short time.Duration
		stream      time.Duration
		told        int
	}{
		{50, 10 * time.Second, time.Second, 10 * time.Second, 0},
		{75, 6 * time.Second, time.Second, 7500 * time.Millisecond, 1},
		{75, 6 * time.Second, time.Second, 7500 * time.Millisecond, 1},
		{100, 2 * time.Second, time.Second, 5 * time.Second, 2},
		{200, 2 * time.Second, time.Second, 5 * time.Second, 2},
		{10, 10 * time.Second, time.Second, 10 * time.Second, 3},
	} {
		heap = step.heap
		m.look()
		reduced := func(of Timeout, full time.Duration) time.Duration {
			return time.Duration(r.Reduce(of, int64(full))).Round(time.Millisecond)
		}
		idle, short, stream := reduced(ConnectionIdle, 10*time.Second), reduced(ConnectionIdle, time.Second), reduced(StreamIdle, 10*time.Second)
		if idle != step.idle || short != step.short || stream != step.stream || told != step.told {
			t.Errorf("at %d: %v, %v and %v, told %d times", step.heap, idle, short, stream, told)
		}
		if d := reduced(Handshake, time.Second); d != time.Second {
			t.Errorf("at %d: one that is not named is %v", step.heap, d)
		}
	}
	if (*Manager)(nil).Reducer() != nil || New(&Config{}, Options{}).Reducer() != nil {
		t.Error("something reduces timeouts that is not to")
	}
}
