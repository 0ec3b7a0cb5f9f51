package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/socketdir"
)

// listenSocket binds the operator's Unix socket: mode 0600 in a directory that
// others cannot replace it in. A socket that nobody answers is left over from a
// crash and is replaced; what is no socket is not.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, fmt.Errorf("control plane: socket %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	if err := socketdir.Check(filepath.Dir(path), socketdir.OwnOrRoot); err != nil {
		return fail(err)
	}
	if err := replaceable(ctx, path); err != nil {
		return fail(err)
	}
	// The file is made under a name nobody knows and renamed when its mode is
	// right, so that there is no moment in which others may connect.
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", tmp)
	if err != nil {
		return fail(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		_, err = fail(err)
		return nil, errors.Join(err, ln.Close(), os.Remove(tmp))
	}
	return ln, nil
}

// replaceable says whether path is free, or a dead process's socket.
func replaceable(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("it is there and is no socket: remove it or choose another path")
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another control plane answers on it"), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("whether it is served cannot be told: %w", err)
	}
	return nil
}
