package hcm

import (
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// directWrite is from which size on body bytes are written from where they were
// read instead of being copied behind what is to be written before them.
const directWrite = 8 << 10

// relay sends the response in x.resp to the client, and its body as it comes.
func (x *exchange) relay() {
	c := x.c
	x.settlePump()
	x.status, x.details = x.resp.Status, "via_upstream"
	x.addServiceTime()
	x.mutateResponse()
	x.finishHeaders()
	o := x.responseOptions(x.rframing)
	var err error
	x.out, err = http1.AppendResponse(x.out[:0], &x.resp, o)
	if err != nil {
		x.dropUpstream(false)
		x.stopPump()
		x.resp.Reset()
		x.flags |= telemetry.FlagUpstreamProtocolError
		c.localReply(&reply{status: 502, details: "unwritable_response"})
		return
	}
	if x.rframing == http1.NoBody {
		x.endUpstream(true)
		x.write(x.out)
		return
	}
	x.relayBody(o.Framing)
}

// responseOptions decides the framing towards the client and whether the
// connection goes on.
func (x *exchange) responseOptions(f http1.Framing) http1.ResponseOptions {
	o := http1.ResponseOptions{Framing: f}
	if f == http1.UntilClose {
		o.Framing = http1.Chunked
	}
	http10 := x.req.Version == message.HTTP10
	if http10 && o.Framing == http1.Chunked {
		o.Framing = http1.UntilClose
		x.closeAfter = true
	}
	// HEAD and 304 tell the length that a body would have had.
	o.KnownLength = f == http1.NoBody && x.resp.ContentLength >= 0 && x.resp.Status != 204 && x.resp.Status >= 200
	// An answer before the end of the request leaves a body that nobody reads.
	if !x.requestRead() || x.c.d.Draining() {
		x.closeAfter = true
	}
	o.Close = x.closeAfter
	o.KeepAlive = http10 && !x.closeAfter
	return o
}

// relayBody copies the body, in the client's framing. x.out holds the head.
func (x *exchange) relayBody(f http1.Framing) {
	trailers := &x.rtrail
	for {
		data, n, done, err := x.rbody.Decode(x.up.bytes(), trailers)
		if err != nil {
			x.abortBroken(err)
			return
		}
		x.upReceived += int64(len(data))
		x.sent += int64(len(data))
		ok := x.appendBody(f, data)
		x.up.consume(n)
		if done {
			x.finishBody(f)
			return
		}
		// Whatever has arrived is passed on before we wait for more.
		if ok && (x.up.len() == 0 || n == 0) && len(x.out) > 0 {
			ok = x.write(x.out)
			x.out = x.out[:0]
		}
		if !ok {
			x.dropUpstream(false)
			x.stopPump()
			return
		}
		if x.up.len() > 0 && n > 0 {
			continue
		}
		if err := x.readUpstream(); err != nil {
			x.bodyEnded(f, err)
			return
		}
		x.c.active()
	}
}

// appendBody adds body bytes to what is to be written, or writes them at once.
func (x *exchange) appendBody(f http1.Framing, data []byte) bool {
	if f == http1.Chunked {
		x.out = http1.AppendChunk(x.out, data)
		return true
	}
	if len(data) < directWrite {
		x.out = append(x.out, data...)
		return true
	}
	if len(x.out) > 0 && len(data) <= upstreamBuffer {
		// One write with the head is cheaper than two.
		x.out = append(x.out, data...)
		return true
	}
	if len(x.out) > 0 && !x.write(x.out) {
		return false
	}
	x.out = x.out[:0]
	return x.write(data)
}

// finishBody ends a body that came whole.
func (x *exchange) finishBody(f http1.Framing) {
	if f == http1.Chunked {
		var trailers *message.Fields
		if x.req.AcceptTrailers && x.rtrail.Len() > 0 {
			trailers = &x.rtrail
		}
		var err error
		if x.out, err = http1.AppendLastChunk(x.out, trailers); err != nil {
			x.abortBroken(err)
			return
		}
	}
	x.endUpstream(true)
	if len(x.out) > 0 {
		x.write(x.out)
	}
}

// bodyEnded handles the upstream's end before the body's.
func (x *exchange) bodyEnded(f http1.Framing, err error) {
	if x.rframing == http1.UntilClose && isEOF(err) {
		x.endUpstreamNow(false)
		if f == http1.Chunked {
			x.out, _ = http1.AppendLastChunk(x.out[:0], nil)
			x.write(x.out)
		}
		return
	}
	switch x.broken(err) {
	case timedOut, tryTimedOut:
		x.abort(telemetry.FlagUpstreamRequestTimeout, "response_timeout")
	case idleTimedOut:
		x.abort(telemetry.FlagStreamIdleTimeout, "stream_idle_timeout")
	case clientGone:
		x.abort(telemetry.FlagDownstreamTermination, "downstream_remote_disconnect")
	case clientBroke:
		x.abort(telemetry.FlagDownstreamProtocolError, x.pump.refused.Reason)
	default:
		x.abort(telemetry.FlagUpstreamConnTermination, "upstream_reset_after_response_started{connection_termination}")
	}
}

// abortBroken ends an exchange whose response's body broke the protocol. As long as
// nothing of it was sent, the client can still be told.
func (x *exchange) abortBroken(err error) {
	o := x.badResponse(err)
	if x.responded {
		x.abort(telemetry.FlagUpstreamProtocolError, "upstream_reset_after_response_started{protocol_error}")
		return
	}
	x.sent = 0
	x.dropUpstream(false)
	x.stopPump()
	x.fail(o)
}

// abort ends an exchange whose response has begun: the client learns from the
// missing end that it is not whole.
func (x *exchange) abort(f telemetry.Flags, details string) {
	x.flags |= f
	x.details = details
	x.closeAfter = true
	x.responded = false // nothing more to be read in peace
	x.dropUpstream(false)
	x.stopPump()
}

// endUpstream finishes with the upstream after a whole response.
func (x *exchange) endUpstream(clean bool) { x.endUpstreamNow(clean && x.reusable()) }

func (x *exchange) endUpstreamNow(reuse bool) {
	x.dropUpstream(reuse)
	x.stopPump()
}

// reusable tells whether the upstream connection is where the next exchange can
// begin: the peer keeps it open, took the whole request, and sent nothing beyond
// the response.
func (x *exchange) reusable() bool {
	return !x.resp.Close && x.up.len() == 0 && x.requestRead() && (x.pump == nil || x.pump.upErr == nil)
}

// requestRead tells whether the whole request was read. While a pump runs, complete
// is the pump's.
func (x *exchange) requestRead() bool {
	if x.pump != nil && !x.pump.ended() {
		return false
	}
	return x.complete
}

// write sends bytes to the client.
func (x *exchange) write(b []byte) bool {
	_, err := x.c.s.Write(b)
	if err == nil {
		x.responded = true
		return true
	}
	if x.c.timedOut(err) && x.c.cause.Load() == causeIdle {
		x.flags |= telemetry.FlagStreamIdleTimeout
		x.details = "stream_idle_timeout"
	} else {
		x.flags |= telemetry.FlagDownstreamTermination
		x.details = "downstream_remote_disconnect"
	}
	x.closeAfter, x.responded = true, false
	return false
}

// addServiceTime tells how long the upstream took, as Envoy's router does.
func (x *exchange) addServiceTime() {
	x.scratch = strconv.AppendInt(x.scratch[:0], (x.upFirst-x.upStart)/1e6, 10)
	x.resp.Fields.SetBytes("x-envoy-upstream-service-time", x.scratch)
}

// finishHeaders adds what every response has.
func (x *exchange) finishHeaders() {
	f := &x.resp.Fields
	if x.m.serverName != "" {
		f.SetID(message.Server, x.m.serverName)
	}
	if !f.Has(message.Date) {
		f.AddID(message.Date, x.m.dateNow(x.start))
	}
}
