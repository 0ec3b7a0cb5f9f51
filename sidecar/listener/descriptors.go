package listener

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/hauberk-mesh/hauberk/sidecar/descriptors"
)

// reserve keeps a part of the process's file descriptors from downstream connections: where
// those have all, no file is read, no metric told, and no connection served that is already here.
type reserve struct {
	*descriptors.Line
	// told is when the log last had it that connections are refused, near that they will be soon.
	told, near *rate.Sometimes
	// short tells that a connection was among the last that there is room for.
	short *atomic.Bool
}

func newReserve(limit func() uint64) reserve {
	return reserve{descriptors.ForClients(limit), &rate.Sometimes{Interval: toldAtMost}, &rate.Sometimes{Interval: toldAtMost}, new(atomic.Bool)}
}

// toldAtMost is how often the log has it that descriptors are short.
const toldAtMost = time.Minute

// tooMany tells whether a new connection is to be closed at once, because descriptors are
// short. Before they are, connections that are idle make room.
func (m *Manager) tooMany(c net.Conn) bool {
	fd, ok := descriptors.Of(c)
	if ok && m.opts.Relieve != nil && m.descriptors.Near(fd) {
		m.opts.Relieve()
		m.descriptors.short.Store(true)
		m.descriptors.near.Do(func() {
			m.log.Warn("file descriptors get short: idle connections make room", "open", fd, "most", m.descriptors.Most(), "limit", m.descriptors.Limit())
		})
	}
	if !ok || !m.descriptors.Beyond(fd) {
		return false
	}
	m.descriptors.short.Store(false)
	m.descriptors.told.Do(func() {
		m.log.Warn("file descriptors are short: new connections are refused", "open", m.descriptors.Most(), "limit", m.descriptors.Limit())
	})
	return true
}

// roomFor is how long the next connection waits where descriptors are nearly short: a burst comes faster than those
// that make room for it can close.
const roomFor = time.Millisecond

// awaitRoom waits for that.
func (l *listener) awaitRoom() {
	if short := l.m.descriptors.short; !short.Load() || !short.Swap(false) {
		return
	}
	t := time.NewTimer(roomFor)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.ctx.Done():
	}
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
