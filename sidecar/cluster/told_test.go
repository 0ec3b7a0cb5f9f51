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
