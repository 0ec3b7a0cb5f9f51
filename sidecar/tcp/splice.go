package tcp

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

const (
	// spliceAfter is how much one direction moves through full buffers before the
	// kernel takes over: splice costs two more system calls than a copy, and pays
	// for bulk only.
	spliceAfter = 256 << 10
	// spliceLeast is what a splice must move to be worth the next one.
	spliceLeast = 16 << 10
	pipeSize    = 256 << 10
)

// splicer moves bytes from one TCP socket to another inside the kernel.
type splicer struct {
	src, dst *stream.Socket
	from, to syscall.RawConn
	share    *fair.Share
	most     int // bytes of one move
}

// newSplicer returns nil where the kernel cannot do it: with TLS on either side. It is not worth it
// either where most, which is not 0 then, bounds what is held.
func newSplicer(dst, src stream.Stream, share *fair.Share, most int) *splicer {
	s := &splicer{share: share, most: pipeSize}
	if most > 0 {
		if s.most = min(s.most, most); most < spliceLeast {
			return nil
		}
	}
	if s.dst, s.to = rawTCP(dst); s.to == nil {
		return nil
	}
	if s.src, s.from = rawTCP(src); s.from == nil {
		return nil
	}
	return s
}

func rawTCP(s stream.Stream) (*stream.Socket, syscall.RawConn) {
	sock, ok := s.(*stream.Socket)
	if !ok {
		return nil, nil
	}
	c, ok := sock.Conn().(*net.TCPConn)
	if !ok {
		return nil, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, nil
	}
	return sock, raw
}

// errNoSplice is that the kernel does not do it now: out of descriptors, say. Nothing was
// taken from the source.
var errNoSplice = errors.New("splice: no pipe")

// move splices until the source gives little or ends: io.EOF. Each move is told to
// moving when there are bytes to write, those that were written to taken, and all of a move to passed when
// it is over. No pipe is held while it waits.
func (s *splicer) move(moving func(), taken, passed func(int64)) error {
	for {
		stream.Apart()
		s.share.Turn()
		n, err := s.once(moving, taken)
		if n > 0 {
			passed(n)
			s.share.Spend(int(n) / 4) // it is not copied
		}
		if err != nil || n < spliceLeast {
			return err
		}
	}
}

// once fills a pipe from the source and empties it into the destination.
func (s *splicer) once(moving func(), taken func(int64)) (int64, error) {
	var p *pipe
	var n int64
	var failed error
	err := s.from.Read(func(fd uintptr) bool {
		if p == nil {
			if p, failed = takePipe(); failed != nil {
				failed = errNoSplice
				return true
			}
		}
		n, failed = splice(int(fd), p.w, s.most)
		if failed == unix.EAGAIN {
			p.release()
			p = nil
			s.share.Renew()
			return false
		}
		return true
	})
	if p == nil {
		return 0, firstError(err, failed)
	}
	if err != nil || failed != nil || n == 0 {
		p.release()
		if n == 0 && err == nil && failed == nil {
			err = s.src.End()
		}
		return 0, firstError(err, failed)
	}
	moving()
	return s.empty(p, n, taken)
}

// empty empties a pipe of n bytes. Of what was taken it tells before it waits: a pipe holds so much that who
// takes it slowly would seem to be idle.
func (s *splicer) empty(p *pipe, n int64, taken func(int64)) (int64, error) {
	var moved, told int64
	tell := func() {
		if moved > told {
			taken(moved - told)
			told = moved
		}
	}
	var failed error
	err := s.to.Write(func(fd uintptr) bool {
		for moved < n {
			var m int64
			if m, failed = splice(p.r, int(fd), int(n-moved)); failed != nil {
				if failed == unix.ECONNRESET {
					s.dst.NoteReset()
				}
				if failed == unix.EAGAIN {
					tell()
					s.share.Renew()
					return false
				}
				return true
			}
			moved += m
		}
		return true
	})
	tell()
	if moved < n {
		p.close() // what is left in it belongs to nobody
		return moved, &writeError{firstError(err, failed)}
	}
	p.release()
	return moved, nil
}

// writeError keeps a timeout of the destination from being taken for one of the
// source.
type writeError struct{ err error }

func (e *writeError) Error() string { return "splice: " + e.err.Error() }

func splice(from, to, most int) (int64, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		return max(n, 0), err
	}
}

func firstError(err, failed error) error {
	if err != nil {
		return err
	}
	if errno, ok := failed.(syscall.Errno); ok {
		return os.NewSyscallError("splice", errno)
	}
	return failed
}

// pipe is the kernel's buffer between two sockets.
type pipe struct{ r, w int }

// pipes keeps a few: making one costs as much as several splices.
var pipes struct {
	mu   sync.Mutex
	free []*pipe
}

const keepPipes = 16

func takePipe() (*pipe, error) {
	pipes.mu.Lock()
	if n := len(pipes.free); n > 0 {
		p := pipes.free[n-1]
		pipes.free = pipes.free[:n-1]
		pipes.mu.Unlock()
		return p, nil
	}
	pipes.mu.Unlock()
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	// Without the privilege for it the pipe stays at 64 KB, which also works.
	_, _ = unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: fd[0], w: fd[1]}, nil
}

// release gives back an empty pipe.
func (p *pipe) release() {
	pipes.mu.Lock()
	keep := len(pipes.free) < keepPipes
	if keep {
		pipes.free = append(pipes.free, p)
	}
	pipes.mu.Unlock()
	if !keep {
		p.close()
	}
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}
