package listener

import (
	"errors"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// descriptors keeps a part of the process's file descriptors from downstream connections:
// where those have all, no host can be reached, no file read, no metric told, and no
// connection served that is already here.
type descriptors struct {
	// limit tells how many the process may have open.
	limit func() uint64
	// most is how many may be open with a new connection, as was found last.
	most atomic.Uint64
	// told is when the log last had it that connections are refused.
	told rate.Sometimes
}

// toldAtMost is how often the log has it that descriptors are short.
const toldAtMost = time.Minute

func newDescriptors(limit func() uint64) *descriptors {
	if limit == nil {
		limit = descriptorLimit
	}
	d := &descriptors{limit: limit, told: rate.Sometimes{Interval: toldAtMost}}
	d.most.Store(leavingReserve(limit()))
	return d
}

// leavingReserve is how many of limit may be open for connections to be taken: nine tenths,
// and of a low limit so many that 32 are left, or half.
func leavingReserve(limit uint64) uint64 {
	return limit - max(limit/10, min(32, limit/2))
}

// short tells whether a new connection is one too many. The kernel gives the lowest number
// that is free (POSIX, XSH 2.6): below that of the newest descriptor all are in use, so that
// nothing has to be counted.
func (d *descriptors) short(c net.Conn) bool {
	n, ok := descriptorOf(c)
	if !ok || n < d.most.Load() {
		return false
	}
	d.most.Store(leavingReserve(d.limit())) // which may have been raised since
	return n >= d.most.Load()
}

// descriptorOf is the number of a socket's descriptor.
func descriptorOf(c net.Conn) (n uint64, ok bool) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) { n = uint64(fd) })
	return n, err == nil
}

// descriptorLimit is RLIMIT_NOFILE, or any number where it cannot be told.
func descriptorLimit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return math.MaxUint64
	}
	return uint64(l.Cur)
}

// tooMany tells whether a new connection is to be closed at once, because descriptors are
// short.
func (m *Manager) tooMany(c net.Conn) bool {
	if !m.descriptors.short(c) {
		return false
	}
	m.descriptors.told.Do(func() {
		m.log.Warn("file descriptors are short: new connections are refused", "open", m.descriptors.most.Load(), "limit", m.descriptors.limit())
	})
	return true
}

func acceptReason(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no_file_descriptor"
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return "no_memory"
	case errors.Is(err, syscall.ECONNABORTED):
		return "aborted"
	}
	return "other"
}
