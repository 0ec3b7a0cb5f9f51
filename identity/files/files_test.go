package files

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	web = "spiffe://mesh.test/ns/default/dc/dc1/svc/web"
	api = "spiffe://mesh.test/ns/default/dc/dc1/svc/api"
)

type set struct {
	t   *testing.T
	dir string
	ca  *idtest.Signer
}

func newSet(t *testing.T) *set {
	s := &set{t: t, dir: t.TempDir(), ca: idtest.NewSigner(t, "mesh.test")}
	s.write("bundle", idtest.CertPEM(s.ca.Cert))
	s.issue(web)
	return s
}

func (s *set) path(name string) string { return filepath.Join(s.dir, name) }

// write replaces a file by rename, as certificate tools do.
func (s *set) write(name string, data []byte) {
	s.t.Helper()
	if err := errors.Join(os.WriteFile(s.path(name+".new"), data, 0o600), os.Rename(s.path(name+".new"), s.path(name))); err != nil {
		s.t.Fatal(err)
	}
}

func (s *set) issue(id string) *x509.Certificate {
	leaf, key := s.ca.Leaf(s.t, id)
	s.write("chain", idtest.CertPEM(leaf))
	s.write("key", idtest.KeyPEM(s.t, key))
	return leaf
}

func (s *set) config() Config {
	return Config{
		Pairs:    []Pair{{s.path("chain"), s.path("key")}},
		Bundles:  map[string]string{"mesh.test": s.path("bundle")},
		Interval: time.Millisecond,
	}
}

func (s *set) open() *Source {
	s.t.Helper()
	src, err := Open(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	return src
}

func TestOpen(t *testing.T) {
	s := newSet(t)
	src := s.open()
	got := src.Snapshot()
	if own, ok := got.Own(""); !ok || own.ID.String() != web || len(got.Bundles["mesh.test"].Certificates) != 1 || src.Err() != nil {
		t.Errorf("got %+v, %v", got, src.Err())
	}
	// Key and chain in one file, in the older form, and two identities.
	leaf, key := s.ca.Leaf(t, api)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.write("both", append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), idtest.CertPEM(leaf)...))
	cfg := s.config()
	cfg.Pairs = append(cfg.Pairs, Pair{s.path("both"), s.path("both")})
	cfg.Default = api
	two, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if own, ok := two.Snapshot().Own(""); !ok || own.ID.String() != api || len(two.Snapshot().SVIDs) != 2 {
		t.Errorf("got %+v", two.Snapshot())
	}
}

func TestOpenRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*set, *Config)
		want  string
	}{
		"nothing named":      {func(_ *set, c *Config) { *c = Config{} }, "none is named"},
		"negative interval":  {func(_ *set, c *Config) { c.Interval = -1 }, "negative"},
		"absent":             {func(_ *set, c *Config) { c.Pairs[0].Key += "x" }, "no such file"},
		"a directory":        {func(s *set, c *Config) { c.Pairs[0].Key = s.dir }, "not a regular file"},
		"no certificate":     {func(s *set, _ *Config) { s.write("chain", []byte("x")) }, "holds no PEM certificate"},
		"no key":             {func(s *set, _ *Config) { s.write("key", []byte("x")) }, "holds no PEM private key"},
		"encrypted key":      {func(s *set, _ *Config) { s.write("key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY"})) }, "openssl pkcs8"},
		"damaged key":        {func(s *set, _ *Config) { s.write("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})) }, "cannot be read"},
		"another's key":      {func(s *set, _ *Config) { s.write("key", idtest.KeyPEM(s.t, idtest.Key(s.t))) }, "does not belong"},
		"no bundle for it":   {func(_ *set, c *Config) { c.Bundles = nil }, "name its file"},
		"another's bundle":   {func(s *set, _ *Config) { s.write("bundle", idtest.CertPEM(idtest.NewSigner(s.t, "mesh.test").Cert)) }, "X5-11"},
		"a leaf as anchor":   {func(s *set, _ *Config) { s.write("bundle", idtest.CertPEM(s.issue(web))) }, "not a CA"},
		"bad trust domain":   {func(s *set, c *Config) { c.Bundles["a..b"] = s.path("bundle") }, "empty label"},
		"unknown default":    {func(_ *set, c *Config) { c.Default = api }, "in none of the files"},
		"an identity twice":  {func(_ *set, c *Config) { c.Pairs = append(c.Pairs, c.Pairs[0]) }, "already"},
		"expired":            {func(_ *set, c *Config) { c.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } }, "expired"},
		"too large":          {func(s *set, _ *Config) { s.write("bundle", make([]byte, maxFile+1)) }, "larger than"},
		"second anchor torn": {func(s *set, _ *Config) { d := idtest.CertPEM(s.ca.Cert, s.ca.Cert); s.write("bundle", d[:len(d)-40]) }, "1 are damaged"},
		"first anchor torn": {func(s *set, _ *Config) {
			d := idtest.CertPEM(s.ca.Cert)
			s.write("bundle", append(bytes.Replace(d, []byte("-----END CERTIFICATE-----\n"), nil, 1), d...))
		}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t)
			cfg := s.config()
			tc.spoil(s, &cfg)
			if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// run starts the polling, and stops it before the test ends.
func run(t *testing.T, src *Source) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run ended with %v", err)
		}
	})
}

// until waits for a condition that polling brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestChange(t *testing.T) {
	s := newSet(t)
	var logged bytes.Buffer
	cfg := s.config()
	cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
	src, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	first := src.Snapshot()
	// The chain alone: a pair in the middle of its replacement.
	leaf, key := s.ca.Leaf(t, web)
	s.write("chain", idtest.CertPEM(leaf))
	if err := src.Reload(); err == nil || src.Err() == nil || src.Snapshot() != first {
		t.Fatalf("half a pair: %v, %v", err, src.Err())
	}
	changed := src.Changed()
	s.write("key", idtest.KeyPEM(t, key))
	run(t, src)
	<-changed
	until(t, "recovery", func() bool { return src.Err() == nil })
	second := src.Snapshot()
	if own, _ := second.Own(""); !own.Leaf().Equal(leaf) || second.Version <= first.Version {
		t.Error("the new pair is not in use")
	}
	if second.Bundles["mesh.test"].Sequence != first.Bundles["mesh.test"].Sequence {
		t.Error("an unchanged bundle was numbered anew")
	}

	next := idtest.NewSigner(t, "mesh.test")
	s.write("bundle", idtest.CertPEM(s.ca.Cert, next.Cert))
	until(t, "the larger bundle", func() bool { return len(src.Snapshot().Bundles["mesh.test"].Certificates) == 2 })
	if src.Snapshot().Bundles["mesh.test"].Sequence <= second.Bundles["mesh.test"].Sequence {
		t.Error("the sequence did not grow")
	}
	if err := os.Remove(s.path("key")); err != nil {
		t.Fatal(err)
	}
	until(t, "the error", func() bool { return src.Err() != nil })
	if own, ok := src.Snapshot().Own(""); !ok || !own.Leaf().Equal(leaf) {
		t.Error("the last good pair is gone")
	}
	s.write("key", idtest.KeyPEM(t, key))
	until(t, "the end of the error", func() bool { return src.Err() == nil })
}

// Same time, same size, another file.
func TestChangeWithoutNewTime(t *testing.T) {
	s := newSet(t)
	src := s.open()
	old, err := os.Stat(s.path("bundle"))
	if err != nil {
		t.Fatal(err)
	}
	if !src.unchanged() {
		t.Error("changed without a change")
	}
	data, err := os.ReadFile(s.path("bundle"))
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] = ' '
	s.write("bundle", data)
	if err := os.Chtimes(s.path("bundle"), old.ModTime(), old.ModTime()); err != nil {
		t.Fatal(err)
	}
	if src.unchanged() {
		t.Error("a replaced file was not noticed")
	}
	// Touched, with equal content: no change for anyone.
	before := src.Snapshot()
	s.write("chain", mustRead(t, s.path("chain")))
	if err := src.Reload(); err != nil || src.Snapshot().Version != before.Version+1 {
		t.Errorf("%v, version %d", err, src.Snapshot().Version) // the bundle changed by a space
	}
	before = src.Snapshot()
	s.write("chain", mustRead(t, s.path("chain")))
	if err := src.Reload(); err != nil || src.Snapshot() != before {
		t.Errorf("an equal content was a change: %v", err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Errors and logs never hold the key.
func TestKeyStaysIn(t *testing.T) {
	s := newSet(t)
	key, chain := mustRead(t, s.path("key")), mustRead(t, s.path("chain"))
	body := string(bytes.Split(key, []byte("\n"))[1])
	s.write("chain", key)
	_, err := Open(s.config())
	s.write("chain", chain)
	s.write("key", bytes.Replace(key, []byte("PRIVATE"), []byte("EC PRIVATE"), 2))
	_, err2 := Open(s.config())
	if err == nil || err2 == nil || strings.Contains(err.Error()+err2.Error(), body[:20]) {
		t.Errorf("%v %v", err, err2)
	}
}
