package secrets

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/sdstest"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// pinned is a validation context that needs no certificate of anybody, by the hash it pins.
func pinned(t *testing.T, hash string) []byte {
	t.Helper()
	b, err := proto.Marshal(&tlsv3.Secret{Name: "trust", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		VerifyCertificateHash: []string{strings.Repeat(hash, 32)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A service that says the same again, a new stream for one, brings nothing new: no context
// is made anew for it.
func TestTheSameAgain(t *testing.T) {
	service := sdstest.New(t)
	var log lines
	changed := make(chan struct{}, 100)
	s := New(Options{Sockets: map[string]string{"keeper": service.Socket}, Changed: func() { changed <- struct{}{} }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	t.Cleanup(s.Close)
	ref := tlscontext.SecretRef{Name: "trust", Cluster: "keeper", Validation: true}
	service.Put("trust", pinned(t, "aa"))
	if err := s.Usable(ref); err != nil {
		t.Fatal(err)
	}
	<-changed
	first := s.Lookup(ref)
	service.Stop()
	waitFor(t, "the source is lost", func() bool { return log.count("secret discovery stream ended") > 0 })
	if asOf := s.AsOf(ref); time.Since(asOf) <= 0 {
		t.Errorf("as of %v", asOf)
	}
	service.Start(t)
	waitFor(t, "the source stands by it again", func() bool { return time.Since(s.AsOf(ref)) < time.Millisecond })
	if s.Lookup(ref) != first || len(changed) > 0 || log.count("secret replaced") > 0 {
		t.Error("the same secret took the place of itself")
	}
	service.Put("trust", pinned(t, "bb"))
	<-changed
	if s.Lookup(ref) == first || log.count("secret replaced") != 1 {
		t.Error("another did not")
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("never: " + what)
		}
	}
}

// What a control plane sends later is refused as what the bootstrap says: there is no way to
// a service but the sockets.
func TestNoSuchService(t *testing.T) {
	s := New(Options{Sockets: map[string]string{"keeper": "/nowhere"}, Offline: true, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(s.Close)
	ref := tlscontext.SecretRef{Name: "trust", Cluster: "elsewhere"}
	if err := s.Usable(ref); !errors.Is(err, config.ErrSecretService) || len(s.Waiting(nil)) > 0 {
		t.Errorf("%v, waits for %v", err, s.Waiting(nil))
	}
}

// What nobody needs any more is not followed on.
func TestRetain(t *testing.T) {
	service := sdstest.New(t)
	s := New(Options{Sockets: map[string]string{"keeper": service.Socket}, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(s.Close)
	kept, dropped := tlscontext.SecretRef{Name: "trust", Cluster: "keeper", Validation: true}, tlscontext.SecretRef{Name: "other", Cluster: "keeper", Validation: true}
	for _, r := range []tlscontext.SecretRef{kept, dropped} {
		if err := s.Usable(r); err != nil {
			t.Fatal(err)
		}
	}
	s.Retain(func() map[tlscontext.SecretRef]bool { return map[tlscontext.SecretRef]bool{kept: true} })
	service.Put("other", pinned(t, "aa"))
	service.Put("trust", pinned(t, "aa"))
	waitFor(t, "the kept one", func() bool { return s.Lookup(kept) != nil })
	if s.Lookup(dropped) != nil || len(s.Waiting(nil)) > 0 {
		t.Errorf("waits for %v", s.Waiting(nil))
	}
}
