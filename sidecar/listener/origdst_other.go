//go:build !linux

package listener

import (
	"net/netip"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// originalDestination needs netfilter.
func originalDestination(stream.Conn, netip.AddrPort) (netip.AddrPort, bool) {
	return netip.AddrPort{}, false
}
