package hcm

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// readers is a filter that sees whether the memory for reading heads was given back.
type readers struct{ held chan bool }

// Request implements filter.Filter.
func (r readers) Request(c *filter.Context) filter.Verdict {
	r.held <- c.Exchange.(*exchange).h1.reader != nil
	return filter.Continue
}

// Response implements filter.Filter.
func (readers) Response(*filter.Context) {}

// TestReaderIsGivenBack: a request whose head is all that came of it holds none of the memory
// that it was read with, however long the head was; what else came stays where it is, and is the
// body, or the next request.
func TestReaderIsGivenBack(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	long := "GET / HTTP/1.1\r\nHost: h\r\nx-long: " + strings.Repeat("x", 3*firstBuffer) + "\r\n\r\n"
	post := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
	for name, tc := range map[string]struct {
		sent string
		held []bool // while each of the requests is served
	}{
		"a head": {get, []bool{false}}, "a long head": {long, []bool{false}}, "a body": {post, []bool{true}},
		"another request behind it": {get + long + post + get, []bool{true, true, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, echo))
			f := readers{make(chan bool, len(tc.held))}
			b.change = func(m *Manager) { m.policy.chain.links = []link{{name: "readers", filter: f}} }
			c := b.start().dial()
			c.send(tc.sent)
			for i, want := range tc.held {
				if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
					t.Fatal(resp.Status)
				}
				if held := <-f.held; held != want {
					t.Errorf("request %d: held %t, want %t", i+1, held, want)
				}
			}
		})
	}
}

// askers is a filter that sees whom a request is from, as routes know it.
type askers struct{ seen chan netip.Addr }

// Request implements filter.Filter.
func (a askers) Request(c *filter.Context) filter.Verdict {
	a.seen <- c.Client.Addr
	return filter.Continue
}

// Response implements filter.Filter.
func (askers) Response(*filter.Context) {}

// TestNobodyAsksWithoutRoutes: an exchange knows nothing of who asked before, where no route
// table is there that would have it know who asks now.
func TestNobodyAsksWithoutRoutes(t *testing.T) {
	b := newBed(t, httpOrigin(t, echo))
	a := askers{make(chan netip.Addr, 2)}
	var gone atomic.Bool
	b.change = func(m *Manager) {
		routes := m.policy.routes
		m.policy.routes = func() *route.Table {
			if gone.Load() {
				return nil
			}
			return routes()
		}
		m.policy.chain.links = []link{{name: "askers", filter: a}}
	}
	c := b.start().dial()
	if resp, _ := c.do(simpleGet); resp.StatusCode != 200 || !(<-a.seen).IsValid() {
		t.Fatal(resp.Status)
	}
	gone.Store(true)
	if resp, _ := c.do(simpleGet); resp.StatusCode != 404 {
		t.Fatal(resp.Status)
	}
	if addr := <-a.seen; addr.IsValid() {
		t.Errorf("%v asks", addr)
	}
}
