// Package panicstest is for tests that have the program fail.
package panicstest

import (
	"log/slog"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
)

// Expect fails unless the test contains n panics at a place. They are not logged.
func Expect(t testing.TB, p panics.Place, n uint64) {
	t.Helper()
	panics.LogTo(slog.New(slog.DiscardHandler))
	before := panics.Count(p)
	t.Cleanup(func() {
		if got := panics.Count(p) - before; got != n {
			t.Errorf("%d panics were contained at %s, want %d", got, p, n)
		}
	})
}
