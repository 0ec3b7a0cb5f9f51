package config

import "testing"

// TestRedirectsThatNoneAre: a policy without a code that is followed is none, for which nothing is
// to be kept.
func TestRedirectsThatNoneAre(t *testing.T) {
	for codes, none := range map[string]bool{"[]": false, "[301]": false, "[304, 200]": true} {
		table, err := readRoutes(t, "name: r\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n  - match: {prefix: /}\n    route: {cluster: a, internal_redirect_policy: {redirect_response_codes: "+codes+"}}\n")
		if err != nil {
			t.Fatal(err)
		}
		if p := table.VirtualHosts[0].Routes[0].Forward.InternalRedirect; (p == nil) != none {
			t.Errorf("%s: %+v", codes, p)
		}
	}
}
