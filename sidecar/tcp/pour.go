package tcp

import "github.com/hauberk-mesh/hauberk/sidecar/stream"

// pour is a direction from a tunnel to a socket, whose bytes the reader of what carries the tunnel writes: the
// direction's own goroutine waits until the socket does not take them at once, or something else is to be done.
type pour struct {
	r      *relay
	h      *half
	from   stream.Pourer
	to     *stream.Socket
	failed error
}

// newPour is nil where a direction is of another kind.
func newPour(r *relay, h *half) *pour {
	from, ok := h.src.(stream.Pourer)
	to, plain := h.dst.(*stream.Socket)
	if !ok || !plain {
		return nil
	}
	return &pour{r: r, h: h, from: from, to: to}
}

// run waits until there is something to read, or to be done; it is false where the socket takes no more.
func (p *pour) run() bool {
	if p.from.Pour(p); p.failed != nil {
		p.r.left(p.h, p.failed)
	}
	return p.failed == nil
}

// Take implements stream.Sink.
func (p *pour) Take(pieces [][]byte) (n int, more bool) {
	for _, b := range pieces {
		k, done, err := p.to.TryWrite(b)
		if n += k; !done {
			p.failed = err
			break
		}
	}
	if n > 0 {
		p.r.taken(p.h, int64(n))
		p.r.passed(p.h, int64(n))
	}
	return n, p.failed == nil && !p.h.over
}
