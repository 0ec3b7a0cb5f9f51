//go:build !race

package fair

import "testing"

// TestTurnsTakeLittleMemory: a turn of who is alone is worth 1 MB moved. (The race detector has
// allocations of its own.)
func TestTurnsTakeLittleMemory(t *testing.T) {
	var s Share
	if n := testing.AllocsPerRun(100, func() {
		s.Spend(wholeShare)
		s.Turn()
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
