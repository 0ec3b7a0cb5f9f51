package http2

import "sync"

// open are the connections of the process that are read, and those of which something is
// still to be: whoever has memory freed asks them what their streams hold. It changes with
// connections, not with streams.
var open = struct {
	sync.Mutex
	conns map[*conn]struct{}
}{conns: map[*conn]struct{}{}}

func (c *conn) enlist() {
	open.Lock()
	defer open.Unlock()
	open.conns[c] = struct{}{}
}

// delistRead takes a connection off of which nothing is read any more: the end of its reader
// may have left whole answers. The lock is held.
func (c *conn) delistRead() {
	if !c.readAll || c.unread.first != nil {
		return
	}
	open.Lock()
	defer open.Unlock()
	delete(open.conns, c)
}

// ErrOverloaded is the end of a stream that held too much memory.
var ErrOverloaded = &StreamError{Code: NoError, Reason: "overload"}

// Holder is a Watcher that holds memory for its stream besides what the stream has.
type Holder interface {
	// Held is how many bytes. It is called with the connection locked, from anywhere.
	Held() int
}

// Hoard is a stream of the process and the bytes that are held for it.
type Hoard struct {
	Bytes int
	c     *conn
	id    uint32 // a Stream serves others when it is over
}

// Hoards are the streams for which at least so many bytes are held: what has arrived and
// was not taken, on either side, and what its Watcher holds.
func Hoards(least int) (all []Hoard) {
	open.Lock()
	conns := make([]*conn, 0, len(open.conns))
	for c := range open.conns {
		conns = append(conns, c)
	}
	open.Unlock()
	for _, c := range conns {
		all = c.hoards(all, least)
	}
	return all
}

func (c *conn) hoards(all []Hoard, least int) []Hoard {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, s := range c.streams {
		n := s.in.n
		if h, ok := s.watcher.(Holder); ok {
			n += h.Held()
		}
		if n >= least {
			all = append(all, Hoard{n, c, id})
		}
	}
	for s := c.unread.first; s != nil; s = s.qnext {
		if n := s.untaken(); n > 0 && n >= least {
			all = append(all, Hoard{n, c, s.id})
		}
	}
	return all
}

// Reset ends the stream with ErrOverloaded, of which its Watcher is told; it is false where
// that was over, and nothing of it to be read.
func (h Hoard) Reset() bool {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	s := h.c.streams[h.id]
	if s == nil {
		return h.c.resetUnread(h.id)
	}
	h.c.resetFor(s, ErrOverloaded)
	s.drop() // the stream's end may have been the draining connection's, which keeps it
	h.c.flush(false)
	return true
}

// untaken is how much of a body its reader was not given, where what it has is the last of it: nobody can
// take that away. The lock is held.
func (s *Stream) untaken() int {
	if s.lent {
		return s.in.n - s.held
	}
	return s.in.n
}

// resetUnread takes what is left of an answer that is whole from who was to read it; it is false where
// nothing is. The peer has no part in it. The lock is held.
func (c *conn) resetUnread(id uint32) bool {
	for s := c.unread.first; s != nil; s = s.qnext {
		if s.id != id {
			continue
		}
		if s.untaken() == 0 {
			return false
		}
		s.err = ErrOverloaded
		s.drop()
		s.readable()
		c.flush(false)
		return true
	}
	return false
}
