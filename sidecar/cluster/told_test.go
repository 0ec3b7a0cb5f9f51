package cluster

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// TestExtensionsOfAHost: a host's own stand first, and in the place of the cluster's and the client's of
// their types; headers of version 1 have none.
func TestExtensionsOfAHost(t *testing.T) {
	var none proxytlv.List
	own := none.With(1, "host").With(1, "host2")
	cluster := &Extensions{Passed: proxytlv.Choice{All: true}, Added: proxytlv.Keep(none.With(1, "cluster").With(2, "cluster"))}
	client := &proxytlv.Client{Said: none.With(1, "client").With(2, "client").With(3, "client")}
	for _, tc := range []struct {
		name       string
		version    Announcement
		extensions *Extensions
		own        proxytlv.List
		client     *proxytlv.Client
		want       proxytlv.List
	}{
		{"all", 2, cluster, own, client, own.With(2, "cluster").With(3, "client")},
		{"no client", 2, cluster, own, nil, own.With(2, "cluster")},
		{"the host alone", 2, nil, own, client, own},
		{"not the host", 2, cluster, "", client, none.With(1, "cluster").With(2, "cluster").With(3, "client")},
		{"nobody", 2, nil, "", client, ""},
		{"version 1", 1, nil, own, client, ""},
	} {
		h := &Host{socket: &SocketMatch{Announce: tc.version, Extensions: tc.extensions}}
		h.ep.Store(&Endpoint{Extensions: proxytlv.Keep(tc.own)})
		if got := h.told(nil, tc.client).List(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestToldCostsNothing: each request asks.
func TestToldCostsNothing(t *testing.T) {
	var none proxytlv.List
	some := proxytlv.Keep(none.With(1, "some"))
	for name, e := range map[string]*Extensions{
		"nothing": nil, "added": {Added: proxytlv.Keep(none.With(2, "cluster"))}, "passed": {Passed: proxytlv.Choice{All: true}, Added: some},
	} {
		for _, own := range []proxytlv.Kept{{}, some} {
			h := &Host{socket: &SocketMatch{Announce: 2, Extensions: e}}
			h.ep.Store(&Endpoint{Extensions: own})
			for _, client := range []*proxytlv.Client{nil, {Said: none.With(3, "client")}} {
				if n := testing.AllocsPerRun(20, func() { h.told(nil, client) }); n != 0 {
					t.Errorf("%s, own %q, client %q: %v allocations", name, own.List(), client.List(), n)
				}
			}
		}
	}
}

// TestToldAfterAChange: what was made of others is not taken.
func TestToldAfterAChange(t *testing.T) {
	var none proxytlv.List
	client := &proxytlv.Client{Said: none.With(3, "client")}
	h := &Host{}
	for _, what := range []string{"a", "b"} {
		for _, more := range []string{"c", "d"} {
			h.socket = &SocketMatch{Announce: 2, Extensions: &Extensions{Passed: proxytlv.Choice{Types: "\x03"}, Added: proxytlv.Keep(none.With(2, more))}}
			h.ep.Store(&Endpoint{Extensions: proxytlv.Keep(none.With(1, what))})
			want := none.With(1, what).With(2, more)
			if got := h.told(nil, nil).List(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if got := h.told(nil, client).List(); got != want+client.Said {
				t.Errorf("%q, want %q", got, want+client.Said)
			}
		}
	}
}
