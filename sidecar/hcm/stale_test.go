package hcm

import (
	"io"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// TestWhoMayMeetAStaleConnection: only a request that is then sent again by itself.
func TestWhoMayMeetAStaleConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		x    *exchange
		want bool
	}{
		"idempotent":         {&exchange{complete: true, keep: true, request: message.Request{Method: "GET"}}, true},
		"not idempotent":     {&exchange{complete: true, keep: true, request: message.Request{Method: "POST"}}, false},
		"its body is gone":   {&exchange{complete: true, request: message.Request{Method: "PUT"}}, false},
		"its body is coming": {&exchange{keep: true, request: message.Request{Method: "PUT"}}, false},
		"it met one already": {&exchange{complete: true, keep: true, staleRetried: true, request: message.Request{Method: "GET"}}, false},
		"beside another":     {&exchange{complete: true, keep: true, aside: func() bool { return false }, request: message.Request{Method: "GET"}}, false},
	} {
		tc.x.req = &tc.x.request
		if got := tc.x.mayMeetStale(); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestEndOfAUsedConnection: without a policy a request is sent again where the connection
// may have been closed before it came, not where the host had it for a while.
func TestEndOfAUsedConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		method string
		sent   time.Duration // ago
		wrote  bool
		again  bool
	}{
		"at once":                     {method: "PUT", wrote: true, again: true},
		"at once, with effect":        {method: "POST", wrote: true},
		"while the host worked":       {method: "PUT", wrote: true, sent: closeShows},
		"nothing of it was sent":      {method: "PUT", sent: time.Minute, again: true},
		"nothing of a POST was sent":  {method: "POST", sent: time.Minute, again: true},
		"a safe one, after some time": {method: "GET", wrote: true, sent: time.Minute},
	} {
		x := &exchange{ctx: t.Context(), keep: true, attempts: 1, ntried: 1, request: message.Request{Method: tc.method}}
		x.req, x.attempt = &x.request, &attempt{stale: true, wrote: tc.wrote}
		x.attempt.x = x
		x.attempt.sentAt = monotonic() - int64(tc.sent)
		o := x.attempt.broken(io.EOF)
		if o != reset || x.attempt.stale != (tc.sent < closeShows || !tc.wrote) {
			t.Errorf("%s: outcome %d, stale %v", name, o, x.attempt.stale)
		}
		if again := x.retryFailure(o); again != tc.again {
			t.Errorf("%s: sent again: %v", name, again)
		}
	}
}
