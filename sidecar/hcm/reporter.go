package hcm

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// reporter writes an exchange that lasts to the access log, again and again. It has
// copies of what it tells, because the exchange goes on meanwhile.
type reporter struct {
	timer          timer
	log            *telemetry.Log
	every          int64 // 0 for never: then it counts for the reports of attempts
	next           int64
	begun          int64
	received, sent atomic.Int64
	// attempt is the exchange's reporter where this one is of an attempt, which sends all that the
	// client has sent; before is what the client was sent of an answer before it. Of an attempt
	// beside the exchange nobody counts.
	attempt *reporter
	before  int64

	mu   sync.Mutex
	rec  telemetry.Record
	req  message.Request
	resp message.Response
}

// startReporter begins to report the exchange, where that is asked for.
func (x *exchange) startReporter() {
	every := int64(x.m.cfg.LogInterval)
	if x.m.access == nil {
		every = 0
	}
	if every <= 0 && (x.m.attempts == nil || x.m.attempts.every == 0) {
		return
	}
	p := &reporter{log: x.m.access, every: every, begun: x.startMono}
	p.received.Store(x.receivedSoFar())
	x.reporter = p
	if every == 0 {
		return
	}
	p.copyRequest(x.req)
	x.updateReporter()
	p.start(x.m.timers)
}

// copyRequest keeps what is told of a request.
func (p *reporter) copyRequest(r *message.Request) {
	p.req.Fields.CopyFrom(&r.Fields)
	p.req.Method, p.req.Scheme = strings.Clone(r.Method), strings.Clone(r.Scheme)
	p.req.Authority, p.req.Path = strings.Clone(r.Authority), strings.Clone(r.Path)
	p.req.Upgrade, p.req.AcceptTrailers = strings.Clone(r.Upgrade), r.AcceptTrailers
}

func (p *reporter) start(ts *Timers) {
	p.timer.owner = p
	p.next = monotonic() + p.every
	ts.add(&p.timer)
	p.timer.arm(p.next)
}

// updateReporter tells the reporter what has become known.
func (x *exchange) updateReporter() {
	if p := x.reporter; p.every > 0 {
		p.update(x, x.record(), x.resp, telemetry.LogPeriodic)
	}
}

func (p *reporter) update(x *exchange, r *telemetry.Record, resp *message.Response, t telemetry.LogType) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resp.Status = resp.Status
	p.resp.Fields.CopyFrom(&resp.Fields)
	p.rec = *r
	p.rec.Type, p.rec.RequestHeaders, p.rec.ResponseHeaders = t, &p.req, &p.resp
	p.rec.Cluster = strings.Clone(r.Cluster)
	p.rec.GRPCStatus, p.rec.ResponseTrailers, p.rec.Attempted = "", nil, nil
	if r.Configured != nil {
		p.rec.Configured = x.served()
	}
	p.rec.TraceID, p.rec.SpanID = bytes.Clone(r.TraceID), bytes.Clone(r.SpanID)
	if x.peer == &x.own {
		named := net.TCPAddr{IP: append(net.IP(nil), x.named.IP...)}
		p.rec.DownstreamRemote = &named
	}
}

// stopReporter ends it; nothing is reported any more when it returns.
func (x *exchange) stopReporter() {
	if p := x.reporter; p != nil {
		p.stop(x.m.timers)
		x.reporter = nil
	}
}

func (p *reporter) stop(ts *Timers) {
	if p.every > 0 {
		ts.remove(&p.timer)
	}
}

// due implements timed: reporting wakes nobody.
func (p *reporter) due(now int64) (bool, int64) {
	if now < p.next {
		return false, p.next
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rec.BytesReceived, p.rec.BytesSent = p.received.Load(), p.sent.Load()
	if of := p.attempt; of != nil {
		p.rec.BytesSent, p.rec.BytesReceived = of.received.Load(), of.sent.Load()-p.before
	}
	p.rec.Duration = sinceMono(p.begun)
	// The client chooses how long its fields are, and how long the exchange lasts.
	req, resp := p.req.Fields.Stored(), p.resp.Fields.Stored()
	p.log.Log(&p.rec)
	p.req.Fields.Rewind(req)
	p.resp.Fields.Rewind(resp)
	p.next = now + p.every
	return false, p.next
}

// wake implements timed.
func (p *reporter) wake() {}
