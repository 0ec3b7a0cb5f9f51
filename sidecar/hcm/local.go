package hcm

import (
	"errors"
	"io"
	"net"
	"strconv"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

const flagDownstreamProtocol = telemetry.FlagDownstreamProtocolError

// reply is an answer of our own. Its body is fixed text: nothing of the request and
// nothing of an error is told to a client.
type reply struct {
	status     int
	body       string
	details    string // for the access log
	location   string
	overloaded bool
	close      bool
}

// localReply sends r. The connection goes on unless r says otherwise or the
// request's body makes that impossible.
func (c *conn) localReply(r *reply) {
	x := c.x
	x.stopPump()
	x.status, x.details = r.status, r.details
	if r.close || c.d.Draining() || !x.complete && !x.discardable() {
		x.closeAfter = true
	}
	resp := &x.resp
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
	x.mutateResponse()
	x.finishHeaders()
	if x.m.serverName == "" {
		f.SetID(message.Server, "hauberk")
	}
	framing, known := http1.Length, true
	if r.status == 204 || r.status == 304 || r.status < 200 {
		framing, known = http1.NoBody, false
	}
	var err error
	x.out, err = http1.AppendResponse(x.out[:0], resp, http1.ResponseOptions{
		Framing: framing, Close: x.closeAfter, KeepAlive: x.req.Version == message.HTTP10 && !x.closeAfter,
		KnownLength: known,
	})
	if err != nil {
		// A configured header cannot be sent: answer without any.
		x.closeAfter = true
		x.out = append(x.out[:0], "HTTP/1.1 "...)
		x.out = strconv.AppendInt(x.out, int64(r.status), 10)
		x.out = append(x.out, " \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"...)
		x.write(x.out)
		return
	}
	if x.req.Method != "HEAD" && framing == http1.Length {
		x.out = append(x.out, r.body...)
		x.sent += int64(len(r.body))
	}
	now := monotonic()
	c.await(now, noDeadline, c.m.streamIdle, false)
	x.write(x.out)
}

// discardable tells whether the rest of the request's body is little enough to be
// read and dropped, which saves the connection.
func (x *exchange) discardable() bool {
	return x.framing == http1.Length && !x.req.ExpectContinue && x.pump == nil && x.req.ContentLength <= replayLimit
}

// discardBody reads the rest of a body that was answered without being read.
func (x *exchange) discardBody() {
	left := x.req.ContentLength - x.received
	now := monotonic()
	x.c.await(now, now+x.m.streamIdle, 0, false)
	x.in.r, x.in.w = 0, 0
	for left > 0 {
		space := x.in.space()
		n, err := x.c.s.Read(space[:min(int64(len(space)), left)])
		left -= int64(n)
		x.received += int64(n)
		if err != nil {
			_ = x.c.timedOut(err)
			x.closeAfter, x.responded = true, false
			return
		}
	}
	x.complete = true
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

func stripPort(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

func joinPort(host string, port int) string { return host + ":" + strconv.Itoa(port) }
