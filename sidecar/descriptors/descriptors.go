// Package descriptors keeps parts of the process's file descriptors from who could take all
// of them.
//
// The kernel gives the lowest number that is free (POSIX, XSH 2.6): below that of the newest
// descriptor all are in use, so that nothing has to be counted.
package descriptors

import (
	"math"
	"net"
	"sync/atomic"
	"syscall"
)

// Line is a number of descriptors beyond which one kind of them may not go. Safe for
// concurrent use.
type Line struct {
	limit func() uint64
	kept  func(limit uint64) uint64
	most  atomic.Uint64 // as was found last
}

// ForClients is the line of downstream connections, which leave a reserve: a tenth of the
// limit, and of a low limit 32, or half. limit tells how many descriptors the process may
// have open: RLIMIT_NOFILE's when nil.
func ForClients(limit func() uint64) *Line { return newLine(limit, reserve) }

// ForHosts is the line of connections to hosts, which may have half of that reserve too. The
// rest is for files, the administration and the control plane.
func ForHosts(limit func() uint64) *Line {
	return newLine(limit, func(limit uint64) uint64 { return reserve(limit) / 2 })
}

func reserve(limit uint64) uint64 { return max(limit/10, min(32, limit/2)) }

func newLine(limit func() uint64, kept func(uint64) uint64) *Line {
	if limit == nil {
		limit = Limit
	}
	l := &Line{limit: limit, kept: kept}
	l.find()
	return l
}

// find looks for where the line is: the limit may have been changed.
func (l *Line) find() {
	limit := l.limit()
	l.most.Store(limit - l.kept(limit))
}

// Most is how many descriptors may be open with a new one, as was found last; Limit how many
// the process may have now.
func (l *Line) Most() uint64  { return l.most.Load() }
func (l *Line) Limit() uint64 { return l.limit() }

// Beyond tells whether a new descriptor is one too many.
func (l *Line) Beyond(fd uint64) bool {
	if fd < l.most.Load() {
		return false
	}
	l.find()
	return fd >= l.most.Load()
}

// Near tells whether a new descriptor is one of the last before the line: so many that others can be closed meanwhile.
func (l *Line) Near(fd uint64) bool {
	most := l.most.Load()
	return fd >= most-min(most, max(most/16, min(32, most/4)))
}

// Of is the number of a socket's descriptor.
func Of(c net.Conn) (n uint64, ok bool) {
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

// Limit is RLIMIT_NOFILE, or any number where it cannot be told.
func Limit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return math.MaxUint64
	}
	return uint64(l.Cur)
}
