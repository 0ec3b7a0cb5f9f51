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

// Pourer is a stream whose bytes somebody else reads, for many streams, who can pass them on without
// waking this one's reader.
type Pourer interface {
	// Pour has what arrives given to a sink, and waits, for as long as that takes all of it at once and
	// nothing else is to be told. Read then has what it did not take, and how the stream ended. Pour is for
	// the reader, in place of Read, and obeys the read deadline; the sink is nobody's when it returns.
	Pour(to Sink)
}

// Sink takes bytes as they arrive.
type Sink interface {
	// Take takes what it can of the pieces at once, in their order, and tells how many bytes that were;
	// with more it is there for what comes next. It must neither
	// wait nor close a stream, and keep nothing of the pieces.
	Take(pieces [][]byte) (n int, more bool)
}

// Exchanger is a stream that can write a request and wait for the answer
// with one system call less. It is only for a peer that speaks when spoken to.
type Exchanger interface {
	// Exchange writes out and then reads as ReadReady does. written tells how
	// much of out the kernel took, also with an error. With look nothing is written to a
	// peer that has spoken or left: the error is ErrNotQuiet, and the stream of no use.
	// Before a wait for the answer in is dropped, and out is not used any more: its
	// memory may be given away then.
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

// Socket is a stream on a TCP or Unix socket, without TLS. What reading and writing need
// is made when it is first needed, and given back when the socket is waited for by a
// Poller: an idle connection has neither.
type Socket struct {
	conn Conn
	raw  syscall.RawConn
	info *Info
	r    *socketReader
	w    *socketWriter
	// watch is the last wait for the socket.
	watch atomic.Pointer[Watch]
	reset resetSeen
}

// socketReader is the state of one raw read. The callbacks are made once, because a
// closure made for each call would be garbage.
type socketReader struct {
	once  func(fd uintptr) bool
	peek  func(fd uintptr)
	x     *socketExchange // upstream connections alone have one
	in    Buffers
	n     int
	errno syscall.Errno
	one   [1]byte
}

// socketExchange is the state of one Exchange, besides that of the read it ends in.
type socketExchange struct {
	once        func(fd uintptr) bool
	out         []byte
	written     int
	wrote       bool
	look, spoke bool // whether to look before it is written, and what was seen
	errno       syscall.Errno
}

// socketWriter is the state of one raw write.
type socketWriter struct {
	once  func(fd uintptr) bool
	out   []byte
	n     int
	wait  bool
	some  bool // it is over with the first bytes that were taken
	errno syscall.Errno
	reset *resetSeen // the socket's
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
	return &Socket{conn: c, raw: raw, info: info}, nil
}

func (s *Socket) reader() *socketReader {
	if s.r == nil {
		s.r = newSocketReader()
	}
	return s.r
}

func newSocketReader() *socketReader {
	r := &socketReader{}
	r.once = r.readOnce
	return r
}

func (s *Socket) writer() *socketWriter {
	if s.w == nil {
		s.w = newSocketWriter(&s.reset)
	}
	return s.w
}

func newSocketWriter(r *resetSeen) *socketWriter {
	w := &socketWriter{reset: r}
	w.once = w.writeOnce
	return w
}

// Conn returns the socket, for splice. Whoever takes it owns reading and writing.
func (s *Socket) Conn() Conn { return s.conn }

// Read implements Stream.
func (s *Socket) Read(p []byte) (int, error) {
	Apart()
	n, err := s.conn.Read(p)
	if err == io.EOF {
		err = s.End()
	}
	return n, err
}

// Write implements Stream. One may run at a time.
func (s *Socket) Write(p []byte) (int, error) {
	n, done, err := s.TryWrite(p)
	if done || err != nil {
		return n, err
	}
	rest, err := s.write(p[n:], true)
	return n + rest, err
}

// WriteSome waits until the socket takes something of p, and writes no more than it takes at once: who writes
// piece by piece so makes as many calls of the kernel as one Write does, and knows of each.
func (s *Socket) WriteSome(p []byte) (int, error) {
	w := s.writer()
	w.some = true
	n, err := s.write(p, true)
	w.some = false
	return n, err
}

// CloseWrite implements Stream.
func (s *Socket) CloseWrite() error { return s.conn.CloseWrite() }

// Close implements Stream.
func (s *Socket) Close() error {
	err := s.conn.Close()
	s.watch.Load().Wake()
	return err
}

// Abort implements Aborter.
func (s *Socket) Abort() {
	abort(s.conn)
	s.watch.Load().Wake()
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
	r := s.reader()
	r.in = in
	err := s.raw.Read(r.once)
	r.in = nil
	return s.finish(err)
}

func (r *socketReader) readOnce(fd uintptr) bool {
	buf := r.in.TakeBuffer()
	r.n, r.errno = recv(fd, buf, 0)
	if r.errno == syscall.EAGAIN {
		r.in.DropBuffer()
		return false
	}
	return true
}

// Exchange implements Exchanger. The request is written after the poller was
// armed for reading, so the answer cannot be missed and need not be looked for
// before there is a reason to.
func (s *Socket) Exchange(out []byte, in Buffers, look bool) (written, n int, err error) {
	r := s.reader()
	if r.x == nil {
		r.x = &socketExchange{once: r.exchangeOnce}
	}
	x := r.x
	r.in, x.out, x.written, x.wrote, x.errno = in, out, 0, false, 0
	x.look, x.spoke = look, false
	err = s.raw.Read(x.once)
	r.in, x.out = nil, nil
	written = x.written
	if x.spoke && err == nil {
		return 0, 0, ErrNotQuiet
	}
	if x.errno == syscall.EAGAIN && err == nil {
		// The peer's window is full: write the rest as the runtime does.
		n, err = s.write(out[written:], true)
		written += n
		if err != nil {
			return written, 0, err
		}
		n, err = s.ReadReady(in)
		return written, n, err
	}
	if x.errno != 0 && err == nil {
		return written, 0, opError("write", s.info.Remote, x.errno)
	}
	n, err = s.finish(err)
	return written, n, err
}

func (r *socketReader) exchangeOnce(fd uintptr) bool {
	x := r.x
	if x.wrote {
		return r.readOnce(fd)
	}
	x.wrote = true
	if x.look {
		if r.peekOnce(fd); r.errno != syscall.EAGAIN {
			x.spoke = true
			return true
		}
	}
	x.written, x.errno = send(fd, x.out)
	if x.errno == 0 && x.written < len(x.out) {
		x.errno = syscall.EAGAIN
	}
	if x.errno != 0 {
		return true
	}
	x.out = nil
	r.in.DropBuffer()
	return false
}

// finish is what a read has come to.
func (s *Socket) finish(err error) (int, error) {
	switch {
	case err != nil:
		return 0, err
	case s.r.errno != 0:
		return 0, opError("read", s.info.Remote, s.r.errno)
	case s.r.n == 0:
		return 0, s.End()
	}
	return s.r.n, nil
}

// TryWrite implements TryWriter.
func (s *Socket) TryWrite(p []byte) (n int, done bool, err error) {
	n, err = s.write(p, false)
	return n, err == nil && n == len(p), err
}

func (s *Socket) write(p []byte, wait bool) (n int, err error) {
	w := s.writer()
	w.out, w.n, w.wait = p, 0, wait
	err = s.raw.Write(w.once)
	w.out = nil
	if err == nil && w.errno != 0 && w.errno != syscall.EAGAIN {
		err = opError("write", s.info.Remote, w.errno)
	}
	return w.n, err
}

// writeOnce lets the runtime wait for the socket only where that is wanted.
func (w *socketWriter) writeOnce(fd uintptr) bool {
	for w.errno = 0; w.n < len(w.out) && w.errno == 0 && !(w.some && w.n > 0); {
		var n int
		n, w.errno = send(fd, w.out[w.n:])
		w.n += n
	}
	w.reset.note(w.errno)
	return !w.wait || w.errno != syscall.EAGAIN
}

// Quiet implements Prober.
func (s *Socket) Quiet() bool {
	r := s.reader()
	r.n, r.errno = 0, 0
	if r.peek == nil {
		r.peek = r.peekOnce
	}
	if err := s.raw.Control(r.peek); err != nil {
		return false
	}
	return r.errno == syscall.EAGAIN
}

func (r *socketReader) peekOnce(fd uintptr) {
	r.n, r.errno = recv(fd, r.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}

// Pollable implements Pollable: the kernel holds all that was not read.
func (s *Socket) Pollable(w *Watch) (syscall.RawConn, bool) {
	s.watch.Store(w)
	s.r, s.w = nil, nil
	return s.raw, true
}

func (s *Socket) socket() syscall.RawConn { return s.raw }

// Gone implements Prober. It may run beside a read, so it has no part in r.
func (s *Socket) Gone() bool { return gone(s.raw) }

// recv and send do not announce themselves to the scheduler: the sockets are
// non-blocking, so the calls return at once. Announced, the first call after the
// process was idle would wake the runtime's monitor thread, which costs more than
// the call: a third of the CPU at a few messages in flight.

func recv(fd uintptr, p []byte, flags int) (int, syscall.Errno) {
	Apart()
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
