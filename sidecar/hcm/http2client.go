package hcm

import (
	"errors"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// http2Client is the client side of an exchange on a stream of HTTP/2.
type http2Client struct {
	*http2.Stream
	dog  watchdog
	left atomic.Bool
	// reset is one more than the code with which the client reset the stream, 0 where it did
	// not. fault is what it did wrong, nil for nothing: then its codec ended the stream, or
	// the connection.
	reset atomic.Uint64
	fault atomic.Pointer[string]
	// kept is how much the exchange keeps of the request for another attempt.
	kept atomic.Int64

	// rest is what fill did not have room for.
	rest []byte
	last bool
}

// open makes h the client on a stream.
func (h *http2Client) open(c *http2Conn, s *http2.Stream) {
	h.Stream, h.rest, h.last = s, nil, false
	h.left.Store(false)
	h.reset.Store(0)
	h.fault.Store(nil)
	h.dog.start(c.m.timers, h)
	if err := s.Watch(h); err != nil {
		h.StreamEnded(err)
	}
}

// close gives everything back; the connection ends what is left of the stream.
func (h *http2Client) close() {
	_ = h.Watch(nil)
	h.dog.stop()
	h.Stream = nil
}

// StreamEnded implements http2.Watcher. The connection is locked.
func (h *http2Client) StreamEnded(err error) {
	h.blame(err)
	h.left.Store(true)
	h.dog.look()
}

// Held implements http2.Holder.
func (h *http2Client) Held() int { return int(h.kept.Load()) }

// blame notes whose fault the end of the stream is.
func (h *http2Client) blame(err error) {
	var e *http2.StreamError
	h.reset.Store(0)
	if errors.As(err, &e) && e.Remote {
		h.reset.Store(1 + uint64(e.Code))
	}
	if r, ok := refusal(err); ok {
		details := detailsOf(http2Details, r.reason)
		h.fault.Store(&details)
	} else if reason, ok := http2Fault(err); ok {
		h.fault.Store(&reason)
	} else if errors.Is(err, http2.ErrOverloaded) {
		h.fault.Store(&http2.ErrOverloaded.Reason)
	} else {
		h.fault.Store(nil)
	}
}

// Next implements message.Body.
func (h *http2Client) Next() ([]byte, bool, error) {
	h.dog.awaits()
	data, last, err := h.Stream.Next()
	if h.dog.came(len(data)); len(data) == 0 {
		h.dog.active() // its end, perhaps
	}
	return data, last, err
}

// fill implements client.
func (h *http2Client) fill(p []byte) (n int, last bool, err error) {
	if len(h.rest) == 0 && !h.last {
		if h.rest, h.last, err = h.Next(); err != nil {
			return 0, false, err
		}
	}
	n = copy(p, h.rest)
	h.rest = h.rest[n:]
	return n, h.last && len(h.rest) == 0, nil
}

// tunnel implements client: a stream that is to be a tunnel is one from the start.
func (h *http2Client) tunnel(*exchange) {}

// interim implements client. 101 does not exist here.
func (h *http2Client) interim(x *exchange) error {
	if x.knowsToContinue() {
		return nil
	}
	if err := h.WriteHead(x.resp, false); err != nil {
		return err
	}
	return h.Flush()
}

// head implements client.
func (h *http2Client) head(x *exchange, more bool) error {
	err := h.WriteHead(x.resp, !more)
	if err == nil {
		x.responded = true // it cannot be taken back
	}
	return err
}

// data implements client.
func (h *http2Client) data(_ *exchange, p []byte, last bool, trailers *message.Fields) error {
	if last && trailers == nil {
		return h.WriteData(p, true)
	}
	if len(p) > 0 {
		if err := h.WriteData(p, false); err != nil {
			return err
		}
	}
	if last {
		return h.WriteTrailers(trailers)
	}
	return nil
}

// flush implements client.
func (h *http2Client) flush(x *exchange) error {
	x.guard()
	return h.Flush()
}

// abort implements client. What the host reset its stream with is the client's to know.
func (h *http2Client) abort(x *exchange) {
	code := http2.InternalError
	switch {
	case x.resetCode != http2.NoError:
		code = x.resetCode
	case x.switched() && x.req.Upgrade != "":
		code = http2.Cancel // RFC 8441 5
	case x.req.Method == "CONNECT" && x.switched():
		code = http2.ConnectError // RFC 9113 8.5
	}
	h.Reset(code)
}

// heldBack tells the watchdog that the client cannot send.
func (h *http2Client) heldBack() bool { return h.HeldBack() }

// inflow tells it what else there may be that excuses the client.
func (h *http2Client) inflow() (bytes uint64, lifted int64) { return h.Inflow() }

func (h *http2Client) interrupt()   { h.Interrupt() }
func (h *http2Client) resume()      { h.Resume() }
func (h *http2Client) gone() bool   { return h.left.Load() }
func (h *http2Client) polled() bool { return false }
