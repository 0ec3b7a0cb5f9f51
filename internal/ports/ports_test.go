package ports

import (
	"net"
	"strconv"
	"testing"
)

func TestFree(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		p, err := Free("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if seen[p] || p < first || p >= first+count {
			t.Errorf("port %d", p)
		}
		seen[p] = true
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			t.Error(err)
			continue
		}
		l.Close()
	}
	if _, err := Free("192.0.2.1"); err == nil {
		t.Error("a port on an address that is not here")
	}
}
