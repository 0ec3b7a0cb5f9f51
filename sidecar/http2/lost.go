package http2

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// Recorder is a Handler that is told of the requests that it does not get.
type Recorder interface {
	// StreamLost is told of a request that is not served. An *http1.Error is how the server
	// answered it; otherwise its stream was reset (*StreamError), or has ended with the
	// connection (*ConnError). req is nil where the head was refused: nothing of that is to
	// be believed. It is the caller's. The connection reads no more until this returns.
	StreamLost(req *message.Request, err error)
}

// lostStreams are those of which the recorder was not told yet.
type lostStreams struct{ first, last *Stream }

// refused loses a stream whose head was refused: what was noted of it may have no text. It is
// the reader's; the lock is held.
func (sc *ServerConn) refused(s *Stream, err error) {
	s.req.Reset()
	s.err = err
	sc.lose(s)
	sc.untold = true
}

// lose recycles a stream that nobody serves, once the recorder was told of it. The lock is
// held.
func (sc *ServerConn) lose(s *Stream) {
	if sc.recorder == nil {
		sc.recycleOrLeave(s)
		return
	}
	s.next = nil
	if sc.lost.first == nil {
		sc.lost.first = s
	} else {
		sc.lost.last.next = s
	}
	sc.lost.last = s
}

// tellLost is tell where there is something to be told.
func (c *conn) tellLost() {
	if c.untold {
		c.untold = false
		c.server.tell()
	}
}

// tell tells the recorder. It is called by the reader, without the lock, after what was read
// together and at the end: so the connection's exchanges are over when Serve returns.
func (sc *ServerConn) tell() {
	for {
		sc.mu.Lock()
		s := sc.lost.first
		if s != nil {
			sc.lost.first, s.next = s.next, nil
		}
		sc.mu.Unlock()
		if s == nil {
			return
		}
		req := &s.req
		if !s.gotHead {
			req = nil
		}
		sc.recorder.StreamLost(req, s.err)
		sc.mu.Lock()
		sc.recycleOrLeave(s)
		sc.mu.Unlock()
	}
}
