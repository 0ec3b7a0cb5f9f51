package overload

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestCollectionThatTakesTime: until garbage may be collected again, it is not taken for what
// is in use: no stream is reset and no request refused for it.
func TestCollectionThatTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live, garbage, resets, collections := uint64(50), uint64(48), 0, 0
		m := New(&Config{MaxHeap: 100, LeastHoard: 1, Actions: []Action{
			{ResetStreams, []Trigger{{Resource: Heap, Threshold: 0.9}}}, {RefuseRequests, []Trigger{{Resource: Heap, Threshold: 0.9}}},
		}}, Options{
			Heap:    func() uint64 { return live + garbage },
			Collect: func() { time.Sleep(time.Second); garbage = 0; collections++ },
			Hoards: func(int) []Hoard {
				return []Hoard{{1, func() bool { resets++; return true }}}
			},
		})
		look := func(what string, wantResets int, refuses bool, wantCollections int) {
			t.Helper()
			m.look()
			if resets != wantResets || m.Signals(false).RefusesRequests() != refuses || collections != wantCollections {
				t.Errorf("%s: %d resets, refuses %v, %d collections", what, resets, m.Signals(false).RefusesRequests(), collections)
			}
		}
		look("garbage", 0, false, 1)
		garbage = 48
		look("garbage again at once", 0, false, 1)
		time.Sleep(10 * time.Second)
		look("garbage, later", 0, false, 2)
		time.Sleep(10 * time.Second)
		live = 95
		look("in use", 1, true, 3)
		look("in use, at once", 1, true, 3)
		live = 50
		look("freed, at once", 1, false, 3)
	})
}

// TestRuntimesOwnCollections: what they find in use counts before the next of ours may be, once for
// each, as what was freed by acting on it they have not seen.
func TestRuntimesOwnCollections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heap, live, cycle, resets := uint64(98), uint64(50), uint64(1), 0
		m := New(&Config{MaxHeap: 100, LeastHoard: 1, Actions: []Action{{ResetStreams, []Trigger{{Resource: Heap, Threshold: 0.9}}}}}, Options{
			Heap: func() uint64 { return heap }, Live: func() (uint64, uint64) { return live, cycle },
			Collect: func() { time.Sleep(time.Second); heap, live = 50, 50; cycle++ },
			Hoards:  func(int) []Hoard { return []Hoard{{1, func() bool { resets++; return true }}} },
		})
		m.look()
		heap = 98
		if m.look(); resets != 0 {
			t.Fatalf("%d resets for garbage", resets)
		}
		live, cycle = 95, cycle+1
		if m.look(); resets != 1 {
			t.Fatalf("%d resets for what is in use", resets)
		}
		if m.look(); resets != 1 {
			t.Fatalf("%d resets for what may be free", resets)
		}
		cycle++
		if m.look(); resets != 2 {
			t.Errorf("%d resets for what is in use still", resets)
		}
	})
}

// TestLeastHoardBeyondAll: a size that no stream reaches stays one.
func TestLeastHoardBeyondAll(t *testing.T) {
	m := New(&Config{LeastHoard: math.MaxInt / 2}, Options{Hoards: func(least int) []Hoard {
		t.Errorf("streams were asked for that hold %d", least)
		return nil
	}})
	if n := m.resetStreams(0.1); n != 0 {
		t.Errorf("%d streams were reset", n)
	}
}

// TestMemoryIsShort: only at the whole share, and because of memory; a load shed point leaves those alone that
// were let in.
func TestMemoryIsShort(t *testing.T) { synctest.Test(t, testMemoryIsShort) }

func testMemoryIsShort(t *testing.T) {
	used := 0
	for what, tc := range map[string]struct {
		kind     Kind
		resource Resource
		short    bool
	}{
		"heap": {RefuseRequests, Heap, true}, "control group": {RefuseRequests, Group, true},
		"connections": {RefuseRequests, Connections, false}, "processors": {RefuseRequests, CPU, false},
		"shed": {ShedHeaders, Heap, false}, "shed for processors": {ShedHeaders, CPU, false},
	} {
		read := func() (float64, error) { return float64(used) / 100, nil }
		m := New(&Config{MaxHeap: 100, MaxConnections: 100, Actions: []Action{{tc.kind, []Trigger{{Resource: tc.resource, Scaled: true, Scaling: 0.2, Threshold: 0.8}}}}},
			Options{Heap: func() uint64 { return uint64(used) }, Collect: func() {}, Release: func() {}})
		m.sensors = []*sensor{{resource: Group, read: read}, {resource: CPU, read: read}}
		s := m.Signals(false)
		for _, step := range []struct {
			used           int
			refuses, short bool
		}{{21, true, false}, {80, true, tc.short}, {10, false, false}} {
			used = step.used
			m.open.Store(int64(used))
			if m.look(); s.RefusesRequests() != step.refuses || s.MemoryIsShort() != step.short {
				t.Errorf("%s, at %d: refuses %v, short %v", what, used, s.RefusesRequests(), s.MemoryIsShort())
			}
		}
	}
	if (*Signals)(nil).MemoryIsShort() {
		t.Error("who is exempt is short of memory")
	}
}
