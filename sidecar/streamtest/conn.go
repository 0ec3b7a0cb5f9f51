// Package streamtest has connections within a process that work on the clock of a
// testing/synctest bubble. They are real sockets, pairs of them, so that what the data path
// does with descriptors is done; only waiting for them is not left to the runtime's network
// poller, of which a bubble knows nothing: its time would stand still.
package streamtest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of a connection, a stream.Conn.
type Conn struct {
	*pair
	peer          *Conn
	fd            int
	local, remote net.Addr

	// The pair's lock guards the rest.
	users       int // calls that have the descriptor
	closed      bool
	resets      bool
	read, write deadline
}

// pair is what both ends have in common: whatever one of them does may be what somebody at
// the other waits for.
type pair struct {
	mu    sync.Mutex
	moved *sync.Cond
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// Pair returns both ends of a connection between two addresses.
func Pair(near, far net.Addr) (here, there *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	p := &pair{}
	p.moved = sync.NewCond(&p.mu)
	here = &Conn{pair: p, fd: fds[0], local: near, remote: far}
	there = &Conn{pair: p, fd: fds[1], local: far, remote: near, peer: here}
	here.peer = there
	return here, there, nil
}

// use lends the descriptor to f.
func (c *Conn) use(f func(fd uintptr) bool, d *deadline) (done bool, err error) {
	c.mu.Lock()
	switch {
	case c.closed:
		err = net.ErrClosed
	case d != nil && d.passed():
		err = os.ErrDeadlineExceeded
	default:
		c.users++
	}
	c.mu.Unlock()
	if err != nil {
		return false, err
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.users--
		c.release()
		c.moved.Broadcast()
	}()
	return f(uintptr(c.fd)), nil
}

// release gives the descriptor back once nobody has it.
func (c *Conn) release() {
	if c.closed && c.users == 0 && c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// until calls f until it is done, and waits for the socket in between.
func (c *Conn) until(f func(fd uintptr) bool, d *deadline, events int16) error {
	for {
		if done, err := c.use(f, d); done || err != nil {
			return err
		}
		if err := c.await(d, events); err != nil {
			return err
		}
	}
}

func (c *Conn) await(d *deadline, events int16) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; ; c.moved.Wait() {
		if c.closed {
			return net.ErrClosed
		}
		if d.passed() {
			return os.ErrDeadlineExceeded
		}
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
		if n, err := unix.Poll(fds, 0); n > 0 || err != nil && err != unix.EINTR {
			return nil
		}
	}
}

func (c *Conn) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var failure error
	err = c.until(func(fd uintptr) bool {
		n, failure = unix.Read(int(fd), p)
		return failure != unix.EAGAIN && failure != unix.EINTR
	}, &c.read, unix.POLLIN|unix.POLLRDHUP)
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case failure != nil:
		return 0, c.failed("read", os.NewSyscallError("read", failure))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (n int, err error) {
	var failure error
	err = c.until(func(fd uintptr) bool {
		for failure = nil; n < len(p) && failure == nil; {
			var some int
			if some, failure = unix.Write(int(fd), p[n:]); failure == nil {
				n += some
			}
		}
		return failure != unix.EAGAIN && failure != unix.EINTR
	}, &c.write, unix.POLLOUT)
	if err == nil && failure != nil {
		err = os.NewSyscallError("write", failure)
	}
	return n, c.failed("write", err)
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed("close", net.ErrClosed)
	}
	c.closed = true
	if c.resets && c.peer.fd >= 0 {
		// An end that is closed with something unread resets the other.
		_, _ = unix.Write(c.peer.fd, []byte{0})
	}
	c.read.stop()
	c.write.stop()
	c.release()
	c.moved.Broadcast()
	return nil
}

// SetLinger is like net.TCPConn's: with 0 the other end is reset by Close.
func (c *Conn) SetLinger(seconds int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resets = seconds == 0
	return nil
}

// CloseWrite ends what this end says.
func (c *Conn) CloseWrite() error {
	var failure error
	_, err := c.use(func(fd uintptr) bool {
		failure = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), unix.SHUT_WR))
		return true
	}, nil)
	if err == nil {
		err = failure
	}
	return c.failed("close", err)
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.bound(t, &c.read, &c.write) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.bound(t, &c.read) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.bound(t, &c.write) }

func (c *Conn) bound(t time.Time, ds ...*deadline) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.stop()
		*d = deadline{at: t}
		// One that is over needs no timer: whoever waits is woken below. In a bubble the runtime
		// would run it here, beside others of the bubble's, which the race detector crashes on.
		if left := time.Until(t); !t.IsZero() && left > 0 {
			d.timer = time.AfterFunc(left, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.moved.Broadcast()
			})
		}
	}
	c.moved.Broadcast()
	return nil
}

// SyscallConn implements syscall.Conn.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return (*raw)(c), nil }

// raw is a Conn as its descriptor.
type raw Conn

func (r *raw) Control(f func(fd uintptr)) error {
	c := (*Conn)(r)
	_, err := c.use(func(fd uintptr) bool { f(fd); return true }, nil)
	return c.failed("raw-control", err)
}

func (r *raw) Read(f func(fd uintptr) bool) error {
	c := (*Conn)(r)
	return c.failed("raw-read", c.until(f, &c.read, unix.POLLIN|unix.POLLRDHUP))
}

func (r *raw) Write(f func(fd uintptr) bool) error {
	c := (*Conn)(r)
	return c.failed("raw-write", c.until(f, &c.write, unix.POLLOUT))
}
