package hcm

import (
	"io"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// http1Upstream is an attempt's side on an HTTP/1 connection.
type http1Upstream struct {
	c       *cluster.Conn
	dog     *watchdog
	out     outgoing
	meter   *message.Meter // nil where nobody wants to know
	cut     bool           // the host takes no more of the request
	atEnd   bool           // of an answer that ends with the connection
	reqBody http1.Framing
	framing http1.Framing // of the response
	options cluster.HTTP1 // of the request that was sent last
	key     string        // of a WebSocket handshake that is ours

	in       responseBuffer
	piece    piece
	decoder  http1.BodyDecoder
	trailers message.Fields
}

// hold makes u the attempt's side on c.
func (u *http1Upstream) hold(c *cluster.Conn, a *attempt) {
	u.c, u.dog, u.cut, u.atEnd, u.meter = c, a.x.dog, false, false, a.x.observed.sizes.Upstream
	h := &a.host.Cluster().Config().HTTP
	u.options = h.HTTP1
	limits := a.x.m.upstreamLimits
	if h.MaxResponseHeaders > 0 || h.MaxResponseHeaderKB > 0 {
		limits = h.ResponseLimits()
	}
	u.in.limits = limits
	u.framing = http1.NoBody
	u.decoder.Start(http1.NoBody, 0, limits)
}

// next prepares for the next exchange.
func (u *http1Upstream) next() {
	u.key = ""
	if u.framing == http1.Chunked {
		u.trailers.Reset()
	}
}

// requestFraming is how a request's body is framed in HTTP/1.
func requestFraming(r *message.Request) http1.Framing {
	switch {
	case r.Body == nil:
		return http1.NoBody
	case r.ContentLength >= 0:
		return http1.Length
	}
	return http1.Chunked
}

// open implements upstream: a connection is a stream.
func (u *http1Upstream) open(*attempt) error { return nil }

// send implements upstream. When it has the whole request it also waits for the
// first bytes of the answer, in the same call where the stream can. Of a long payload the
// rest is left to a pump: the host may answer without taking it.
func (u *http1Upstream) send(a *attempt) (err error) {
	x := a.x
	u.reqBody = requestFraming(x.req)
	o := http1.RequestOptions{Framing: u.reqBody, FullURL: u.options.FullURL}
	if x.tunnel {
		// What follows the head is not HTTP, and waits for the answer.
		u.reqBody = http1.UntilClose
		if u.key == "" {
			u.key = offerWebSocket(x.req)
		}
		o.Framing, o.Upgrade = http1.NoBody, x.req.Upgrade
	}
	defer u.out.release()
	u.out.b, err = http1.AppendRequest(u.out.take()[:0], x.req, o)
	if err != nil {
		return err
	}
	if u.options.ProperCase {
		http1.ProperCase(u.out.b)
	}
	head, payload := len(u.out.b), x.payload
	if len(payload) > sendAtOnce && !x.tunnel {
		payload, a.unsent = payload[:sendAtOnce], payload[sendAtOnce:]
	}
	whole := x.complete && a.unsent == nil
	switch u.reqBody {
	case http1.Length:
		u.out.b = append(u.out.b, payload...)
	case http1.Chunked:
		u.out.b = http1.AppendChunk(u.out.b, payload)
		if whole {
			if err = u.appendLast(requestTrailers(x)); err != nil {
				return err
			}
		}
	}
	headSent(u.meter, u.out.b[:head])
	if x.d.Info.TLS || a.info.TLS {
		takeTurns()
	}
	size := len(u.out.b)
	var written, n int
	if whole && u.c.Exchanger != nil {
		written, n, err = u.c.Exchanger.Exchange(u.out.b, u, u.c.Unasked())
		u.in.w += n
	} else if u.c.Sure() {
		written, err = u.c.Write(u.out.b)
	} else {
		err = stream.ErrNotQuiet
	}
	u.meter.Sent(written)
	a.wrote = written > 0
	a.sent += int64(min(max(0, written-head), len(payload)))
	if err == stream.ErrNotQuiet {
		return err
	}
	if err != nil && written < size && !stream.IsTimeout(err) {
		// It may have said why.
		u.cut = true
		return nil
	}
	return err
}

// TakeBuffer implements stream.Buffers, for an answer.
func (u *http1Upstream) TakeBuffer() []byte { return u.in.TakeBuffer() }

// DropBuffer implements stream.Buffers: the request was written, and the answer is
// waited for.
func (u *http1Upstream) DropBuffer() {
	u.out.release()
	u.in.DropBuffer()
}

// sendAtOnce is how much of a payload is written before the answer is waited for: what
// sockets take of a request whose host does not read it.
const sendAtOnce = replayLimit

// head implements upstream.
func (u *http1Upstream) head(a *attempt) error {
	for {
		if u.in.len() > 0 {
			if a.firstAt == 0 {
				a.firstAt = monotonic()
			}
			parser := &u.in.lent.parser
			n, framing, err := parser.Parse(u.in.bytes(), a.x.req.Method, a.resp)
			if err != nil {
				return err
			}
			if n > 0 {
				headReceived(u.meter, u.in.bytes()[:n])
				u.in.consume(n)
				parser.Reset()
				a.resp.Body = nil
				if a.resp.Status == 101 && a.x.switched() {
					framing = http1.UntilClose
					if err := checkWebSocket(u.key, a.x.req, a.resp); err != nil {
						return err
					}
				}
				if a.resp.Status >= 200 || framing != http1.NoBody {
					u.framing = framing
					u.decoder.Start(framing, a.resp.ContentLength, u.in.limits)
					if framing != http1.NoBody {
						a.resp.Body = u
					}
				}
				return nil
			}
		}
		if err := u.read(); err != nil {
			if u.in.len() > 0 && !stream.IsTimeout(err) {
				return http1.ErrTruncated
			}
			return err
		}
	}
}

// read gets more of the response.
func (u *http1Upstream) read() error {
	n, err := u.in.fill(u.c.Stream, u.framing == http1.NoBody || u.framing == http1.Length)
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// Next implements message.Body.
func (u *http1Upstream) Next() (data []byte, last bool, err error) {
	for !u.piece.have {
		if err := u.decode(); err != nil {
			return nil, false, err
		}
		if u.piece.have {
			break
		}
		if err := u.read(); err != nil {
			switch {
			case stream.IsTimeout(err): // it was not the host
			case u.framing != http1.UntilClose:
				err = http1.ErrTruncated // also by a reset
			case isEOF(err):
				u.atEnd = true
				return nil, true, nil
			}
			return nil, false, err
		}
		u.dog.active()
	}
	data, last = u.piece.take()
	return data, last, nil
}

// Ready implements message.Body. An error is found again by Next.
func (u *http1Upstream) Ready() bool {
	return u.piece.have || u.decode() != nil || u.piece.have
}

// decode finds the next piece in what has arrived.
func (u *http1Upstream) decode() error {
	for u.in.len() > 0 {
		data, n, done, err := u.decoder.Decode(u.in.bytes(), &u.trailers)
		if err != nil {
			return err
		}
		u.in.consume(n)
		u.meter.Received(n)
		if done {
			u.trailers.JoinSingles(message.TrailerSingles)
		}
		if len(data) > 0 || done {
			u.piece = piece{data, done, true}
			return nil
		}
		if n == 0 {
			return nil
		}
	}
	return nil
}

// Trailers implements message.Body.
func (u *http1Upstream) Trailers() *message.Fields {
	if u.framing != http1.Chunked || u.trailers.Len() == 0 || !u.options.EnableTrailers {
		return nil
	}
	return &u.trailers
}

// appendLast ends a body in chunks.
func (u *http1Upstream) appendLast(trailers *message.Fields) (err error) {
	if !u.options.EnableTrailers {
		trailers = nil
	}
	start := len(u.out.b)
	u.out.b, err = http1.AppendLastChunk(u.out.b, trailers)
	if u.options.ProperCase {
		http1.ProperCase(u.out.b[start:])
	}
	return err
}

// write implements upstream.
func (u *http1Upstream) write(p []byte, last bool, trailers *message.Fields) (err error) {
	if u.reqBody == http1.Chunked {
		defer u.out.release()
		u.out.b = http1.AppendChunk(u.out.take()[:0], p)
		if last {
			if err = u.appendLast(trailers); err != nil {
				return err
			}
		}
		p = u.out.b
	}
	if len(p) > 0 {
		u.meter.Sent(len(p))
		_, err = u.c.Write(p)
	}
	if last && u.reqBody == http1.UntilClose && err == nil {
		err = u.c.CloseWrite()
	}
	return err
}

// clean implements upstream: the peer keeps the connection open, took the whole
// request, and sent nothing beyond the response.
func (u *http1Upstream) clean(a *attempt) bool {
	return !a.resp.Close && !u.cut && u.in.len() == 0 && u.decoder.Done() && !u.piece.have
}

// leave implements upstream.
func (u *http1Upstream) leave(a *attempt, clean bool) {
	c, read := u.c, max(a.firstAt, u.dog.lastActive())
	whole := a.firstAt > 0 && a.resp.Status >= 200 && u.framing != http1.UntilClose && u.decoder.Done() && !u.cut
	unused := u.atEnd || a.sentAt == 0
	u.c, u.dog = nil, nil
	switch {
	case !clean && whole:
		c.Ours() // its peer may end it too
		_ = c.CloseUnused()
	case !clean && unused:
		_ = c.CloseUnused()
	case !clean:
		_ = c.Close()
	case a.sentAt == 0:
		c.Release() // nothing was asked, and what was read last was another's
	default:
		c.ReleaseRead(read)
	}
	u.in.release()
	u.piece = piece{}
}

func (u *http1Upstream) interrupt()   { _ = u.c.SetDeadline(past) }
func (u *http1Upstream) resume()      { _ = u.c.SetDeadline(time.Time{}) }
func (u *http1Upstream) stopWriting() { _ = u.c.SetWriteDeadline(past) }
func (u *http1Upstream) stopReading() { _ = u.c.SetReadDeadline(past) }
