package telemetry

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

func address(name, help string, get func(*Record) net.Addr) operatorDef {
	return appends(name, help, func(dst []byte, r *Record) []byte { return appendAddr(dst, get(r), true) })
}

func host(name, help string, get func(*Record) net.Addr) operatorDef {
	return takes(name, "BITS", help+" With BITS, the network of this length that it is in.", func(argument string) (valueFunc, error) {
		bits, err := logformat.PrefixBits(argument)
		if err != nil || bits < 0 {
			return ifAny(func(dst []byte, r *Record) []byte { return appendAddr(dst, get(r), false) }), err
		}
		return ifAny(func(dst []byte, r *Record) []byte { return appendNetwork(dst, get(r), bits) }), nil
	})
}

func port(name, help string, get func(*Record) net.Addr) operatorDef {
	return appends(name, help, func(dst []byte, r *Record) []byte {
		if ap := addrPort(get(r)); ap.IsValid() {
			return appendPort(dst, ap.Port())
		}
		return dst
	})
}

// addrPort is invalid for what has no IP address.
func addrPort(a net.Addr) (ap netip.AddrPort) {
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	if !ap.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func appendAddr(dst []byte, a net.Addr, withPort bool) []byte {
	if a == nil {
		return dst
	}
	ap := addrPort(a)
	switch {
	case !ap.IsValid():
		switch a.(type) {
		case *net.TCPAddr, *net.UDPAddr:
			return dst
		}
		return append(dst, a.String()...)
	case withPort:
		return ap.AppendTo(dst)
	}
	return ap.Addr().AppendTo(dst)
}

// appendNetwork shows the network that an address is in; nothing where it has not so
// many bits.
func appendNetwork(dst []byte, a net.Addr, bits int) []byte {
	ap := addrPort(a)
	if !ap.IsValid() {
		return dst
	}
	p, err := ap.Addr().WithZone("").Prefix(bits)
	if err != nil {
		return dst
	}
	return p.AppendTo(dst)
}

// appendNumber is strconv.AppendInt for what is mostly small: sizes, times, counts.
func appendNumber(dst []byte, n int64) []byte {
	switch {
	case uint64(n) < 10:
		return append(dst, byte('0'+n))
	case uint64(n) < 100:
		return append(dst, byte('0'+n/10), byte('0'+n%10))
	case uint64(n) < 1000:
		return append(dst, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
	}
	return strconv.AppendInt(dst, n, 10)
}

func appendPort(dst []byte, port uint16) []byte { return strconv.AppendUint(dst, uint64(port), 10) }
