package listener

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestAvailable(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := NewSockets(slog.New(slog.DiscardHandler))
	own, err := s.Listen("l", 0, Address{Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	free, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for address, want := range map[string]string{
		taken.Addr().String():  "is in use by process",
		free.Addr().String():   "",
		"127.0.0.1:0":          "",
		"192.0.2.1:80":         "cannot assign requested address",
		"host:80":              "unable to parse IP",
		"[::ffff:127.0.0.1]:0": "",
	} {
		err := s.available(Address{Network: "tcp", Address: address})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if err := s.available(Address{Network: "tcp", Address: taken.Addr().String()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v is not EADDRINUSE", err)
	}
	// Asking takes nothing.
	if l, err := net.Listen("tcp", free.Addr().String()); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	fixed, err := s.Listen("m", 0, Address{Network: "tcp", Address: free.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer fixed.Close()
	if err := s.available(Address{Network: "tcp", Address: free.Addr().String()}); err != nil {
		t.Errorf("an address that a listener here has: %v", err)
	}
}

// TestAvailableByFamily: who listens for IPv4 is in the way of who would listen for both families, and not of
// who would for IPv6 alone, which the listener does then.
func TestAvailableByFamily(t *testing.T) {
	four, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	_, port, _ := net.SplitHostPort(four.Addr().String())
	s := NewSockets(slog.New(slog.DiscardHandler))
	six := Address{Network: "tcp", Address: net.JoinHostPort("::", port)}
	if err := s.available(six); err != nil {
		t.Error(err)
	}
	if l, err := s.Listen("l", 0, six); err != nil {
		t.Error(err)
	} else {
		_ = l.Close()
	}
	six.Socket.IPv4Compat = true
	if err := s.available(six); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("both: %v", err)
	}
}
