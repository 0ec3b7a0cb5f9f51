package listener

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Inherited is a listening socket that another process opened.
type Inherited struct {
	// Owner, Network and Address are what was asked for when it was opened. With
	// Address empty, as from systemd, it is recognised by where it is bound.
	Owner   string `json:"owner"`
	Network string `json:"network"`
	Address string `json:"address"`

	File *os.File `json:"-"`
}

// SocketsEnv names the environment variable that describes handed-over sockets:
// a JSON array in the order of the descriptors, which begin at 3.
const SocketsEnv = "HAUBERK_LISTEN_SOCKETS"

const firstFD = 3

// InheritFromEnviron finds the sockets that a parent handed over: a sidecar before
// an upgrade (SocketsEnv), or systemd (LISTEN_FDS, honoured when LISTEN_PID is this
// process). It marks the descriptors close-on-exec.
func InheritFromEnviron(getenv func(string) string) ([]Inherited, error) {
	if text := getenv(SocketsEnv); text != "" {
		var out []Inherited
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			return nil, fmt.Errorf("listener: %s: %w", SocketsEnv, err)
		}
		for i := range out {
			out[i].File = inheritFD(firstFD+i, out[i].Address)
		}
		return out, nil
	}
	if pid := getenv("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("listener: LISTEN_FDS %q is not a number of descriptors", getenv("LISTEN_FDS"))
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	out := make([]Inherited, n)
	for i := range out {
		if i < len(names) {
			out[i].Owner = names[i]
		}
		out[i].File = inheritFD(firstFD+i, out[i].Owner)
	}
	return out, nil
}

func inheritFD(fd int, name string) *os.File {
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// HandOver duplicates every open socket for a successor process: env is to be
// added to its environment and files are its descriptors from 3 on. The caller
// closes the files when the successor runs.
func (s *Sockets) HandOver() (env string, files []*os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Inherited{}
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			files = nil
		}
	}()
	for key, sock := range s.open {
		f, err := sock.File()
		if err != nil {
			return "", files, fmt.Errorf("listener: hand over %s %s: %w", key.network, key.address, err)
		}
		files = append(files, f)
		out = append(out, Inherited{Owner: cmp.Or(key.owner, sock.owner), Network: key.network, Address: key.address})
	}
	text, err := json.Marshal(out)
	if err != nil {
		return "", files, fmt.Errorf("listener: hand over: %w", err)
	}
	return SocketsEnv + "=" + string(text), files, nil
}

// CloseInherited closes the inherited sockets that nothing asked for, once the
// first configuration is in force.
func (s *Sockets) CloseInherited() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.inherited {
		s.log.Warn("inherited socket is not configured, closing it", "component", "listener", "network", in.Network, "address", in.Address, "name", in.Owner)
		_ = in.File.Close()
	}
	s.inherited = nil
}

// takeInherited returns the file of the inherited socket that is meant; s.mu is
// held.
func (s *Sockets) takeInherited(sock *Socket) *os.File {
	for i, in := range s.inherited {
		if in.is(sock) {
			s.inherited = append(s.inherited[:i:i], s.inherited[i+1:]...)
			return in.File
		}
	}
	return nil
}

func (in Inherited) is(sock *Socket) bool {
	if in.Address != "" {
		return in.Network == sock.key.network && in.Address == sock.key.address &&
			(sock.key.owner == "" || sock.key.owner == in.Owner)
	}
	network, address, ok := boundAddress(in.File)
	return ok && network == sock.key.network && sameAddress(network, address, sock.key.address)
}

func sameAddress(network, a, b string) bool {
	if a == b || network == "unix" {
		return a == b
	}
	x, err1 := netip.ParseAddrPort(a)
	y, err2 := netip.ParseAddrPort(b)
	return err1 == nil && err2 == nil && x.Port() == y.Port() && x.Addr().Unmap() == y.Addr().Unmap()
}

// boundAddress asks the kernel where a descriptor is bound.
func boundAddress(f *os.File) (network, address string, ok bool) {
	fd := int(f.Fd())
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return "", "", false
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return "", "", false
	}
	network = "tcp"
	if kind == syscall.SOCK_DGRAM {
		network = "udp"
	}
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return network, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), true
	case *syscall.SockaddrInet6:
		return network, netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String(), true
	case *syscall.SockaddrUnix:
		return "unix", sa.Name, kind == syscall.SOCK_STREAM
	}
	return "", "", false
}
