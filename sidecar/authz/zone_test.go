package authz

import (
	"net"
	"net/netip"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestLinkLocalPeer: rules by address see a peer at a link-local address, which has a zone
// that no prefix has.
func TestLinkLocalPeer(t *testing.T) {
	info := &stream.Info{
		Remote: &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 4000, Zone: "eth0"},
		Local:  &net.TCPAddr{IP: net.ParseIP("fe80::2"), Port: 80, Zone: "eth0"},
	}
	for _, text := range []string{"::/0", "fe80::/10", "fe80::1/128"} {
		p := netip.MustParsePrefix(text)
		for name, principal := range map[string]Principal{
			"direct_remote_ip": {DirectSource: &p}, "remote_ip": {Source: &p}, "source_ip": {ConnectionSource: &p},
		} {
			if denied(t, info, Policy{Name: "deny", Permissions: []Permission{{Any: true}}, Principals: []Principal{principal}}) {
				continue
			}
			t.Errorf("%s %s denies nothing", name, text)
		}
	}
	p := netip.MustParsePrefix("fe80::2/128")
	if !denied(t, info, Policy{Name: "deny", Permissions: []Permission{{Destination: &p}}, Principals: []Principal{{Any: true}}}) {
		t.Error("destination_ip denies nothing")
	}
}

// Whoever accepts a connection may know its addresses better than it does, and put them
// there as the socket has them.
func TestLinkLocalAddressOfTheSocket(t *testing.T) {
	p, zoned := netip.MustParsePrefix("fe80::/10"), netip.MustParseAddr("fe80::1%eth0")
	for name, policy := range map[string]Policy{
		"direct_remote_ip": {Permissions: anything, Principals: []Principal{{DirectSource: &p}}},
		"remote_ip":        {Permissions: anything, Principals: []Principal{{Source: &p}}},
		"destination_ip":   {Permissions: []Permission{{Destination: &p}}, Principals: anyone},
	} {
		e := compile(t, Connection, NetworkFilter{Rules: rules(Deny, policy)})
		peer := NewPeer(&stream.Info{}, netip.AddrPort{})
		peer.Direct, peer.Remote, peer.Destination = zoned, zoned, netip.AddrPortFrom(zoned, 80)
		if e.CheckConn(&peer).Allowed {
			t.Errorf("%s denies nothing", name)
		}
		if _, denies := e.DeniesAll(0, &peer, false); !denies {
			t.Errorf("%s does not deny all", name)
		}
	}
}

func denied(t *testing.T, info *stream.Info, p Policy) bool {
	t.Helper()
	e, err := Compile([]NetworkFilter{{Rules: &Rules{Action: Deny, Policies: []Policy{p}}}}, Connection, nil)
	if err != nil {
		t.Fatal(err)
	}
	peer := NewPeer(info, netip.AddrPort{})
	return !e.CheckConn(&peer).Allowed
}
