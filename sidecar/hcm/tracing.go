package hcm

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// startSpan makes the request part of a trace, where tracing is configured. It runs
// once it is settled what the client may say of its request and which route it takes, and
// before a filter sees it.
func (x *exchange) startSpan() {
	t := x.m.tracer
	if t == nil {
		return
	}
	in := tracing.Request{Direction: x.d.Direction, Begun: x.start, Mono: x.startMono, KeepID: x.policy.cfg.KeepTraceReason}
	if r := x.sel.Route; r != nil {
		if own, ok := r.Tracing.(*tracing.Route); ok {
			in.Route, in.Decorator = own.Config, own.Decorator
		}
	}
	t.Start(&x.span, x.req, &in)
	if !x.span.Sampled {
		return
	}
	x.observed.wants |= t.Wants()
	x.observed.markAt(telemetry.RequestBegan, x.startMono)
	if x.complete && x.observed.moments[telemetry.RequestEnded] == 0 {
		x.observed.mark(telemetry.RequestEnded)
	}
}

// forcesTrace tells whether the request has its trace forced; whoever does that is
// told its id.
func (x *exchange) forcesTrace() bool {
	if !x.req.Fields.Has(message.XEnvoyOther) {
		return false
	}
	_, ok := x.req.Fields.Get("x-envoy-force-trace")
	return ok
}

// endSpan counts why the request was traced, and reports its span, where it is sampled.
func (x *exchange) endSpan(took time.Duration) {
	if x.m.tracer == nil {
		return
	}
	x.m.tracer.Count(&x.span, x.checksHealth(), x.d.Shard)
	if x.span.Sampled {
		r := x.record()
		r.Duration = took
		x.m.tracer.Finish(&x.span, r, x.start.Add(took), x.d.Shard)
	}
}

// startSpan writes the headers of the trace for the attempt, and begins its own span, and its
// part of the log, where attempts have one.
func (a *attempt) startSpan() {
	x := a.x
	if x.span.Live() {
		x.m.tracer.Begin(&x.span, &a.span, x.req)
	}
	if x.m.attempts != nil {
		a.startLog()
	}
}

// endSpan reports the attempt's span, logs and counts it; o is how it ended.
func (a *attempt) endSpan(o outcome, flags telemetry.Flags) {
	x := a.x
	if a.log != nil {
		a.endLog(o, flags)
	}
	if b := a.host.Cluster().Budgets(); b != nil && a.sentAt != 0 {
		b.Attempt(x.d.Shard, sinceMono(a.sentAt), x.timeouts.PerTry)
	}
	if !x.span.Live() || !x.m.tracer.Reports(&x.span, &a.span) {
		return
	}
	r := x.d.NewRecord()
	r.Flags, r.Cluster, r.UpstreamHost, r.RequestHeaders = flags, a.host.Cluster().Name(), a.remote, x.req
	if a.info != nil {
		r.UpstreamProtocol = a.version.String()
	}
	if o == responded {
		r.Code, r.ResponseHeaders = a.resp.Status, a.resp
		x.show(r)
	}
	x.m.tracer.FinishAttempt(&x.span, &a.span, r, x.attempts-1, x.d.Shard)
	r.Release()
}
