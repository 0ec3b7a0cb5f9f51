package hcm

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
	"github.com/hauberk-mesh/hauberk/sidecar/filter"
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

// refusing is a filter that tells a bystander of each request, which it refuses.
type refusing struct{ others *fairtest.Bystander }

func (r refusing) Request(*filter.Context) filter.Verdict {
	r.others.Worked()
	return filter.Answer(&filter.Reply{Status: 403, GRPC: filter.NoGRPC})
}

func (refusing) Response(*filter.Context) {}

// TestRefusedStreamsTakeTurns: the same of a client whose requests come as streams of
// HTTP/2, all at once.
func TestRefusedStreamsTakeTurns(t *testing.T) {
	n := fairtest.Waited(t, func(others *fairtest.Bystander) {
		b := newBed(t)
		b.rbac(authz.HTTPFilter{})
		b.change = func(m *Manager) { m.policy.chain.links[0] = link{name: "refuses", filter: refusing{others}} }
		b.start()
		c := b.dialHTTP2()
		const streams = 100
		for i := range streams {
			c.open(uint32(2*i+1), ":method: GET", ":scheme: http", ":path: /", ":authority: h")
		}
		c.write()
		for answers := 0; answers < streams; {
			f, err := c.framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				if h.PseudoValue("status") != "403" {
					t.Fatal(h.PseudoValue("status"))
				}
				answers++
			}
		}
	})
	if n > 35 {
		t.Errorf("%d requests were refused before another ran", n)
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
