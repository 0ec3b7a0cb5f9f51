package listener

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// holderOf finds the process that holds a local address, from /proc: as root any
// process, otherwise one of the same user. Empty when it cannot be found.
func holderOf(network, address string) string {
	var inode string
	switch network {
	case "unix":
		inode = unixInode(address)
	default:
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return ""
		}
		inode = inetInode(network, ap)
	}
	if inode == "" {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm)))
	}
	return ""
}

const tcpListen = "0A"

// inetInode reads /proc/net/{tcp,udp}{,6}: local address in hexadecimal, state in
// the fourth column, inode in the tenth.
func inetInode(network string, want netip.AddrPort) string {
	for _, name := range []string{network, network + "6"} {
		found := ""
		eachLine("/proc/net/"+name, func(f []string) bool {
			if len(f) < 10 || network == "tcp" && f[3] != tcpListen {
				return true
			}
			got, ok := procAddress(f[1])
			if !ok || got.Port() != want.Port() {
				return true
			}
			a, b := got.Addr().Unmap(), want.Addr().Unmap()
			if a == b || a.IsUnspecified() || b.IsUnspecified() {
				found = f[9]
				return false
			}
			return true
		})
		if found != "" {
			return found
		}
	}
	return ""
}

func unixInode(path string) string {
	found := ""
	eachLine("/proc/net/unix", func(f []string) bool {
		if len(f) >= 8 && f[7] == path {
			found = f[6]
		}
		return found == ""
	})
	return found
}

func eachLine(path string, fn func(fields []string) bool) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if !fn(strings.Fields(s.Text())) {
			return
		}
	}
}

// procAddress decodes "0100007F:1F90": groups of four bytes in host order, which
// is little-endian on the machines that Hauberk is built for.
func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	p, err2 := hex.DecodeString(port)
	if !ok || err != nil || err2 != nil || len(p) != 2 || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(p[0])<<8|uint16(p[1])), ok
}
