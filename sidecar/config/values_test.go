package config

import (
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestPrefix: a range of IPv4 is one however it is written, for addresses are compared as what they
// are; what is partly one is refused.
func TestPrefix(t *testing.T) {
	for _, tc := range []struct {
		ip   string
		bits uint32
		want string // a range, or a part of what is said
	}{
		{"10.1.2.3", 8, "10.0.0.0/8"},
		{"10.0.0.0", 33, "x.prefix_len: 33 is too long for 10.0.0.0"},
		{"2001:db8::1", 32, "2001:db8::/32"},
		{"2001:db8::", 129, "x.prefix_len: 129 is too long"},
		{"::", 0, "::/0"},
		{"::ffff:10.1.2.3", 104, "10.0.0.0/8"},
		{"::ffff:10.1.2.3", 128, "10.1.2.3/32"},
		{"::ffff:0:0", 96, "0.0.0.0/0"},
		{"::ffff:0:0", 95, "x.prefix_len: 95 has more than the addresses of IPv4 in IPv6"},
		{"::ffff:10.0.0.0", 0, "x.prefix_len: 0 has more"},
		{"::ffff:10.0.0.0", 129, "x.prefix_len: 129 is too long"},
		{"x", 0, "x.address_prefix: "},
	} {
		p, err := prefix(&corev3.CidrRange{AddressPrefix: tc.ip, PrefixLen: wrapperspb.UInt32(tc.bits)}, "x")
		switch want, none := netip.ParsePrefix(tc.want); {
		case none == nil && (err != nil || p != want):
			t.Errorf("%s/%d: %v, %v; want %v", tc.ip, tc.bits, p, err, want)
		case none != nil && (err == nil || !strings.HasPrefix(err.Error(), tc.want)):
			t.Errorf("%s/%d: %v, %v; want %s", tc.ip, tc.bits, p, err, tc.want)
		}
	}
}
