package hcm

import (
	"io"
	"sync"

	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// http1Client is the client side of an exchange on an HTTP/1 connection.
type http1Client struct {
	c      *http1Conn
	in     buffer
	reader *requestReader // nil while nothing is read, and nothing that was read is here
	out    outgoing       // with the next flush

	framing     http1.Framing // of the request
	respFraming http1.Framing
	piece       piece
	decoder     http1.BodyDecoder
	trailers    message.Fields
	meter       *message.Meter // nil where nobody wants to know
}

// piece is a part of a body that was decoded before it was asked for.
type piece struct {
	data []byte
	last bool
	have bool
}

func (p *piece) take() ([]byte, bool) {
	data, last := p.data, p.last
	*p = piece{}
	return data, last
}

// requestReader is what the head of a request is read and parsed with. All who read share a few:
// a head is copied once it is whole, and most requests are no more than a head.
type requestReader struct {
	m      *Manager // for whose connections the parser is set up
	parser http1.RequestParser
	memory [firstBuffer]byte
}

var requestReaders = sync.Pool{New: func() any { return new(requestReader) }}

// attach makes h the client on c.
func (h *http1Client) attach(c *http1Conn) {
	h.decoder.Underscores = http1.AllowUnderscores // in trailers that are dropped
	if c.m.cfg.EnableTrailers {
		h.decoder.Underscores = http1.Underscores(c.m.cfg.UnderscoreNames)
	}
	h.c = c
}

// space returns room to read into, at least one byte.
func (h *http1Client) space() []byte {
	if h.reader == nil {
		h.lend()
	}
	return h.in.space()
}

// lend takes a reader, whose parser is set up for the connection's manager.
func (h *http1Client) lend() {
	r, m := requestReaders.Get().(*requestReader), h.c.m
	if r.m != m {
		r.m = m
		r.parser.Configure(m.limits, http1.Underscores(m.cfg.UnderscoreNames))
		r.parser.RequestParsing = m.parsing
	}
	r.parser.Reset()
	h.reader = r
	if h.in.b == nil {
		h.in.b = r.memory[:]
	}
}

// giveBack gives the reader back; what was read and not used yet is lost. Memory of the
// exchange's own stays for the next long head.
func (h *http1Client) giveBack() {
	r := h.reader
	if r == nil {
		return
	}
	h.reader = nil
	if h.in.r, h.in.w = 0, 0; len(h.in.b) == firstBuffer || len(h.in.b) > keepBuffer {
		h.in.b = nil
	}
	requestReaders.Put(r)
}

// release gives back what an exchange does not keep while it is in the pool. What
// the client sent and nobody read is lost.
func (h *http1Client) release() {
	h.giveBack()
	h.c, h.meter = nil, nil
}

// next prepares for the next request on the connection.
func (h *http1Client) next() {
	if h.framing == http1.Chunked {
		h.trailers.Reset()
	}
	h.piece, h.respFraming = piece{}, http1.NoBody
	h.out.release()
}

// start begins the body of a request whose head was read.
func (h *http1Client) start(framing http1.Framing, req *message.Request) {
	h.framing = framing
	req.Body = nil
	if framing != http1.NoBody {
		h.decoder.Start(framing, req.ContentLength, h.c.m.limits)
		req.Body = h
	}
}

// Next implements message.Body.
func (h *http1Client) Next() (data []byte, last bool, err error) {
	for !h.piece.have {
		if err := h.decode(); err != nil {
			return nil, false, err
		}
		if h.piece.have {
			break
		}
		n, err := h.read(h.space())
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			if h.framing == http1.UntilClose && isEOF(err) {
				return nil, true, nil
			}
			return nil, false, err
		}
		h.in.w += n
	}
	data, last = h.piece.take()
	return data, last, nil
}

// Ready implements message.Body. An error is found again by Next.
func (h *http1Client) Ready() bool {
	return h.piece.have || h.decode() != nil || h.piece.have
}

// decode finds the next piece in what has arrived.
func (h *http1Client) decode() error {
	for h.in.len() > 0 {
		data, n, done, err := h.decoder.Decode(h.in.bytes(), &h.trailers)
		if err != nil {
			return err
		}
		h.in.consume(n)
		h.meter.Received(n)
		if len(data) > 0 || done {
			h.piece = piece{data, done, true}
			return nil
		}
		if n == 0 {
			return nil
		}
	}
	return nil
}

// fill implements client, for bodies with a length: p has room for the rest.
func (h *http1Client) fill(p []byte) (n int, last bool, err error) {
	if h.piece.have || h.in.len() > 0 {
		data, last, err := h.Next()
		return copy(p, data), last, err
	}
	n, err = h.read(p)
	if n == 0 {
		return 0, false, err
	}
	_, _, last, err = h.decoder.Decode(p[:n], nil)
	h.meter.Received(n)
	return n, last, err
}

// read gets more of a body, in turn with others that have as much, and has the watchdog know.
func (h *http1Client) read(p []byte) (int, error) {
	h.c.share.Turn()
	h.c.dog.awaits()
	n, err := h.c.d.Stream.Read(p)
	h.c.dog.came(n)
	h.c.share.Spend(n)
	if n > 0 && h.c.d.Overload.AbortHTTP1() {
		return 0, errShed
	}
	return n, err
}

// tunnel implements client.
func (h *http1Client) tunnel(x *exchange) {
	h.framing = http1.UntilClose
	h.decoder.Start(http1.UntilClose, 0, h.c.m.limits)
	x.req.Body, x.req.ContentLength = h, message.UnknownLength
}

// Trailers implements message.Body.
func (h *http1Client) Trailers() *message.Fields {
	if h.framing != http1.Chunked || h.trailers.Len() == 0 || !h.c.m.cfg.EnableTrailers {
		return nil
	}
	return &h.trailers
}

// interim implements client: HTTP/1.0 does not know interim responses.
func (h *http1Client) interim(x *exchange) error {
	if x.req.Version == message.HTTP10 || x.knowsToContinue() {
		return nil
	}
	out, err := http1.AppendResponse(h.out.take()[:0], x.resp, http1.ResponseOptions{})
	if err != nil {
		return nil // dropped: the final response counts
	}
	if h.c.m.cfg.ProperCase {
		http1.ProperCase(out)
	}
	h.out.b = out
	h.headSent(out)
	err = h.write(x, out)
	h.out.release()
	return err
}

// head implements client. It decides the framing and whether the connection goes on.
func (h *http1Client) head(x *exchange, more bool) (err error) {
	resp := x.resp
	http10 := x.req.Version == message.HTTP10
	upgrade := ""
	switch {
	case x.switched():
		h.respFraming, upgrade = http1.UntilClose, resp.Upgrade
		if x.attempt.version == message.HTTP2 {
			answerWebSocket(x.req, resp)
		}
		x.closeAfter = true
	case !more:
		h.respFraming = http1.NoBody
	case resp.ContentLength >= 0:
		h.respFraming = http1.Length
	case http10:
		h.respFraming = http1.UntilClose
		x.closeAfter = true
	default:
		h.respFraming = http1.Chunked
	}
	// An answer before the end of the request leaves a body that nobody reads.
	if h.c.last() || !x.requestRead() && !(x.local && h.discardable(x)) {
		x.closeAfter = true
	}
	if !x.req.AcceptTrailers {
		resp.Fields.DelID(message.Trailer)
	}
	if resp.Status == 204 {
		resp.Fields.DelID(message.ContentLength) // RFC 9110 8.6; the log does not tell of one either
	}
	h.out.b, err = http1.AppendResponse(h.out.take()[:0], resp, http1.ResponseOptions{
		Framing: h.respFraming,
		// HEAD and 304 tell the length that a body would have had.
		KnownLength: !more && resp.ContentLength >= 0 && resp.Status != 204 && resp.Status >= 200,
		Close:       x.closeAfter && !x.switched(), KeepAlive: http10 && !x.closeAfter, Upgrade: upgrade,
	})
	if h.c.m.cfg.ProperCase {
		http1.ProperCase(h.out.b)
	}
	h.headSent(h.out.b)
	return err
}

// discardable tells whether the rest of the request's body is little enough to be
// read and dropped, which saves the connection.
func (h *http1Client) discardable(x *exchange) bool {
	return h.framing == http1.Length && !x.req.ExpectContinue && x.pump == nil && x.req.ContentLength <= replayLimit
}

// directWrite is from which size on body bytes are written from where they were
// read instead of being copied behind what is to be written before them.
const directWrite = 8 << 10

// data implements client.
func (h *http1Client) data(x *exchange, p []byte, last bool, trailers *message.Fields) (err error) {
	switch {
	case h.respFraming == http1.Chunked && len(p) > upstreamBuffer && !last:
		// Copied, it would need more memory than is kept, for each piece anew.
		h.out.b = http1.AppendChunkHead(h.out.take(), len(p))
		if err := h.direct(x, p); err != nil {
			return err
		}
		h.out.b = append(h.out.take(), '\r', '\n')
		return nil
	case h.respFraming == http1.Chunked:
		h.out.b = http1.AppendChunk(h.out.take(), p)
		if last {
			if !x.req.AcceptTrailers || !h.c.m.cfg.EnableTrailers {
				trailers = nil
			}
			start := len(h.out.b)
			h.out.b, err = http1.AppendLastChunk(h.out.b, trailers)
			if h.c.m.cfg.ProperCase {
				http1.ProperCase(h.out.b[start:])
			}
		}
		return h.bounded(x, last, err)
	case len(p) < directWrite, len(h.out.b) > 0 && len(p) <= upstreamBuffer:
		// One write with the head is cheaper than two.
		h.out.b = append(h.out.take(), p...)
		return h.bounded(x, last, nil)
	}
	return h.direct(x, p)
}

// direct writes p from where it was read, after what is to be written before it.
func (h *http1Client) direct(x *exchange, p []byte) error {
	if err := h.flush(x); err != nil {
		return err
	}
	x.responded = true // in part, whatever the write says
	return h.write(x, p)
}

// bounded flushes what has become as much as a write is worth: a host that always has
// more gets there without a wait. What is last has its flush when the host was left, which
// is not to wait for the client. err comes first.
func (h *http1Client) bounded(x *exchange, last bool, err error) error {
	if err != nil || last || len(h.out.b) < upstreamBuffer {
		return err
	}
	return h.flush(x)
}

// flush implements client.
func (h *http1Client) flush(x *exchange) error {
	if len(h.out.b) == 0 {
		h.out.release()
		return nil
	}
	x.responded = true
	err := h.write(x, h.out.b)
	h.out.release()
	return err
}

// write writes all of p. What a socket takes at once needs no watchdog.
func (h *http1Client) write(x *exchange, p []byte) error {
	h.meter.Sent(len(p))
	if s, ok := h.c.d.Stream.(*stream.Socket); ok {
		n, done, err := s.TryWrite(p)
		if done || err != nil {
			return err
		}
		p = p[n:]
	}
	x.guard()
	_, err := h.c.d.Stream.Write(p)
	return err
}

// abort implements client: what came of the response goes out first, so that the client
// knows how far it got, whether or not there was a wait for more of it.
func (h *http1Client) abort(x *exchange) {
	if len(h.out.b) > 0 {
		x.boundFlush()
		_ = h.flush(x) // the client may have left
	}
	h.cut()
}

// cut ends the connection's last response without its end: the missing end of the body, at
// the close of the connection, tells. Where that close is the end, a reset has to, or what
// is cut would look whole.
func (h *http1Client) cut() {
	if a, ok := h.c.d.Stream.(stream.Aborter); ok && h.respFraming == http1.UntilClose {
		a.Abort()
	}
}

func (h *http1Client) interrupt()   { h.c.interrupt() }
func (h *http1Client) resume()      { h.c.resume() }
func (h *http1Client) gone() bool   { return h.c.gone() }
func (h *http1Client) polled() bool { return h.c.polled() }
