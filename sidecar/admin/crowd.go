package admin

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// mostExposed is how many connections a listener has that is for other hosts too.
const mostExposed = 128

// crowd bounds the connections of a listener. One more ends another, of the address that holds most of them: who
// holds connections keeps nobody else away, whatever is asked on them.
type crowd struct {
	most  int
	ended func(net.Conn) // is told of who made room

	mu      sync.Mutex
	turn    uint64
	members map[net.Conn]member
}

// member is a connection of a crowd.
type member struct {
	host  string
	busy  bool
	since uint64 // the turn at which it became so
}

// note implements http.Server.ConnState.
func (c *crowd) note(conn net.Conn, s http.ConnState) {
	if over := c.excess(conn, s); over != nil {
		_ = over.Close()
		c.ended(over)
	}
}

func (c *crowd) excess(conn net.Conn, s http.ConnState) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members == nil {
		c.members = map[net.Conn]member{}
	}
	if s == http.StateClosed || s == http.StateHijacked {
		delete(c.members, conn)
		return nil
	}
	m, known := c.members[conn]
	if !known && s != http.StateNew {
		return nil // it was ended
	}
	if !known {
		m.host = hostOf(conn)
	}
	c.turn++
	m.busy, m.since = s == http.StateActive, c.turn
	c.members[conn] = m
	if len(c.members) <= c.most {
		return nil
	}
	over := c.excessive(conn)
	delete(c.members, over)
	return over
}

// excessive is whom a newcomer ends: of the address that holds most, one on which nothing is asked rather than
// another, and the longest.
func (c *crowd) excessive(newcomer net.Conn) (over net.Conn) {
	held := map[string]int{}
	for _, m := range c.members {
		held[m.host]++
	}
	var worst member
	for conn, m := range c.members {
		if conn != newcomer && (over == nil || before(m, worst, held)) {
			over, worst = conn, m
		}
	}
	return over
}

// before tells whether one member is ended before another.
func before(m, other member, held map[string]int) bool {
	switch {
	case held[m.host] != held[other.host]:
		return held[m.host] > held[other.host]
	case m.busy != other.busy:
		return other.busy
	}
	return m.since < other.since
}

func hostOf(c net.Conn) string {
	addr := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// bodiless serves requests of which the body is not read: it is not waited for either.
func bodiless(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
		h.ServeHTTP(w, r)
	})
}
