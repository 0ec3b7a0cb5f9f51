package stream

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// waiting is told when a wait begins.
type waiting struct{ begun atomic.Bool }

func (w *waiting) TakeBuffer() []byte { return make([]byte, 16) }
func (w *waiting) DropBuffer()        { w.begun.Store(true) }

// TestReadersThatWaitHoldNoMemory: who waits for a record over TLS holds none of the memory that
// it is read into, which others use meanwhile.
func TestReadersThatWaitHoldNoMemory(t *testing.T) {
	const pairs = 30
	var all []*TLS
	for range pairs {
		server, client := tlsPair(t)
		all = append(all, server, client)
	}
	inUse := func() int {
		for range 3 { // what is pooled lives through two collections
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := inUse()
	var wg sync.WaitGroup
	for _, s := range all {
		l := &waiting{}
		wg.Go(func() { _, _ = s.ReadReady(l) })
		eventually(t, "nobody waits", l.begun.Load)
		runtime.GC() // a pool has nothing left for the next
		runtime.GC()
	}
	if each := (inUse() - before) / len(all); each > 8<<10 {
		t.Errorf("each of those that wait holds %d bytes", each)
	}
	for _, s := range all {
		_ = s.Close()
	}
	wg.Wait()
}
