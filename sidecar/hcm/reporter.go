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
	m              *Manager
	next           int64
	begun          int64
	received, sent atomic.Int64

	mu   sync.Mutex
	rec  telemetry.Record
	req  message.Request
	resp message.Response
}

// startReporter begins to report the exchange, where that is asked for.
func (x *exchange) startReporter() {
	if x.m.cfg.LogInterval <= 0 || x.m.access == nil {
		return
	}
	p := &reporter{m: x.m, begun: x.startMono}
	p.timer.owner = p
	p.req.Fields.CopyFrom(&x.req.Fields)
	p.req.Method, p.req.Scheme = strings.Clone(x.req.Method), strings.Clone(x.req.Scheme)
	p.req.Authority, p.req.Path = strings.Clone(x.req.Authority), strings.Clone(x.req.Path)
	p.req.Upgrade, p.req.AcceptTrailers = strings.Clone(x.req.Upgrade), x.req.AcceptTrailers
	x.reporter = p
	x.updateReporter()
	p.next = monotonic() + int64(x.m.cfg.LogInterval)
	x.m.timers.add(&p.timer)
	p.timer.arm(p.next)
}

// updateReporter tells the reporter what has become known.
func (x *exchange) updateReporter() {
	p := x.reporter
	r := *x.record()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resp.Status = x.resp.Status
	p.resp.Fields.CopyFrom(&x.resp.Fields)
	p.rec = r
	p.rec.Type, p.rec.RequestHeaders, p.rec.ResponseHeaders = telemetry.LogPeriodic, &p.req, &p.resp
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
	if x.reporter != nil {
		x.m.timers.remove(&x.reporter.timer)
		x.reporter = nil
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
	p.rec.Duration = sinceMono(p.begun)
	// The client chooses how long its fields are, and how long the exchange lasts.
	req, resp := p.req.Fields.Stored(), p.resp.Fields.Stored()
	p.m.access.Log(&p.rec)
	p.req.Fields.Rewind(req)
	p.resp.Fields.Rewind(resp)
	p.next = now + int64(p.m.cfg.LogInterval)
	return false, p.next
}

// wake implements timed.
func (p *reporter) wake() {}
