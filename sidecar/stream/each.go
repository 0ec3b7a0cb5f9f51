package stream

import (
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/processors"
	"github.com/hauberk-mesh/hauberk/sidecar/record"
)

// EachReader is a stream whose reader need not ask whether there is more before it waits.
type EachReader interface {
	// ReadEach reads as ReadReady does, again and again: f is told of each read of n > 0
	// bytes, and returns false to end it, which is no error. f must not close a stream,
	// nor wait for somebody who does: Close waits for f, and for the term in which it is called.
	//
	// With a Leader f is called by a reader that reads for several streams, maybe another's: f
	// must wait for nobody. What f would do for each of them can be put off until all have been
	// read.
	//
	// ErrReadOn is that somebody has read for this stream, and left the rest to it: the caller
	// must set its read deadline anew, and call again. ErrFault is a panic, which was contained:
	// of f, whoever called it.
	ReadEach(in Buffers, f func(n int, l *Leader) (more bool)) error
}

// ErrReadOn and ErrFault are ReadEach's.
var (
	ErrReadOn = errors.New("stream: read on")
	ErrFault  = errors.New("stream: a fault of the program while it was read")
)

// eachReader is the state of ReadEach on a socket. The whole loop is one raw read, and the
// runtime's poller stays armed from one read to the next: what arrives after the kernel
// has said that nothing is left ends the wait, so nothing has to be read in vain to
// find that out. A peer's FIN counts as something that is left.
type eachReader struct {
	conn Conn
	raw  syscall.RawConn
	once func(fd uintptr) (done bool) // reads what there is
	in   Buffers
	f    func(n int, l *Leader) bool
	err  error
	// tells: the kernel says what is left. again: this is not the first read, so that the
	// poller is armed since before the socket was last seen to be empty.
	tells, again bool

	// busy is held by who reads: the reader itself, or who leads it. asked tells who holds it
	// that there is more since.
	busy  sync.Mutex
	asked atomic.Bool
	done  atomic.Bool // once has said so
	// Guarded by busy: who leads, how often may be read, whether that was too little, whether
	// a leader has woken the reader, and whether it is gone.
	leader             *Leader
	left               int
	more, called, gone bool

	// Guarded by busy too: looks whether the peer has reset, and whether that is to come.
	look *time.Timer
	due  bool

	circle *circle // nil where nobody leads
	joined bool
	number int32
	fd     uintptr

	msg     unix.Msghdr
	iov     unix.Iovec
	control [unix.SizeofCmsghdr + 8]byte // one int, aligned (CMSG_SPACE)
}

// run reads until it is done, or the wait fails.
func (r *eachReader) run(c Conn, raw syscall.RawConn, in Buffers, f func(n int, l *Leader) bool) error {
	r.conn, r.raw, r.in, r.f = c, raw, in, f
	if processors.One() {
		r.circle = theCircle()
	}
	var err error
	if unusable := raw.Control(func(fd uintptr) { err = r.readTo(fd) }); unusable != nil {
		return unusable
	}
	switch {
	case r.done.Load():
		if r.called {
			_ = r.conn.SetReadDeadline(time.Time{})
		}
		return r.err
	case r.called:
		return ErrReadOn
	}
	return err
}

// readTo is the part of run that has the descriptor, which is closed only after it.
func (r *eachReader) readTo(fd uintptr) error {
	r.fd = fd
	// A socket that does not tell, such as a Unix socket, is read until it is empty.
	r.tells = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_INQ, 1) == nil
	err := r.raw.Read(r.event)
	if r.joined {
		r.circle.leave(r)
	}
	r.busy.Lock() // who leads it may be at it
	defer r.busy.Unlock()
	r.gone, r.in, r.f = true, nil, nil
	if r.look != nil {
		r.look.Stop()
	}
	return err
}

// lookAfter is how long a reset goes unnoticed that arrived with the last bytes before it.
const lookAfter = 100 * time.Millisecond

// lookLater: an empty socket is no sign that the peer is there. The poller tells once of bytes
// and of a reset that it finds together, and the bytes are read as if they were alone. To read
// once more in vain, each time, costs more than to look once in a while. busy is held.
func (r *eachReader) lookLater() {
	if r.due {
		return
	}
	r.due = true
	if r.look == nil {
		r.look = time.AfterFunc(lookAfter, r.lookAgain)
	} else {
		r.look.Reset(lookAfter)
	}
}

// lookAgain wakes the reader of a socket that is over. Who was to read while it looked could not.
func (r *eachReader) lookAgain() {
	defer panics.Contain(panics.HTTP2Reader, r, func() {})
	if !r.wakeIf(func() bool { r.due = false; return over(r.fd) }) && r.asked.Load() {
		r.wakeIf(func() bool { return true })
	}
}

// wakeIf has the reader read on, where it waits.
func (r *eachReader) wakeIf(so func() bool) bool {
	r.busy.Lock()
	defer r.busy.Unlock()
	if r.gone || r.done.Load() || !so() {
		return false
	}
	r.called = true
	_ = r.conn.SetReadDeadline(past)
	return true
}

// over tells whether a socket has nothing to read any more.
func over(fd uintptr) bool {
	var b [1]byte
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno == 0 && n == 0 || errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR
}

// event is this reader's turn, when the runtime has found its socket.
func (r *eachReader) event(uintptr) (done bool) {
	l := r.circle.begin(r)
	if l == nil || r.leads(l) {
		r.serve(nil, math.MaxInt)
	}
	return r.done.Load()
}

// leads reads and leads. There is more to be read where the reader has found too much for a
// leader, who has others to read for, and something held for them.
func (r *eachReader) leads(l *Leader) (more bool) {
	defer r.circle.end(l)
	if r.serve(l, ledReads); !l.over && !r.done.Load() {
		r.circle.lead(l)
	}
	return l.more
}

// serve reads what there is, unless somebody is at it, who then goes on. Who leads leaves to
// the reader what is more than a few reads, and its end.
func (r *eachReader) serve(l *Leader, reads int) {
	r.asked.Store(true)
	for r.asked.Load() && r.busy.TryLock() {
		r.asked.Store(false)
		r.readAll(l, reads)
	}
	if l != nil && r.asked.Load() {
		l.step = true // who is at it runs first
	}
}

// readAll is the part of serve that holds busy. A fault is this reader's, whoever reads.
func (r *eachReader) readAll(l *Leader, reads int) {
	defer r.busy.Unlock()
	if r.gone || r.done.Load() {
		return
	}
	defer r.leave(l)
	defer panics.Contain(panics.HTTP2Reader, r, func() {
		r.err = ErrFault
		r.done.Store(true)
	})
	r.leader, r.left = l, reads
	if r.once(r.fd) {
		r.done.Store(true)
	}
}

// LogValue implements slog.LogValuer.
func (r *eachReader) LogValue() slog.Value { return slog.StringValue(r.conn.RemoteAddr().String()) }

// leave has the reader itself do what a leader does not.
func (r *eachReader) leave(l *Leader) {
	r.leader = nil
	if l == nil || !r.more && !r.done.Load() {
		return
	}
	l.over = true
	if l.reader == r {
		l.more = r.more
		return
	}
	r.called = true
	_ = r.conn.SetReadDeadline(past)
}

// past is a deadline that wakes who waits.
var past = time.Unix(1, 0)

// mayRead tells whether who reads may read on.
func (r *eachReader) mayRead() bool {
	r.left--
	r.more = r.left < 0
	return !r.more
}

// recv is recv(2), which does not wait. drained says that the socket is empty and the
// peer has not ended. The first read never says so: a reset that came before the poller
// was armed is seen by reading on.
func (r *eachReader) recv(fd uintptr, p []byte) (n int, drained bool, errno syscall.Errno) {
	r.iov.Base = unsafe.SliceData(p)
	r.iov.SetLen(len(p))
	r.msg.Iov, r.msg.Iovlen = &r.iov, 1
	r.msg.Control = nil // no room for a file descriptor that a local peer may pass
	r.msg.SetControllen(0)
	for {
		if r.tells {
			r.msg.Control = &r.control[0]
			r.msg.SetControllen(len(r.control))
		}
		var got uintptr
		got, _, errno = syscall.RawSyscall(syscall.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.msg)), syscall.MSG_DONTWAIT)
		if errno != syscall.EINTR {
			n = int(got)
			break
		}
	}
	r.iov.Base = nil
	if errno != 0 {
		return 0, errno == syscall.EAGAIN, errno
	}
	first := !r.again
	r.again = true
	if c := (*unix.Cmsghdr)(unsafe.Pointer(&r.control)); r.msg.Controllen >= unix.SizeofCmsghdr+4 && c.Level == unix.IPPROTO_TCP && c.Type == unix.TCP_CM_INQ {
		drained = *(*int32)(unsafe.Pointer(&r.control[unix.SizeofCmsghdr])) == 0
	}
	if drained = drained && n > 0 && !first; drained {
		r.lookLater()
	}
	return n, drained, 0
}

// ReadEach implements EachReader.
func (s *Socket) ReadEach(in Buffers, f func(n int, l *Leader) bool) error {
	r := &eachReader{}
	r.once = func(fd uintptr) bool { return s.readEach(r, fd) }
	return r.run(s.conn, s.raw, in, f)
}

// readEach reads what there is.
func (s *Socket) readEach(r *eachReader, fd uintptr) (done bool) {
	for r.mayRead() {
		n, drained, errno := r.recv(fd, r.in.TakeBuffer())
		switch {
		case errno == syscall.EAGAIN:
			r.in.DropBuffer()
			return false
		case errno != 0:
			r.err = opError("read", s.info.Remote, errno)
			return true
		case n == 0:
			r.err = s.End()
			return true
		case !r.f(n, r.leader):
			return true
		case drained:
			r.in.DropBuffer()
			return false
		}
	}
	return false
}

// ReadEach implements EachReader.
func (t *TLS) ReadEach(in Buffers, f func(n int, l *Leader) bool) error {
	if t.have {
		if n, err := t.ReadReady(in); err != nil || !f(n, nil) {
			return err
		}
	}
	r := &eachReader{}
	r.once = func(fd uintptr) bool { return t.readEach(r, fd) }
	t.raw.each, t.raw.nowait = r, true
	defer func() { t.raw.each, t.raw.nowait = nil, false }()
	return r.run(t.raw.Conn, t.raw.raw, in, f)
}

// readEach reads the records that have arrived. What came together is told of together.
func (t *TLS) readEach(r *eachReader, fd uintptr) (done bool) {
	t.raw.fd, t.raw.drained = fd, false
	library := t.tls != nil // which may have to write for a read
	for dry := false; !dry && r.mayRead(); {
		if library && r.leader != nil && t.raw.written() {
			r.more = true
			return false
		}
		buf := r.in.TakeBuffer()
		n, err := 0, error(nil)
		for n < len(buf) && err == nil && !dry {
			var m int
			if library {
				t.raw.led.Store(r.leader != nil)
			}
			m, err = t.records.Read(buf[n:])
			if library {
				t.raw.led.Store(false)
			}
			n += m
			t.full = n == len(buf)
			// A socket that is known to be empty is not asked, and the record layer where it
			// may hold more: to ask it in vain costs memory.
			dry = err == record.ErrWouldBlock || m > 0 && !t.full && t.raw.taken()
		}
		switch {
		case n > 0:
			if !r.f(n, r.leader) {
				return true // an error shows again
			}
		case err != record.ErrWouldBlock:
			r.err = err
			return true
		}
	}
	if !r.more {
		r.in.DropBuffer()
	}
	return false
}
