package hcm

import (
	"net/netip"
	"strings"
	"testing"
)

// TestDetections: who is the client by extensions, and what hangs on it. The peer is at
// 127.0.0.1, and 192.168.0.0/16 is internal.
func TestDetections(t *testing.T) {
	net := func(p ...string) (out []netip.Prefix) {
		for _, one := range p {
			out = append(out, netip.MustParsePrefix(one))
		}
		return out
	}
	near, far := Detection{Trusted: net("127.0.0.0/8", "10.0.0.0/8")}, Detection{Trusted: net("10.0.0.0/8")}
	header := Detection{Header: "x-client"}
	twenty := "1.2.3.4" + strings.Repeat(",10.0.0.1", 19)
	for _, tc := range []struct {
		name     string
		by       []Detection
		fields   string
		client   string
		internal bool
		xff      string
		status   int
	}{
		{"no address", []Detection{near}, "", "127.0.0.1", false, "", 200},
		{"behind a proxy", []Detection{near}, "X-Forwarded-For: 5.6.7.8, 1.2.3.4,10.0.0.1", "1.2.3.4", false, "5.6.7.8, 1.2.3.4,10.0.0.1", 200},
		{"all are proxies", []Detection{near}, "X-Forwarded-For: 10.0.0.2, 10.0.0.1", "10.0.0.2", false, "10.0.0.2, 10.0.0.1", 200},
		{"behind what is no address", []Detection{near}, "X-Forwarded-For: 1.2.3.4, x, 10.0.0.1", "127.0.0.1", false, "1.2.3.4, x, 10.0.0.1", 200},
		{"nothing where an address is due", []Detection{near}, "X-Forwarded-For: 1.2.3.4, , 10.0.0.1", "127.0.0.1", false, "1.2.3.4, , 10.0.0.1", 200},
		{"internal", []Detection{near}, "X-Forwarded-For: 192.168.0.1", "192.168.0.1", true, "192.168.0.1", 200},
		{"internal behind a proxy", []Detection{near}, "X-Forwarded-For: 192.168.0.1, 10.0.0.1", "192.168.0.1", false, "192.168.0.1, 10.0.0.1", 200},
		{"of as many as are looked at", []Detection{near}, "X-Forwarded-For: " + twenty, "1.2.3.4", false, twenty, 200},
		{"of one more", []Detection{near}, "X-Forwarded-For: 5.6.7.8," + twenty, "127.0.0.1", false, "5.6.7.8," + twenty, 200},
		{"of one more, all ours", []Detection{near}, "X-Forwarded-For: 1.2.3.4" + strings.Repeat(",10.0.0.1", 20), "127.0.0.1", false, "1.2.3.4" + strings.Repeat(",10.0.0.1", 20), 200},
		{"of a stranger", []Detection{far}, "X-Forwarded-For: 192.168.0.1", "127.0.0.1", false, "192.168.0.1,127.0.0.1", 200},
		{"appended", []Detection{{AppendPeer: true}}, "X-Forwarded-For: 1.2.3.4", "1.2.3.4", false, "1.2.3.4,127.0.0.1", 200},
		{"header", []Detection{header, near}, "X-Client: 192.168.0.1\r\nX-Forwarded-For: 1.2.3.4", "192.168.0.1", false, "1.2.3.4", 200},
		{"header that may", []Detection{{Header: "x-client", Internal: true}}, "X-Client: 192.168.0.1", "192.168.0.1", true, "", 200},
		{"header is no address", []Detection{header, near}, "X-Client: 1.2.3.4:80\r\nX-Forwarded-For: 5.6.7.8", "5.6.7.8", false, "5.6.7.8", 200},
		{"nobody is named", []Detection{{Header: "x-client", Reject: 401}, near}, "X-Forwarded-For: 5.6.7.8", "127.0.0.1", false, "", 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, httpOrigin(t, told))
			b.cfg.Trust = Trust{Detections: tc.by, Internal: net("192.168.0.0/16")}
			b.cfg.AccessLog[0].Format = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %RESPONSE_CODE_DETAILS%\n"
			fields := tc.fields
			if fields != "" {
				fields += "\r\n"
			}
			resp, body := b.start().dial().do("GET / HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n")
			client, details, _ := strings.Cut(b.logged(1)[0], " ")
			if resp.StatusCode != tc.status || client != tc.client {
				t.Errorf("%d for %s, want %d and %s", resp.StatusCode, client, tc.status, tc.client)
			}
			if tc.status != 200 {
				if details != "rejecting_because_detection_failed" {
					t.Error(details)
				}
				return
			}
			seen := "\n" + strings.ToLower(body)
			if got := strings.Contains(seen, "\nx-envoy-internal: true\n"); got != tc.internal {
				t.Errorf("internal is %v: %s", got, body)
			}
			if _, got, _ := strings.Cut(seen, "\nx-forwarded-for: "); tc.xff != strings.SplitN(got, "\n", 2)[0] {
				t.Errorf("x-forwarded-for: %s", body)
			}
		})
	}
}
