package tcp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// lingerFor is how long an end that was left waits at most for the other to take some of
// what it has yet to get.
const lingerFor = int64(30 * time.Second)

// Why the proxy ends a connection whose time is over.
const (
	endIdle     = "idle_timeout"
	endDuration = "max_connection_duration"
	endDraining = "draining"
)

// Whose reset ends one.
const (
	endUpstreamReset   = "upstream_reset"
	endDownstreamReset = "downstream_reset"
)

// ending is how a relay's connection ends. All but leftAt and drainAt is guarded by relay.mu.
type ending struct {
	closing bool // the sidecar has closed the streams
	ended   string
	flags   telemetry.Flags
	// leftAt is when one end was found to have left, or the other last took something, on
	// the proxy's clock; 0 while both are there. unread is what that was to take then, and before what those
	// have taken who are to take more.
	leftAt atomic.Int64
	unread int
	// drainAt is when bytes moved first that are the last because the connection is to finish, 0
	// while none have.
	drainAt atomic.Int64
}

// because notes why the connection ends; the first reason stays. relay.mu is held.
func (e *ending) because(f telemetry.Flags, reason string) {
	if e.ended == "" {
		e.flags, e.ended = f, reason
	}
}

// outcome is the connection's, with what is known of its end.
func (r *relay) outcome() outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.o
	o.flags |= r.flags
	o.termination = r.ended
	return o
}

// stop ends the connection.
func (r *relay) stop(f telemetry.Flags, reason string) {
	r.mu.Lock()
	if !r.closing {
		r.because(f, reason)
	}
	r.mu.Unlock()
	r.close()
	r.c.Wake()
}

func (r *relay) close() {
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	r.c.EndedBy(false)
	_ = stream.CloseNow(r.c.Stream) // the watch of all connections may be at this one
	_ = r.up.Close()
}

// clientLeft notes that the client has ended its half: that its host then ends the other is only what
// follows.
func (r *relay) clientLeft() {
	r.c.EndedBy(true)
	if first, _ := r.c.Side(); first {
		r.up.Ours()
	}
}

// opposite is the other direction.
func (r *relay) opposite(h *half) *half {
	if h == &r.toUp {
		return &r.down
	}
	return &r.toUp
}

// ours tells whether an error only shows what the sidecar did. relay.mu is held.
func (r *relay) ours(err error) bool {
	return r.closing || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed)
}

// broken ends a connection whose source was lost: its destination must not take what it
// got for the whole (RFC 9113 8.5).
func (r *relay) broken(h *half, err error) {
	r.mu.Lock()
	ours := r.ours(err)
	switch {
	case ours:
	case h == &r.down:
		r.because(telemetry.FlagUpstreamReset, endUpstreamReset)
	default:
		r.because(0, endDownstreamReset)
	}
	r.mu.Unlock()
	if !ours {
		r.c.EndedBy(h == &r.toUp)
		if h == &r.toUp {
			r.up.Ours()
		}
		stream.Abort(h.dst)
	}
	r.close()
}

// left notes that a destination takes no more. What it said before is still to be passed
// on, for which the source must stay open; and what the source says meanwhile must be
// read: a socket that is closed over it forgets what it was to send.
func (r *relay) left(h *half, err error) {
	now := r.p.watch.now()
	r.mu.Lock()
	h.gone = true
	ours := r.ours(err)
	r.leftAt.Store(now)
	r.mu.Unlock()
	h.writing.Store(false)
	if ours {
		r.close()
		return
	}
	r.c.EndedBy(h == &r.down)
	r.linger(now)
	r.p.watch.stir()
}

// acknowledged notes that somebody has taken some of what was written to him, while more waits for him: his host
// says so sooner than the kernel that there is room for more, and TLS that all of a write has left. Who takes it
// slowly is not idle.
func (r *relay) acknowledged(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leftAt.Load() != 0 {
		return
	}
	n := 0
	for _, h := range []*half{&r.toUp, &r.down} {
		if h.writing.Load() {
			n += int(stream.Acknowledged(h.dst))
		}
	}
	if n != r.unread {
		r.unread = n
		r.last.Store(now)
	}
}

// linger ends a connection of which one end has left, as soon as the other has what that
// said, or takes none of it.
func (r *relay) linger(now int64) {
	r.mu.Lock()
	over := now >= max(r.last.Load(), r.leftAt.Load())+lingerFor
	for _, h := range []*half{&r.toUp, &r.down} {
		if !h.gone || h.done || !r.opposite(h).done {
			continue
		}
		n := stream.Unacknowledged(h.src)
		if n == 0 {
			over = true
		} else if n != r.unread {
			r.unread = n
			r.leftAt.Store(now)
		}
	}
	r.mu.Unlock()
	if over {
		r.close()
	}
}
