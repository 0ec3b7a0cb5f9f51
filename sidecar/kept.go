package sidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hauberk-mesh/hauberk/xds/client/cache"
)

// keptOfMesh is the name of the cache of the mesh's aggregated stream; keptOfStreams begins those
// of the streams of services that a bootstrap names.
const keptOfMesh, keptOfStreams = "config-cache", "config-cache-"

// opened are the caches of streams that are open, by name, with the stream that has
// each. Those that differ by the values of their metadata alone, as of a token that is rotated,
// have the same name, and the second of them at one time the next number.
type opened struct {
	mu sync.Mutex
	by map[string]streamKey
}

// take is the name of the cache of a stream: its own, or the first that nobody has, and of those
// one that is there.
func (o *opened) take(dir, name string, key streamKey) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = map[string]streamKey{}
	}
	free, there := "", false
	for i, next := 1, name; i <= len(o.by)+maxKept; i, next = i+1, fmt.Sprintf("%s-%d", name, i+1) {
		has, taken := o.by[next]
		if taken && has == key {
			return next
		}
		if taken || there {
			continue
		}
		_, err := os.Lstat(filepath.Join(dir, next))
		if there = err == nil; there || free == "" {
			free = next
		}
	}
	o.by[free] = key
	return free
}

// maxKept is how many of a name may be left of a start before that nobody has taken.
const maxKept = 8

// release gives up the cache of a stream that has ended.
func (o *opened) release(key streamKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.by, func(_ string, has streamKey) bool { return has == key })
}

// forget removes those of a directory that nobody has opened.
func (o *opened) forget(dir string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		of := strings.TrimSuffix(e.Name(), ".tmp")
		if _, ok := o.by[of]; !ok && (of == keptOfMesh || strings.HasPrefix(of, keptOfStreams)) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// forgetUnopened removes the caches that this start has not used, once what names services has
// come: a stream that begins later must not bring back what it had long ago.
func (s *Sidecar) forgetUnopened(ctx context.Context, all []*base) {
	if s.cfg.StateDir == "" {
		return
	}
	for _, b := range all {
		select {
		case <-b.Synced():
		case <-ctx.Done():
			return
		}
	}
	if err := s.caches.forget(s.cfg.StateDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("old configuration caches not removed", "err", err)
	}
}

// openCache opens a configuration cache under a secret of its own, which never
// leaves the state directory.
func openCache(dir, name, node string) (*cache.Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	file := filepath.Join(dir, "config-cache.key")
	secret, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(secret) != 32 {
		// A short key is what a crash while writing leaves; the cache under it
		// could not be read either.
		secret = make([]byte, 32)
		_, _ = rand.Read(secret)
		err = os.WriteFile(file, secret, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration cache: %w", err)
	}
	return cache.Open(filepath.Join(dir, name), node, secret)
}
