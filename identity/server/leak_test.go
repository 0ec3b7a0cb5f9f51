package server

import (
	"testing"

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
