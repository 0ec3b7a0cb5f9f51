package admin

import (
	"net"
	"net/http"
	"sync"
)

// mostExposed is how many connections a listener has that is for other hosts too.
const mostExposed = 128

// crowd bounds the connections of a listener. One more ends the one on which nothing has been asked for longest,
// so that nobody who holds connections keeps others away; where all are busy, itself.
type crowd struct {
	most int

	mu    sync.Mutex
	turn  uint64
	quiet map[net.Conn]uint64 // since which turn nothing was asked on it
	busy  map[net.Conn]struct{}
}

// note implements http.Server.ConnState.
func (c *crowd) note(conn net.Conn, s http.ConnState) {
	if over := c.excess(conn, s); over != nil {
		_ = over.Close()
	}
}

func (c *crowd) excess(conn net.Conn, s http.ConnState) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.quiet == nil {
		c.quiet, c.busy = map[net.Conn]uint64{}, map[net.Conn]struct{}{}
	}
	delete(c.quiet, conn)
	delete(c.busy, conn)
	switch s {
	case http.StateActive:
		c.busy[conn] = struct{}{}
	case http.StateNew, http.StateIdle:
		c.turn++
		c.quiet[conn] = c.turn
	}
	if s != http.StateNew || len(c.quiet)+len(c.busy) <= c.most {
		return nil
	}
	oldest := conn
	for other, turn := range c.quiet {
		if turn < c.quiet[oldest] {
			oldest = other
		}
	}
	delete(c.quiet, oldest)
	return oldest
}
