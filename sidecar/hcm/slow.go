package hcm

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// slicesASecond is how many pieces of a slowed answer pass in a second at most, as in Envoy.
const slicesASecond = 16

// pacer lets slices of a body pass: at first one, and after a pause those of a second.
type pacer struct {
	piece int // bytes
	ready float64
	at    int64 // when ready was so many
}

func newPacer(kib uint32) *pacer {
	return &pacer{piece: int(kib) * 1024 / slicesASecond, ready: 1, at: monotonic()}
}

// take is how many of n bytes may pass, or else how long it is until some may.
func (p *pacer) take(n int) (may int, wait time.Duration) {
	now := monotonic()
	p.ready = min(slicesASecond, p.ready+float64(now-p.at)/float64(time.Second)*slicesASecond)
	p.at = now
	whole := int(p.ready)
	if whole == 0 {
		return 0, time.Duration((1-p.ready)/slicesASecond*float64(time.Second)) + 1
	}
	used := min(whole, (n+p.piece-1)/p.piece)
	p.ready -= float64(used)
	return min(n, used*p.piece), 0
}

// SlowAnswer implements filter.Exchange.
func (x *exchange) SlowAnswer(kib uint32) {
	if !x.local && x.resp.Body != nil && !x.tunnel && !x.switched() {
		x.holding, x.held.rate = true, kib
	}
}

// relaySlowed is relayBody at a rate. What the host sends is taken from it all the same, as far as
// there is room, since the times that its answer has are not those of the client; once all of it is
// here the host is left, for others.
func (x *exchange) relaySlowed(body message.Body) {
	h, p := &x.held, newPacer(x.held.rate)
	var trailers *message.Fields
	for {
		if !h.whole {
			var ok bool
			if trailers, ok = x.takeSlowed(body); !ok {
				return
			}
			if h.whole {
				trailers = x.leaveSlowed(trailers)
			}
		}
		n, wait := 0, time.Duration(0)
		if len(h.body) > 0 {
			if n, wait = p.take(len(h.body)); n == 0 {
				if !x.pause(wait) {
					return
				}
				continue
			}
		}
		last, ok := h.whole && n == len(h.body), false
		if last {
			ok = x.data(h.body[:n], true, trailers)
		} else {
			ok = x.data(h.body[:n], false, nil) && x.flush()
		}
		switch {
		case !ok && !h.whole:
			x.endUpstream(false)
			return
		case last && ok:
			x.flushEnd()
			return
		case !ok:
			return
		}
		x.shedHeld(n)
		x.dog.active()
	}
}

// leaveSlowed leaves the host, whose answer is here. The trailers are kept.
func (x *exchange) leaveSlowed(trailers *message.Fields) *message.Fields {
	if trailers != nil {
		x.trailers.CopyFrom(trailers)
		trailers = &x.trailers
	}
	x.endUpstream(true)
	x.dog.await(monotonic(), x.lifeEnd, x.idleTimeout(), true)
	return trailers
}

// takeSlowed holds what has come of the body: at least something, where there is nothing yet.
func (x *exchange) takeSlowed(body message.Body) (trailers *message.Fields, ok bool) {
	h, limit := &x.held, int(x.connectionLimit())
	for !h.whole && (len(h.body) == 0 || len(h.body) < limit && keeping.Load() < keepAll && arrived(body)) {
		if len(h.body) == 0 && !body.Ready() && !x.flush() {
			x.endUpstream(false)
			return nil, false
		}
		data, last, err := body.Next()
		if err != nil {
			x.bodyBroken(err)
			return nil, false
		}
		x.attempt.received += int64(len(data))
		x.observed.markFirst(telemetry.AnswerBodyBegan)
		h.body = append(h.body, data...)
		keeping.Add(int64(len(data)))
		if h.whole = last; last {
			x.observed.mark(telemetry.AnswerEnded)
			x.takeTrailers(body.Trailers(), nil)
			x.answeredWhole()
		}
	}
	if h.whole {
		trailers = body.Trailers()
	}
	return trailers, true
}

// arrived tells whether more of a body can be had: of a record of TLS that has begun the rest is waited
// for.
func arrived(body message.Body) bool {
	if body.Ready() {
		return true
	}
	u, ok := body.(*http1Upstream)
	return ok && u.c.Unread()
}

// shedHeld gives back what was sent of what is held.
func (x *exchange) shedHeld(n int) {
	h := &x.held
	h.body = h.body[:copy(h.body, h.body[n:])]
	keeping.Add(-int64(n))
}

// pause lets a part of a second pass in a slowed answer; false where it has been ended meanwhile.
func (x *exchange) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-x.ctx.Done():
	}
	switch {
	case monotonic() >= x.lifeEnd:
		x.abort(x.brokenOff(lifeOver))
	case x.ctx.Err() != nil || x.client.gone():
		x.abort(x.departure())
	default:
		return true
	}
	return false
}
