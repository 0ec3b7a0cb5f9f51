package http2

import (
	"strings"
	"sync/atomic"
	"testing"
)

// events counts what happened on one side.
type events [numEvents]atomic.Int64

func (e *events) cfg() *Config {
	c := Default()
	c.OnEvent = func(ev Event) { e[ev].Add(1) }
	return c
}

func (e *events) String() string {
	var out []string
	for ev := range e {
		for range e[ev].Load() {
			out = append(out, Event(ev).String())
		}
	}
	return strings.Join(out, " ")
}

// TestEvents: each side counts its own resets and those that it gets, and none of a stream
// that ended in peace; a connection that is drained says so once.
func TestEvents(t *testing.T) {
	var server, client events
	s := serve(t, server.cfg(), func(st *Stream) {
		if st.Request().Path == "/reset" {
			st.Reset(InternalError)
			return
		}
		if st.Request().Path == "/hang" {
			_, _, _ = st.Next()
			return
		}
		ok(st)
	})
	cc := dialClient(t, s.addr, client.cfg())
	want := func(after, ofServer, ofClient string) {
		t.Helper()
		eventually(t, after, func() bool { return server.String() == ofServer && client.String() == ofClient })
	}
	if _, _, err := exchange(cc, newRequest("GET", "/"), ""); err != nil {
		t.Fatal(err)
	}
	want("an answer", "", "")
	if _, _, err := exchange(cc, newRequest("GET", "/reset"), ""); err == nil {
		t.Error("no reset")
	}
	want("a reset by the server", "tx_reset", "rx_reset")
	st, err := cc.Open(newRequest("POST", "/hang"), false)
	if err != nil {
		t.Fatal(err)
	}
	_ = st.Flush()
	st.Close()
	want("a reset by the client", "tx_reset rx_reset", "tx_reset rx_reset")
	s.conn(0).Drain()
	want("a drain", "tx_reset rx_reset goaway_sent", "tx_reset rx_reset")
}
