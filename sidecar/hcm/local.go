package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// reply is an answer of our own. Its body is fixed text: nothing of the request and
// nothing of an error is told to a client.
type reply struct {
	status   int
	body     string
	details  string // for the access log
	reason   string // a codec's, for counters
	location string
	// contentType is that of body, whatever the route says of it; "" for plain text.
	contentType string
	overloaded  bool   // the upstream is
	shed        bool   // the sidecar is
	dropped     string // the header that says so, "" where it was not dropped
	close       bool
	byManager   bool          // which ends a request of whatever it is about
	routed      bool          // it is what the route says: a redirect or a direct response
	grpc        int           // the status for gRPC, 0 for that of status
	filter      *filter.Reply // where a filter answers
}

// answer sends a reply of a status and, for the access log, details. It stays apart from who
// calls it: the room that a reply takes would be in the way on every request's stack.
//
//go:noinline
func (x *exchange) answer(status int, details string) {
	x.localReply(&reply{status: status, details: details})
}

// sendTo is answer with a place to go to; empty for none.
//
//go:noinline
func (x *exchange) sendTo(status int, details, location string) {
	x.localReply(&reply{status: status, details: details, location: location})
}

// localReply sends r. The connection goes on unless r says otherwise or the
// request's body makes that impossible.
func (x *exchange) localReply(r *reply) {
	x.stopPump()
	x.status, x.details, x.local = r.status, r.details, true
	if r.close || r.status == 400 && !x.m.cfg.KeepAfterBadRequest || x.wantsTunnel() && !x.tunnel {
		// What follows a request for a tunnel may be meant for that: it is never read as a request.
		x.closeAfter = true
	}
	resp := x.resp
	resp.Reset()
	resp.Status = r.status
	x.headReply(r)
	body, more := x.bodyOfReply(r)
	if r.filter != nil {
		x.flags |= r.filter.Flags
	}
	x.filterResponse()
	x.finishHeaders()
	x.observed.mark(telemetry.ResponseBegan)
	x.dog.await(monotonic(), noDeadline, x.m.streamIdle, false)
	if s := resp.Status; s == 204 || s == 304 || s < 200 {
		resp.ContentLength, more = message.UnknownLength, false
	}
	if x.switched() { // a direct response to CONNECT
		resp.ContentLength = message.UnknownLength // RFC 9110 8.6
	}
	if x.client.head(x, more) != nil {
		// A configured header cannot be sent: answer without any.
		resp.Reset()
		resp.Status, more = r.status, false
		x.closeAfter = true
		if err := x.client.head(x, false); err != nil {
			x.clientFailed(err)
			return
		}
	}
	if more {
		x.scratch = append(x.scratch[:0], body...)
		x.boundFlush()
		if !x.data(x.scratch, true, nil) {
			return
		}
	}
	x.flushEnd()
}

// bare tells whether the answer is a filter's alone.
func (r *reply) bare() bool { return r.filter != nil && r.filter.Bare }

// bodyOfReply makes the body of r, and tells whether it comes behind the head.
func (x *exchange) bodyOfReply(r *reply) (body string, more bool) {
	if r.bare() {
		x.resp.ContentLength = 0
		return "", false
	}
	body = x.rewriteReply(r.body, r.contentType)
	if x.speaksGRPC() {
		x.answerGRPC(x.replyStatus(r), body)
		return body, false
	}
	return body, body != "" && x.req.Method != "HEAD"
}

// headReply makes the head of r. The order is Envoy's: the route changes what its own
// action has made, or nothing yet; then come the headers of whoever answers.
func (x *exchange) headReply(r *reply) {
	f := &x.resp.Fields
	if r.location != "" {
		f.AddID(message.Location, r.location)
	}
	// A redirect or a direct response changes the answers that are its own, a route to a
	// cluster also those of filters.
	if s := x.sel.Route; s != nil && (r.routed || s.Forward != nil) && !r.bare() {
		x.mutateResponse(r.byManager)
	}
	if r.overloaded && !x.m.cfg.SuppressEnvoyHeaders {
		f.AddID(message.XEnvoyOverloaded, "true")
	}
	if r.dropped != "" && !x.m.cfg.SuppressEnvoyHeaders {
		f.Add(r.dropped, "true")
	}
	if x.m.cfg.AppendLocalOverload && r.shed {
		f.Add("x-envoy-local-overloaded", "true")
	}
	if r.filter != nil && r.filter.Headers != nil {
		x.fctx.Response = x.resp
		r.filter.Headers(&x.fctx)
	}
}

// replyStatus is the status of r for gRPC.
func (x *exchange) replyStatus(r *reply) int {
	switch {
	case r.filter != nil && r.filter.GRPC != filter.NoGRPC:
		return r.filter.GRPC
	case r.grpc != 0:
		return r.grpc
	}
	return grpcStatus(x.resp.Status)
}
