package stream

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Poller waits for many streams at once. A goroutine that waits for a peer keeps the
// stack that its last message needed; a stream that is handed to a Poller needs no
// goroutine until its peer speaks. Safe for concurrent use.
type Poller struct {
	file *os.File // the epoll instance, itself watched by the runtime's poller
	fd   int
	done chan struct{}

	mu     sync.Mutex
	slots  []slot
	free   []uint32
	armed  int
	change pollerControl
}

// slot is a place for a Watch. The generation tells an event for the Watch that
// is there from one for its predecessor.
type slot struct {
	watch      *Watch
	generation uint32
}

// WatchOwner is told when its wait has ended.
type WatchOwner interface {
	// Woken is called on the poller's goroutine, or on one that a stream has no
	// other of: it must not hold it up, nor use a stream.
	Woken(*Watch)
}

// Watch is one wait for either of two streams. It can be used again after it has
// ended, with the same Poller.
type Watch struct {
	Owner   WatchOwner
	poller  *Poller
	streams [2]Stream // set before it is armed
	index   uint32
	// Guarded by Poller.mu.
	armed  bool
	missed bool // woken before it was armed
}

// Pollable is a stream that a Poller can wait for.
type Pollable interface {
	// Pollable returns the socket to watch, nil where the stream itself calls Wake
	// when it can be read; ok is false when it must be read first. No reader may be
	// active, nor a writer. It gives memory back that only they need. From then on a Close
	// of the stream calls Wake: the kernel does not tell.
	Pollable(*Watch) (socket syscall.RawConn, ok bool)
}

// socketed is a stream that has a socket of its own, which Pollable returned.
type socketed interface{ socket() syscall.RawConn }

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
	p.change.once = p.controlOnce
	raw, err := p.file.SyscallConn()
	if err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("stream: epoll: %w", err)
	}
	go p.run(raw)
	return p, nil
}

// Close ends the poller. No socket wakes anybody after it returns.
func (p *Poller) Close() error {
	err := p.file.Close()
	<-p.done
	return err
}

// Watch is Reset, Set and Await.
func (p *Poller) Watch(w *Watch, streams ...Stream) bool {
	p.Reset(w)
	w.Set(streams...)
	return p.Await(w)
}

// Reset makes a watch ready to be woken: a Cancel or a Wake from here on keeps it from
// waiting.
func (p *Poller) Reset(w *Watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.poller == nil {
		w.poller = p
	}
	w.missed = false
}

// Set says which streams are to be waited for, at least one and at most two. None undoes
// that. The watch must not be armed.
func (w *Watch) Set(streams ...Stream) {
	w.streams = [2]Stream{}
	copy(w.streams[:], streams)
}

// IsSet tells whether there is a stream to wait for.
func (w *Watch) IsSet() bool { return w.streams[0] != nil }

// Await waits, once, until one of the watch's streams can be read or has ended. It
// reports false when it cannot wait: a stream must be read first, or is closed, or the
// watch was woken since Reset.
func (p *Poller) Await(w *Watch) bool {
	var sockets [len(w.streams)]syscall.RawConn
	for i, s := range w.streams {
		if s == nil {
			break
		}
		c, ok := s.(Pollable)
		if !ok {
			return false
		}
		if sockets[i], ok = c.Pollable(w); !ok {
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.missed {
		return false
	}
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
	for _, c := range sockets {
		if c == nil {
			continue
		}
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
		w.missed = true
		return false
	}
	p.disarm(w)
	return true
}

// Wake ends the wait: a stream can be read, or was closed here. It does nothing to a
// watch that does not wait. It may be called on nil.
func (w *Watch) Wake() {
	if w == nil {
		return
	}
	if w.poller.Cancel(w) {
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
	for i, s := range w.streams {
		if c, ok := s.(socketed); ok {
			_ = p.control(c.socket(), unix.EPOLL_CTL_DEL, w.index) // a closed socket has left by itself
		}
		w.streams[i] = nil
	}
	p.slots[w.index].watch = nil
	p.slots[w.index].generation++
	p.free = append(p.free, w.index)
	p.armed--
	w.armed = false
}

// pollerControl is the state of one change of what epoll knows. Guarded by Poller.mu.
type pollerControl struct {
	once   func(fd uintptr) // made once, because a closure for each wait would be garbage
	op     int
	event  unix.EpollEvent
	failed error
}

// control changes what epoll knows of a socket, which the call keeps open. p.mu is held.
func (p *Poller) control(c syscall.RawConn, op int, index uint32) error {
	p.change.op, p.change.failed = op, nil
	p.change.event = unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT,
		Fd:     int32(index), Pad: int32(p.slots[index].generation),
	}
	if err := c.Control(p.change.once); err != nil {
		return err
	}
	return p.change.failed
}

func (p *Poller) controlOnce(fd uintptr) {
	p.change.failed = unix.EpollCtl(p.fd, p.change.op, int(fd), &p.change.event)
}

func (p *Poller) run(raw syscall.RawConn) {
	defer close(p.done)
	defer panics.Contain(panics.Poller, nil, nil)
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
			p.tell(w)
		}
	}
}

// tell tells a wait's owner that it has ended. A panic is that owner's alone.
func (p *Poller) tell(w *Watch) {
	defer panics.Contain(panics.Poller, nil, nil)
	w.Owner.Woken(w)
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
