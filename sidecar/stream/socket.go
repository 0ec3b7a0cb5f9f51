package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffers lends memory to a read at the moment there is something to read, so
// that a stream which waits holds none.
type Buffers interface {
	// TakeBuffer returns free space, at least one byte.
	TakeBuffer() []byte
	// DropBuffer takes it back unused, before the stream waits.
	DropBuffer()
}

// ReadyReader is a stream that can wait without a buffer.
type ReadyReader interface {
	// ReadReady reads as Read does, into space that it asks for when bytes are
	// there. It may return fewer bytes than are waiting.
	ReadReady(Buffers) (n int, err error)
}

// ChunkReader is a stream that can lend what it received.
type ChunkReader interface {
	// ReadChunk waits as Read does, and returns memory of the stream's, at least one
	// byte of it unless there is an error. It is good until the next read.
	ReadChunk() ([]byte, error)
}

// TryWriter is a stream that can write without waiting.
type TryWriter interface {
	// TryWrite takes as much of p as can be written at once. Without done, and without
	// an error, the caller must Write the rest of p, also where it is empty: that
	// waits. It must not run beside another write.
	TryWrite(p []byte) (n int, done bool, err error)
}

// Exchanger is a stream that can write a request and wait for the answer
// with one system call less. It is only for a peer that speaks when spoken to.
type Exchanger interface {
	// Exchange writes out and then reads as ReadReady does. written tells how
	// much of out the kernel took, also with an error. With look nothing is written to a
	// peer that has spoken or left: the error is ErrNotQuiet, and the stream of no use.
	Exchange(out []byte, in Buffers, look bool) (written, n int, err error)
}

// ErrNotQuiet is that the peer has spoken, or left, before it was asked.
var ErrNotQuiet = errors.New("stream: the peer has not waited to be asked")

// Prober is a stream that can say whether its peer is silent and there.
type Prober interface {
	// Quiet is true when the peer has neither closed nor sent anything. It does
	// not wait. No reader may be active.
	Quiet() bool
	// Gone is true when the peer has closed its side or reset; bytes that wait do
	// not matter. It may be called while another goroutine reads.
	Gone() bool
}

// Conn is what a socket of package net offers and Socket needs.
type Conn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// Socket is a stream on a TCP or Unix socket, without TLS.
type Socket struct {
	conn Conn
	raw  syscall.RawConn
	info *Info
	op   socketOp
	// watch is the last wait for the socket.
	watch atomic.Pointer[Watch]
}

// socketOp is the state of one raw read. The callbacks are made once for each
// socket, because a closure made for each call would be garbage; those of upstream
// connections alone with their first use.
type socketOp struct {
	read, exchange    func(fd uintptr) bool
	tryWrite          func(fd uintptr) bool
	tryOut            []byte
	tried             int
	tryErrno          syscall.Errno
	peek              func(fd uintptr)
	in                Buffers
	out               []byte
	written, n        int
	wrote             bool
	look, spoke       bool // Exchange's: whether to look first, and what was seen
	errno, writeErrno syscall.Errno
	one               [1]byte
}

// NewSocket makes a stream of a connection (*net.TCPConn or *net.UnixConn). With
// a nil info it is made from the addresses.
func NewSocket(c Conn, info *Info) (*Socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if info == nil {
		info = &Info{Local: c.LocalAddr(), Remote: c.RemoteAddr()}
	}
	s := &Socket{conn: c, raw: raw, info: info}
	s.op.read = s.readOnce
	s.op.tryWrite = s.writeOnce
	return s, nil
}

// Conn returns the socket, for splice. Whoever takes it owns reading and writing.
func (s *Socket) Conn() Conn { return s.conn }

// Read implements Stream.
func (s *Socket) Read(p []byte) (int, error) {
	return s.conn.Read(p)
}

// Write implements Stream. One may run at a time.
func (s *Socket) Write(p []byte) (int, error) {
	n, done, err := s.TryWrite(p)
	if done || err != nil {
		return n, err
	}
	rest, err := s.conn.Write(p[n:])
	return n + rest, err
}

// CloseWrite implements Stream.
func (s *Socket) CloseWrite() error { return s.conn.CloseWrite() }

// Close implements Stream.
func (s *Socket) Close() error {
	err := s.conn.Close()
	s.watch.Load().Wake()
	return err
}

// SetDeadline implements Stream.
func (s *Socket) SetDeadline(t time.Time) error { return s.conn.SetDeadline(t) }

// SetReadDeadline implements Stream.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetWriteDeadline implements Stream.
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }

// Info implements Stream.
func (s *Socket) Info() *Info { return s.info }

// ReadReady implements ReadyReader.
func (s *Socket) ReadReady(in Buffers) (int, error) {
	s.op.in = in
	err := s.raw.Read(s.op.read)
	s.op.in = nil
	return s.finish("read", err)
}

func (s *Socket) readOnce(fd uintptr) bool {
	buf := s.op.in.TakeBuffer()
	s.op.n, s.op.errno = recv(fd, buf, 0)
	if s.op.errno == syscall.EAGAIN {
		s.op.in.DropBuffer()
		return false
	}
	return true
}

// Exchange implements Exchanger. The request is written after the poller was
// armed for reading, so the answer cannot be missed and need not be looked for
// before there is a reason to.
func (s *Socket) Exchange(out []byte, in Buffers, look bool) (written, n int, err error) {
	s.op.look, s.op.spoke = look, false
	s.op.in, s.op.out, s.op.written, s.op.wrote, s.op.writeErrno = in, out, 0, false, 0
	if s.op.exchange == nil {
		s.op.exchange = s.exchangeOnce
	}
	err = s.raw.Read(s.op.exchange)
	s.op.in, s.op.out = nil, nil
	written = s.op.written
	if s.op.spoke && err == nil {
		return 0, 0, ErrNotQuiet
	}
	if s.op.writeErrno == syscall.EAGAIN && err == nil {
		// The peer's window is full: write the rest as the runtime does.
		n, err = s.conn.Write(out[written:])
		written += n
		if err != nil {
			return written, 0, err
		}
		n, err = s.ReadReady(in)
		return written, n, err
	}
	if s.op.writeErrno != 0 && err == nil {
		return written, 0, opError("write", s.info.Remote, s.op.writeErrno)
	}
	n, err = s.finish("read", err)
	return written, n, err
}

func (s *Socket) exchangeOnce(fd uintptr) bool {
	if s.op.wrote {
		return s.readOnce(fd)
	}
	s.op.wrote = true
	if s.op.look {
		if s.peekOnce(fd); s.op.errno != syscall.EAGAIN {
			s.op.spoke = true
			return true
		}
	}
	s.op.written, s.op.writeErrno = send(fd, s.op.out)
	if s.op.writeErrno == 0 && s.op.written < len(s.op.out) {
		s.op.writeErrno = syscall.EAGAIN
	}
	return s.op.writeErrno != 0
}

func (s *Socket) finish(op string, err error) (int, error) {
	switch {
	case err != nil:
		return 0, err
	case s.op.errno != 0:
		return 0, opError(op, s.info.Remote, s.op.errno)
	case s.op.n == 0:
		return 0, io.EOF
	}
	return s.op.n, nil
}

func opError(op string, remote net.Addr, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: remote, Err: os.NewSyscallError(op, errno)}
}

// TryWrite implements TryWriter.
func (s *Socket) TryWrite(p []byte) (n int, done bool, err error) {
	s.op.tryOut, s.op.tried, s.op.tryErrno = p, 0, 0
	err = s.raw.Write(s.op.tryWrite)
	s.op.tryOut = nil
	switch {
	case err != nil:
		return 0, false, err
	case s.op.tryErrno != 0 && s.op.tryErrno != syscall.EAGAIN:
		return s.op.tried, false, opError("write", s.info.Remote, s.op.tryErrno)
	}
	return s.op.tried, s.op.tried == len(p), nil
}

// writeOnce always returns true: it never lets the runtime wait.
func (s *Socket) writeOnce(fd uintptr) bool {
	for s.op.tried < len(s.op.tryOut) && s.op.tryErrno == 0 {
		var n int
		n, s.op.tryErrno = send(fd, s.op.tryOut[s.op.tried:])
		s.op.tried += n
	}
	return true
}

// Quiet implements Prober.
func (s *Socket) Quiet() bool {
	s.op.n, s.op.errno = 0, 0
	if s.op.peek == nil {
		s.op.peek = s.peekOnce
	}
	if err := s.raw.Control(s.op.peek); err != nil {
		return false
	}
	return s.op.errno == syscall.EAGAIN
}

func (s *Socket) peekOnce(fd uintptr) {
	s.op.n, s.op.errno = recv(fd, s.op.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}

// Pollable implements Pollable: the kernel holds all that was not read.
func (s *Socket) Pollable(w *Watch) (syscall.RawConn, bool) {
	s.watch.Store(w)
	return s.raw, true
}

// Gone implements Prober. It may run beside a read, so it has no part in op.
func (s *Socket) Gone() bool { return gone(s.raw) }

// gone asks for a FIN, a reset or an error, which bytes that wait in front of it
// do not hide.
func gone(raw syscall.RawConn) bool {
	ended := true
	err := raw.Control(func(fd uintptr) {
		p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p[:], 0)
		ended = err != nil && err != unix.EINTR || n > 0 && p[0].Revents != 0
	})
	return ended || err != nil
}

// recv and send do not announce themselves to the scheduler: the sockets are
// non-blocking, so the calls return at once. Announced, the first call after the
// process was idle would wake the runtime's monitor thread, which costs more than
// the call: a third of the CPU at a few messages in flight.

func recv(fd uintptr, p []byte, flags int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

func send(fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// IsTimeout tells whether an error is a deadline that passed.
func IsTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}
