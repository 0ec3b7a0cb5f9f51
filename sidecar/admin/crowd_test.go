package admin

import (
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestCrowd: one connection too many ends the one on which nothing was asked for longest, and itself where all
// are busy.
func TestCrowd(t *testing.T) {
	c := crowd{most: 2}
	conns := make([]net.Conn, 5)
	for i := range conns {
		conns[i], _ = net.Pipe()
	}
	for i, step := range []struct {
		conn  int
		state http.ConnState
		ends  int // -1 for none
	}{
		{0, http.StateNew, -1}, {1, http.StateNew, -1},
		{0, http.StateActive, -1}, {0, http.StateIdle, -1},
		{2, http.StateNew, 1}, {1, http.StateClosed, -1},
		{0, http.StateActive, -1}, {2, http.StateActive, -1},
		{3, http.StateNew, 3}, {3, http.StateClosed, -1},
		{2, http.StateClosed, -1}, {4, http.StateNew, -1},
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
