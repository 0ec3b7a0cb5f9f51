package hcm

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// outcome is how an attempt ended.
type outcome uint8

const (
	responded outcome = iota
	noHost
	overflow
	connectFailed
	connectTimeout
	reset         // the connection ended before a response
	remoteReset   // the host reset the stream
	refused       // the host certainly did not process the request
	brokeProtocol // the response was refused
	resetProtocol // the host reset the stream for an error of the protocol
	timedOut      // the route's timeout
	tryTimedOut   // the attempt's
	tryIdle       // nothing moved for the attempt's idle timeout
	idleTimedOut  // the stream's
	lifeOver      // the exchange's longest duration
	streamOver    // the attempt's, which its cluster has
	tooSlow       // the request was not received as a whole in time
	crawls        // its body comes below the least rate
	clientGone
	clientBroke // the request's body was refused
	unwritable
	noUpgrade // the host speaks HTTP/2 without extended CONNECT (RFC 8441)
	hoarded   // the sidecar reset the host's stream, because too much was held of it
)

// attempt is one sending of an exchange's request to one host.
type attempt struct {
	x    *exchange
	resp *message.Response
	// host is where the request is sent, and was when the attempt has ended.
	host *cluster.Host
	// counted and up are what the attempt holds; drop gives it back. up is nil when it
	// holds no connection.
	counted  counted
	stale    bool // the connection was used before, and may have been closed already
	early    bool // its peer had not told how many streams it admits
	declined bool // its peer refused the stream and kept the connection
	wrote    bool // at least a byte of the attempt was sent
	waited   bool // it waited for its connection
	// resetCode is the host's, where it reset the stream.
	resetCode http2.Code
	up        upstream
	until     int64 // when the exchange's time is over, noDeadline for never
	tryBy     int64 // when the attempt's own is: no answer may begin later
	streamBy  int64 // when its stream ends, whatever of the answer has come: its cluster's longest duration

	trace
	// unsent is what the host did not take at once of the payload.
	unsent []byte
	dial   func() (context.Context, context.CancelFunc)

	h1    http1Upstream // what up is when the host speaks HTTP/1
	h2    http2Upstream // and HTTP/2
	bytes bytesUpstream // and neither

	span tracing.Attempt // none without tracing
	log  *attemptLog     // nil where attempts are not logged
}

// counted says who counts an attempt as one under way.
type counted uint8

const (
	nowhere    counted = iota
	atHost             // it is pending
	everywhere         // its cluster too: it has a place among the requests
)

// trace is what is to be told of an attempt.
type trace struct {
	sentAt, firstAt int64 // when it was sent, and when its answer began
	sent, received  int64 // body bytes
	remote          net.Addr
	info            *stream.Info // of the connection, nil without one
	version         message.Version
	failure         string
	dialErr         error // of the connection that could not be made
}

func (a *attempt) init(x *exchange) {
	a.x, a.resp = x, x.resp
	a.dial = a.pend
}

// reset forgets the exchange's attempts; the last one has ended.
func (a *attempt) reset() {
	a.h1.next()
	a.host, a.unsent = nil, nil
	a.trace = trace{}
	if a.x.m.tracer != nil {
		a.span = tracing.Attempt{}
	}
}

// pend begins a wait for what the attempt needs before the request can be sent.
func (a *attempt) pend() (context.Context, context.CancelFunc) {
	a.waited = true
	return a.x.pend(a.until)
}

// run sends the request once. With responded, the response's head is there and the
// connection is still held; otherwise everything was given back.
func (a *attempt) run() outcome {
	if o := a.choose(); o != responded {
		return o
	}
	return a.try()
}

// avoid has a retry choose another host than its policy says.
func (x *exchange) avoid(p *route.RetryPolicy) {
	x.placed = true
	x.pick.Reselections, x.pick.OmitCanary, x.pick.OmitMetadata = p.Reselections, p.OmitCanary, p.OmitMetadata
	if x.pick.OtherPriorities = p.OtherPriorities; p.OtherPriorities > 0 && x.pick.Tried == nil {
		// The first retry begins the list, before tried forgets any: most requests need none.
		for _, h := range x.tried[:x.ntried] {
			x.pick.Tried = x.pick.Tried.And(h)
		}
	}
	if p.AvoidTried {
		x.pick.Avoid = x.tried[:x.ntried]
	}
}

// choose picks a host, which then has the request; responded says that it did.
func (a *attempt) choose() outcome {
	x := a.x
	if p := x.sel.Retry; p != nil && x.ntried > 0 {
		x.avoid(p)
	}
	h, err := x.cluster.PickFor(&x.pick)
	if err != nil {
		return noHost
	}
	a.host = h
	a.counted = atHost
	h.Begin()
	x.noteTried(h)
	a.remote, a.info, a.failure, a.dialErr, a.sentAt, a.firstAt = h.Addr(), nil, "", nil, 0, 0
	x.observed.forgetAttempt()
	return responded
}

// try sends the request to the host that was chosen.
func (a *attempt) try() outcome {
	x, h := a.x, a.host
	x.pump = nil
	a.until, a.tryBy, a.streamBy = min(x.deadline, x.lifeEnd), noDeadline, noDeadline
	a.waited = false
	x.prepareAttempt(h)
	a.startSpan()
	x.observed.mark(telemetry.AttemptBegan)
	conn, err := a.connect()
	if err != nil {
		o := a.connectFailure(err)
		a.endSpan(o, o.flags())
		a.drop(false)
		return o
	}
	if a.waited && (x.client.gone() || x.aside != nil && x.ctx.Err() != nil) {
		// It was not looked at since it was last asked.
		a.endSpan(clientGone, clientGone.flags())
		a.drop(true) // nothing was sent
		return clientGone
	}
	if !a.begin() {
		a.endSpan(overflow, overflow.flags())
		a.drop(true) // nothing was sent
		return overflow
	}
	o := a.exchange(conn)
	if o == responded {
		return o
	}
	a.resp.Reset() // of a head that did not come whole there are fields without their text
	a.report(o)
	x.stopPump() // it holds the connection
	a.endSpan(o, o.flags())
	a.drop(false)
	return o
}

// begin ends the attempt's being pending: it takes a place among its cluster's requests.
func (a *attempt) begin() bool {
	if !a.host.Cluster().StartRequestAt(a.x.priority(), a.x.d.Shard) {
		return false
	}
	a.counted = everywhere
	return true
}

// connect makes a connection to the host the attempt's, or a byte stream where the tunnel
// ends here.
func (a *attempt) connect() (*cluster.Conn, error) {
	c, err := a.connectOnce()
	for err != nil && cluster.IsOutdated(err) {
		c, err = a.connectOnce()
	}
	return c, err
}

func (a *attempt) connectOnce() (*cluster.Conn, error) {
	if a.host.Particular(a.x.cluster) {
		return a.connectByTerms()
	}
	return a.connectBy(nil)
}

// connectByTerms is for the few whose connection depends on the request.
//
//go:noinline
func (a *attempt) connectByTerms() (*cluster.Conn, error) {
	t, err := a.terms()
	if err != nil {
		return nil, err
	}
	return a.connectBy(&t)
}

func (a *attempt) connectBy(t *cluster.Terms) (*cluster.Conn, error) {
	x := a.x
	for !x.terminate {
		c, err := a.host.Acquire(a.dial, x.d.Workload, t, x.req.Version == message.HTTP2, x.priority(), a.known(), x.d.Shard)
		if err != nil {
			return nil, err
		}
		a.hold(c)
		if x.mayMeetStale() || c.Sure() {
			return c, nil
		}
		a.leave(false)
	}
	return a.openBytes(t)
}

// openBytes makes a byte stream, where the tunnel ends here.
//
//go:noinline
func (a *attempt) openBytes(t *cluster.Terms) (*cluster.Conn, error) {
	ctx, done := a.pend()
	defer done()
	c, err := a.host.OpenBytes(ctx, a.x.d.Workload, t, a.x.d.Shard)
	if err == nil {
		a.hold(c)
	}
	return c, err
}

// known is a time that is over: a reading of the clock that is at hand, of when the request
// was there, or for a further attempt one of its own.
func (a *attempt) known() int64 {
	if a.x.attempts > 1 {
		return monotonic()
	}
	return a.x.admittedAt
}

// hold makes conn the attempt's.
func (a *attempt) hold(conn *cluster.Conn) {
	switch {
	case a.x.terminate:
		a.up = &a.bytes
		a.bytes.hold(conn, a)
	case conn.HTTP2 != nil:
		a.up = &a.h2
		a.h2.hold(conn, a)
	default:
		a.up = &a.h1
		a.h1.hold(conn, a)
	}
}

// leave gives the attempt's connection back.
func (a *attempt) leave(clean bool) {
	up := a.up
	a.up = nil
	up.leave(a, clean)
}

// mayMeetStale tells whether the request may be given a connection of which nobody made
// sure that its peer keeps it: should it not, that is found out before the request is
// written, or shows at once, and it is sent again without a policy.
func (x *exchange) mayMeetStale() bool {
	return x.req.Idempotent() && x.complete && x.keep && !x.staleRetried && x.aside == nil
}

// uncount takes the attempt off the counts.
func (a *attempt) uncount() {
	was := a.counted
	a.counted = nowhere
	if was >= atHost {
		a.host.End()
	}
	if was == everywhere {
		a.host.Cluster().EndRequestAt(a.x.priority())
	}
}

// exchange sends the request on conn, which the attempt holds, and reads the response's
// head.
func (a *attempt) exchange(conn *cluster.Conn) outcome {
	a.info, a.version = conn.Info(), message.HTTP11
	if a.up == upstream(&a.h2) {
		a.version = message.HTTP2
	}
	a.stale, a.early, a.declined, a.wrote = conn.Reused(), conn.Early(), false, false
	a.resp.Reset()
	a.x.observed.markConnected(conn)
	if x := a.x; x.m.cfg.MatchUpstreamScheme {
		x.req.Scheme = "http"
		if a.info.TLS {
			x.req.Scheme = "https"
		}
	}
	if a.x.dog.pace != nil {
		a.x.settlePace(a.version == message.HTTP2)
	}
	if err := a.up.open(a); err != nil {
		if err == errInterrupted {
			return a.x.interrupted()
		}
		return a.broken(err)
	}
	a.x.dog.hold(&a.up)
	a.log.connected(a)
	return a.send()
}

// drop gives back what the attempt holds, each once and whatever panics meanwhile. clean
// says that the exchange on its connection ended so that another may begin.
func (a *attempt) drop(clean bool) {
	defer a.uncount()
	if a.up == nil {
		return
	}
	forgotten := false
	defer func() { a.leave(clean && forgotten) }()
	// The watchdog must not see the connection any more when another exchange has it. What
	// is still to be waited for is the client.
	a.x.dog.hold(nil)
	forgotten = true
}

func (a *attempt) connectFailure(err error) outcome {
	var e *cluster.Error
	kind := cluster.ConnectRefused
	if errors.As(err, &e) {
		kind = e.Kind
		if e.Err != nil {
			a.failure, a.dialErr = e.Err.Error(), e
		}
	}
	switch kind {
	case cluster.OverflowPending, cluster.Shed:
		a.remote = nil // the request never got as far as the host
		return overflow
	case cluster.OverflowConnections:
		return overflow
	case cluster.OverflowPools:
		a.remote = nil
		return noHost
	case cluster.NoServerName, cluster.WrongName:
		return connectFailed // which the host has no part in
	case cluster.Canceled:
		return a.x.interrupted()
	case cluster.ConnectTimeout:
		a.host.Report(cluster.OutcomeConnect)
		if monotonic() >= a.until {
			return a.expired()
		}
		return connectTimeout
	}
	if e == nil || e.OfHost() {
		a.host.Report(cluster.OutcomeConnect)
	}
	return connectFailed
}

// send writes the request and reads the response's head.
func (a *attempt) send() outcome {
	x := a.x
	// Where the body is here already, nobody waits for 100.
	x.req.ExpectContinue = x.req.ExpectContinue && !x.complete
	a.sentAt, a.firstAt = monotonic(), 0
	x.observed.markAt(telemetry.SendingBegan, a.sentAt)
	if x.complete {
		x.observed.markAt(telemetry.SendingEnded, a.sentAt)
	}
	if d := a.host.StreamDuration(); d > 0 {
		a.streamBy = a.sentAt + d
		a.until = min(a.until, a.streamBy)
	}
	hard, idle := a.until, a.idle()
	if !x.complete {
		idle = x.idleTimeout() // it is the client that does not move
		hard = min(hard, x.receiveBy())
	} else if t := x.timeouts.PerTry; t > 0 {
		a.tryBy = a.sentAt + int64(t)
		hard = min(hard, a.tryBy)
	}
	x.noteWhole()
	x.dog.await(a.sentAt, hard, idle, true)
	if x.aside != nil && x.ctx.Err() != nil {
		x.dog.bound(1) // it was interrupted before it was armed
	}
	a.unsent = nil
	if err := a.up.send(a); err != nil {
		return a.broken(err)
	}
	if (!x.complete || len(a.unsent) > 0) && !x.tunnel {
		x.startPump(a.up, a.unsent)
	}
	return a.readHead()
}

// maxInterim bounds the interim responses to one request.
const maxInterim = 16

// readHead reads the response's head, passing interim ones on.
func (a *attempt) readHead() outcome {
	for interim := 0; ; {
		if err := a.up.head(a); err != nil {
			return a.broken(err)
		}
		if a.resp.Status >= 200 || a.x.switched() {
			a.report(responded)
			return responded
		}
		if interim++; interim > maxInterim || a.resp.Status == 101 {
			return a.badResponse("unexpected_interim_response")
		}
		a.x.interim = true
		if a.x.aside == nil {
			a.x.answered() // no other attempt is made, so the time of this one is for nothing
		}
		if a.x.tellInterim() != nil {
			return clientGone
		}
		a.resp.Reset()
	}
}

// badResponse notes a response that the codec refused.
func (a *attempt) badResponse(reason string) outcome {
	a.failure = reason
	if m := a.x.m.metrics; m != nil {
		m.ProtocolErrors.With("upstream", reason).Inc(a.x.d.Shard)
	}
	return brokeProtocol
}

// broken says what an error on the upstream connection means: our own watchdog and
// the body's sender end the wait that way too.
func (a *attempt) broken(err error) outcome {
	if err == http1.ErrUnwritable || err == http2.ErrUnwritable {
		return unwritable
	}
	if err == http2.ErrNoConnect {
		return noUpgrade
	}
	if o, ok := a.protocolError(err); ok {
		return o
	}
	if !stream.IsTimeout(err) {
		return a.cutOff()
	}
	x := a.x
	cause := x.dog.cause.Load()
	x.dog.calm()
	switch cause {
	case causeHard:
		return a.expired()
	case causeIdle:
		// Once the whole answer is here, the attempt's time does not count any more.
		if try := a.idle(); try != x.idleTimeout() && x.dog.idle() == try {
			return tryIdle
		}
		return idleTimedOut
	case causeGone:
		return clientGone
	case causeSlow:
		return crawls
	}
	if p := x.pump; p != nil && p.gaveUp.Load() {
		p.wait()
		if p.refused != nil {
			return clientBroke
		}
		if p.clientErr {
			return clientGone
		}
	}
	return a.cutOff()
}

// cutOff is a reset, which shows that the connection had ended before the request only if it
// came at once, and nothing of an answer before it.
func (a *attempt) cutOff() outcome {
	a.stale = a.stale && a.firstAt == 0 && a.endedAtOnce()
	return reset
}

// closeShows is how long it takes at most until a connection shows that its peer had
// closed it before the request came: a round trip. One that ends later ended while the
// host was at work.
const closeShows = time.Second

// endedAtOnce tells whether the connection's end showed before the host can have been at
// work for long.
func (a *attempt) endedAtOnce() bool { return !a.wrote || sinceMono(a.sentAt) < closeShows }

// report tells the host and the counters how the attempt went.
func (a *attempt) report(o outcome) {
	if o == reset && a.stale && !a.wrote {
		return // nothing was sent: it says nothing of the host, nor of the request
	}
	m := a.host.Cluster().Metrics()
	if f, ok := o.failure(); ok {
		m.Failed(a.x.d.Shard, f)
	}
	switch o {
	case overflow: // its connection had no room; others are counted where they arise
		if c := m.Use(); c != nil && !errors.Is(a.dialErr, cluster.ErrShed) {
			c.OverflowPending.Inc(a.x.d.Shard)
		}
	case responded:
		a.log.answered(a)
		status, judged := a.judgedBy()
		a.host.ReportJudged(cluster.Outcome(status), judged)
		if f := &a.resp.Fields; f.Has(message.XEnvoyOther) {
			if _, asks := f.Get("x-envoy-immediate-health-check-fail"); asks {
				a.host.FailCheck()
			}
			if _, says := f.Get("x-envoy-degraded"); says && status < 500 {
				a.host.ReportDegraded()
			}
		}
		if !a.x.checksHealth() {
			m.Answered(a.x.d.Shard, a.resp.Status)
		}
		return
	case reset:
		// A pooled connection that its peer closed meanwhile says nothing of
		// the host's health.
		if !a.stale {
			a.host.Report(cluster.OutcomeReset)
		}
	case refused:
		// Nor does one that its peer is about to close, or a stream that was opened before
		// the peer could say how many it admits.
		if a.declined && !a.early {
			a.host.Report(cluster.OutcomeReset)
		}
	case remoteReset, brokeProtocol, resetProtocol:
		a.host.Report(cluster.OutcomeReset)
	case timedOut, tryTimedOut, tryIdle:
		a.host.Report(cluster.OutcomeTimeout)
	}
	if a.sentAt != 0 && !a.x.checksHealth() { // also where nobody waits for the answer
		m.Answered(a.x.d.Shard, 0)
	}
}
