package stream

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/record"
)

// Ender is a Prober whose peer may say that it sends no more and keep the connection below open: TLS
// (RFC 8446 6.1, RFC 5246 7.2.1).
type Ender interface {
	// Ended is Gone, and true also where the peer has said so and all that it sent before was read. Nothing
	// is read to find out, and it does not wait. No reader may be active; a writer may.
	Ended() bool
}

// gone asks for a FIN, a reset or an error, which bytes that wait in front of it
// do not hide.
func gone(raw syscall.RawConn) bool {
	e := endLooks.Get().(*endLook)
	defer endLooks.Put(e)
	return e.look(raw, false)
}

// endLook is the state of one look for an end. It is pooled: many connections that wait
// for a slow answer are looked at again and again.
type endLook struct {
	once  func(fd uintptr)
	fds   [1]unix.PollFd
	ended bool
	// peeks: what waits to be read is wanted too, n bytes of it.
	peeks bool
	n     int
	ahead [record.Farewell]byte
}

var endLooks = sync.Pool{New: func() any {
	e := &endLook{}
	e.once = e.poll
	return e
}}

// look tells whether the socket has ended.
func (e *endLook) look(raw syscall.RawConn, peeks bool) bool {
	e.ended, e.peeks, e.n = true, peeks, 0
	err := raw.Control(e.once)
	return e.ended || err != nil
}

func (e *endLook) poll(fd uintptr) {
	e.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	if e.peeks {
		e.fds[0].Events |= unix.POLLIN
	}
	n, err := unix.Poll(e.fds[:], 0)
	found := e.fds[0].Revents
	e.ended = err != nil && err != unix.EINTR || n > 0 && found&^unix.POLLIN != 0
	if n > 0 && found == unix.POLLIN {
		e.n, _ = recv(fd, e.ahead[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}
}

// Ended implements Ender. With crypto/tls's records the end is seen in TLS 1.2, which shows what kind they are
// of. One of TLS 1.3 by ChaCha20-Poly1305 is found by who reads.
func (t *TLS) Ended() bool {
	switch {
	case t.have:
		return false
	case t.over:
		return true
	}
	e := endLooks.Get().(*endLook)
	defer endLooks.Put(e)
	if e.look(t.raw.raw, len(t.raw.prefix) == 0) {
		return true
	}
	ahead := e.ahead[:e.n]
	if own, ok := t.records.(*record.Conn); ok {
		return own.Ended(ahead)
	}
	held, known := heldBack(t.tls)
	if len(held) > 0 {
		ahead = held
	}
	const alert = 21 // the type in front of what may be encrypted (RFC 5246 6.2.1)
	return known && len(ahead) > 0 && ahead[0] == alert
}
