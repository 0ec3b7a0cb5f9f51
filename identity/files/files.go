// Package files is a source of identity that reads PEM files and notices when
// they change: for sidecars with a static bootstrap, whose certificates someone
// else renews.
//
// It looks at the files at an interval and does not rely on file notifications,
// which network and overlay file systems lose. What it finds is used only as a
// whole: each key belongs to its certificate, each certificate verifies against
// its own trust domain's bundle. Otherwise the last good state stays, and Err
// says what is wrong.
package files

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// Pair is one identity's files: its chain, leaf first, and its key. Both may be
// the same file.
type Pair struct{ Chain, Key string }

// Config names the files.
type Config struct {
	Pairs []Pair
	// Bundles are the PEM files of anchors by trust domain.
	Bundles map[string]string
	// Default is the SPIFFE ID used where none is named; that of the first pair
	// when empty.
	Default string
	// Interval between looks; DefaultInterval when zero.
	Interval time.Duration
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	Log *slog.Logger
}

// DefaultInterval is how often the files are looked at.
const DefaultInterval = 5 * time.Second

// maxFile bounds what is read; the largest public bundles are a tenth of it.
const maxFile = 4 << 20

// Source is an svid.Source. Run keeps it current.
type Source struct {
	cfg    Config
	holder *svid.Holder
	failed atomic.Pointer[failure]

	mu    sync.Mutex // one look at a time
	stats map[string]stat
	sum   [sha256.Size]byte // of the content in use
	// sequence numbers the bundles: the files have no number of their own.
	sequence uint64
}

// failure is why the files as they are now are not in use, and since when.
type failure struct {
	err   error
	since time.Time
}

// stat is what a change of a file changes. The inode counts because files are
// replaced by rename, within the clock's resolution if need be.
type stat struct {
	modified time.Time
	size     int64
	file     os.FileInfo
}

// Open reads everything once, and fails if it cannot be used.
func Open(cfg Config) (*Source, error) {
	if len(cfg.Pairs) == 0 && len(cfg.Bundles) == 0 {
		return nil, errors.New("identity files: none is named")
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Interval < 0 {
		return nil, fmt.Errorf("identity files: the interval %s is negative", cfg.Interval)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, holder: svid.NewHolder(nil)}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Snapshot implements svid.Source.
func (s *Source) Snapshot() *svid.Snapshot { return s.holder.Snapshot() }

// Changed implements svid.Source.
func (s *Source) Changed() <-chan struct{} { return s.holder.Changed() }

// Err is why the files as they are now are not in use; nil when they are.
func (s *Source) Err() error {
	if p := s.failed.Load(); p != nil {
		return p.err
	}
	return nil
}

// AsOf is when what is in use was last found in the files: now, unless they
// cannot be used any more.
func (s *Source) AsOf() time.Time {
	if p := s.failed.Load(); p != nil {
		return p.since
	}
	return s.cfg.Now()
}

// Run looks at the files until the context ends, and returns its error.
func (s *Source) Run(ctx context.Context) error {
	t := time.NewTicker(s.cfg.Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if s.unchanged() {
			continue
		}
		before := s.Err()
		switch err := s.Reload(); {
		case err != nil && (before == nil || before.Error() != err.Error()):
			s.cfg.Log.Error("identity files cannot be used, the last good ones stay", "component", "files", "err", err)
		case err == nil && before != nil:
			s.cfg.Log.Info("identity files can be used again", "component", "files")
		}
	}
}

// Reload reads the files now, whether or not they seem to have changed.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.reload()
	if err != nil {
		since := s.AsOf()
		err = fmt.Errorf("identity files: %w", err)
		s.failed.Store(&failure{err, since})
		return err
	}
	s.failed.Store(nil)
	return nil
}

func (s *Source) reload() error {
	// Before reading: a change during the reading is then seen the next time.
	stats, err := s.stat()
	if err != nil {
		return err
	}
	content := map[string][]byte{}
	hash := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(stats)) {
		data, err := readAll(path)
		if err != nil {
			return err
		}
		content[path] = data
		fmt.Fprintf(hash, "%s\x00%d\x00", path, len(data))
		hash.Write(data)
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	if s.sum != sum {
		next, err := s.build(content)
		if err != nil {
			return err
		}
		s.holder.Set(next)
		s.sum = sum
	}
	s.stats = stats
	return nil
}

// unchanged is the cheap look. A failed state is looked at in full each time:
// time alone can mend it.
func (s *Source) unchanged() bool {
	if s.Err() != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := s.stat()
	return err == nil && maps.EqualFunc(now, s.stats, func(a, b stat) bool {
		return a.size == b.size && a.modified.Equal(b.modified) && os.SameFile(a.file, b.file)
	})
}

func (s *Source) stat() (map[string]stat, error) {
	out := map[string]stat{}
	add := func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		out[path] = stat{info.ModTime(), info.Size(), info}
		return nil
	}
	for _, p := range s.cfg.Pairs {
		if err := errors.Join(add(p.Chain), add(p.Key)); err != nil {
			return nil, err
		}
	}
	for _, path := range s.cfg.Bundles {
		if err := add(path); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// build makes a snapshot of what was read, or refuses all of it.
func (s *Source) build(content map[string][]byte) (*svid.Snapshot, error) {
	next := &svid.Snapshot{SVIDs: map[string]*svid.SVID{}, Default: s.cfg.Default, Bundles: map[string]*svid.Anchors{}}
	for name, path := range s.cfg.Bundles {
		anchors, err := s.anchors(name, path, content[path])
		if err != nil {
			return nil, err
		}
		next.Bundles[name] = anchors
	}
	for _, p := range s.cfg.Pairs {
		own, err := s.own(p, content, next.Bundles)
		if err != nil {
			return nil, err
		}
		id := own.ID.String()
		if _, twice := next.SVIDs[id]; twice {
			return nil, fmt.Errorf("%s: another pair has the identity %s already", p.Chain, id)
		}
		next.SVIDs[id] = own
		if next.Default == "" {
			next.Default = id
		}
	}
	if _, ok := next.SVIDs[next.Default]; !ok && next.Default != "" {
		return nil, fmt.Errorf("the default identity %s is in none of the files", next.Default)
	}
	return next, nil
}

func (s *Source) anchors(name, path string, data []byte) (*svid.Anchors, error) {
	td, err := spiffe.TrustDomain(name)
	if err != nil {
		return nil, err
	}
	certs, err := certificates(path, data)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if err := trust.CheckSigner(td, c); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, c.Subject, err)
		}
	}
	if old := s.holder.Snapshot().Bundles[name]; old != nil && slices.EqualFunc(old.Certificates, certs, (*x509.Certificate).Equal) {
		return old, nil
	}
	s.sequence++
	return svid.NewAnchors(s.sequence, certs), nil
}

func (s *Source) own(p Pair, content map[string][]byte, bundles map[string]*svid.Anchors) (*svid.SVID, error) {
	chain, err := certificates(p.Chain, content[p.Chain])
	if err != nil {
		return nil, err
	}
	key, err := privateKey(p.Key, content[p.Key])
	if err != nil {
		return nil, err
	}
	own, err := svid.New(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Chain, err)
	}
	td := own.ID.TrustDomain()
	anchors, ok := bundles[td.Name()]
	if !ok {
		return nil, fmt.Errorf("%s: there is no bundle for its trust domain %s: name its file", p.Chain, td)
	}
	// A peer would refuse it; better to keep the last one, and to say so here.
	if _, err := verify.Chain(td, anchors, chain, s.cfg.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Chain, err)
	}
	return own, nil
}

func certificates(path string, data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue // the key, where both are in one file
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(out)+1, err)
		}
		out = append(out, c)
	}
	// The decoder passes over what is damaged: a file half written, or one anchor
	// of several cut short.
	if n := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")); n != len(out) {
		return nil, fmt.Errorf("%s: of its %d PEM certificates %d are damaged", path, n, n-len(out))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return out, nil
}

// privateKey does not wrap causes: they could quote the key.
func privateKey(path string, data []byte) (crypto.Signer, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s holds no PEM private key", path)
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("%s: a key of PEM type %q is not read: convert it with `openssl pkcs8 -topk8 -nocrypt`", path, block.Type)
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s: the private key cannot be read", path)
		}
		return signer, nil
	}
}
