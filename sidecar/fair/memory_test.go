//go:build !race

package fair

import "testing"

// TestTurnsTakeNoMemory: the race detector has allocations of its own.
func TestTurnsTakeNoMemory(t *testing.T) {
	var s Share
	if n := testing.AllocsPerRun(100, func() {
		s.Spend(share)
		s.Turn()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
