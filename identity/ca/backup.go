package ca

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hauberk-mesh/hauberk/identity/internal/statedir"
)

// notBackedUp: a pending join token that came back from a backup could be used a
// second time. The others mean nothing elsewhere.
var notBackedUp = []string{"tokens", statedir.LockName}

// maxBackup bounds what Restore unpacks.
const maxBackup = 4 << 30

// Backup writes the state directory as a tar. It holds private keys in the
// clear: whoever reads it can sign for the trust domain. The CA may be open.
func Backup(dir string, w io.Writer) error {
	if err := backup(dir, w); err != nil {
		return fmt.Errorf("ca: backup of %s: %w", dir, err)
	}
	return nil
}

func backup(dir string, w io.Writer) error {
	// A backup that cannot be restored is worse than none.
	if _, err := readState(dir); err != nil {
		return err
	}
	t := tar.NewWriter(&bounded{w, maxBackup})
	// The bundle before the keys: a signer's key is stored before the bundle
	// names it, so every key that this bundle names is among those read later.
	for _, name := range []string{authorityFile, bundleFile} {
		if err := addFile(t, dir, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case name == "." || name == authorityFile || name == bundleFile || statedir.Temporary(e.Name()):
			return nil
		case slices.Contains(notBackedUp, name) && e.IsDir():
			return fs.SkipDir
		case slices.Contains(notBackedUp, name):
			return nil
		case e.IsDir():
			return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: filepath.ToSlash(name) + "/", Mode: 0o700})
		case !e.Type().IsRegular():
			return nil // a socket of the running process
		}
		if err = addFile(t, dir, name); errors.Is(err, fs.ErrNotExist) && filepath.Ext(name) == journalExt {
			return nil // the running CA has set it aside, or removed it
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}

// bounded refuses what Restore would.
type bounded struct {
	io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, fmt.Errorf("the directory has more than %d bytes, which restore does not take: move the oldest parts of the journal away (issued-*%s)", int64(maxBackup), journalExt)
	}
	return b.Writer.Write(p)
}

func addFile(t *tar.Writer, dir, name string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := statedir.CheckFile(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o600, Size: info.Size(), ModTime: info.ModTime(),
	}); err != nil {
		return err
	}
	// The journal grows meanwhile; what is appended after Stat is not included.
	_, err = io.CopyN(t, f, info.Size())
	return err
}

// BackupFile writes the backup to a new file of mode 0600.
func BackupFile(dir, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("ca: backup of %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(path)
		}
	}()
	if err := Backup(dir, f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("ca: backup of %s: %w", dir, err)
	}
	return nil
}

// Restore unpacks a backup into a directory that is empty or absent. It checks
// the content before the directory appears: either all of it is there and
// usable, or nothing is.
func Restore(r io.Reader, dir string) error {
	if err := restore(r, dir); err != nil {
		return fmt.Errorf("ca: restore into %s: %w", dir, err)
	}
	return nil
}

func restore(r io.Reader, dir string) (err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return errors.New("the directory is not empty, and nothing is overwritten: move it away first")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	// Beside the target, so that the rename stays on one file system.
	work, err := os.MkdirTemp(filepath.Dir(dir), ".hauberk-restore-*") // mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(work)
		}
	}()
	if err := unpack(r, work); err != nil {
		return err
	}
	if _, err := readState(work); err != nil {
		return fmt.Errorf("the backup is not usable: %w", err)
	}
	if err := syncTree(work); err != nil {
		return err
	}
	// Remove takes an empty directory only, and Rename replaces none.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(work, dir); err != nil {
		return err
	}
	return statedir.SyncDir(filepath.Dir(dir))
}

// syncTree makes the names of the unpacked files durable; their content is.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return statedir.SyncDir(path)
	})
}

func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var total int64
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("this is not a backup: %w", err)
		}
		name, err := localName(h.Name)
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o700); err != nil {
				return err
			}
		case tar.TypeReg:
			if total += h.Size; total > maxBackup {
				return fmt.Errorf("it is larger than %d bytes", int64(maxBackup))
			}
			if err := unpackFile(root, name, t); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%q is neither a file nor a directory", h.Name)
		}
	}
}

func unpackFile(root *os.Root, name string, r io.Reader) error {
	if parent := filepath.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	// O_EXCL: a second entry of one name is not a way to replace what was checked.
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

// localName refuses what would leave the directory, and what a backup of ours
// never holds.
func localName(name string) (string, error) {
	clean := strings.TrimSuffix(name, "/")
	if !filepath.IsLocal(clean) || filepath.ToSlash(filepath.Clean(clean)) != clean || clean == "." || strings.ContainsAny(clean, "\\\x00") {
		return "", fmt.Errorf("%q is not a name inside the state directory", name)
	}
	if first, _, _ := strings.Cut(clean, "/"); slices.Contains(notBackedUp, first) {
		return "", fmt.Errorf("%q is never part of a backup", name)
	}
	return clean, nil
}
