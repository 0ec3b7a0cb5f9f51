package workloadapi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// entryFile is the file of workloads. It is looked at on an interval: file
// notifications get lost on network and overlay file systems.
type entryFile struct {
	path    string
	seen    os.FileInfo
	entries []Entry
}

const (
	entryInterval = time.Second
	// maxEntryFile bounds what is read.
	maxEntryFile = 1 << 20
)

// openEntryFile reads the file; an empty path is a host without one.
func openEntryFile(path string) (*entryFile, error) {
	f := &entryFile{path: path}
	if path == "" {
		return f, nil
	}
	_, err := f.reload()
	return f, err
}

// reload reads the file if it has changed. The last good entries stay where it
// cannot be used.
func (f *entryFile) reload() (changed bool, err error) {
	if f.path == "" {
		return false, nil
	}
	// O_NONBLOCK: to open a named pipe would wait for its writer.
	in, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		f.seen = nil
		return false, fmt.Errorf("workloads: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return false, fmt.Errorf("workloads: %w", err)
	}
	if same(f.seen, info) {
		return false, nil
	}
	f.seen = info
	entries, err := readEntries(in, info)
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.path, err)
	}
	f.entries = entries
	return true, nil
}

// same: the inode counts because files are replaced by rename, within the
// clock's resolution if need be.
func same(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode()
}

// readEntries refuses a file that others may write: it says who gets a key.
func readEntries(in io.Reader, info os.FileInfo) ([]Entry, error) {
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("it has mode %04o, others could give themselves an identity: chmod go-w", info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
		return nil, fmt.Errorf("it belongs to user %d, who could give identities away: chown it to root or to the agent's user", st.Uid)
	}
	if info.Size() > maxEntryFile {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", info.Size(), maxEntryFile)
	}
	b, err := io.ReadAll(io.LimitReader(in, maxEntryFile))
	if err != nil {
		return nil, err
	}
	return ParseEntries(b)
}
