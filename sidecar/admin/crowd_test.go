package admin

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// from is a connection from an address.
type from struct {
	net.Conn
	host string
}

func (c *from) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(c.host), Port: 1}
}

// TestCrowd: one connection too many ends another of the address that holds most, that on which nothing was asked
// for longest, or else the one that is busy for longest; never itself.
func TestCrowd(t *testing.T) {
	c := crowd{most: 3}
	conns := []net.Conn{
		&from{host: "192.0.2.1"}, &from{host: "192.0.2.1"}, &from{host: "192.0.2.2"}, &from{host: "192.0.2.3"},
		&from{host: "192.0.2.4"}, &from{host: "192.0.2.5"}, &from{host: "192.0.2.6"},
	}
	for i, step := range []struct {
		conn  int
		state http.ConnState
		ends  int // -1 for none
	}{
		{2, http.StateNew, -1}, {0, http.StateNew, -1}, {1, http.StateNew, -1},
		{0, http.StateActive, -1}, {1, http.StateActive, -1},
		{3, http.StateNew, 0}, // the longest busy of who holds most, though another asks for nothing
		{0, http.StateIdle, -1}, {0, http.StateClosed, -1},
		{4, http.StateNew, 2},     // nobody holds most: who asks for nothing for longest
		{1, http.StateClosed, -1}, // makes room
		{2, http.StateClosed, -1}, // is no member any more
		{5, http.StateNew, -1},    // has it
		{3, http.StateActive, -1}, // of these
		{5, http.StateActive, -1}, // all
		{4, http.StateActive, -1}, // are busy
		{6, http.StateNew, 3},     // and a newcomer is not the one that goes
		{6, http.StateActive, -1},
	} {
		want := net.Conn(nil)
		if step.ends >= 0 {
			want = conns[step.ends]
		}
		if got := c.excess(conns[step.conn], step.state); got != want {
			t.Errorf("step %d ends %v", i, got)
		}
	}
}

// TestBusyConnections: who asks for something on many connections, and does not go on, keeps nobody from them.
func TestBusyConnections(t *testing.T) {
	ended := atomic.Int64{}
	s := startWith(t, func(o *Options) { o.MadeRoom = func() { ended.Add(1) } })
	addr := s.Addrs().Metrics.String()
	for range mostExposed {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000"); err != nil {
			t.Fatal(err)
		}
	}
	if code, _ := s.do(t, "GET", "tcp", addr, "/metrics", "prom"); code != 200 || ended.Load() != 1 {
		t.Errorf("status %d, %d made room", code, ended.Load())
	}
}

// TestUnreadBody: a request's body, which nothing reads, is not waited for.
func TestUnreadBody(t *testing.T) {
	s := start(t)
	c, err := net.Dial("tcp", s.Addrs().Metrics.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// Well before a body is not waited for any more.
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestHeldConnections: who holds connections to the metrics keeps nobody from them.
func TestHeldConnections(t *testing.T) {
	s := start(t)
	addr := s.Addrs().Metrics.String()
	var first net.Conn
	for range mostExposed + 1 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if first == nil {
			first = c
		}
	}
	// Well before half of a request is not waited for any more.
	if err := first.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first of them is there still: %v", err)
	}
	if code, _ := s.do(t, "GET", "tcp", addr, "/metrics", "prom"); code != 200 {
		t.Errorf("status %d", code)
	}
}
