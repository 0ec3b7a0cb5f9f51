//go:build e2e

package consultest

import "testing"

// A restarted server knows what it knew.
func TestRestartKeepsData(t *testing.T) {
	s, err := Start(t.Context(), Options{Dir: t.TempDir(), ACL: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}
