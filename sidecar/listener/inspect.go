package listener

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

var peekBuffers = sync.Pool{New: func() any { return new([maxClientHello + 1024]byte) }}

// inspectTLS looks at the first bytes of a connection and leaves them in the
// socket: whoever serves the connection reads it from its beginning. It returns
// errNotTLS for plaintext.
func inspectTLS(c stream.Conn, deadline time.Time) (clientHello, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return clientHello{}, err
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return clientHello{}, err
	}
	var hello clientHello
	var result error
	seen := -1
	err = raw.Read(func(fd uintptr) bool {
		// Only while there is something to look at: a silent peer costs no buffer.
		buf := peekBuffers.Get().(*[maxClientHello + 1024]byte)
		defer peekBuffers.Put(buf)
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
		case n == seen:
			// Woken without a new byte. The poller reports edges, so waiting goes
			// on; a peer that stops here meets the deadline.
			return false
		}
		seen = n
		hello, result = parseClientHello(buf[:n])
		if errors.Is(result, errMoreHello) && n == len(buf) {
			result = errBadHello
		}
		return !errors.Is(result, errMoreHello)
	})
	if err != nil {
		return clientHello{}, err
	}
	if result != nil {
		return clientHello{}, result
	}
	return hello, c.SetReadDeadline(time.Time{})
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
