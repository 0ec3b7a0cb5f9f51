package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/socketdir"
)

// maxPath is what sockaddr_un.sun_path holds, without its terminating zero.
const maxPath = 107

// socket is a listening Unix socket that takes its file away with it, and only
// its own.
type socket struct {
	*net.UnixListener
	path string
	own  os.FileInfo
	once sync.Once
	err  error
}

// listen binds path. A socket that a dead process left is replaced; one that
// somebody serves is not.
func listen(path string, mode fs.FileMode) (*socket, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := socketdir.Check(dir, socketdir.OwnOrRoot); err != nil {
		return nil, err
	}
	// Two agents that start together must not both find the other's socket dead.
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	s := &socket{UnixListener: l, path: path}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	if s.own, err = os.Lstat(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is empty")
	case len(path) > maxPath:
		return fmt.Errorf("the path %s has %d bytes, a Unix socket's has at most %d: choose a shorter one", path, len(path), maxPath)
	case path[0] == '@' || path[0] == 0:
		// An abstract socket has no directory that says who may take its name.
		return fmt.Errorf("%q is an abstract socket; use a path", path)
	case !filepath.IsAbs(path):
		return fmt.Errorf("the path %s is relative; workloads need an absolute one", path)
	}
	return nil
}

// lockTimeout bounds the wait for another agent that is binding.
const lockTimeout = 2 * time.Second

// lockDir keeps other agents from binding in the directory until the function
// it returns is called.
func lockDir(dir string) (func(), error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			// Closing releases the lock.
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s is locked by another process: %w", dir, err), f.Close())
		}
	}
}

// removeStale makes way for a new socket, where a dead process's is in it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket: remove it or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		defer c.Close()
		return fmt.Errorf("%s is served already, by %s: stop it or choose another path", path, listener(c))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is there, and whether it is served cannot be told: %w", path, err)
	}
	return os.Remove(path)
}

// listener says who serves the other end: the kernel recorded that at listen(2).
func listener(c net.Conn) string {
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return "another process"
	}
	p, err := kernel{}.peer(unix)
	if err != nil {
		return "another process"
	}
	defer p.pidfd.Close()
	return fmt.Sprintf("process %d of user %d", p.pid, p.uid)
}

// Close implements net.Listener. The file is removed unless somebody has put
// another in its place.
func (s *socket) Close() error {
	s.once.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.own) {
			s.err = os.Remove(s.path)
		}
		s.err = errors.Join(s.err, s.UnixListener.Close())
	})
	return s.err
}
