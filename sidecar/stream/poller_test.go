package stream

import (
	"net"
	"syscall"
	"testing"
	"time"
)

type waker chan *Watch

func (w waker) Woken(x *Watch) { w <- x }

func newPoller(t *testing.T) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// sockets are both ends of a connection.
func sockets(t *testing.T) (*Socket, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSocket(near.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = far.Close() })
	return s, far
}

func TestPollerWakes(t *testing.T) {
	p := newPoller(t)
	for name, act := range map[string]func(s *Socket, far net.Conn){
		"a byte":         func(_ *Socket, far net.Conn) { _, _ = far.Write([]byte("x")) },
		"the peer's end": func(_ *Socket, far net.Conn) { _ = far.Close() },
		"our close":      func(s *Socket, _ net.Conn) { _ = s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			silent, _ := sockets(t)
			s, far := sockets(t)
			woken := make(waker, 2)
			w := &Watch{Owner: woken}
			if !p.Watch(w, silent, s) || p.Waiting() != 1 {
				t.Fatal("not waiting")
			}
			act(s, far)
			select {
			case got := <-woken:
				if got != w || p.Waiting() != 0 {
					t.Errorf("woken %p, %d waiting", got, p.Waiting())
				}
			case <-time.After(5 * time.Second):
				t.Fatal("not woken")
			}
			if p.Cancel(w) {
				t.Error("a wait that is over was cancelled")
			}
		})
	}
}

// A wait that was cancelled is not woken, and its place is used again.
func TestPollerCancel(t *testing.T) {
	p := newPoller(t)
	s, far := sockets(t)
	woken := make(waker, 1)
	w := &Watch{Owner: woken}
	for range 3 {
		if !p.Watch(w, s) || !p.Cancel(w) {
			t.Fatal("not waiting")
		}
	}
	_, _ = far.Write([]byte("x"))
	other, otherFar := sockets(t)
	x := &Watch{Owner: woken}
	if !p.Watch(x, other) {
		t.Fatal("not waiting")
	}
	_, _ = otherFar.Write([]byte("x"))
	if got := <-woken; got != x {
		t.Error("the cancelled wait was woken")
	}
	_ = other.Close()
	if p.Watch(x, other) {
		t.Error("waiting for a closed socket")
	}
}

// spoken is a stream without a socket of its own.
type spoken struct {
	Stream
	watch  *Watch
	before func(*Watch) // the wait is armed
	unread bool
}

func (s *spoken) Pollable(w *Watch) (syscall.RawConn, bool) {
	s.watch = w
	if s.before != nil {
		s.before(w)
	}
	return nil, !s.unread
}

// A stream without a socket wakes by itself, beside a socket or not, and also while the
// wait is still being prepared.
func TestPollerAndStreamsWithoutSocket(t *testing.T) {
	p := newPoller(t)
	woken := make(waker, 2)
	w := &Watch{Owner: woken}
	sock, far := sockets(t)
	s := &spoken{}
	for name, streams := range map[string][]Stream{"alone": {s}, "first": {s, sock}, "last": {sock, s}} {
		if !p.Watch(w, streams...) || p.Waiting() != 1 {
			t.Fatal(name, "not waiting")
		}
		s.watch.Wake()
		s.watch.Wake()
		if got := <-woken; got != w || p.Waiting() != 0 || len(woken) > 0 {
			t.Errorf("%s: woken %p, %d waiting", name, got, p.Waiting())
		}
	}
	if !p.Watch(w, s, sock) {
		t.Fatal("not waiting")
	}
	_, _ = far.Write([]byte("x"))
	<-woken
	s.watch.Wake() // nobody waits
	s.before = (*Watch).Wake
	if p.Watch(w, sock, s) || p.Waiting() != 0 || len(woken) > 0 {
		t.Error("a wait that is over before it begins is waited for")
	}
	s.before, s.unread = nil, true
	if p.Watch(w, sock, s) || p.Waiting() != 0 {
		t.Error("waiting for what can be read")
	}
	(*Watch)(nil).Wake()
}

// TestLooksAllocateNothing: thousands of connections are looked at and waited for.
func TestLooksAllocateNothing(t *testing.T) {
	s, _ := sockets(t)
	if n := testing.AllocsPerRun(100, func() { s.Gone() }); n != 0 {
		t.Errorf("a look for the peer's end allocates %v times", n)
	}
	p, w := newPoller(t), &Watch{Owner: make(waker, 1)}
	if n := testing.AllocsPerRun(100, func() {
		if !p.Watch(w, s) || !p.Cancel(w) {
			t.Error("there is no wait")
		}
	}); n != 0 {
		t.Errorf("a wait allocates %v times", n)
	}
}
