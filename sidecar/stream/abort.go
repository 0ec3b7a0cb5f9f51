package stream

import (
	"net"
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

// abort ends a connection with a TCP reset: nothing waits, nothing is flushed.
func abort(c Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
