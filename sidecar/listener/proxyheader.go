package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
)

// proxyHeader is what a proxy in front says of a connection, in the PROXY
// protocol's version 1 or 2. Without addresses (UNKNOWN, LOCAL) the connection's own stand.
type proxyHeader struct {
	version             int
	length              int // bytes of the header
	source, destination netip.AddrPort
	extensions          proxytlv.List
}

var (
	errNoProxyHeader  = errors.New("the connection does not begin with a PROXY header")
	errBadProxyHeader = errors.New("malformed PROXY header")
	// errHalfHeader is no timeout after which a listener may go on: there is a header.
	errHalfHeader = errors.New("the rest of the PROXY header did not come in time")
)

const (
	proxyV1     = "PROXY "
	proxyV2     = "\r\n\r\n\x00\r\nQUIT\n"
	maxProxyV1  = 107 // with its end, by the specification
	maxProxyV2  = proxytlv.MostHeader
	proxyV2Head = 16
)

// parseProxyHeader reads a header from the first bytes of a connection. It returns
// errMoreBytes while they could still become one.
func parseProxyHeader(b []byte) (proxyHeader, error) {
	if len(b) == 0 {
		return proxyHeader{}, errMoreBytes
	}
	if begins(b, proxyV2) {
		return parseProxyV2(b)
	}
	if begins(b, proxyV1) {
		return parseProxyV1(b)
	}
	return proxyHeader{}, errNoProxyHeader
}

// begins tells whether b is a beginning of prefix, or has it.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

func parseProxyV1(b []byte) (proxyHeader, error) {
	end := bytes.Index(b[:min(len(b), maxProxyV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxProxyV1 {
			return proxyHeader{}, errBadProxyHeader
		}
		return proxyHeader{}, errMoreBytes
	}
	h := proxyHeader{version: 1, length: end + 2}
	f := strings.Split(string(b[:end]), " ")
	if f[1] == "UNKNOWN" {
		return h, nil // what follows is to be ignored
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return proxyHeader{}, errBadProxyHeader
	}
	var ok1, ok2 bool
	h.source, ok1 = proxyAddress(f[2], f[4], f[1] == "TCP4")
	h.destination, ok2 = proxyAddress(f[3], f[5], f[1] == "TCP4")
	if !ok1 || !ok2 {
		return proxyHeader{}, errBadProxyHeader
	}
	return h, nil
}

func proxyAddress(host, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4() != v4 {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	ap := unmapped(netip.AddrPortFrom(a, uint16(n)))
	return ap, unicast(ap)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// unicast tells whether an address is one host's, as Envoy demands. What is said to be for the
// unspecified address would go to this host itself, past rules on where that is.
func unicast(ap netip.AddrPort) bool {
	a := ap.Addr()
	return !a.IsUnspecified() && !a.IsMulticast() && a != broadcast
}

func parseProxyV2(b []byte) (proxyHeader, error) {
	if len(b) < proxyV2Head {
		return proxyHeader{}, errMoreBytes
	}
	length := int(binary.BigEndian.Uint16(b[14:16]))
	const local, proxied = 0x20, 0x21
	if b[12] != local && b[12] != proxied || length > maxProxyV2-proxyV2Head {
		return proxyHeader{}, errBadProxyHeader
	}
	h := proxyHeader{version: 2, length: proxyV2Head + length}
	if len(b) < h.length {
		return proxyHeader{}, errMoreBytes
	}
	body := b[proxyV2Head:h.length]
	const (
		ipv4, ipv6       = 1, 2 // families
		stream, datagram = 1, 2
	)
	family, kind := b[13]>>4, b[13]&0xf
	if b[12] == proxied && kind != stream && kind != datagram {
		return proxyHeader{}, errBadProxyHeader
	}
	var rest []byte
	switch {
	case b[12] == local:
		return h, nil // what follows is to be ignored
	case family == ipv4 && len(body) >= 12:
		rest = body[12:]
		h.source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[0:4])), binary.BigEndian.Uint16(body[8:]))
		h.destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:8])), binary.BigEndian.Uint16(body[10:]))
	case family == ipv6 && len(body) >= 36:
		rest = body[36:]
		h.source = unmapped(netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[0:16])), binary.BigEndian.Uint16(body[32:])))
		h.destination = unmapped(netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:32])), binary.BigEndian.Uint16(body[34:])))
	default:
		// A client that the proxy speaks for has an address; only LOCAL has none.
		return proxyHeader{}, errBadProxyHeader
	}
	if !unicast(h.source) || !unicast(h.destination) {
		return proxyHeader{}, errBadProxyHeader
	}
	var whole bool
	if h.extensions, whole = proxytlv.Parse(rest); !whole {
		return proxyHeader{}, errBadProxyHeader
	}
	return h, nil
}
