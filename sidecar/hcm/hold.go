package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// held is an answer of a host that a filter wanted whole before its head is sent.
type held struct {
	body  []byte
	whole bool // the body is all of it
	over  bool // it did not become whole, and the exchange has been ended
	// rate is how many KiB of it pass in a second, where it is sent as it comes; 0 for any.
	rate uint32
}

// hold appends to the answer that is held, which counts with what all exchanges keep. It is
// false where there is no room: with limit, that of the connection, or for all.
func (x *exchange) hold(data []byte, limit int) bool {
	h := &x.held
	if len(h.body)+len(data) > min(limit, int(x.connectionLimit())) {
		return false
	}
	n := int64(len(data))
	if all := keeping.Add(n); all > keepAll || x.d.Overload.MemoryIsShort() {
		keeping.Add(-n)
		return false
	}
	h.body = append(h.body, data...)
	return true
}

// dropHeld gives the memory back.
func (x *exchange) dropHeld() {
	keeping.Add(-int64(len(x.held.body)))
	x.holding, x.held = false, held{}
}

// HoldAnswer implements filter.Exchange.
func (x *exchange) HoldAnswer(limit int) (length int, trailers *message.Fields, whole bool) {
	if x.switched() {
		return 0, nil, false
	}
	x.holding = true
	body := x.resp.Body
	for h := &x.held; !h.whole; {
		data, last, err := body.Next()
		if err != nil {
			h.over = true
			x.failHeld(x.attempt.broken(err))
			return 0, nil, false
		}
		x.attempt.received += int64(len(data))
		x.observed.markFirst(telemetry.AnswerBodyBegan)
		if !x.hold(data, limit) {
			h.over = true
			x.endUpstream(false)
			x.localReply(&reply{status: 500, body: "Internal Server Error", details: "response_payload_too_large"})
			return 0, nil, false
		}
		h.whole = last
	}
	trailers = body.Trailers()
	x.observed.mark(telemetry.AnswerEnded)
	x.takeTrailers(trailers, x.fctx.State)
	x.answeredWhole()
	return len(x.held.body), trailers, true
}

// failHeld answers in place of a response that was not whole. That it began is told in logs
// alone: the client has nothing of it.
func (x *exchange) failHeld(o outcome) {
	x.attempt.reportCut(o)
	x.endUpstream(false)
	f, details := x.brokenOff(o)
	x.fail(o)
	x.flags |= f
	x.details = details
}

// relayHeld sends an answer that was held.
func (x *exchange) relayHeld() {
	x.status = x.resp.Status // which the filter may have changed
	if err := x.client.head(x, true); err != nil {
		x.headFailed(err)
		return
	}
	x.endUpstream(true) // the host has no part in what the client takes its time for
	x.boundFlush()
	x.guard()
	if x.data(x.held.body, true, nil) {
		x.flushEnd()
	}
}
