package authz

import (
	"net"
	"net/netip"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestDirectOfAnnouncedClient: what the PROXY protocol says is the client's address, and never the
// one at the other end of the connection, also where that has none.
func TestDirectOfAnnouncedClient(t *testing.T) {
	client := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 1234}
	for direct, want := range map[net.Addr]netip.Addr{
		nil: netip.MustParseAddr("10.0.0.5"),
		&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}: netip.MustParseAddr("192.0.2.1"),
		&net.UnixAddr{Name: "/run/s", Net: "unix"}:        {},
	} {
		p := NewPeer(&stream.Info{Remote: client, Direct: direct}, netip.AddrPort{})
		if p.Direct != want || p.Remote != netip.MustParseAddr("10.0.0.5") {
			t.Errorf("%v: direct %v, remote %v", direct, p.Direct, p.Remote)
		}
	}
}
