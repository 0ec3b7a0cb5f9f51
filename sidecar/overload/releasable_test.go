package overload

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestReleasable: what is left of a heap in pieces after all was given back cannot be given back again; garbage can.
func TestReleasable(t *testing.T) {
	const blocks = 100_000
	held := make([][]byte, blocks)
	for i := range held {
		held[i] = make([]byte, 500+i%900)
	}
	for i := range held {
		if i%5 == 0 {
			held[i] = nil
		}
	}
	debug.FreeOSMemory()
	debug.FreeOSMemory()
	if n := releasable(); n > 8<<20 {
		t.Errorf("%d bytes are to be given back of what was just given back", n)
	}
	runtime.KeepAlive(held)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	garbage := make([]byte, 33<<20) // a little of what was live is garbage by now
	runtime.KeepAlive(garbage)
	if n := releasable(); n < 32<<20 {
		t.Errorf("%d bytes are to be given back of garbage", n)
	}
}
