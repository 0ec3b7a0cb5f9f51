// Package secrets discovers the secrets that TLS contexts name (SDS): in files, which
// are looked at again and again, and from services on this host, by their Unix sockets.
// Private keys never cross the network, so there is no other source.
//
// A Store begins to follow a secret when somebody asks for it, and has the last good of
// each. What cannot be used is refused, and changes nothing.
package secrets

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/glance"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/sds"
)

// Options configure a Store.
type Options struct {
	// Sockets are the Unix sockets of services, by the names of their clusters.
	Sockets map[string]string
	// Node is who asks.
	Node client.Node
	// Offline connects to nobody: what services have does not come.
	Offline bool
	// Changed is called after another secret has come, without a lock. May be nil.
	Changed func()
	Log     *slog.Logger
}

// Store is a tlscontext.Secrets. Safe for concurrent use.
type Store struct {
	opts Options
	log  *slog.Logger
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// reading is held by who looks at files, which may take long, and mu by nobody meanwhile.
	reading sync.Mutex
	mu      sync.Mutex
	entries map[tlscontext.SecretRef]*entry
}

// entry is one secret that is followed; the store's lock guards what changes, but file, and sum of a file's secret,
// which are the reader's.
type entry struct {
	store  *Store
	ref    tlscontext.SecretRef
	cancel context.CancelFunc // of a stream

	latest *tlscontext.Discovered
	// lost is since when the source does not stand by latest, zero while it does.
	lost time.Time
	said string   // the last complaint
	sum  [32]byte // of the bytes that latest is of
	file glance.File
}

// New returns a store that follows nothing yet. Run looks at files, Close ends all.
func New(o Options) *Store {
	s := &Store{opts: o, log: o.Log.With("component", "secrets"), entries: map[tlscontext.SecretRef]*entry{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Usable implements tlscontext.Secrets. It begins to follow the secret; a file is read
// before it returns, and has to have it.
func (s *Store) Usable(ref tlscontext.SecretRef) error {
	e := &entry{store: s, ref: ref}
	if ref.File != "" {
		s.mu.Lock()
		followed := s.entries[ref] != nil
		s.mu.Unlock()
		if followed {
			return nil
		}
		if err := e.first(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[ref] != nil {
		return nil
	}
	if ref.File != "" {
		s.entries[ref] = e
		return nil
	}
	socket := s.opts.Sockets[ref.Cluster]
	if socket == "" {
		return config.ErrSecretService
	}
	s.entries[ref] = e
	if !s.opts.Offline {
		return e.follow(socket)
	}
	return nil
}

// Lookup implements tlscontext.Secrets.
func (s *Store) Lookup(ref tlscontext.SecretRef) *tlscontext.Discovered {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[ref]; e != nil {
		return e.latest
	}
	return nil
}

// AsOf implements tlscontext.Secrets.
func (s *Store) AsOf(ref tlscontext.SecretRef) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[ref]; e != nil && !e.lost.IsZero() {
		return e.lost
	}
	return time.Now()
}

// Waiting are those of some secrets, nil for all, that have not come yet, and why as far as that
// is known.
func (s *Store) Waiting(of map[tlscontext.SecretRef]bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for ref, e := range s.entries {
		if e.latest == nil && (of == nil || of[ref]) {
			text := ref.String() + " has not come yet"
			if e.said != "" {
				text += ": " + e.said
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

// Retain forgets the secrets that nobody needs any more.
func (s *Store) Retain(needed func() map[tlscontext.SecretRef]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return
	}
	keep := needed()
	for ref, e := range s.entries {
		if !keep[ref] {
			if e.cancel != nil {
				e.cancel()
			}
			delete(s.entries, ref)
		}
	}
}

// Run looks at files until the context ends. Trust that is taken away is to count soon.
func (s *Store) Run(ctx context.Context) { glance.Watch(ctx, nil, s.glance, s.Refresh) }

// glance tells whether a file has changed.
func (s *Store) glance() (changed bool) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for _, e := range s.ofFiles() {
		if e.file.Changed(e.ref.File) {
			changed = true
		}
	}
	return changed
}

// Refresh looks at all files now.
func (s *Store) Refresh() {
	if s.readAll() {
		s.changed()
	}
}

func (s *Store) readAll() (changed bool) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for _, e := range s.ofFiles() {
		if e.again() {
			changed = true
		}
	}
	return changed
}

// ofFiles are the secrets that files have.
func (s *Store) ofFiles() (out []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, e := range s.entries {
		if ref.File != "" {
			out = append(out, e)
		}
	}
	return out
}

func (s *Store) changed() {
	if s.opts.Changed != nil {
		s.opts.Changed()
	}
}

// Close ends all streams.
func (s *Store) Close() {
	s.stop()
	s.wg.Wait()
}

// follow begins the stream of a service's secret.
func (e *entry) follow(socket string) error {
	node, err := e.store.opts.Node.Message()
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	ctx, cancel := context.WithCancel(e.store.ctx)
	e.cancel = cancel
	e.lost = time.Now()
	service := &sds.Service{Socket: socket, Node: node}
	e.store.wg.Go(func() {
		defer cancel()
		service.Follow(ctx, e.ref.Name, (*streamed)(e))
	})
	return nil
}

// streamed is an entry as a stream sees it.
type streamed entry

// Secret implements sds.Handler.
func (x *streamed) Secret(body []byte) error {
	e := (*entry)(x)
	if e.same(body) {
		return nil // SPIRE sends all again when one has changed
	}
	var got *tlscontext.Discovered
	err := panics.Refuse(panics.Configuration, func() error {
		d, err := config.Secret(body, e.ref.Name)
		if err == nil {
			err = d.CheckFor(e.ref)
		}
		got = d
		return err
	})
	e.store.mu.Lock()
	if err != nil {
		e.gone(err)
		e.store.mu.Unlock()
		return err
	}
	e.sum = sha256.Sum256(body)
	e.take(got)
	e.store.mu.Unlock()
	e.store.changed()
	return nil
}

// same tells whether a service stands by the secret that is in use.
func (e *entry) same(body []byte) bool {
	sum := sha256.Sum256(body)
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if e.latest == nil || e.sum != sum {
		return false
	}
	e.said, e.lost = "", time.Time{}
	return true
}

// Ended implements sds.Handler.
func (x *streamed) Ended(err error, retryIn time.Duration) {
	e := (*entry)(x)
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if e.lost.IsZero() {
		e.lost = time.Now()
	}
	if text := err.Error(); text != e.said {
		e.said = text
		e.store.log.Warn("secret discovery stream ended", "secret", e.ref.Name, "peer", e.ref.Cluster, "err", err, "retry_in", retryIn)
	}
}

// take has a secret that can be used.
func (e *entry) take(d *tlscontext.Discovered) {
	first := e.latest == nil
	e.latest = d
	e.lost = time.Time{}
	what := "secret replaced"
	if first {
		what = "secret discovered"
	}
	e.store.log.Info(what, "secret", e.ref.Name, "source", e.source())
	e.said = ""
}

// gone notes that the source does not stand by the secret any more, or by none that can
// be used, and says so once.
func (e *entry) gone(err error) {
	if e.lost.IsZero() {
		e.lost = time.Now()
	}
	if text := err.Error(); text != e.said {
		e.said = text
		e.store.log.Error("secret cannot be used, the last good one stays", "secret", e.ref.Name, "source", e.source(), "err", err)
	}
}

func (e *entry) source() string {
	if e.ref.File != "" {
		return e.ref.File
	}
	return "cluster " + e.ref.Cluster
}
