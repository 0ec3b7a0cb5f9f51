package hcm

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// answerCounter counts the answers that are written to a client, and notes how many there
// were when another goroutine, ready since the first, ran.
type answerCounter struct {
	stream.Stream
	written atomic.Int64
	seen    chan int64
}

func (a *answerCounter) Write(p []byte) (int, error) {
	if a.written.Add(1) == 1 {
		go func() { a.seen <- a.written.Load() }()
	}
	return a.Stream.Write(p)
}

// TestRefusedRequestsTakeTurns: a client that sends request after request which are answered
// at once does not keep the processor from the others.
func TestRefusedRequestsTakeTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b := newBed(t)
	b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}})
	counter := &answerCounter{seen: make(chan int64, 1)}
	b.wrap = func(s stream.Stream) stream.Stream {
		counter.Stream = s
		return counter
	}
	b.start()
	c := b.dial()
	const requests = 100 // they arrive with one read
	c.send(strings.Repeat("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", requests))
	for range requests {
		if resp, _ := c.answer("GET"); resp.StatusCode != 403 {
			t.Fatal(resp.Status)
		}
	}
	if n := <-counter.seen; n > 3 {
		t.Errorf("%d answers were written before another ran", n)
	}
}
