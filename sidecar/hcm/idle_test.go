package hcm

import (
	"net"
	"runtime"
	"testing"
)

// TestIdleMemory: a connection that waits holds no buffer. What is left is its
// goroutine's stack, which once grown stays at 4 KB, and what listener, stream and
// manager know of it; the client's end is in the same process.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	const conns, most = 500, 7 << 10
	b := quiet(newBed(t, benchOrigin(t))).start()
	req, buf := []byte(benchRequest), make([]byte, 4096)
	measure := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := measure()
	for range conns {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := roundTrip(c, req, buf); err != nil {
			t.Fatal(err)
		}
	}
	per := (measure() - before) / conns
	t.Logf("%d bytes a connection, the test's own end included", per)
	if per > most {
		t.Errorf("%d bytes an idle connection, want at most %d", per, most)
	}
}
