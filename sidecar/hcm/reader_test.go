package hcm

import (
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
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
