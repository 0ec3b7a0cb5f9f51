package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Sockets is the one place that opens listening sockets: TCP ("tcp"), UDP ("udp")
// and Unix ("unix"). It counts their users, so that an update of a listener keeps
// its socket; it can start with sockets that a parent process hands over, and hand
// over its own. Safe for concurrent use.
type Sockets struct {
	log *slog.Logger

	mu        sync.Mutex
	open      map[socketKey]*Socket
	inherited []Inherited
}

// socketKey identifies a socket by what was asked for. Two owners may both ask for
// port 0 and mean two sockets.
type socketKey struct{ network, address, owner string }

// Socket is an open listening socket.
type Socket struct {
	registry *Sockets
	key      socketKey
	owner    string // who uses it now, for messages
	options  SocketOptions
	refs     int
	stream   streamListener // TCP or Unix
	packet   *net.UDPConn   // UDP
}

// streamListener is what *net.TCPListener and *net.UnixListener share.
type streamListener interface {
	net.Listener
	SetDeadline(time.Time) error
	File() (*os.File, error)
}

// NewSockets returns a registry that uses inherited sockets before it opens new
// ones. It owns their files.
func NewSockets(log *slog.Logger, inherited ...Inherited) *Sockets {
	if log == nil {
		log = slog.Default()
	}
	return &Sockets{log: log, open: map[socketKey]*Socket{}, inherited: inherited}
}

// AddressInUseError says who holds an address.
type AddressInUseError struct {
	Network, Address string
	// Holder is a listener of this process or another process, as far as that can
	// be found out; empty when it cannot.
	Holder string
}

func (e *AddressInUseError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("address %s %s is in use by another process; stop it or choose another address", e.Network, e.Address)
	}
	return fmt.Sprintf("address %s %s is in use by %s; stop it or choose another address", e.Network, e.Address, e.Holder)
}

// Unwrap lets errors.Is find EADDRINUSE.
func (e *AddressInUseError) Unwrap() error { return syscall.EADDRINUSE }

// Listen opens the socket of an address, which is the owner's slot-th, or adds a
// user to it when owner has it open already. Close undoes it.
func (s *Sockets) Listen(owner string, slot int, a Address) (*Socket, error) {
	network, address := a.Network, a.Address
	if err := checkAddress(network, address); err != nil {
		return nil, fmt.Errorf("listen %s %s: %w", network, address, err)
	}
	key := socketKey{network: network, address: address}
	if network != "unix" && strings.HasSuffix(address, ":0") {
		key.owner = owner
		if slot > 0 {
			key.owner += "/" + strconv.Itoa(slot)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sock := s.open[key]; sock != nil {
		if sock.owner != owner {
			return nil, &AddressInUseError{network, address, fmt.Sprintf("listener %q of this sidecar", sock.owner)}
		}
		sock.refs++
		return sock, nil
	}
	sock := &Socket{registry: s, key: key, owner: owner, options: a.Socket, refs: 1}
	if err := s.obtain(sock); err != nil {
		return nil, err
	}
	s.open[key] = sock
	return sock, nil
}

// adopt gives the socket to another owner: the listener that replaces its own.
func (s *Sockets) adopt(sock *Socket, owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sock.owner = owner
	sock.refs++
}

func checkAddress(network, address string) error {
	switch network {
	case "tcp", "udp":
		if _, err := netip.ParseAddrPort(address); err != nil {
			return fmt.Errorf("the address must be an IP address and a port: %w", err)
		}
		return nil
	case "unix":
		if address == "" {
			return errors.New("the path is empty")
		}
		return nil
	}
	return errors.New(`the network must be "tcp", "udp" or "unix"`)
}

// obtain takes an inherited socket or opens a new one.
func (s *Sockets) obtain(sock *Socket) error {
	if f := s.takeInherited(sock); f != nil {
		defer f.Close() // package net duplicates it
		if err := sock.fromFile(f); err != nil {
			return fmt.Errorf("inherited socket for %s %s: %w", sock.key.network, sock.key.address, err)
		}
		return nil
	}
	err := sock.bind()
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return &AddressInUseError{sock.key.network, sock.key.address, holderOf(sock.key.network, sock.key.address)}
	}
	return fmt.Errorf("listen %s %s: %w", sock.key.network, sock.key.address, err)
}

func (sock *Socket) bind() error {
	network, address := sock.key.network, sock.key.address
	if network == "udp" {
		ap := netip.MustParseAddrPort(address)
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(ap))
		sock.packet = c
		return err
	}
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return err
		}
	}
	l, err := sock.listen(network, address)
	if err != nil {
		return err
	}
	sock.stream = l
	return nil
}

// removeStale removes the socket file of a process that is gone. One that answers,
// or that is no socket, stays.
func removeStale(path string) error {
	if strings.HasPrefix(path, "@") {
		return nil
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket; remove it or choose another path", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return syscall.EADDRINUSE
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil // bind reports what is wrong
	}
	return os.Remove(path)
}

func (sock *Socket) fromFile(f *os.File) error {
	if sock.key.network == "udp" {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		u, ok := c.(*net.UDPConn)
		if !ok {
			_ = c.Close()
			return fmt.Errorf("it is a %T, not a UDP socket", c)
		}
		sock.packet = u
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	s, ok := l.(streamListener)
	if !ok {
		_ = l.Close()
		return fmt.Errorf("it is a %T, not a stream socket", l)
	}
	sock.stream = s
	return nil
}

// Addr is where the socket is bound.
func (sock *Socket) Addr() net.Addr {
	if sock.packet != nil {
		return sock.packet.LocalAddr()
	}
	return sock.stream.Addr()
}

// PacketConn is the socket of a UDP listener, nil for others.
func (sock *Socket) PacketConn() *net.UDPConn { return sock.packet }

// Accept waits for a connection; Interrupt ends the wait with a timeout.
func (sock *Socket) Accept() (net.Conn, error) { return sock.stream.Accept() }

// Interrupt makes a waiting Accept return and keeps the socket open; Resume undoes
// it.
func (sock *Socket) Interrupt() {
	if sock.stream != nil {
		_ = sock.stream.SetDeadline(time.Unix(1, 0))
	}
}

// Resume lets Accept wait again.
func (sock *Socket) Resume() {
	if sock.stream != nil {
		_ = sock.stream.SetDeadline(time.Time{})
	}
}

// File duplicates the descriptor, for a successor process. The file of a Unix
// socket then stays when this process closes the socket.
func (sock *Socket) File() (*os.File, error) {
	if sock.packet != nil {
		return sock.packet.File()
	}
	if u, ok := sock.stream.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return sock.stream.File()
}

// Close takes one user off; the last one closes the socket.
func (sock *Socket) Close() error {
	s := sock.registry
	s.mu.Lock()
	defer s.mu.Unlock()
	sock.refs--
	if sock.refs > 0 {
		return nil
	}
	if s.open[sock.key] == sock {
		delete(s.open, sock.key)
	}
	if sock.packet != nil {
		return sock.packet.Close()
	}
	return sock.stream.Close()
}
