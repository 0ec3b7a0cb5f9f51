package tcp

import (
	"errors"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

const (
	// lastLook is how long a direction of a connection that is to finish waits for bytes: it passes
	// on what has arrived, and nothing that is yet to be said.
	lastLook = 10 * time.Millisecond
	// mostDrained is how much that is at most, of a source that goes on and on.
	mostDrained = 4 << 20
)

// errDrained is why a direction ends whose connection is to finish.
var errDrained = errors.New("drained")

// drain notes n bytes of h that moved on a connection that is to finish. With the first of them no
// more is waited for in either direction. A direction that is in a write ends behind what its source
// had sent until then, as far as that has arrived: it was taken from the source, as in Envoy.
func (r *relay) drain(h *half, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	soon := time.Now().Add(lastLook)
	if r.drainAt.Load() == 0 {
		if !r.closing {
			r.because(0, endDraining)
		}
		r.drainAt.Store(r.p.watch.now())
		r.resume()
		_ = r.opposite(h).src.SetReadDeadline(soon)
	}
	if h.drained += uint32(min(n, mostDrained)); h.drained >= mostDrained {
		h.over, soon = true, past
	}
	_ = h.src.SetReadDeadline(soon)
	r.p.watch.stir()
}

// drained ends a connection that was to finish where an end takes nothing: it must not take what
// it got for the whole. Such a connection is never parked: nobody is to be woken.
func (r *relay) drained(now int64) {
	if now < max(r.last.Load(), r.drainAt.Load())+lingerFor {
		return
	}
	for _, h := range []*half{&r.toUp, &r.down} {
		if h.writing.Load() {
			stream.Abort(h.dst)
		}
	}
	r.close()
}
