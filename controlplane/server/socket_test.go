package server

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever may write the socket's directory may put one of his own in its place,
// and hand out tokens with his own pin in them.
func TestListenSocketRefusesADirectoryOfOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string)
		root  bool // only root can give a directory away
		want  string
	}{
		"writable by others": {func(t *testing.T, dir string) { chmod(t, dir, 0o777) }, false, "others could replace the socket"},
		"another user's": {func(t *testing.T, dir string) {
			if err := os.Chown(dir, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}, true, "belongs to user 65534"},
	} {
		if tc.root && os.Geteuid() != 0 {
			continue
		}
		dir := t.TempDir()
		tc.spoil(t, dir)
		ln, err := listenSocket(t.Context(), filepath.Join(dir, "cp.sock"))
		if err == nil {
			_ = ln.Close()
			t.Errorf("%s: bound", name)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestListenSocketReplacesOnlyDeadSockets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := listenSocket(t.Context(), file); err == nil {
		_ = ln.Close()
		t.Error("a file that is no socket was replaced")
	} else if !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file that is no socket: %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "data" {
		t.Errorf("the file is now %q, %v", data, err)
	}
	path := filepath.Join(dir, "cp.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	ln, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := listenSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another control plane answers") {
		t.Errorf("a socket that is served: %v", err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
