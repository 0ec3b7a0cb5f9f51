package listener

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

var peekBuffers = sync.Pool{New: func() any { return new([maxClientHello]byte) }}

// errMoreBytes asks for more of the connection's beginning.
var errMoreBytes = errors.New("the beginning is incomplete")

// errTooLong ends what asks for more than is ever looked at.
var errTooLong = errors.New("the beginning is too long to be recognised")

// peekUntil shows parse the first bytes of a connection, and more of them as long
// as it asks for more, and leaves them in the socket: whoever serves the
// connection reads it from its beginning. A silent peer costs no buffer.
func peekUntil(c stream.Conn, deadline time.Time, parse func([]byte) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	var result error
	seen := -1
	err = raw.Read(func(fd uintptr) bool {
		buf := peekBuffers.Get().(*[maxClientHello]byte)
		defer peekBuffers.Put(buf)
		for ended := false; ; ended = true {
			n, errno := peek(int(fd), buf[:])
			switch {
			case errno == syscall.EAGAIN:
				return false
			case errno != nil:
				result = os.NewSyscallError("recvfrom", errno)
				return true
			case n == 0:
				result = io.EOF
				return true
			case n == seen && ended:
				result = io.ErrUnexpectedEOF
				return true
			case n != seen:
				seen = n
				result = parse(buf[:n])
				if errors.Is(result, errMoreBytes) && n == len(buf) {
					result = errTooLong
				}
				if !errors.Is(result, errMoreBytes) {
					return true
				}
			}
			if !endsItsSide(int(fd)) {
				// A peer that stops here meets the deadline.
				return false
			}
			// What came before the end is all there by now, but may be more than was seen.
		}
	})
	if err != nil {
		return err
	}
	if result != nil {
		// Also where the bytes are not what was looked for: whoever reads them next
		// must not meet this deadline.
		_ = c.SetReadDeadline(time.Time{})
		return result
	}
	return c.SetReadDeadline(time.Time{})
}

func peek(fd int, buf []byte) (int, error) {
	for {
		n, _, err := syscall.Recvfrom(fd, buf, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err == syscall.EINTR {
			continue
		}
		return n, err
	}
}

// endsItsSide tells whether a peer has said that nothing more will come.
func endsItsSide(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n == 1
}
