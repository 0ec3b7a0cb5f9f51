// Package cache keeps the last accepted configuration on disk, so that a sidecar
// that starts while no control plane answers serves what it served before.
//
// The file is encrypted and authenticated with AES-256-GCM under a key derived
// (HKDF-SHA256, fresh salt per write) from a secret the caller holds, and bound
// to its owner's name. Detected, and refused whole: any change of any byte,
// truncation, a file of another owner or another secret, a file of a later
// format, anything that is not a regular file. Not detected: an older file of
// the same owner put back by someone who can write to the directory. Nothing on
// the same disk could tell; State.Saved and State.Sequence let the caller say
// how old its configuration is, and the first connection replaces it.
package cache

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// ErrNone says that there is no cache yet.
var ErrNone = errors.New("no cached configuration")

// State is what the cache holds.
type State struct {
	// Sequence grows by one with each write of the same file.
	Sequence uint64
	Saved    time.Time
	// Server is the control plane that the configuration came from.
	Server string
	// Resources are in push order, then by name.
	Resources []*resource.Resource
}

// Cache is one file. Its methods may be called concurrently.
type Cache struct {
	// Set once.
	path   string
	owner  string
	secret []byte

	mu sync.Mutex
	// sequence of the newest file read or written; known says whether the
	// file has been looked at.
	sequence uint64
	known    bool
}

const (
	magic     = "HBKCACHE"
	version   = 1
	saltSize  = 32
	secretLen = 32
	// maxSize bounds what Load reads into memory.
	maxSize = 256 << 20
)

// Open names the file; it touches nothing. owner is the node's name: a file
// written for another owner is refused. secret is 32 bytes that only this node
// can derive again, for example from its node key.
func Open(path, owner string, secret []byte) (*Cache, error) {
	switch {
	case path == "":
		return nil, errors.New("configuration cache: no path")
	case owner == "":
		return nil, fmt.Errorf("configuration cache %s: no owner", path)
	case len(secret) != secretLen:
		return nil, fmt.Errorf("configuration cache %s: the secret has %d bytes, not %d", path, len(secret), secretLen)
	}
	return &Cache{path: path, owner: owner, secret: slices.Clone(secret)}, nil
}

// Path returns the file's path.
func (c *Cache) Path() string { return c.path }

// Load reads the file. It returns ErrNone when there is none, and an error that
// says what is wrong when there is one that must not be used.
func (c *Cache) Load() (*State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := c.loadLocked()
	if err != nil && !errors.Is(err, ErrNone) {
		return nil, fmt.Errorf("configuration cache %s: %w", c.path, err)
	}
	return st, err
}

func (c *Cache) loadLocked() (*State, error) {
	c.known = true
	// O_NONBLOCK keeps a pipe in the file's place from blocking the open.
	f, err := os.OpenFile(c.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file but %s", info.Mode().Type())
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("%d bytes are more than a configuration can have", info.Size())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	plain, err := c.open(b)
	if err != nil {
		return nil, err
	}
	st, err := decode(plain)
	if err != nil {
		return nil, err
	}
	c.sequence = st.Sequence
	return st, nil
}

// Store replaces the file: the old one stays until the new one is on disk.
func (c *Cache) Store(server string, resources []*resource.Resource) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		// A file that cannot be read has no sequence worth continuing.
		_, _ = c.loadLocked()
	}
	st := &State{Sequence: c.sequence + 1, Saved: time.Now(), Server: server, Resources: resources}
	plain, err := encode(st)
	if err != nil {
		return fmt.Errorf("configuration cache %s: %w", c.path, err)
	}
	sealed, err := c.seal(plain)
	if err != nil {
		return fmt.Errorf("configuration cache %s: %w", c.path, err)
	}
	if err := replace(c.path, sealed); err != nil {
		return fmt.Errorf("configuration cache %s: %w", c.path, err)
	}
	c.sequence = st.Sequence
	return nil
}

// Remove deletes the file.
func (c *Cache) Remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("configuration cache: %w", err)
	}
	return nil
}

// aead derives the key of one file. Each file has a fresh salt and so a key of
// its own, which is why one fixed nonce per key is safe.
func (c *Cache) aead(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, c.secret, salt, "hauberk sidecar configuration cache v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func header() []byte { return append([]byte(magic), version) }

func (c *Cache) seal(plain []byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	aead, err := c.aead(salt)
	if err != nil {
		return nil, err
	}
	out := append(header(), salt...)
	return aead.Seal(out, make([]byte, aead.NonceSize()), plain, append(header(), c.owner...)), nil
}

func (c *Cache) open(b []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(rest) < 1+saltSize {
		return nil, errors.New("not a configuration cache")
	}
	if rest[0] != version {
		return nil, fmt.Errorf("format %d, this version reads format %d", rest[0], version)
	}
	aead, err := c.aead(rest[1 : 1+saltSize])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), rest[1+saltSize:], append(header(), c.owner...))
	if err != nil {
		return nil, fmt.Errorf("not authentic: damaged, forged, or written for another node than %s", c.owner)
	}
	return plain, nil
}

// replace writes a file of mode 0600 in one step.
func replace(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
