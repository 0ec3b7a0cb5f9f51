package servertest

import (
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStart: it answers until Stop, and Stop leaves nothing.
func TestStart(t *testing.T) {
	cp := Start(t, nil)
	path := strings.TrimPrefix(cp.Socket, "unix://")
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	cp.Stop()
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		t.Error("it still answers")
	}
}
