package secrets

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// TestFileIsSeenSoon: another secret in a file counts within half a second, since it may be
// trust that is taken away. So does one that is written into the file, once it is whole.
func TestFileIsSeenSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trust.yaml")
		write := func(to, hash string) {
			t.Helper()
			text := `resources: [{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: trust, validation_context: {verify_certificate_hash: [` + strings.Repeat(hash, 32) + `]}}]`
			if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(path, "aa")
		changed := 0
		s := New(Options{Changed: func() { changed++ }, Log: slog.New(slog.DiscardHandler)})
		defer s.Close()
		ref := tlscontext.SecretRef{Name: "trust", File: path, Validation: true}
		if err := s.Usable(ref); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go s.Run(ctx)
		defer synctest.Wait()
		defer cancel()
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		wait(10 * time.Second)
		if changed != 0 {
			t.Fatalf("changed %d times without a change", changed)
		}
		wait(time.Millisecond) // behind a glance
		write(path+".new", "bb")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if wait(500 * time.Millisecond); changed != 1 {
			t.Errorf("half a second after it was replaced: changed %d times", changed)
		}
		if err := os.WriteFile(path, []byte("resources: ["), 0o600); err != nil {
			t.Fatal(err)
		}
		wait(200 * time.Millisecond)
		write(path, "cc")
		if wait(500 * time.Millisecond); changed != 2 {
			t.Errorf("half a second after it was written into: changed %d times", changed)
		}
	})
}
