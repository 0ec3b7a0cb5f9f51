package hcm

import (
	"errors"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// http2Upstream is an attempt's side on a stream of an HTTP/2 connection.
type http2Upstream struct {
	c   *cluster.Conn
	s   *http2.Stream
	dog *watchdog
}

// hold makes u the attempt's side on c.
func (u *http2Upstream) hold(c *cluster.Conn, a *attempt) { u.c, u.dog = c, a.x.dog }

// open implements upstream. An upgrade waits for the host to tell that it takes any, and
// whoever asks for a tunnel ends its half when it is there.
func (u *http2Upstream) open(a *attempt) (err error) {
	x := a.x
	if x.req.Upgrade != "" && a.early {
		ctx, done := a.pend()
		err = u.c.HTTP2.AwaitSettings(ctx)
		done()
		if err != nil {
			return errInterrupted
		}
	}
	u.s, err = u.c.HTTP2.OpenMetered(x.req, x.complete && !x.tunnel && len(x.payload) == 0 && requestTrailers(x) == nil, x.observed.sizes.Upstream)
	return err
}

// send implements upstream. What the host does not take at once is left to a pump: it
// may answer without taking it.
func (u *http2Upstream) send(a *attempt) error {
	x := a.x
	a.wrote = true
	trailers := requestTrailers(x)
	if x.tunnel || len(x.payload) == 0 && trailers == nil {
		return u.s.Flush() // what a tunnel begins with is the relay's
	}
	if len(x.payload) == 0 {
		return u.early(u.write(nil, x.complete, trailers))
	}
	n, err := u.s.WriteNow(x.payload, x.complete && trailers == nil)
	a.sent += int64(n)
	switch {
	case err != nil:
		return u.early(err)
	case n < len(x.payload):
		a.unsent = x.payload[n:]
	case x.complete && trailers != nil:
		return u.early(u.write(nil, true, trailers))
	}
	return u.s.Flush()
}

// early forgives a write that failed because the host has answered already and does
// not want the rest (RFC 9113 8.1): its answer counts.
func (u *http2Upstream) early(err error) error {
	var e *http2.StreamError
	if errors.As(err, &e) && e.Remote && e.Code == http2.NoError {
		return nil
	}
	return err
}

// head implements upstream.
func (u *http2Upstream) head(a *attempt) error {
	end, err := u.s.ReadHead(a.resp)
	if err != nil {
		return err
	}
	if a.firstAt == 0 {
		a.firstAt = monotonic()
	}
	a.resp.Body = nil
	bodiless := a.x.req.Method == "HEAD" || a.resp.Status == 304 || a.resp.Status == 204
	switch {
	case !end && (a.resp.Status >= 200 && !bodiless || a.resp.Status == 101):
		a.resp.Body = u
	case end && a.resp.ContentLength < 0 && !bodiless && a.resp.Status >= 200:
		a.resp.ContentLength = 0
	}
	return nil
}

// Next implements message.Body.
func (u *http2Upstream) Next() ([]byte, bool, error) {
	data, last, err := u.s.Next()
	u.dog.active()
	return data, last, err
}

// Ready implements message.Body.
func (u *http2Upstream) Ready() bool { return u.s.Ready() }

// Trailers implements message.Body.
func (u *http2Upstream) Trailers() *message.Fields { return u.s.Trailers() }

// write implements upstream.
func (u *http2Upstream) write(p []byte, last bool, trailers *message.Fields) error {
	end := last && trailers == nil
	if len(p) > 0 || end {
		if err := u.s.WriteData(p, end); err != nil {
			return err
		}
	}
	if last && trailers != nil {
		if err := u.s.WriteTrailers(trailers); err != nil {
			return err
		}
	}
	return u.s.Flush()
}

// clean implements upstream: what is left of a stream is ended for itself.
func (u *http2Upstream) clean(*attempt) bool { return true }

// leave implements upstream.
func (u *http2Upstream) leave(_ *attempt, _ bool) {
	c, s := u.c, u.s
	u.c, u.s, u.dog = nil, nil, nil
	defer c.Release()
	if s != nil {
		s.Close()
	}
}

func (u *http2Upstream) interrupt()   { u.s.Interrupt() }
func (u *http2Upstream) resume()      { u.s.Resume() }
func (u *http2Upstream) stopWriting() { u.s.InterruptWrite() }
func (u *http2Upstream) stopReading() { u.s.InterruptRead() }
