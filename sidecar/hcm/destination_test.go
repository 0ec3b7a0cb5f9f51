package hcm

import (
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// TestOriginalDestination: a redirected request goes on to where it wanted to go,
// or where a header says if that is configured, and not to its own listener.
func TestOriginalDestination(t *testing.T) {
	says := func(what string) string {
		return httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, what) })
	}
	meant, named := says("meant"), says("named")
	for _, tc := range []struct {
		header, redirected string
		status             int
		body               string
	}{
		{"", meant, 200, "meant"}, {"x-dst", meant, 200, "named"}, {"", "", 503, ""},
		{cluster.DestinationHeader, meant, 200, "named"}, {cluster.DestinationHeader, "", 200, "named"},
	} {
		b := newBed(t, meant)
		if tc.redirected != "" {
			b.facts.Destination = netip.MustParseAddrPort(tc.redirected)
		}
		if err := b.clusters.Update(&cluster.Config{Name: "origin", Type: cluster.OriginalDestination, OriginalDst: &cluster.OriginalDst{Header: tc.header}}); err != nil {
			t.Fatal(err)
		}
		resp, body := b.start().dial().do("GET / HTTP/1.1\r\nHost: h\r\nX-Dst: " + named + "\r\nX-Envoy-Original-Dst-Host: " + named + "\r\n\r\n")
		if resp.StatusCode != tc.status || tc.body != "" && body != tc.body {
			t.Errorf("header %q, redirected from %q: %d %q", tc.header, tc.redirected, resp.StatusCode, body)
		}
	}
}
