package hcm

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// exchange is one request and its response, whatever versions of the protocol the
// two sides speak, with the memory both need. It comes from a pool with a request's
// first byte and goes back when the request is answered or, on a connection that
// is kept alive, when the next is waited for.
type exchange struct {
	// What every exchange uses comes first, and together what is used together: of many
	// exchanges at a time none is in the processor's cache when its turn comes.
	m         *Manager
	d         *downstream.Conn
	peer      *authz.Peer // the connection as authorization sees it: its own, or one with another client's address
	dog       *watchdog
	client    client
	req       *message.Request
	resp      *message.Response
	attempt   *attempt
	rec       *telemetry.Record
	pump      *pump       // reads and sends what is not in payload, nil without need; ownPump, or that of the attempt which a hedge chose
	reporter  *reporter   // nil for none
	aside     func() bool // set where the exchange runs beside another; ends the watch over its context
	binding   *binding    // of an HTTP filter chain, nil without need
	policy    *policy
	asked     uint64     // the filters that were
	resetCode http2.Code // why the host reset the stream

	used       bool // since next
	wrecked    bool // a panic left it in some state: nobody may use it again
	complete   bool // all of the request's body was read from the client
	keep       bool // payload holds all that was read so far, so that it can be sent again
	decided    bool
	terminate  bool    // a CONNECT ends here, or a POST in its stead
	mirrored   bool    // copies of the request were made, or were not to be
	shadow     bool    // this is such a copy
	outcome    outcome // of an attempt beside another exchange
	tunnel     bool    // the client asks to switch protocols, and may
	local      bool    // the answer is our own
	heard      bool    // whether the client speaks gRPC is known
	grpc       bool    // it does
	lastHere   bool    // the connection is to take no request after this one
	closeAfter bool    // an HTTP/1 connection ends with this exchange
	responded  bool    // bytes of the response are on the wire
	// staleRetried: the one retry that needs no policy was used; resent: some of the attempt
	// before it had been sent.
	staleRetried, resent bool
	afterTimeout         bool // the last attempt's own time was over
	filtered             bool // what the route says of filters is known
	looked               bool // and fctx is what they see
	overridden           bool // levels has anything
	placed               bool // pick or asker has more than what every request's have
	// interim: an interim response was passed on, which binds the exchange to its host.
	interim bool
	// continued: the client was told to go on with 100, which is the status until there is another.
	continued bool
	holding   bool        // held has an answer
	late      atomic.Bool // the time of an attempt beside another exchange was over, and another joined it

	// What is to be told of the exchange.
	start      time.Time
	startMono  int64
	admittedAt int64 // when its head was there, and neither a filter nor a body made it wait any more
	received   int64 // body bytes from the client
	sent       int64 // body bytes to the client
	status     int
	flags      telemetry.Flags
	details    string

	payload   []byte // of the request's body
	store     []byte // payload's memory when it is not the client's
	replyBody []byte // of an answer of our own with operators
	ntried    int
	attempts  int
	deadline  int64            // of the whole response, noDeadline for none
	lifeEnd   int64            // of the whole exchange, noDeadline for none
	retrying  *cluster.Cluster // holds a place in its retry budget
	table     *route.Table
	cluster   *cluster.Cluster
	sel       route.Selected
	timeouts  route.Timeouts
	asker     route.Client
	pick      cluster.PickContext
	cookies   []*route.CookieHash // that the response has to set
	scratch   []byte
	keepUpTo  int32  // bytes of the body that are kept
	kept      int32  // bytes of store that count as kept for all: of more than keepBuffer alone
	xfcc      string // this hop's element of x-forwarded-client-cert
	original  string // the authority before it is rewritten
	// portSent is the port that was taken off the host of a CONNECT.
	portSent string
	// grpcStatus is that of the response's trailers.
	grpcStatus string
	tried      [8]*cluster.Host

	h1       http1Client     // the client when it speaks HTTP/1
	request  message.Request // what req points to then
	decision authz.Decision
	span     tracing.Span // none without tracing
	observed observed
	identity

	// What few use.
	ctx     context.Context
	ownPump *pump // made when it was first needed
	pace    pace  // of the request's body, where dog has it
	held    held  // an answer that a filter wanted whole
	// trailers are those of a copied request.
	trailers message.Fields
	h2       http2Client    // the client when it speaks HTTP/2
	fctx     filter.Context // what the filters see, and what they keep
	states   []filter.State
	levels   [4][]route.FilterOverride
	// reqTrailers is what filters do to the request's trailers, nil for nothing.
	reqTrailers *trailerChanges
	trail       *route.RedirectTrail // while redirects are followed
}

var exchanges = sync.Pool{New: func() any {
	x := new(exchange)
	x.req, x.resp, x.attempt = &x.request, new(message.Response), new(attempt)
	x.attempt.init(x)
	x.forgetRoute()
	return x
}}

func newExchange(m *Manager, d *downstream.Conn, ctx context.Context) *exchange {
	x := exchanges.Get().(*exchange)
	x.m, x.d, x.ctx = m, d, ctx
	return x
}

// release gives the exchange back to the pool.
func (x *exchange) release() {
	if x.wrecked {
		return
	}
	x.req = &x.request
	x.next()
	x.h1.release()
	x.d, x.ctx, x.dog, x.client = nil, nil, nil, nil
	exchanges.Put(x)
}

// begin notes the first byte of a request.
func (x *exchange) begin() {
	x.used = true
	x.start = time.Now()
	x.startMono = monotonicOf(x.start)
	x.admittedAt = x.startMono
	if x.observed.wants = telemetry.Wanted(); x.observed.wants&telemetry.WantSizes != 0 {
		x.startMeters()
	}
	x.observed.markAt(telemetry.RequestBegan, x.startMono)
}

// next prepares for the next request, just before it begins: what it touches is touched
// again then, and was evicted from the caches since the last answer.
func (x *exchange) next() {
	if !x.used {
		return
	}
	x.used = false
	x.resetRequest()
	x.h1.next()
	x.resp.Reset()
	x.attempt.reset()
	x.payload, x.complete, x.keep, x.pump = nil, false, false, nil
	for i := range x.ntried {
		x.tried[i] = nil
	}
	x.ntried, x.attempts, x.retrying = 0, 0, nil
	x.received, x.sent = 0, 0
	x.flags, x.status, x.details = 0, 0, ""
	x.lastHere, x.terminate, x.decided, x.tunnel, x.local, x.closeAfter, x.responded = false, false, false, false, false, false, false
	x.interim, x.continued, x.heard, x.grpc = false, false, false, false
	x.staleRetried, x.resent, x.afterTimeout, x.mirrored, x.shadow = false, false, false, false, false
	x.aside, x.policy = nil, nil
	x.observed.reset()
	if x.m.tracer != nil {
		x.span = tracing.Span{}
	}
	x.peer, x.portSent, x.grpcStatus, x.resetCode = nil, "", "", 0
	if cap(x.replyBody) > keepBuffer {
		x.replyBody = nil
	}
	x.forgetRoute()
}

// resetRequest forgets a request, also one that was parsed only in part.
func (x *exchange) resetRequest() {
	x.req.Reset()
	if r := x.h1.reader; r != nil {
		r.parser.Reset()
	}
}

// serve answers the request in x.req.
func (x *exchange) serve() {
	x.peer = &x.d.Peer
	if !x.m.cfg.ProxyContinue && x.req.ExpectContinue && !x.answerContinue() {
		x.finish()
		return
	}
	if err := x.takeBuffered(); err != nil {
		x.refuseMessage(err)
	} else if x.admit() {
		x.takeTurns()
		if x.forward() {
			x.followRedirects()
		}
	}
	x.finish()
}

// admit runs everything that can answer without an upstream. It is true when the
// request is to be forwarded.
func (x *exchange) admit() bool {
	x.takePolicy()
	if x.d.Overload.RefuseRequest() {
		x.shed()
		return false
	}
	if !x.judgeScheme() || !x.judgeNames() || !x.judgeQuery() || !x.normalizePath() {
		return false
	}
	x.trimHost()
	if !x.policy.early.None() {
		x.speaksGRPC()
		x.policy.early.Apply(&x.req.Fields, x, &x.scratch)
	}
	x.table = x.policy.routes() // once: the headers are those that its routes expect
	if !x.identifyClient() {
		return false
	}
	x.selectRoute()
	x.startSpan()
	if x.m.cfg.LogStart {
		x.log(telemetry.LogStart, sinceMono(x.startMono))
	}
	x.startReporter()
	if x.wantsTunnel() && !x.allowTunnel() && x.refuseTunnel() {
		return false
	}
	if x.policy.whole().someFaults && !x.policy.chain.faultHeaders {
		x.dropFaults()
	}
	if !x.complete && x.m.patience.BodyRate > 0 {
		x.startPace()
	}
	if !x.runFilters() || !x.act() {
		return false
	}
	return !x.req.Fields.Has(message.MaxForwards) || x.countForward()
}

// shed refuses a request where there is more to do than can be done. Its connection goes on:
// another would cost more than the refusal.
//
//go:noinline
func (x *exchange) shed() {
	x.localReply(&reply{status: 503, body: "envoy overloaded", details: "overload", shed: true})
}

// normalizePath applies the path rules; it answers when they refuse.
func (x *exchange) normalizePath() bool {
	out, verdict := x.policy.paths.apply(x.scratch[:0], x.req.Path)
	x.scratch = out[:0]
	if verdict == pathRedirect && route.IsGRPC(x.req) {
		verdict = pathRejected // gRPC follows no redirect
	}
	switch verdict {
	case pathRejected:
		x.answer(400, "path_normalization_failed")
		return false
	case pathRedirect:
		x.sendTo(307, "path_normalization_redirect", string(onThisHost(out)))
		return false
	case pathChanged:
		x.req.SetPath(message.View(out))
	}
	return true
}

// refuseMessage ends a request that is known to be broken before anything of it was
// sent on: an origin that answers early must not hide the refusal, nor act on half of a
// malformed message.
func (x *exchange) refuseMessage(err error) {
	r, ok := refusal(err)
	if !ok {
		x.clientFailed(err)
		return
	}
	if !errors.Is(err, errShed) { // the client did nothing wrong
		x.countRefusal(&r)
	}
	x.answerRefusal(err, &r)
}

// answerRefusal answers a message that its codec refused, unless that has reset its stream:
// then nobody is there to be answered, and the log is not to say so.
func (x *exchange) answerRefusal(err error, r *reply) {
	if stream := (*http2.StreamError)(nil); errors.As(err, &stream) {
		x.clientLeft()
		return
	}
	x.flags |= telemetry.FlagDownstreamProtocolError
	x.localReply(r)
}

// countRefusal counts a message that its codec refused.
func (x *exchange) countRefusal(r *reply) {
	if x.m.metrics != nil {
		x.m.metrics.ProtocolErrors.With("downstream", r.reason).Inc(x.d.Shard)
	}
}

// takeBuffered makes the part of the body that has arrived the payload. It returns
// the error of a body that is known to be broken.
func (x *exchange) takeBuffered() error {
	x.keep = true
	body := x.req.Body
	if body == nil {
		x.complete = true
		x.observed.mark(telemetry.RequestEnded)
		return nil
	}
	x.store = x.store[:0]
	for !x.complete && body.Ready() {
		data, last, err := body.Next()
		if err != nil {
			return err
		}
		x.received += int64(len(data))
		if last && len(x.store) == 0 {
			// The bytes stay where they are: nothing is read from the client
			// until the exchange is over.
			x.payload, x.complete = data, true
			x.observed.mark(telemetry.RequestEnded)
			return nil
		}
		x.store = append(x.store, data...)
		x.payload, x.complete = x.store, last
		if last {
			x.observed.mark(telemetry.RequestEnded)
		}
		if len(x.store) > replayLimit {
			return nil
		}
	}
	return nil
}

// finish reports the exchange.
func (x *exchange) finish() {
	d := x.d
	if x.dog.pace != nil {
		x.endPace()
	}
	ended := monotonic()
	took := time.Duration(ended - x.startMono)
	if x.status != 0 {
		x.observed.markAt(telemetry.ResponseEnded, ended)
	}
	if e := d.Ended(); e != nil {
		x.flags |= e.Flags
		d.CutOff()
	} else if x.flags&telemetry.FlagDownstreamTermination != 0 {
		d.CutOff()
	}
	x.countRequest(took)
	d.PeerMetrics.Bytes(d.Shard, x.received, x.sent)
	x.attempt.countBytes()
	x.attempt.countTime(ended)
	if x.flags&telemetry.FlagUpstreamRequestTimeout != 0 {
		x.countTimeout()
	}
	x.stopReporter()
	if x.attempts > 0 {
		x.mirrors() // of a body that came in pieces, which is whole only now
	}
	if cap(x.store) > keepBuffer {
		x.dropKept()
	}
	if x.holding {
		x.dropHeld()
	}
	x.takeTurns()
	x.tell(took)
}

// countRequest counts a request that is over, but for a health check: that is no request of a service.
func (x *exchange) countRequest(took time.Duration) {
	if !x.checksHealth() {
		x.d.PeerMetrics.Request(x.d.Shard, x.status, x.flags, took)
	}
}

// tell has the log, the trace and the filters know that a request is over.
func (x *exchange) tell(took time.Duration) {
	x.log(telemetry.LogEnd, took)
	x.endSpan(took)
	if x.rec != nil {
		x.rec.Release()
		x.rec = nil
	}
	x.endFilters()
}

// log writes the exchange to the access log, for an occasion.
func (x *exchange) log(t telemetry.LogType, took time.Duration) {
	if x.m.access == nil {
		return
	}
	r := x.record()
	r.Type, r.Duration = t, took
	if t == telemetry.LogEnd {
		x.d.Conclude(r)
	}
	x.m.access.Log(r)
}

// answerContinue tells a client that waits for 100 to go on.
func (x *exchange) answerContinue() bool {
	x.resp.Reset()
	x.resp.Status = 100
	err := x.tellInterim()
	x.resp.Reset()
	x.req.ExpectContinue = false
	if err != nil {
		x.clientFailed(err)
	}
	return err == nil
}

// tellInterim passes an interim response on.
func (x *exchange) tellInterim() error {
	x.continued = x.continued || x.resp.Status == 100 && !x.knowsToContinue()
	err := x.client.interim(x)
	if p := x.dog.pace; p != nil && x.resp.Status == 100 {
		p.goOn(x.dog)
	}
	return err
}

// knowsToContinue tells whether an interim response is 100 where the client waits for none,
// as it was told to go on by us. Where hosts are to tell, what they say is passed on, whoever
// waits for it (RFC 9110 15.2).
func (x *exchange) knowsToContinue() bool {
	return x.resp.Status == 100 && !x.req.ExpectContinue && !x.m.cfg.ProxyContinue
}

// record fills in what is known so far: for the access log, and for header values
// with operators.
func (x *exchange) record() *telemetry.Record {
	r := x.rec
	if r == nil {
		r = x.d.NewRecord()
		x.rec = r
		r.Start = x.start
		r.Protocol = x.req.Version.String()
		r.RequestHeaders = x.req
	}
	if x.decided {
		downstream.Authorize(r, x.decision)
	}
	r.Type = 0 // what is made of it before it is logged has no occasion
	r.GRPCStatus = x.grpcStatus
	r.DownstreamRemote = x.remoteAddr()
	r.ResponseHeaders = x.resp
	r.Code, r.CodeDetails = x.status, x.details
	if x.status == 0 && x.continued {
		r.Code = 100
	}
	r.Flags |= x.flags
	r.BytesReceived, r.BytesSent = x.receivedSoFar(), x.sent
	x.tellRoute(r)
	if x.ntried > 0 {
		r.Attempted, r.UpstreamClose = x, telemetry.CloseNormal
	}
	x.attempt.tell(r)
	r.Attempts, r.Resent = x.attempts, x.resent
	x.show(r)
	x.span.Show(r)
	return r
}

// tellRoute puts into a record where the request goes.
func (x *exchange) tellRoute(r *telemetry.Record) {
	if x.sel.VirtualHost != nil {
		r.VirtualHost = x.sel.VirtualHost.Name
	}
	if x.sel.Route != nil {
		r.Route = x.sel.Route.Name
		if r.Route == "" {
			r.Route = x.sel.Route.Origin
		}
		r.Cluster, r.ClusterStat = x.sel.Cluster, x.clusterStat()
	}
}

// tell puts into a record whom the attempt asked, and how that went.
func (a *attempt) tell(r *telemetry.Record) {
	r.UpstreamHost = a.remote
	if a.info != nil {
		r.UpstreamTLS(a.info)
		r.UpstreamLocal = a.info.Local
		if !a.x.terminate {
			r.UpstreamProtocol = a.version.String()
		}
	}
	if a.host != nil {
		r.UpstreamHostname = a.host.Hostname()
	}
	r.UpstreamFailure, r.UpstreamTransportFailure = a.failure, transportFailure(a.dialErr)
	if a.firstAt > 0 {
		r.UpstreamDuration = time.Duration(a.firstAt - a.sentAt)
		a.x.observed.markAt(telemetry.AnswerBegan, a.firstAt)
	}
}

// clusterStat is what statistics call the cluster, "" for its name.
func (x *exchange) clusterStat() string {
	if x.cluster == nil {
		return x.m.clusters.StatName(x.sel.Cluster)
	}
	return x.cluster.StatName()
}
