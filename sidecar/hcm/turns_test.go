package hcm

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// answering tells a bystander of the answers that are written to a client.
type answering struct {
	stream.Stream
	others *fairtest.Bystander
}

func (a *answering) Write(p []byte) (int, error) {
	a.others.Worked()
	return a.Stream.Write(p)
}

// TestRefusedRequestsTakeTurns: a client that sends request after request which are answered
// at once does not keep who waits for the network from the processor.
func TestRefusedRequestsTakeTurns(t *testing.T) {
	n := fairtest.Waited(t, func(others *fairtest.Bystander) {
		b := newBed(t)
		b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}})
		b.wrap = func(s stream.Stream) stream.Stream { return &answering{s, others} }
		b.start()
		c := b.dial()
		const requests = 120 // they arrive with one read
		c.send(strings.Repeat("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", requests))
		for range requests {
			if resp, _ := c.answer("GET"); resp.StatusCode != 403 {
				t.Fatal(resp.Status)
			}
		}
	})
	if n > 35 {
		t.Errorf("%d answers were written before another ran", n)
	}
}

// TestBodiesTakeTurns: the same of bodies whose next bytes are always there, both ways.
func TestBodiesTakeTurns(t *testing.T) {
	drain := func(body message.Body) {
		for {
			if _, last, err := body.Next(); last || err != nil {
				return
			}
		}
	}
	answer := fairtest.Waited(t, func(others *fairtest.Bystander) {
		u := &http1Upstream{c: &cluster.Conn{Stream: &fairtest.Ample{Others: others}}, dog: &watchdog{}, framing: http1.UntilClose}
		u.decoder.Start(u.framing, message.UnknownLength, http1.Limits{})
		drain(u)
	})
	request := fairtest.Waited(t, func(others *fairtest.Bystander) {
		h := &http1Client{framing: http1.UntilClose, c: &http1Conn{m: &Manager{cfg: &Config{}},
			d: downstream.New(downstream.Facts{Stream: &fairtest.Ample{Others: others}}, nil)}}
		h.decoder.Start(h.framing, message.UnknownLength, http1.Limits{})
		drain(h)
	})
	if answer > 70 || request > 550 { // of 32 KB and of 4 KB
		t.Errorf("%d reads of an answer and %d of a request before another ran", answer, request)
	}
}
