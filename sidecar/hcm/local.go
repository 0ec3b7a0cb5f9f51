package hcm

import (
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// reply is an answer of our own. Its body is fixed text: nothing of the request and
// nothing of an error is told to a client.
type reply struct {
	status     int
	body       string
	details    string // for the access log
	reason     string // a codec's, for counters
	location   string
	overloaded bool // the upstream is
	close      bool
	byManager  bool          // which ends a request of whatever it is about
	grpc       int           // the status for gRPC, 0 for that of status
	filter     *filter.Reply // where a filter answers
}

// localReply sends r. The connection goes on unless r says otherwise or the
// request's body makes that impossible.
func (x *exchange) localReply(r *reply) {
	x.stopPump()
	x.status, x.details, x.local = r.status, r.details, true
	if r.close {
		x.closeAfter = true
	}
	resp := x.resp
	resp.Reset()
	resp.Status = r.status
	f := &resp.Fields
	resp.ContentLength = int64(len(r.body))
	if r.body != "" {
		f.AddID(message.ContentType, "text/plain")
	}
	if r.location != "" {
		f.AddID(message.Location, r.location)
	}
	if r.overloaded {
		f.AddID(message.XEnvoyOverloaded, "true")
	}
	if x.m.cfg.AppendLocalOverload && x.flags&telemetry.FlagOverload != 0 {
		f.Add("x-envoy-local-overloaded", "true")
	}
	if r.filter != nil && r.filter.Headers != nil {
		r.filter.Headers(f)
	}
	body := r.body
	if x.m.replies != nil {
		body = x.rewriteReply(body)
	}
	more := body != "" && x.req.Method != "HEAD"
	if route.IsGRPC(x.req) {
		status := grpcStatus(resp.Status)
		if r.grpc != 0 {
			status = r.grpc
		}
		if r.filter != nil && r.filter.GRPC != filter.NoGRPC {
			status = r.filter.GRPC
		}
		x.answerGRPC(status, body)
		more = false
	}
	x.mutateResponse(r.byManager)
	x.filterResponse()
	x.finishHeaders()
	x.observed.mark(telemetry.ResponseBegan)
	x.dog.await(monotonic(), noDeadline, x.m.streamIdle, false)
	if s := resp.Status; s == 204 || s == 304 || s < 200 {
		resp.ContentLength, more = message.UnknownLength, false
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
