package stream

import (
	"net"
	"sync"
	"syscall"
)

const (
	// recordSize is the most that a record of TLS carries (RFC 8446 5.1).
	recordSize = 16 << 10
	// gatherSize is how much of one Write goes to the socket at once.
	gatherSize = 4 * recordSize
	// keptSize has room for the records of gatherSize.
	keptSize = gatherSize + 4*64
)

var keptBuffers = sync.Pool{New: func() any { return new([keptSize]byte) }}

// recordWriter is the writing half of a recordConn. A record layer may write on the reader's
// account too, so all of it is under a lock.
type recordWriter struct {
	mu sync.Mutex
	// kept[at:] waits for the socket. Its memory is pooled, and nil when it is empty.
	kept []byte
	at   int
	// more is how many records are kept for those of the same Write that follow, left how
	// many bytes the socket has taken since it began.
	more, left int
	// try: what the socket does not take is kept.
	try bool

	// The callback is made once; the rest is its state.
	once  func(fd uintptr) bool
	out   []byte
	wrote int
	wait  bool
	errno syscall.Errno
}

// gather announces a Write of n bytes by crypto/tls: of its records, all but the last wait
// for the next, so that one call of the kernel takes them all. They are copied, because it
// uses the memory of each for the next; that costs less than a call.
func (c *recordConn) gather(n int) {
	c.w.mu.Lock()
	c.w.more, c.w.left = recordsBeforeLast(n), 0
	c.w.mu.Unlock()
}

// gathered ends that, and tells how many bytes the socket has taken.
func (c *recordConn) gathered() int {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.more = 0
	return c.w.left
}

func recordsBeforeLast(n int) int { return max(0, (n-1)/recordSize) }

// tryOnly has writes keep what the socket does not take, or ends that.
func (c *recordConn) tryOnly(on bool) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.try = on
}

// written tells whether somebody writes, or something waits for the socket: a led read could
// have to wait for that.
func (c *recordConn) written() bool {
	if c.writers.Load() > 0 || !c.w.mu.TryLock() {
		return true
	}
	defer c.w.mu.Unlock()
	return c.w.kept != nil
}

// tries tells whether a write is to keep what the socket does not take: the stream's writer
// wants that, or it is the answer of a led read, beside which nobody writes. A peer may have
// us answer what it sends, and not read the answers.
func (c *recordConn) tries() bool {
	return c.w.try || c.led.Load() && c.writers.Load() == 0
}

// hurry ends all waiting for the socket; it is false where somebody may be at that.
func (c *recordConn) hurry() bool {
	c.hurried.Store(true)
	if !c.w.mu.TryLock() {
		return false
	}
	c.w.mu.Unlock()
	return true
}

// beginTry announces a write of gatherSize at most that must not wait; more says that it goes on. It is
// not ok while there is something left of the last, nor while the reader is at an answer,
// which may wait for the socket.
func (c *recordConn) beginTry(more bool) (ok bool, err error) {
	if more {
		c.w.mu.Lock() // what is tried holds it for a moment
	} else if !c.w.mu.TryLock() {
		return false, nil
	}
	defer c.w.mu.Unlock()
	err = c.flushKept()
	c.w.try = err == nil && c.w.kept == nil
	return c.w.try, err
}

// endTry tells whether everything has left.
func (c *recordConn) endTry() (done bool, err error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.try = false
	err = c.flushKept()
	return err == nil && c.w.kept == nil, err
}

// Write implements net.Conn.
func (c *recordConn) Write(p []byte) (int, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	try := c.tries()
	if c.w.kept != nil && !try && len(c.w.kept)+len(p) > keptSize {
		// What was tried before has to leave first: there is no room for both.
		if err := c.waitKept(); err != nil {
			return 0, err
		}
	}
	if c.w.more > 0 {
		c.w.more--
		c.w.keep(p)
		return len(p), nil
	}
	n := 0
	if c.w.kept == nil {
		if len(p) == 0 {
			return 0, nil
		}
		var err error
		if n, err = c.writeNow(p); err != nil || n == len(p) {
			return n, err
		}
		if !try {
			rest, err := c.writeSome(p[n:], true)
			if n += rest; IsTimeout(err) {
				c.w.keep(p[n:]) // or else the last words would come in the middle of a record
			}
			return n, err
		}
	}
	c.w.keep(p[n:])
	if n == 0 {
		if err := c.flushKept(); err != nil {
			return c.w.leftOf(p), err
		}
	}
	if c.w.kept != nil && !try {
		if err := c.waitKept(); err != nil {
			return c.w.leftOf(p), err
		}
	}
	return len(p), nil
}

// WriteLater implements record.Transport.
func (c *recordConn) WriteLater(p []byte) {
	if !c.w.mu.TryLock() {
		return
	}
	defer c.w.mu.Unlock()
	if len(c.w.kept)+len(p) > keptSize {
		return
	}
	c.w.keep(p)
	_ = c.flushKept()
}

// waitKept writes what was kept, and waits for the socket.
func (c *recordConn) waitKept() error {
	n, err := c.writeSome(c.w.kept[c.w.at:], true)
	c.w.taken(n)
	return err
}

// flushKept writes what the socket takes, without waiting, of what was kept.
func (c *recordConn) flushKept() error {
	if c.w.kept == nil {
		return nil
	}
	n, err := c.writeNow(c.w.kept[c.w.at:])
	c.w.taken(n)
	return err
}

func (w *recordWriter) keep(p []byte) {
	if w.kept == nil {
		w.kept = keptBuffers.Get().(*[keptSize]byte)[:0]
	}
	w.kept = append(w.kept, p...)
}

// leftOf is how much has left of p, which was kept last.
func (w *recordWriter) leftOf(p []byte) int { return max(0, len(p)-(len(w.kept)-w.at)) }

// taken gives back the memory when nothing is left.
func (w *recordWriter) taken(n int) {
	if w.at += n; w.at < len(w.kept) {
		return
	}
	if cap(w.kept) == keptSize {
		keptBuffers.Put((*[keptSize]byte)(w.kept[:keptSize]))
	}
	w.kept, w.at = nil, 0
}

// writeNow writes what the socket takes without waiting.
func (c *recordConn) writeNow(p []byte) (int, error) { return c.writeSome(p, false) }

func (c *recordConn) writeSome(p []byte, wait bool) (int, error) {
	w := &c.w
	w.out, w.wrote, w.wait = p, 0, wait
	err := c.raw.Write(w.once)
	w.out = nil
	w.left += w.wrote
	switch {
	case err == nil && w.errno != 0 && w.errno != syscall.EAGAIN:
		err = opError("write", c.RemoteAddr(), w.errno)
	case err == nil && wait && w.wrote < len(p):
		err = net.ErrClosed // in a hurry
	}
	return w.wrote, err
}

// writeOnce lets the runtime wait for the socket only where that is wanted.
func (c *recordConn) writeOnce(fd uintptr) bool {
	w := &c.w
	for w.errno = 0; w.wrote < len(w.out) && w.errno == 0; {
		var n int
		n, w.errno = send(fd, w.out[w.wrote:])
		w.wrote += n
	}
	c.reset.note(w.errno)
	return !w.wait || w.errno != syscall.EAGAIN || c.hurried.Load()
}
