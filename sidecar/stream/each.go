package stream

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EachReader is a stream whose reader need not ask whether there is more before it waits.
type EachReader interface {
	// ReadEach reads as ReadReady does, again and again: f is told of each read of n > 0
	// bytes, and returns false to end it, which is no error. f must not close the stream,
	// nor wait for somebody who does: Close waits for f.
	ReadEach(in Buffers, f func(n int) (more bool)) error
}

// eachReader is the state of ReadEach on a socket. The whole loop is one raw read, and the
// runtime's poller stays armed from one read to the next: what arrives after the kernel
// has said that nothing is left ends the wait, so nothing has to be read in vain to
// find that out. A peer's FIN counts as something that is left.
type eachReader struct {
	once func(fd uintptr) (done bool)
	in   Buffers
	f    func(n int) bool
	err  error
	// tells: the kernel says what is left. again: this is not the first read, so that the
	// poller is armed since before the socket was last seen to be empty.
	tells, again bool

	msg     unix.Msghdr
	iov     unix.Iovec
	control [unix.SizeofCmsghdr + 8]byte // one int, aligned (CMSG_SPACE)
}

// run reads until it is done, or the wait fails.
func (r *eachReader) run(raw syscall.RawConn, in Buffers, f func(n int) bool) error {
	// A socket that does not tell, such as a Unix socket, is read until it is empty.
	err := raw.Control(func(fd uintptr) { r.tells = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_INQ, 1) == nil })
	if err != nil {
		return err
	}
	r.in, r.f, r.err = in, f, nil
	defer func() { r.in, r.f = nil, nil }()
	if err = raw.Read(r.once); err == nil {
		err = r.err
	}
	return err
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
	return n, drained && n > 0 && !first, 0
}

// ReadEach implements EachReader.
func (s *Socket) ReadEach(in Buffers, f func(n int) bool) error {
	r := &eachReader{}
	r.once = func(fd uintptr) bool { return s.readEach(r, fd) }
	return r.run(s.raw, in, f)
}

// readEach reads what there is.
func (s *Socket) readEach(r *eachReader, fd uintptr) (done bool) {
	for {
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
		case !r.f(n):
			return true
		case drained:
			r.in.DropBuffer()
			return false
		}
	}
}

// ReadEach implements EachReader.
func (t *TLS) ReadEach(in Buffers, f func(n int) bool) error {
	if t.have {
		if n, err := t.ReadReady(in); err != nil || !f(n) {
			return err
		}
	}
	r := &eachReader{}
	r.once = func(fd uintptr) bool { return t.readEach(r, fd) }
	t.raw.each, t.raw.nowait = r, true
	defer func() { t.raw.each, t.raw.nowait = nil, false }()
	return r.run(t.raw.raw, in, f)
}

// readEach reads the records that have arrived. What came together is told of together.
func (t *TLS) readEach(r *eachReader, fd uintptr) (done bool) {
	t.raw.fd, t.raw.drained = fd, false
	for dry := false; !dry; {
		buf := r.in.TakeBuffer()
		n, err := 0, error(nil)
		for n < len(buf) && err == nil && !dry {
			var m int
			m, err = t.tls.Read(buf[n:])
			n += m
			t.full = n == len(buf)
			// What is left in tls.Conn, only tls.Conn can tell. It does not ask a socket that
			// is known to be empty.
			dry = err == errWouldBlock
		}
		switch {
		case n > 0:
			if !r.f(n) {
				return true // an error shows again
			}
		case err != errWouldBlock:
			r.err = err
			return true
		}
	}
	r.in.DropBuffer()
	return false
}
