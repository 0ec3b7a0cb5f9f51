// Package statedir keeps secrets in a directory: it is its owner's alone, and a
// file in it is either the old one or the new one, whole, whatever happens.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Open makes the directory with mode 0700 when it is absent, and refuses one
// that others may enter or that belongs to someone else. A symbolic link as the
// directory itself is refused too: its target is not what was checked.
func Open(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err == nil {
		return SyncDir(filepath.Dir(dir))
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return check(dir, info, 0o700)
}

func check(path string, info fs.FileInfo, allowed fs.FileMode) error {
	if extra := info.Mode().Perm() &^ allowed; extra != 0 {
		return fmt.Errorf("%s has mode %04o, others could use it: chmod %04o %s", path, info.Mode().Perm(), info.Mode().Perm()&allowed, path)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the system does not tell its owner", path)
	}
	if uid := uint32(os.Geteuid()); st.Uid != uid {
		return fmt.Errorf("%s belongs to user %d and this process runs as user %d: run as the owner, or chown it", path, st.Uid, uid)
	}
	return nil
}

// maxFile bounds what ReadFile takes into memory.
const maxFile = 16 << 20

// ReadFile reads a file that must be 0600 or stricter, and this user's.
func ReadFile(path string) ([]byte, error) {
	// O_NOFOLLOW: the check is of the file that is read, not of a link to it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := check(path, info, 0o600); err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, info.Size(), maxFile)
	}
	out := make([]byte, info.Size())
	if _, err := f.ReadAt(out, 0); err != nil && info.Size() > 0 {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

// temporary marks files that a crash may have left; Clean removes them.
const temporary = ".tmp-"

// WriteFile replaces path. When it returns nil the content is on disk.
func WriteFile(path string, data []byte) error {
	return write(path, data, os.Rename)
}

// CreateFile is WriteFile for a path that must not exist: of any number of
// callers, in any number of processes, one succeeds and the others get
// fs.ErrExist.
func CreateFile(path string, data []byte) error {
	return write(path, data, func(from, to string) error {
		// link(2), unlike rename(2), does not replace.
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	})
}

func write(path string, data []byte, place func(from, to string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), temporary+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := place(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Remove deletes a file durably.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Clean removes what a crash in the middle of a write left behind. Only the
// directory's owner process may call it.
func Clean(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Temporary reports whether a name is that of an unfinished write.
func Temporary(name string) bool { return strings.HasPrefix(name, temporary) }

// SyncDir makes renames in the directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock takes the directory for one process. The lock goes with the returned
// file, or with the process.
func Lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, LockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("is in use by another process")

// LockName is the name of the lock's file.
const LockName = "lock"

// CheckFile applies ReadFile's rules to an open file.
func CheckFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	return check(f.Name(), info, 0o600)
}
