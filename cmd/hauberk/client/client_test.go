package client

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A token that another user's program hands out has that user's pin in it.
func TestSocketThatOthersCouldReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "controlplane.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	answered := make(chan struct{}, 16) // a request that fails is tried again
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			answered <- struct{}{}
			_ = c.Close()
		}
	}()
	get := func() error {
		c, err := New("unix://"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out any
		return c.Get(t.Context(), "/v1/status", &out)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := get(); err == nil || !strings.Contains(err.Error(), "others could replace the socket") {
		t.Errorf("a directory that everybody may write: %v", err)
	}
	if len(answered) != 0 {
		t.Error("it was called nevertheless")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := get(); err == nil || strings.Contains(err.Error(), "others could replace the socket") {
		t.Errorf("the user's own directory: %v", err)
	}
	<-answered // it was called
}

// Root calls control planes that run as users of their own; others call their
// own and root's.
func TestOwnersOfSockets(t *testing.T) {
	for _, tc := range []struct {
		caller, owner int
		ok            bool
	}{{1000, 1000, true}, {1000, 0, true}, {1000, 1001, false}, {0, 1001, true}, {0, 0, true}} {
		if got := mayOwn(tc.caller, tc.owner); got != tc.ok {
			t.Errorf("user %d calls a socket of user %d: %t", tc.caller, tc.owner, got)
		}
	}
}
