package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// trailerChanges are what filters do to the trailers of a request once they are here: they
// are carried out once, whatever is sent again. They belong to whoever reads the body.
type trailerChanges struct {
	steps []route.Mutations
	done  bool
	// at are the trailers, once it is done, and sent what they were before.
	at   *message.Fields
	sent message.Fields
}

// ChangeRequestTrailers implements filter.Exchange.
func (x *exchange) ChangeRequestTrailers(steps route.Mutations) {
	if x.req.Body == nil {
		return
	}
	if x.reqTrailers == nil {
		x.reqTrailers = new(trailerChanges)
	}
	x.reqTrailers.steps = append(x.reqTrailers.steps, steps)
}

// settleTrailerChanges makes the values for trailers that a pump is going to read: what they
// are made of belongs to the exchange, which goes on meanwhile.
func (x *exchange) settleTrailerChanges() {
	if c := x.reqTrailers; c != nil && !c.done {
		for i, steps := range c.steps {
			c.steps[i] = steps.Settled(x, &x.scratch)
		}
	}
}

// requestTrailers are those of a request whose body was read to its end, nil for none.
func requestTrailers(x *exchange) *message.Fields {
	if x.req.Body == nil || !x.complete {
		return nil
	}
	t := x.req.Body.Trailers()
	c := x.reqTrailers
	if t == nil || c != nil && c.done {
		return t
	}
	if x.policy.cfg != x.m.cfg {
		t = x.judgeTrailers(t)
	}
	if t != nil && c != nil {
		c.at = t
		c.sent.CopyFrom(t)
		for _, steps := range c.steps {
			steps.Apply(t, x, &x.scratch)
		}
		c.done = true
	}
	return t
}

// restoreTrailers has the trailers of a request be what its client sent: what a redirect that is followed
// leads to is changed by its own filters. Nobody sends the request any more.
func (x *exchange) restoreTrailers() {
	if c := x.reqTrailers; c != nil && c.done {
		c.at.CopyFrom(&c.sent)
	}
}

// takeTrailers shows the trailers of a host's answer to the filters, the last one first, and
// notes what is told of them. A filter that has the answer held, and those before it, see
// none: by is its state, nil for none.
func (x *exchange) takeTrailers(t *message.Fields, by *filter.State) {
	x.observed.keepTrailers(t)
	x.attempt.log.trailed(t)
	if t != nil && x.asked != 0 && x.policy.chain.trailers {
		x.filterTrailers(t, by)
		x.observed.keepTrailers(t)
	}
	x.noteTrailers(t)
}

// filterTrailers is filterResponse for trailers, which answers of our own do not have.
func (x *exchange) filterTrailers(t *message.Fields, by *filter.State) {
	x.observed.live = t
	links := x.policy.chain.links
	for i := len(links) - 1; i >= 0; i-- {
		l, state := &links[i], &x.states[i]
		if by == state {
			x.overrides(l)
			break
		}
		if l.trailers != nil && x.asked&(1<<i) != 0 {
			x.overrides(l)
			x.fctx.State = state
			l.trailers.ResponseTrailers(&x.fctx, t)
		}
	}
	if by != nil {
		x.fctx.State = by
	}
	x.observed.live = nil
}
