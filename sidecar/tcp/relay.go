package tcp

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// relay is a connection and its upstream. While bytes move, each direction has a
// goroutine. When none has moved for a moment both goroutines end, and the
// connection is parked: it then costs its two streams and this.
type relay struct {
	p    *Proxy
	c    *downstream.Conn
	up   *cluster.Conn
	o    outcome
	toUp half
	down half
	wg   sync.WaitGroup // of the directions that run beside serve

	// first is what the client said before there was an upstream: the direction to that
	// begins with it.
	first *early

	began   int64 // on the proxy's clock, nanoseconds
	last    atomic.Int64
	end     int64 // when the connection has lasted long enough, 0 for never
	flush   atomic.Int64
	index   int32       // among the proxy's relays; guarded by watch.mu
	returns atomic.Bool // bytes moved soon after it was parked

	// counted is how much of what moved the counters have, and countAt when they get more.
	counted, countAt atomic.Int64
	countedUp        int64 // of that, to the upstream; guarded by logging

	// logging is held while the watch counts, and while a line is written which is not the
	// last.
	logging sync.Mutex

	parkable bool // a poller can watch both streams

	mu      sync.Mutex
	parking bool // the directions are to end when they have nothing to read
	ending
}

// half is one direction. running and done are guarded by relay.mu; a half that
// is neither is parked.
type half struct {
	dst, src      stream.Stream
	moved         atomic.Int64
	writing       atomic.Bool // holds bytes that dst has not taken
	running, done bool
	// gone: dst takes no more, and what src says is dropped. The half sets it, under
	// relay.mu.
	gone bool
	// drained is how much has moved since the connection is to finish, and over that this is enough.
	over    bool
	drained uint32
}

func newRelay(p *Proxy, c *downstream.Conn, up *cluster.Conn, o outcome) *relay {
	r := &relay{p: p, c: c, up: up, o: o}
	r.toUp.dst, r.toUp.src = up.Stream, c.Stream
	r.down.dst, r.down.src = c.Stream, up.Stream
	_, near := c.Stream.(stream.Pollable)
	_, far := up.Stream.(stream.Pollable)
	r.parkable = near && far
	r.began = p.watch.now()
	r.last.Store(r.began)
	r.countAt.Store(r.began + countEvery)
	if !p.cfg.LogOnConnect {
		r.logPeriodically()
	}
	return r
}

// logPeriodically begins the lines at intervals, where there are any.
func (r *relay) logPeriodically() {
	if r.p.flushEvery > 0 {
		r.flush.Store(r.began + r.p.flushEvery)
	}
}

// logConnected writes the line of a connected upstream. What the client said first is
// counted there, as in Envoy: the line waits until it was written, or could not be. Of
// the answer there is nothing, however soon it came. It comes before the lines at
// intervals, of which the watch knew nothing until then.
func (r *relay) logConnected() {
	if !r.p.cfg.LogOnConnect {
		return
	}
	r.logging.Lock()
	defer r.logging.Unlock()
	r.p.log(r.c, &r.o, telemetry.LogUpstreamConnected, r.toUp.moved.Load(), 0)
	r.logPeriodically()
	r.p.watch.stir()
}

// serve runs both directions until each has ended or is parked, and tells
// whether the connection is finished.
func (r *relay) serve() (finished bool) {
	own := r.begin()
	r.p.watch.stir()
	r.run(own)
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.toUp.done && r.down.done
}

// park names the streams that the relay waits for.
func (r *relay) park() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.toUp.done:
		r.c.Park(r.down.src)
	case r.down.done:
		r.c.Park(r.toUp.src)
	default:
		r.c.Park(r.toUp.src, r.down.src)
	}
}

// begin starts the directions that are not over. One of them is the caller's to run.
func (r *relay) begin() (own *half) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own = &r.down; own.done {
		own = &r.toUp
	}
	own.running = true
	r.resume()
	return own
}

// resume starts the directions that do not run. Some goroutine of the relay runs; r.mu
// is held.
func (r *relay) resume() {
	r.parking = false
	for _, h := range []*half{&r.toUp, &r.down} {
		_ = h.src.SetReadDeadline(never)
		if h.done || h.running {
			continue
		}
		h.running = true
		r.wg.Add(1)
		if h == &r.down {
			r.c.Beside((*downward)(r))
		} else {
			r.c.Beside((*upward)(r))
		}
	}
}

// upward and downward are a relay's directions as what a worker does.
type upward relay

// Run implements workers.Task.
func (r *upward) Run() {
	defer r.wg.Done()
	(*relay)(r).run(&r.toUp)
}

type downward relay

// Run implements workers.Task.
func (r *downward) Run() {
	defer r.wg.Done()
	(*relay)(r).run(&r.down)
}

// quiesce asks the directions to end where there is nothing to read. While one waits to
// write, the other reads on: what it reads may be what the writer's peer waits for.
func (r *relay) quiesce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parking || r.leftAt.Load() != 0 || r.drainAt.Load() != 0 || !r.toUp.running && !r.down.running || r.toUp.writing.Load() || r.down.writing.Load() {
		return
	}
	r.parking = true
	_ = r.toUp.src.SetReadDeadline(past)
	_ = r.down.src.SetReadDeadline(past)
}

// run copies one direction.
func (r *relay) run(h *half) {
	defer panics.Contain(panics.Relay, r.c, func() {
		r.finished(h)
		r.close()
	})
	if err := r.copy(h); errors.Is(err, errParked) {
		return
	} else if err == errDrained {
		// The end of the connection is the end of what this says too: if the destination was told of it
		// now, its answer could still be among the last bytes of the other.
	} else if err != nil {
		r.broken(h, err)
	} else if !h.gone {
		// The end of the source is passed on as a half-close.
		if h == &r.toUp {
			r.clientLeft()
		} else {
			r.c.EndedBy(false) // the host has, and the client's end follows from it
		}
		if err = h.dst.CloseWrite(); err != nil {
			r.left(h, err)
		}
	}
	r.finished(h)
	if r.leftAt.Load() != 0 {
		r.linger(r.p.watch.now())
	}
}

func (r *relay) finished(h *half) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.done, h.running = true, false
}

// errParked is why a direction ends that has nothing to read.
var errParked = errors.New("parked")

// interrupted decides what a read means that timed out: the half is parked, or the wish to park is
// over, or the connection is to finish, and there is no more to pass on.
func (r *relay) interrupted(h *half) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drainAt.Load() != 0 {
		return errDrained
	}
	if r.parking {
		h.running = false
		return errParked
	}
	return h.src.SetReadDeadline(never)
}

// moving notes that bytes were read and are now to be written. While the relay is being
// parked the other direction may have ended already: it starts again.
func (r *relay) moving(h *half) {
	h.writing.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parking {
		r.resume()
	}
}

// taken notes bytes that a destination took. It is told of them before others that were read with them, so
// that who takes a few at a time does not seem to be idle.
func (r *relay) taken(h *half, n int64) {
	h.moved.Add(n)
	r.last.Store(r.p.watch.now())
}

// passed notes that all n bytes that were to be written have been taken.
func (r *relay) passed(h *half, n int64) {
	h.writing.Store(false)
	if r.p.cfg.CloseDraining && r.c.Draining() {
		r.drain(h, n)
	}
}

// write passes p on; it is false where dst takes no more.
func (r *relay) write(h *half, p []byte) bool {
	r.moving(h)
	if failed := r.put(h, p); failed != nil {
		r.left(h, failed)
		return false
	}
	r.passed(h, int64(len(p)))
	return true
}

// put writes p. What a socket takes of it counts when it does.
func (r *relay) put(h *half, p []byte) error {
	s, ok := h.dst.(*stream.Socket)
	if !ok {
		_, err := h.dst.Write(p)
		if err == nil {
			r.taken(h, int64(len(p)))
		}
		return err
	}
	n, _, err := s.TryWrite(p)
	r.taken(h, int64(n))
	for p = p[n:]; len(p) > 0 && err == nil; p = p[n:] {
		n, err = s.WriteSome(p)
		r.taken(h, int64(n))
	}
	return err
}

// copy moves bytes until the source ends, which is nil, or the half is parked.
func (r *relay) copy(h *half) error {
	l := lease{size: smallBuffer, most: r.p.most}
	defer l.DropBuffer()
	read := newSource(h.src, &l)
	splicer, pour := newSplicer(h.dst, h.src, &l.share, r.p.most), newPour(r, h)
	bulk := 0 // bytes that came in reads which filled their buffer, in a row
	if h == &r.toUp && r.first != nil {
		// Who was ended since the first words were said says nothing.
		if r.c.Ended() == nil && !r.write(h, r.first.data) {
			splicer, pour = nil, nil
		}
		r.first.drop()
		r.first = nil
		r.logConnected()
	}
	for !h.over {
		if splicer != nil && bulk >= spliceAfter {
			l.release()
			err := splicer.move(func() { r.moving(h) }, func(n int64) { r.taken(h, n) }, func(n int64) { r.passed(h, n) })
			if w := (*writeError)(nil); errors.As(err, &w) {
				r.left(h, w.err)
				splicer = nil
			} else if err == errNoSplice {
				splicer = nil
			} else if done := r.readError(h, err); done != nil {
				return ended(done)
			}
			bulk = 0
			continue
		}
		if pour != nil && !pour.run() {
			pour = nil
		}
		if h.over {
			break
		}
		l.share.Turn()
		chunk, err := read.next()
		l.share.Spend(len(chunk))
		if n := len(chunk); n > 0 && !h.gone {
			switch {
			case !r.write(h, chunk):
				splicer, pour = nil, nil
			case l.filled(n):
				bulk += n
				l.grow()
			default:
				bulk = 0
			}
		}
		if done := r.readError(h, err); done != nil {
			return ended(done)
		}
	}
	return errDrained
}

// readError returns nil where reading goes on.
func (r *relay) readError(h *half, err error) error {
	if err != nil && stream.IsTimeout(err) {
		return r.interrupted(h)
	}
	return err
}

// ended is nil for the end of a source. An error that has it as its cause is none: what
// carried the source ended before it did.
func ended(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
