package hcm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestTunnelEndsWithItsRequest: a client of HTTP/2 that ends its half with the head of its
// CONNECT gets what the host says until it ends the other.
func TestTunnelEndsWithItsRequest(t *testing.T) {
	bye := func(head string) string {
		return rawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			if head != "" {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, head)
			all, _ := io.ReadAll(r)
			fmt.Fprintf(c, "bye%d", len(all))
		})
	}
	for _, tc := range []struct {
		name   string
		origin string
		change func(*bed)
	}{
		{"HTTP/1", bye("HTTP/1.1 200 OK\r\n\r\n"), func(*bed) {}},
		{"bytes", bye(""), func(b *bed) { b.route().Forward.Upgrades = []route.Upgrade{{Type: "CONNECT", Terminate: true}} }},
		{"HTTP/2", versionedOrigin(t, 2, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			all, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "bye%d", len(all))
		}), (*bed).http2Cluster},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, tc.origin)
			b.cfg.Upgrades = []route.Upgrade{{Type: "CONNECT"}}
			b.route().Match = route.Match{Connect: true}
			tc.change(b)
			b.start()
			cc := b.http2Dial()
			before := panics.Count(panics.Body)
			s, err := cc.Open(&message.Request{Method: "CONNECT", Authority: "h:80", ContentLength: message.UnknownLength}, true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var head message.Response
			if _, err = s.ReadHead(&head); err != nil || head.Status != 200 {
				t.Fatal(head.Status, err)
			}
			if got, err := io.ReadAll(http2.NewTunnel(s, nil)); err != nil || string(got) != "bye0" {
				t.Errorf("%q %v", got, err)
			}
			b.wantLog("CONNECT - 200 - via_upstream")
			if n := panics.Count(panics.Body) - before; n > 0 {
				t.Errorf("%d panics", n)
			}
		})
	}
}
