package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/identity/token"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A control plane that comes back knows its signer and its tokens.
func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir() + "/cp"
	td := spiffeid.RequireTrustDomainFromString("server.test")
	open := func() *Server {
		s, err := Build(t.Context(), Config{Dir: dir, TrustDomain: td, ControlPlane: "one"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetAddresses([]string{"127.0.0.1:1"}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	signing := s.CAStatus().Signing
	if _, _, err := s.MintToken(token.Spec{Role: token.RoleNode, Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if got := s.CAStatus().Signing; got != signing || got == "" {
		t.Errorf("signer %q, was %q", got, signing)
	}
	tokens, err := s.ListTokens()
	if err != nil || len(tokens) != 1 {
		t.Errorf("tokens %v %v", tokens, err)
	}
}

// TestRotationAfterAFullDisk: a signer that was made and did not come into the bundle is prepared
// again. Waited for, it would never sign, and nobody when the present one has expired.
func TestRotationAfterAFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cp")
	now := time.Now()
	s, err := Build(t.Context(), Config{Dir: dir, TrustDomain: testTD, ControlPlane: "one", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first := s.ca.Signers()[0]
	now = now.Add(first.NotAfter.Sub(now)/2 + time.Hour)
	bundle := filepath.Join(dir, "bundle.json")
	if err := errors.Join(os.Remove(bundle), os.MkdirAll(filepath.Join(bundle, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.rotateSigner(); err == nil || len(s.ca.Bundle().Signers) != 1 {
		t.Fatalf("on a full disk: %v, %d signers", err, len(s.ca.Bundle().Signers))
	}
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.rotateSigner(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.ca.Bundle().Signers); n != 2 || len(s.ca.Signers()) != 2 {
		t.Errorf("%d signers in the bundle and %d own ones, want 2 of each", n, len(s.ca.Signers()))
	}
}
