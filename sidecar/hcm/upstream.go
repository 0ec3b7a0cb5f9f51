package hcm

import (
	"errors"
	"io"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// replayLimit is the most of a request's body that is kept for another attempt. A
// body of known length below it is read whole before it is sent.
const replayLimit = 64 << 10

// outcome is how an attempt ended.
type outcome uint8

const (
	responded outcome = iota
	noHost
	overflow
	connectFailed
	connectTimeout
	reset         // the connection ended before a response
	brokeProtocol // the response was refused
	timedOut      // the route's timeout
	tryTimedOut   // the attempt's
	idleTimedOut  // the stream's
	clientGone
	clientBroke // the request's body was refused
	unwritable
)

// forward sends the request to the cluster, again where the policy has it so, and
// relays the response.
func (x *exchange) forward() {
	if !x.pullBody() {
		return
	}
	x.mutateRequest()
	fw := x.sel.Route.Forward
	x.deadline = noDeadline
	if fw.Timeout > 0 {
		if x.complete {
			x.deadline = x.startMono + int64(fw.Timeout)
			if x.framing != http1.NoBody {
				x.deadline = monotonic() + int64(fw.Timeout)
			}
		}
		x.addTimeoutHeader(int64(fw.Timeout))
	}
	for {
		x.attempts++
		o := x.attempt()
		if o == responded {
			if x.retryResponse() {
				continue
			}
			x.endRetry(x.resp.Status < 500)
			x.relay()
			return
		}
		if x.retryFailure(o) {
			continue
		}
		x.endRetry(false)
		x.fail(o)
		return
	}
}

// addTimeoutHeader tells the upstream how long an answer is of use.
func (x *exchange) addTimeoutHeader(timeout int64) {
	x.scratch = strconv.AppendInt(x.scratch[:0], timeout/1e6, 10)
	x.req.Fields.SetBytes("x-envoy-expected-rq-timeout-ms", x.scratch)
}

// pullBody reads a small body of known length as a whole: then the exchange stays
// on one goroutine, and every attempt can send the same.
func (x *exchange) pullBody() bool {
	if x.complete || x.framing != http1.Length || x.req.ContentLength > replayLimit || x.req.ExpectContinue {
		return true
	}
	c := x.c
	hard := int64(noDeadline)
	if x.m.requestTimeout > 0 {
		hard = x.startMono + x.m.requestTimeout
	}
	c.await(monotonic(), hard, x.idleTimeout(), false)
	have := len(x.store)
	x.store = grow(x.store, int(x.req.ContentLength))
	for have < len(x.store) {
		n, err := c.s.Read(x.store[have:])
		if n > 0 {
			have += n
			x.received += int64(n)
			c.active()
			continue
		}
		x.closeAfter = true
		if c.timedOut(err) {
			if c.cause.Load() == causeIdle {
				x.flags |= telemetry.FlagStreamIdleTimeout
			}
			c.localReply(&reply{status: 408, body: "request timeout", details: "request_overall_timeout", close: true})
			return false
		}
		x.clientLeft()
		return false
	}
	x.payload, x.complete = x.store, true
	return true
}

// grow extends b to n bytes and keeps its content.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		next := make([]byte, n)
		copy(next, b)
		return next
	}
	return b[:n]
}

func (x *exchange) idleTimeout() int64 {
	if r := x.sel.Route; r != nil && r.Forward != nil && r.Forward.IdleTimeout != nil {
		return int64(*r.Forward.IdleTimeout) // 0 is none
	}
	return x.m.streamIdle
}

// attempt sends the request once. With responded, the response's head is in
// x.resp and x.conn is still held; otherwise everything was given back.
func (x *exchange) attempt() outcome {
	h, err := x.cluster.Pick(x.tried[:x.ntried])
	if err != nil {
		return noHost
	}
	x.host = h
	x.noteTried(h)
	x.upHost = h.Addr()
	own := h.Cluster()
	if !own.StartRequest(x.c.d.Shard) {
		return overflow
	}
	h.Begin()
	x.tryUntil = x.deadline
	if p := x.sel.Retry; p != nil && p.PerTryTimeout > 0 {
		x.tryUntil = min(x.deadline, monotonic()+int64(p.PerTryTimeout))
	}
	conn, err := h.Acquire(x.dial, x.c.d.Workload, x.c.d.Shard)
	if err != nil {
		h.End()
		own.EndRequest()
		return x.connectFailure(err)
	}
	x.hold(conn)
	o := x.send()
	if o == responded {
		return o
	}
	x.report(o)
	x.dropUpstream(false)
	x.stopPump()
	return o
}

func (x *exchange) noteTried(h *cluster.Host) {
	if x.ntried == len(x.tried) {
		copy(x.tried[:], x.tried[1:])
		x.ntried--
	}
	x.tried[x.ntried] = h
	x.ntried++
}

// hold makes conn the attempt's connection.
func (x *exchange) hold(conn *cluster.Conn) {
	x.conn, x.stale = conn, conn.Reused()
	x.c.up.Store(conn)
	info := conn.Info()
	x.upLocal, x.upPeer, x.upOwn, x.upTLS = info.Local, info.PeerID, info.OwnID, info.TLSVersion
}

// dropUpstream gives the attempt's connection back; reuse says that the exchange
// on it ended cleanly. now is a recent time, for the timer that goes on without it.
func (x *exchange) dropUpstream(reuse bool) {
	conn := x.conn
	x.conn = nil
	c := x.c
	// The timer must not see the connection any more when another exchange has it.
	c.await(max(x.upFirst, c.lastActive.Load()), noDeadline, x.idleTimeout(), false)
	c.up.Store(nil)
	if reuse {
		conn.Release()
	} else {
		_ = conn.Close()
	}
	x.up.release()
	x.host.End()
	x.host.Cluster().EndRequest()
}

func (x *exchange) connectFailure(err error) outcome {
	var e *cluster.Error
	kind := cluster.ConnectRefused
	if errors.As(err, &e) {
		kind = e.Kind
		if e.Err != nil {
			x.upFailure = e.Err.Error()
		}
	}
	switch kind {
	case cluster.OverflowConnections, cluster.OverflowPending, cluster.OverflowRequests:
		return overflow
	case cluster.Canceled:
		if x.c.ctx.Err() != nil {
			return clientGone
		}
		return x.expired()
	case cluster.ConnectTimeout:
		// The attempt's deadline bounds the dial too.
		if monotonic() >= x.tryUntil {
			return x.expired()
		}
		x.host.Report(cluster.OutcomeConnect)
		return connectTimeout
	}
	x.host.Report(cluster.OutcomeConnect)
	return connectFailed
}

// expired tells whose deadline the attempt reached.
func (x *exchange) expired() outcome {
	if x.tryUntil < x.deadline {
		return tryTimedOut
	}
	return timedOut
}

// send writes the request and reads the response's head.
func (x *exchange) send() outcome {
	c := x.c
	var err error
	// Where the body is here already, nobody waits for 100.
	x.req.ExpectContinue = x.req.ExpectContinue && !x.complete
	x.out, err = http1.AppendRequest(x.out[:0], &x.req, http1.RequestOptions{Framing: x.framing})
	if err != nil {
		return unwritable
	}
	x.out, err = x.appendPayload(x.out)
	if err != nil {
		return unwritable
	}
	x.resp.Reset()
	x.rparser.Reset()
	x.upStart, x.upFirst = monotonic(), 0
	x.wrote = false
	c.await(x.upStart, x.tryUntil, x.idleTimeout(), true)
	if err = x.sendHead(); err != nil {
		return x.broken(err)
	}
	return x.readHead()
}

// appendPayload appends what is in memory of the body.
func (x *exchange) appendPayload(dst []byte) ([]byte, error) {
	switch x.framing {
	case http1.Length:
		dst = append(dst, x.payload...)
	case http1.Chunked:
		dst = http1.AppendChunk(dst, x.payload)
		if x.complete {
			return http1.AppendLastChunk(dst, &x.trailers)
		}
	}
	return dst, nil
}

// sendHead writes x.out. When that is the whole request it also waits for the
// first bytes of the answer, in the same call where the stream can.
func (x *exchange) sendHead() error {
	var written, n int
	var err error
	if x.complete && x.conn.Exchanger != nil {
		written, n, err = x.conn.Exchanger.Exchange(x.out, &x.up)
		x.up.w += n
	} else {
		written, err = x.conn.Write(x.out)
	}
	x.wrote = written > 0
	x.upSent += int64(written)
	if err == nil && !x.complete {
		x.startPump()
	}
	return err
}

// readHead reads the response's head, interim responses included.
func (x *exchange) readHead() outcome {
	interim := 0
	for {
		if x.up.len() > 0 {
			if x.upFirst == 0 {
				x.upFirst = monotonic()
			}
			n, framing, err := x.rparser.Parse(x.up.bytes(), x.req.Method, &x.resp)
			if err != nil {
				return x.badResponse(err)
			}
			if n > 0 {
				x.up.consume(n)
				if x.resp.Status >= 200 {
					x.rframing = framing
					x.rbody.Start(framing, x.resp.ContentLength, x.m.upstreamLimits)
					x.report(responded)
					return responded
				}
				if interim++; interim > maxInterim || x.resp.Status == 101 {
					return x.badResponse(http1.ErrStatusLine)
				}
				if !x.relayInterim() {
					return clientGone
				}
				x.resp.Reset()
				x.rparser.Reset()
				continue
			}
		}
		if err := x.readUpstream(); err != nil {
			return x.broken(err)
		}
	}
}

// maxInterim bounds the interim responses to one request.
const maxInterim = 16

// readUpstream gets more of the response.
func (x *exchange) readUpstream() error {
	n, err := x.conn.Read(x.up.TakeBuffer())
	x.up.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// relayInterim passes a 1xx on, to clients that know them (RFC 9110 15.2).
func (x *exchange) relayInterim() bool {
	if x.req.Version == message.HTTP10 || x.resp.Status == 100 && !x.req.ExpectContinue {
		return true
	}
	var err error
	x.out, err = http1.AppendResponse(x.out[:0], &x.resp, http1.ResponseOptions{})
	if err != nil {
		return true // dropped: the final response counts
	}
	_, err = x.c.s.Write(x.out)
	return err == nil
}

func (x *exchange) badResponse(err error) outcome {
	var e *http1.Error
	if errors.As(err, &e) {
		x.upFailure = e.Reason
		if x.m.metrics != nil {
			x.m.metrics.ProtocolErrors.With("upstream", e.Reason).Inc(x.c.d.Shard)
		}
	}
	return brokeProtocol
}

// broken says what an error on the upstream connection means: our own timer and
// the body's sender end the wait that way too.
func (x *exchange) broken(err error) outcome {
	if !stream.IsTimeout(err) {
		return reset
	}
	cause := x.c.cause.Load()
	x.c.calm()
	switch cause {
	case causeHard:
		return x.expired()
	case causeIdle:
		return idleTimedOut
	case causeGone:
		return clientGone
	}
	if p := x.pump; p != nil && p.ended() {
		if p.refused != nil {
			return clientBroke
		}
		if p.clientErr {
			return clientGone
		}
	}
	return reset
}

// report tells the host and the counters how the attempt went.
func (x *exchange) report(o outcome) {
	m := x.host.Cluster().Metrics()
	switch o {
	case responded:
		x.host.Report(cluster.Outcome(x.resp.Status))
		m.Answered(x.c.d.Shard, x.resp.Status)
		return
	case reset, brokeProtocol:
		// A pooled connection that its peer closed meanwhile says nothing of
		// the host's health.
		if !x.conn.Reused() || o == brokeProtocol {
			x.host.Report(cluster.OutcomeReset)
		}
	case timedOut, tryTimedOut:
		x.host.Report(cluster.OutcomeTimeout)
	default:
		return
	}
	m.Answered(x.c.d.Shard, 0)
}

// fail answers for an upstream that did not.
func (x *exchange) fail(o outcome) {
	r := reply{status: 503}
	const before = "upstream connect error or disconnect/reset before headers. reset reason: "
	switch o {
	case noHost:
		x.flags |= telemetry.FlagNoHealthyUpstream
		r.body, r.details = "no healthy upstream", "no_healthy_upstream"
	case overflow:
		x.flags |= telemetry.FlagUpstreamOverflow
		r.body, r.details, r.overloaded = before+"overflow", "upstream_reset_before_response_started{overflow}", true
	case connectFailed:
		x.flags |= telemetry.FlagUpstreamConnectFailure
		r.body, r.details = before+"remote connection failure", "upstream_reset_before_response_started{remote_connection_failure}"
	case connectTimeout:
		x.flags |= telemetry.FlagUpstreamConnectFailure
		r.body, r.details = before+"connection timeout", "upstream_reset_before_response_started{connection_timeout}"
	case reset:
		x.flags |= telemetry.FlagUpstreamConnTermination
		r.body, r.details = before+"connection termination", "upstream_reset_before_response_started{connection_termination}"
	case brokeProtocol:
		x.flags |= telemetry.FlagUpstreamProtocolError
		r.status, r.body, r.details = 502, before+"protocol error", "upstream_reset_before_response_started{protocol_error}"
	case timedOut:
		x.flags |= telemetry.FlagUpstreamRequestTimeout
		r.status, r.body, r.details = 504, "upstream request timeout", "response_timeout"
	case tryTimedOut:
		x.flags |= telemetry.FlagUpstreamRequestTimeout
		r.status, r.body, r.details = 504, "upstream request timeout", "upstream_per_try_timeout"
	case idleTimedOut:
		x.flags |= telemetry.FlagStreamIdleTimeout
		r.status, r.body, r.details = 504, "stream timeout", "stream_idle_timeout"
	case clientBroke:
		x.flags |= telemetry.FlagDownstreamProtocolError
		r.status, r.details, r.close = x.pump.refused.Status, x.pump.refused.Reason, true
	case unwritable:
		r.status, r.details = 500, "unwritable_request"
	case clientGone:
		x.clientLeft()
		return
	}
	x.c.localReply(&r)
}

// clientLeft notes that nobody waits for an answer.
func (x *exchange) clientLeft() {
	x.flags |= telemetry.FlagDownstreamTermination
	x.details = "downstream_remote_disconnect"
	x.closeAfter = true
}
