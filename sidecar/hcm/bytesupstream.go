package hcm

import (
	"io"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// bytesUpstream is an attempt's side on a plain byte stream: where a CONNECT ends here
// (RFC 9110 9.3.6), what the client sends is for the host as it is, and so is the content of a
// POST in its stead. The answer to either is our own: the connection stands.
type bytesUpstream struct {
	c   *cluster.Conn
	dog *watchdog
	in  responseBuffer

	meter *message.Meter // nil where nobody wants to know
}

// hold makes u the attempt's side on c.
func (u *bytesUpstream) hold(c *cluster.Conn, a *attempt) {
	u.c, u.dog, u.meter = c, a.x.dog, a.x.observed.sizes.Upstream
}

// open implements upstream.
func (u *bytesUpstream) open(*attempt) error { return nil }

// send implements upstream: no head is sent, and what the client of a tunnel sent ahead of the
// answer follows it.
func (u *bytesUpstream) send(a *attempt) error {
	x := a.x
	a.wrote = true // a tunnel cannot begin anew
	payload := x.payload
	switch {
	case x.tunnel:
		return nil
	case len(payload) > sendAtOnce:
		payload, a.unsent = payload[:sendAtOnce], payload[sendAtOnce:]
	}
	if err := u.write(payload, x.complete && a.unsent == nil, nil); err != nil {
		return err
	}
	a.sent += int64(len(payload))
	return nil
}

// head implements upstream.
func (u *bytesUpstream) head(a *attempt) error {
	a.firstAt = monotonic()
	a.resp.Status, a.resp.ContentLength, a.resp.Body = 200, message.UnknownLength, u
	return nil
}

// Next implements message.Body.
func (u *bytesUpstream) Next() ([]byte, bool, error) {
	u.in.r, u.in.w = 0, 0
	n, err := u.in.fill(u.c.Stream, false)
	switch {
	case n > 0:
		u.dog.active()
		u.meter.Received(n)
		return u.in.b[:n], false, nil
	case isEOF(err):
		return nil, true, nil
	case err == nil:
		err = io.ErrNoProgress
	}
	return nil, false, err
}

// Ready implements message.Body: nothing is read ahead.
func (u *bytesUpstream) Ready() bool { return false }

// Trailers implements message.Body.
func (u *bytesUpstream) Trailers() *message.Fields { return nil }

// write implements upstream.
func (u *bytesUpstream) write(p []byte, last bool, _ *message.Fields) (err error) {
	if len(p) > 0 {
		u.meter.Sent(len(p))
		_, err = u.c.Write(p)
	}
	if last && err == nil {
		err = u.c.CloseWrite()
	}
	return err
}

// clean implements upstream: a connection that carried bytes carries nothing else.
func (u *bytesUpstream) clean(*attempt) bool { return false }

// leave implements upstream.
func (u *bytesUpstream) leave(_ *attempt, _ bool) {
	c := u.c
	u.c, u.dog = nil, nil
	u.in.release()
	_ = c.Close()
}

func (u *bytesUpstream) interrupt()   { _ = u.c.SetDeadline(past) }
func (u *bytesUpstream) resume()      { _ = u.c.SetDeadline(time.Time{}) }
func (u *bytesUpstream) stopWriting() { _ = u.c.SetWriteDeadline(past) }
func (u *bytesUpstream) stopReading() { _ = u.c.SetReadDeadline(past) }
