package stream

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Aborter is a stream whose transport can be reset.
type Aborter interface {
	// Abort closes without a word and without waiting: closing TLS properly waits for a
	// peer that does not read.
	Abort()
}

// Abort closes a stream so that its peer does not take what it got for the whole.
func Abort(s Stream) {
	if a, ok := s.(Aborter); ok {
		a.Abort()
	} else {
		_ = s.Close()
	}
}

// CloseNow closes a stream without waiting for its peer: of the last words goes out what the
// socket takes at once. It is for who has more to do than to close this one: a peer that does
// not read would hold up all that comes after it.
func CloseNow(s Stream) error {
	if c, ok := s.(interface{ closeNow() error }); ok {
		return c.closeNow()
	}
	return s.Close()
}

// Unacknowledged is how much of what was written to s its peer's host does not have yet, a
// FIN being one byte; 0 where s cannot tell. Closing a socket before it has loses that
// where the peer goes on sending: what arrives at a closed socket is answered with a reset
// (RFC 9293 3.10.7.1).
func Unacknowledged(s Stream) int {
	if q, ok := s.(interface{ unacknowledged() int }); ok {
		return q.unacknowledged()
	}
	return 0
}

func (s *Socket) unacknowledged() int { return unacknowledged(s.raw) }

func (t *TLS) unacknowledged() int { return unacknowledged(t.raw.raw) }

func unacknowledged(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) {
		var err error
		if n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
			n = 0
		}
	})
	return n
}

// Acknowledged is how much of all that was written to s its peer's host has, as far as it has said so; 0 where s
// cannot tell.
func Acknowledged(s Stream) (n uint64) {
	q, ok := s.(interface{ socket() syscall.RawConn })
	if !ok {
		return 0
	}
	_ = q.socket().Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_acked
		}
	})
	return n
}

// abort ends a connection with a TCP reset: nothing waits, nothing is flushed.
func abort(c Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// resetSeen remembers that a write found the connection reset. A socket tells of that once:
// to a reader it would look afterwards as if the peer had ended in good order.
type resetSeen struct{ atomic.Bool }

// note looks at what a write has come to, while it has the socket to itself.
func (r *resetSeen) note(errno syscall.Errno) {
	if errno == syscall.ECONNRESET {
		r.Store(true)
	}
}

// end is what a read returns that has come to the end. A socket that is closed may have
// told a writer why, who is about to note it and is not kept waiting any more.
func (r *resetSeen) end(raw syscall.RawConn, remote net.Addr) error {
	if !r.Load() && tcpClosed(raw) {
		_ = raw.Write(func(uintptr) bool { return true })
	}
	if r.Load() {
		return opError("read", remote, syscall.ECONNRESET)
	}
	return io.EOF
}

// tcpClosed tells whether a connection is over in both directions.
func tcpClosed(raw syscall.RawConn) (closed bool) {
	const stateClose = 7 // TCP_CLOSE of Linux
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State == stateClose
	})
	return closed
}

// NoteReset has the socket's reads tell of a reset that a write through Conn was told of.
// The write calls it before it gives the socket free.
func (s *Socket) NoteReset() { s.reset.Store(true) }

// End is what a read through Conn returns that has come to the end.
func (s *Socket) End() error { return s.reset.end(s.raw, s.info.Remote) }

func opError(op string, remote net.Addr, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: remote, Err: os.NewSyscallError(op, errno)}
}
