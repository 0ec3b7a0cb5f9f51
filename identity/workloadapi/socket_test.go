package workloadapi

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// dead leaves a socket as a process that was killed does.
func dead(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListen(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "made", "for", "it", "agent.sock")
	s, err := listen(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{path: 0o666, filepath.Dir(path): 0o755} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %04o", p, info.Mode(), err, want)
		}
	}
	// One that is served is refused by name, and goes on being served.
	_, err = listen(path, 0o666)
	if want := fmt.Sprintf("served already, by process %d of user %d", os.Getpid(), os.Geteuid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a live socket: %v, want %q", err, want)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}

	dead(t, path)
	if s, err = listen(path, 0o600); err != nil {
		t.Fatalf("a dead process's socket: %v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	// Somebody else's, put in its place, is not ours to remove.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	dead(t, path)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("another's socket is gone: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", maxPath))
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"": "the path is empty", "agent.sock": "is relative", "@agent": "abstract socket", long: "at most 107",
		file: "is no socket", link: "is no socket", filepath.Join(open, "s"): "chmod go-w", filepath.Join(file, "s"): "not a directory",
	}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(dir, "theirs")
		if err := os.Mkdir(theirs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(theirs, 4001, 4001); err != nil {
			t.Fatal(err)
		}
		cases[filepath.Join(theirs, "s")] = "belongs to user 4001"
	}
	for path, want := range cases {
		if s, err := listen(path, 0o666); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v, want %q", path, s, err, want)
		}
	}
	// 107 bytes are the kernel's limit, not one fewer.
	exact := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	s, err := listen(exact, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Of agents that start at once on a dead socket, one gets it.
func TestListenAtOnce(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	dead(t, path)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var won []*socket
	for range 8 {
		wg.Go(func() {
			if s, err := listen(path, 0o666); err == nil {
				mu.Lock()
				won = append(won, s)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d hold it", len(won))
	}
	for _, s := range won {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
		} else {
			_ = c.Close()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
