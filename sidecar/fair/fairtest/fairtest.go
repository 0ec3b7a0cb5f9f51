// Package fairtest shows whether who is busy lets others have a turn.
package fairtest

import (
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// Bystander is a goroutine that waits for a message which the runtime's poller finds, on one
// processor with somebody who always finds something to do.
type Bystander struct {
	near  *os.File
	done  atomic.Int64 // pieces of work since the message
	found atomic.Bool
	after chan int64
}

// Waited returns how many pieces of work were done before a bystander ran. The system may
// take the processor from that one too, so it is the least of three times.
func Waited(t testing.TB, work func(others *Bystander)) int64 {
	t.Helper()
	least := int64(1) << 62
	for range 3 {
		b := newBystander(t)
		work(b)
		least = min(least, <-b.after)
	}
	return least
}

// Tries is how often Runs has a piece of work done.
const Tries = 20

// Runs tells whether a bystander runs during a piece of work: it does each time, or hardly
// ever, as the runtime may look for messages at any time.
func Runs(t testing.TB, work func()) bool {
	t.Helper()
	n := 0
	for range Tries {
		b := newBystander(t)
		b.Worked()
		work()
		for range 3 { // now and then the scheduler prefers who has just stepped back
			runtime.Gosched() // which does not look
		}
		if b.found.Load() {
			n++
		}
	}
	return n > Tries*3/4
}

// newBystander has the test run on one processor. The message is sent with the first piece of
// work.
func newBystander(t testing.TB) *Bystander {
	t.Helper()
	if before := runtime.GOMAXPROCS(1); before != 1 {
		t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	}
	far, near, err := os.Pipe() // which has a message as soon as it is written
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	b := &Bystander{near: near, after: make(chan int64, 1)}
	go func() {
		_, _ = far.Read(make([]byte, 1))
		b.found.Store(true)
		b.after <- b.done.Load()
	}()
	runtime.Gosched() // it waits
	return b
}

// Worked notes a piece of work; it is false when the bystander has run.
func (b *Bystander) Worked() (more bool) {
	if b.done.Add(1) == 1 {
		_, _ = b.near.Write([]byte{0})
	}
	return !b.found.Load()
}

// Ample is a peer that always has more to say, until the bystander has run, and takes all.
type Ample struct {
	stream.Stream
	Others *Bystander
}

func (a *Ample) Read(p []byte) (int, error) {
	if !a.Others.Worked() {
		return 0, io.EOF
	}
	return len(p), nil
}

func (a *Ample) Write(p []byte) (int, error) { return len(p), nil }
