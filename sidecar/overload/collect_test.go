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

// TestRefusesAllRequests: only at the whole share.
func TestRefusesAllRequests(t *testing.T) { synctest.Test(t, testRefusesAllRequests) }

func testRefusesAllRequests(t *testing.T) {
	heap := uint64(21)
	m := New(&Config{MaxHeap: 100, Actions: []Action{{RefuseRequests, []Trigger{{Resource: Heap, Scaled: true, Scaling: 0.2, Threshold: 0.8}}}}},
		Options{Heap: func() uint64 { return heap }, Collect: func() {}})
	s := m.Signals(false)
	if m.look(); s.RefusesAllRequests() || !s.RefusesRequests() {
		t.Error("at a small share all are refused, or none")
	}
	heap = 80
	if m.look(); !s.RefusesAllRequests() {
		t.Error("at the whole share not all are refused")
	}
}
