package hcm

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
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

// TestNameOfAnOriginalDestination: the name that logs have of such a host is nobody's, and no request is called by it.
func TestNameOfAnOriginalDestination(t *testing.T) {
	to := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	b := newBed(t, to)
	b.facts.Destination = netip.MustParseAddrPort(to)
	b.route().Forward.AutoHostRewrite = true
	b.cfg.AccessLog[0].Format = "%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%\n"
	if err := b.clusters.Update(&cluster.Config{Name: "origin", Type: cluster.OriginalDestination}); err != nil {
		t.Fatal(err)
	}
	if resp, body := b.start().dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 || body != "h" {
		t.Errorf("%d, the host was asked for %q", resp.StatusCode, body)
	}
	host, _, _ := strings.Cut(to, ":")
	if line, want := b.logged(1)[0], "origin"+to+" origin"+host; line != want {
		t.Errorf("log %q, want %q", line, want)
	}
}
