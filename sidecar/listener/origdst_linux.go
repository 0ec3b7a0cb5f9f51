package listener

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// originalDestination asks netfilter where a redirected connection was going.
// Without a redirection it is the local address, which ok false says.
func originalDestination(c stream.Conn, local netip.AddrPort) (netip.AddrPort, bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, false
	}
	var dst netip.AddrPort
	if local.Addr().Unmap().Is4() {
		err = raw.Control(func(fd uintptr) { dst = originalV4(fd) })
	} else {
		err = raw.Control(func(fd uintptr) { dst = originalV6(fd) })
	}
	return dst, err == nil && dst.IsValid()
}

func originalV4(fd uintptr) netip.AddrPort {
	var sa unix.RawSockaddrInet4
	if !getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&sa), unsafe.Sizeof(sa)) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(&sa.Port))
}

func originalV6(fd uintptr) netip.AddrPort {
	var sa unix.RawSockaddrInet6
	if !getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&sa), unsafe.Sizeof(sa)) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), networkOrder(&sa.Port))
}

// getsockopt reads SO_ORIGINAL_DST, which has the same number for both families.
// x/sys/unix has no call that fills a sockaddr.
func getsockopt(fd uintptr, level int, p unsafe.Pointer, size uintptr) bool {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), unix.SO_ORIGINAL_DST,
		uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	return errno == 0 && uintptr(n) == size
}

func networkOrder(port *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(port))
	return uint16(b[0])<<8 | uint16(b[1])
}
