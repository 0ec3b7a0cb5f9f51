package sockopt

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSet: options cost a connection no memory, and one that the kernel refuses is named.
func TestSet(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	options := []Option{{Level: unix.SOL_SOCKET, Name: unix.SO_PRIORITY, Int: 3}, {Level: 99, Name: 98, State: Listening}, {Level: 99, Name: 98, Family: 6}}
	if n := testing.AllocsPerRun(100, func() { err = Set(options, fd, BeforeBind, unix.AF_INET) }); n != 0 || err != nil {
		t.Errorf("%v allocations, %v", n, err)
	}
	if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY); got != 3 || err != nil {
		t.Errorf("the priority is %d, %v", got, err)
	}
	for _, b := range [][]byte{nil, []byte("x")} {
		options[1].Bytes = b
		if err := Set(options, fd, Listening, unix.AF_INET); err == nil || !strings.HasPrefix(err.Error(), "socket option 98 of level 99: ") {
			t.Errorf("%q: %v", b, err)
		}
	}
}
