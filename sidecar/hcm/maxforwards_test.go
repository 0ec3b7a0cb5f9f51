package hcm

import (
	"net/http"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
)

// TestMaxForwards: TRACE and OPTIONS go on with one forward less, and no further where there is
// none left (RFC 9110 7.6.2).
func TestMaxForwards(t *testing.T) {
	for _, tc := range []struct {
		name, method, fields string
		denied               bool
		status               int
		seen                 string // by the origin, "" where it is not asked
		log                  string
	}{
		{"OPTIONS", "OPTIONS", "Max-Forwards: 5\r\n", false, 200, "4", "200 - via_upstream"},
		{"TRACE", "TRACE", "Max-Forwards: 1\r\n", false, 200, "0", "200 - via_upstream"},
		{"leading zeros", "OPTIONS", "Max-Forwards: 007\r\n", false, 200, "6", "200 - via_upstream"},
		{"OPTIONS for us", "OPTIONS", "Max-Forwards: 0\r\n", false, 200, "", "200 - max_forwards"},
		{"TRACE for us", "TRACE", "Max-Forwards: 00\r\n", false, 501, "", "501 - max_forwards"},
		{"another method", "GET", "Max-Forwards: 0\r\n", false, 200, "0", "200 - via_upstream"},
		{"no number", "OPTIONS", "Max-Forwards: x\r\n", false, 200, "x", "200 - via_upstream"},
		{"too large a number", "OPTIONS", "Max-Forwards: 99999999999999999999\r\n", false, 200, "99999999999999999999", "200 - via_upstream"},
		{"several", "OPTIONS", "Max-Forwards: 0\r\nMax-Forwards: 3\r\n", false, 200, "0", "200 - via_upstream"},
		{"none", "OPTIONS", "", false, 200, "none", "200 - via_upstream"},
		{"who is denied", "OPTIONS", "Max-Forwards: 0\r\n", true, 403, "", "403 - rbac_access_denied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen := ""
			b := newBed(t, httpOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
				if seen = r.Header.Get("Max-Forwards"); seen == "" {
					seen = "none"
				}
			}))
			if tc.denied {
				b.rbac(authz.HTTPFilter{Rules: &authz.Rules{Action: authz.Allow}})
			}
			b.start()
			resp, _ := b.dial().do(tc.method + " / HTTP/1.1\r\nHost: h\r\n" + tc.fields + "\r\n")
			if resp.StatusCode != tc.status || seen != tc.seen {
				t.Errorf("%d, and the origin saw %q; want %d and %q", resp.StatusCode, seen, tc.status, tc.seen)
			}
			b.wantLog(tc.log)
		})
	}
}
