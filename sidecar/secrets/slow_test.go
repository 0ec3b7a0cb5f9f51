package secrets

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// TestNobodyWaitsForFiles: while files are looked at, which a slow disk may make long, others ask for secrets, begin
// to follow some, and ask which are awaited.
func TestNobodyWaitsForFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trust.yaml")
	text := `resources: [{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: trust, validation_context: {verify_certificate_hash: [` + strings.Repeat("aa", 32) + `]}}]`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Log: slog.New(slog.DiscardHandler)})
	defer s.Close()
	ref := tlscontext.SecretRef{Name: "trust", File: path, Validation: true}
	s.reading.Lock() // as who reads
	looks, done := make(chan bool), make(chan error, 1)
	go func() {
		defer close(looks)
		s.Refresh()
		s.glance()
	}()
	go func() {
		err := s.Usable(ref)
		_, _ = s.AsOf(ref), s.Waiting(nil)
		if err == nil && s.Lookup(ref) == nil {
			err = os.ErrNotExist
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("they wait for who reads files")
	}
	s.reading.Unlock()
	<-looks
}
