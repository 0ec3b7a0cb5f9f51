package hcm

import (
	"testing"

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
