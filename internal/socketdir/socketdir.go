// Package socketdir judges the directories of Unix sockets: whoever may write one
// decides who answers at the socket in it.
package socketdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrReplaceable is returned of a directory whose sockets others could replace.
var ErrReplaceable = errors.New("others could replace the socket")

// Check refuses a directory in which a user whom trusted does not name could put a
// socket of their own in place of another's.
func Check(dir string, trusted func(uid int) bool) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("%s has mode %04o, %w: chmod go-w %s", dir, info.Mode().Perm(), ErrReplaceable, dir)
	}
	return CheckOwner(dir, info, trusted)
}

// CheckOwner refuses what belongs to a user whom trusted does not name.
func CheckOwner(path string, info fs.FileInfo, trusted func(uid int) bool) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !trusted(int(st.Uid)) {
		return fmt.Errorf("%s belongs to user %d, and %w: use a directory of root's or of this process's user", path, st.Uid, ErrReplaceable)
	}
	return nil
}

// OwnOrRoot trusts this process's user and root.
func OwnOrRoot(uid int) bool { return uid == 0 || uid == os.Geteuid() }
