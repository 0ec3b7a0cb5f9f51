// Package fairtest shows whether who is busy lets others have a turn.
package fairtest

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
)

// Bystander is a goroutine that waits for a message from the network, on one processor
// with somebody who always finds something to do.
type Bystander struct {
	near  net.Conn
	done  atomic.Int64 // pieces of work since the message
	found atomic.Bool
	after chan int64
}

// New has the test run on one processor. The message is sent with the first piece of work.
func New(t testing.TB) *Bystander {
	t.Helper()
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	b := &Bystander{after: make(chan int64, 1)}
	if b.near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.near.Close() })
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

// Waited returns how many pieces of work were done before the bystander ran.
func (b *Bystander) Waited() int64 { return <-b.after }
