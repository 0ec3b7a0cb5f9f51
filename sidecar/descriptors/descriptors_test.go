package descriptors

import (
	"errors"
	"math"
	"net"
	"syscall"
	"testing"
)

// TestNewestDescriptor: what is said of descriptors is true: all numbers below that of a new
// one are in use.
func TestNewestDescriptor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var newest uint64
	for range 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n, ok := Of(c)
		if !ok || n == 0 {
			t.Fatalf("descriptor %d of a socket, %v", n, ok)
		}
		newest = max(newest, n)
	}
	free := 0
	for fd := range newest {
		var st syscall.Stat_t
		if errors.Is(syscall.Fstat(int(fd), &st), syscall.EBADF) {
			free++
		}
	}
	if free > 2 { // others may have closed some
		t.Errorf("%d descriptors below %d are free", free, newest)
	}
	if _, ok := Of(&net.UDPConn{}); ok {
		t.Error("a socket that is not open has a descriptor")
	}
}

// TestLines: hosts may have more than clients, and nobody all.
func TestLines(t *testing.T) {
	for limit, want := range map[uint64][2]uint64{
		0: {0, 0}, 1: {1, 1}, 10: {5, 8}, 64: {32, 48}, 100: {68, 84}, 1024: {922, 973}, 20000: {18000, 19000},
		math.MaxUint64: {math.MaxUint64 - math.MaxUint64/10, math.MaxUint64 - math.MaxUint64/20},
	} {
		of := func() uint64 { return limit }
		if got := [2]uint64{ForClients(of).Most(), ForHosts(of).Most()}; got != want {
			t.Errorf("of %d, %d", limit, got)
		}
	}
	if own := ForClients(nil); own.Limit() != Limit() || own.Most() != Limit()-reserve(Limit()) {
		t.Errorf("%d of %d", own.Most(), Limit())
	}
}

// TestRaised: a limit that was raised, or lowered, counts from the next refusal on.
func TestRaised(t *testing.T) {
	limit := uint64(100)
	l := ForHosts(func() uint64 { return limit })
	if l.Beyond(83) || !l.Beyond(84) {
		t.Error("not where the line is")
	}
	if limit = 1000; l.Beyond(84) || !l.Beyond(950) {
		t.Error("not where it is now")
	}
}
