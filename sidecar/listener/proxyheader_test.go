package listener

import (
	"strings"
	"testing"
	"time"
)

// TestLateProxyHeader: a listener that goes on when its filters take too long does not so without a PROXY header
// that it needs, nor within one that has begun: the client would be taken for the proxy, and what comes late of the
// header for what the client says.
func TestLateProxyHeader(t *testing.T) {
	m := newTestManager(t, telling)
	required, optional := Filter{ProxyProtocol: &ProxyProtocol{}}, Filter{ProxyProtocol: &ProxyProtocol{Optional: true}}
	never := required
	never.Disabled = &Predicate{Any: true}
	for _, tc := range []struct {
		filters []Filter
		send    string
		served  bool
	}{
		{[]Filter{required}, "", false},
		{[]Filter{required}, "PROXY TCP4 192.0.2.1", false},
		{[]Filter{optional}, "", true},
		{[]Filter{optional}, "PROX", false},
		{[]Filter{optional}, proxyV2, false},
		{[]Filter{{TLSInspector: true}, required}, "", false},
		{[]Filter{{TLSInspector: true}, never}, "", true},
		{[]Filter{required, {TLSInspector: true}}, "PROXY UNKNOWN\r\n", true},
	} {
		cfg := echoConfig("l")
		cfg.Filters, cfg.FilterTimeout, cfg.ContinueOnTimeout = tc.filters, 30*time.Millisecond, true
		mustApply(t, m, cfg)
		if got := told(t, m, "l", tc.send); strings.HasPrefix(got, "c ") != tc.served {
			t.Errorf("%+v, %q: told %q", tc.filters, tc.send, got)
		}
	}
}
