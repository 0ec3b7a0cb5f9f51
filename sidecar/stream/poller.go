package stream

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Poller waits for the sockets of many streams at once. A goroutine that waits
// for a peer keeps the stack that its last message needed; a stream that is handed
// to a Poller needs no goroutine until its peer speaks. Safe for concurrent use.
type Poller struct {
	file *os.File // the epoll instance, itself watched by the runtime's poller
	fd   int
	done chan struct{}

	mu    sync.Mutex
	slots []slot
	free  []uint32
	armed int
}

// slot is a place for a Watch. The generation tells an event for the Watch that
// is there from one for its predecessor.
type slot struct {
	watch      *Watch
	generation uint32
}

// WatchOwner is told when its wait has ended.
type WatchOwner interface {
	// Woken is called on the poller's goroutine, or on one that closes a stream,
	// which it must not hold up.
	Woken(*Watch)
}

// Watch is one wait for either of two sockets. It can be used again after it has
// ended.
type Watch struct {
	Owner   WatchOwner
	poller  *Poller
	sockets [2]syscall.RawConn
	index   uint32
	armed   bool // guarded by Poller.mu
}

// Pollable is a stream whose socket a Poller can watch. A TLS stream counts as
// such only when it holds nothing that was received and not yet read.
type Pollable interface {
	// Pollable returns the socket, nil when the stream must be read first. No
	// reader may be active. It gives memory back that only a reader needs. From
	// then on a Close of the stream ends the wait: the kernel does not tell.
	Pollable(*Watch) syscall.RawConn
}

// NewPoller starts a poller; Close ends it.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("stream: epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("stream: epoll: %w", err)
	}
	p := &Poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{})}
	raw, err := p.file.SyscallConn()
	if err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("stream: epoll: %w", err)
	}
	go p.run(raw)
	return p, nil
}

// Close ends the poller. Nothing is woken after it returns.
func (p *Poller) Close() error {
	err := p.file.Close()
	<-p.done
	return err
}

// Watch waits, once, until one of the streams can be read or has ended. It reports
// false when it cannot wait: a stream must be read first, or is closed.
func (p *Poller) Watch(w *Watch, streams ...Stream) bool {
	w.poller = p
	n := 0
	for _, s := range streams {
		c, ok := s.(Pollable)
		if !ok || n == len(w.sockets) {
			return false
		}
		if w.sockets[n] = c.Pollable(w); w.sockets[n] == nil {
			return false
		}
		n++
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) > 0 {
		w.index = p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
	} else {
		w.index = uint32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[w.index].watch = w
	p.armed++
	w.armed = true
	for _, c := range w.sockets[:n] {
		if err := p.control(c, unix.EPOLL_CTL_ADD, w.index); err != nil {
			p.disarm(w)
			return false
		}
	}
	return true
}

// Cancel ends a wait and tells whether there was one: false where Woken is called,
// or was.
func (p *Poller) Cancel(w *Watch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.armed {
		return false
	}
	p.disarm(w)
	return true
}

// closed ends the wait because one of the streams was closed here.
func (w *Watch) closed() {
	if w != nil && w.poller.Cancel(w) {
		w.Owner.Woken(w)
	}
}

// Waiting is the number of waits.
func (p *Poller) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.armed
}

// disarm takes a wait off; p.mu is held.
func (p *Poller) disarm(w *Watch) {
	for i, c := range w.sockets {
		if c != nil {
			_ = p.control(c, unix.EPOLL_CTL_DEL, w.index) // a closed socket has left by itself
			w.sockets[i] = nil
		}
	}
	p.slots[w.index].watch = nil
	p.slots[w.index].generation++
	p.free = append(p.free, w.index)
	p.armed--
	w.armed = false
}

// control changes what epoll knows of a socket, which the call keeps open.
func (p *Poller) control(c syscall.RawConn, op int, index uint32) error {
	event := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT,
		Fd:     int32(index), Pad: int32(p.slots[index].generation),
	}
	var failed error
	if err := c.Control(func(fd uintptr) { failed = unix.EpollCtl(p.fd, op, int(fd), &event) }); err != nil {
		return err
	}
	return failed
}

func (p *Poller) run(raw syscall.RawConn) {
	defer close(p.done)
	events := make([]unix.EpollEvent, 128)
	var woken []*Watch
	for {
		var n int
		var failed error
		err := raw.Read(func(uintptr) bool {
			for {
				if n, failed = unix.EpollWait(p.fd, events, 0); !errors.Is(failed, unix.EINTR) {
					return n != 0
				}
			}
		})
		if err != nil || failed != nil {
			return // closed
		}
		woken = p.take(events[:n], woken[:0])
		for _, w := range woken {
			w.Owner.Woken(w)
		}
	}
}

// take ends the waits that events are for.
func (p *Poller) take(events []unix.EpollEvent, out []*Watch) []*Watch {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range events {
		s := &p.slots[events[i].Fd]
		if s.watch == nil || s.generation != uint32(events[i].Pad) {
			continue
		}
		out = append(out, s.watch)
		p.disarm(s.watch)
	}
	return out
}
