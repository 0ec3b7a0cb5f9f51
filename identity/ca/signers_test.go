package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/trust"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

func TestRotation(t *testing.T) {
	cfg := config(t, "cp1")
	c := open(t, cfg)
	old := c.Signers()[0]
	before, err := c.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web})
	if err != nil {
		t.Fatal(err)
	}
	changed := c.Changed()
	next, err := c.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("the change was not announced")
	}
	// Published, and not signing.
	out, err := c.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web})
	if err != nil || out.Signer != old.ID {
		t.Fatalf("signed by %s, %v", out.Signer, err)
	}
	if err := c.Activate(next.ID); err != nil {
		t.Fatal(err)
	}
	// It survives a restart.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, cfg)
	out, err = c.Issue(Request{CSR: csr(t, idtest.Key(t)), ID: web})
	if err != nil || out.Signer != next.ID {
		t.Fatalf("signed by %s, %v", out.Signer, err)
	}
	for _, chain := range [][]*x509.Certificate{before.Chain, out.Chain} {
		if _, err := verify.Chain(td, c.Bundle().Anchors(), chain, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if s, _ := c.Bundle().Signer(old.ID); s.State != trust.Retired {
		t.Errorf("the old signer is %s", s.State)
	}
	if err := c.Activate(old.ID); err == nil {
		t.Error("a retired signer was activated")
	}
	if err := c.Withdraw(next.ID); err == nil || !strings.Contains(err.Error(), "activate another one first") {
		t.Errorf("the only active signer was withdrawn: %v", err)
	}
	if err := c.Withdraw(old.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Chain(td, c.Bundle().Anchors(), before.Chain, time.Now()); err == nil {
		t.Error("what a withdrawn signer signed is still accepted")
	}
	if err := c.Withdraw("sha256:x"); !errors.Is(err, trust.ErrUnknownSigner) {
		t.Errorf("got %v", err)
	}
}

// A crash after the key is stored and before the bundle is: the signer is in the
// bundle after the restart, and nothing is lost.
func TestPrepareInterrupted(t *testing.T) {
	cfg := config(t, "cp1")
	c := open(t, cfg)
	k, err := c.newSigner()
	if err != nil {
		t.Fatal(err)
	}
	before := c.Bundle()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, cfg)
	s, ok := c.Bundle().Signer(trust.SignerID(k.cert))
	if !ok || s.State != trust.Prepared || c.Bundle().Sequence <= before.Sequence {
		t.Fatalf("got %+v", s)
	}
	if err := c.Activate(s.ID); err != nil {
		t.Error(err)
	}
}

// A second control plane signs nothing before the first has published its
// signer.
func TestAdmission(t *testing.T) {
	first := open(t, config(t, "cp1"))
	cfg := config(t, "cp2")
	cfg.Joining = true
	second := open(t, cfg)
	request := func() Request { return Request{CSR: csr(t, idtest.Key(t)), ID: web} }
	refuses := func(when string) {
		t.Helper()
		if _, err := second.Issue(request()); !errors.Is(err, ErrNotActive) {
			t.Errorf("%s it signed: %v", when, err)
		}
		if _, err := second.Pin(); !errors.Is(err, ErrNotActive) {
			t.Errorf("%s it gave a pin: %v", when, err)
		}
	}
	refuses("alone")
	if second.Bundle() != nil {
		t.Error("it made a bundle of its own")
	}
	if _, err := second.Prepare(); !errors.Is(err, ErrNotActive) {
		t.Errorf("prepare: %v", err)
	}
	s := second.Signers()[0]
	if err := second.Activate(s.ID); !errors.Is(err, ErrNotActive) {
		t.Errorf("activate: %v", err)
	}
	// It remembers that it is joining, whatever the configuration says now.
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Joining = false
	second = open(t, cfg)
	refuses("after a restart")

	digest := sha256.Sum256([]byte("challenge"))
	proof, err := second.Prove(s.ID, digest)
	if err != nil || CheckProof(s.Certificate, digest, proof) != nil {
		t.Fatalf("proof: %v", err)
	}
	if CheckProof(first.Signers()[0].Certificate, digest, proof) == nil || CheckProof(s.Certificate, sha256.Sum256(nil), proof) == nil {
		t.Error("a wrong proof was accepted")
	}
	if _, err := second.Prove("sha256:x", digest); err == nil {
		t.Error("a proof for an unknown signer")
	}

	before := first.Bundle().Sequence
	b, err := first.Admit(s.Certificate, "cp2")
	if err != nil {
		t.Fatal(err)
	}
	if in, _ := b.Signer(s.ID); in.State != trust.Prepared || in.Owner != "cp2" || b.Sequence <= before {
		t.Errorf("admitted as %+v, sequence %d after %d", in, b.Sequence, before)
	}
	if again, err := first.Admit(s.Certificate, "cp2"); err != nil || !again.Equal(b) {
		t.Errorf("admitting twice: %v", err)
	}
	if err := first.Activate(s.ID); err == nil {
		t.Error("the first activated a signer that is not its own")
	}
	if _, err := second.Merge(b); err != nil {
		t.Fatal(err)
	}
	refuses("prepared")
	if err := second.Activate(s.ID); err != nil {
		t.Fatal(err)
	}
	out, err := second.Issue(request())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Chain(td, first.Bundle().Anchors(), out.Chain, time.Now()); err != nil {
		t.Errorf("the first's bundle refuses what the second signed: %v", err)
	}

	// Both change apart, exchange, and agree.
	if _, err := first.Prepare(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Prepare(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		a, z := first.Bundle(), second.Bundle()
		if _, err := first.Merge(z); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Merge(a); err != nil {
			t.Fatal(err)
		}
	}
	if !first.Bundle().Equal(second.Bundle()) || len(first.Bundle().Signers) != 4 {
		t.Error("they do not agree")
	}

	// Withdrawn by the first, the second stops signing as soon as it hears it.
	if err := first.Withdraw(s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Merge(first.Bundle()); err != nil {
		t.Fatal(err)
	}
	refuses("withdrawn")
}

func TestAdmissionRefusals(t *testing.T) {
	c := open(t, config(t, "cp1"))
	signer := func(change ...func(*x509.Certificate)) *x509.Certificate {
		all := append([]func(*x509.Certificate){func(c *x509.Certificate) { c.MaxPathLenZero = true }}, change...)
		return idtest.NewSigner(t, "mesh.test", all...).Cert
	}
	if _, err := c.Admit(signer(), "cp2"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cert  *x509.Certificate
		owner string
		want  string
	}{
		"itself":               {signer(), "cp1", "this control plane itself"},
		"no name":              {signer(), "", "empty"},
		"bad name":             {signer(), "c p", "' ' is not allowed"},
		"another trust domain": {idtest.NewSigner(t, "b.test").Cert, "cp2", "not for the trust domain"},
		"no CA":                {signer(func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLenZero = false }), "cp2", "not a CA"},
		"may sign CAs":         {signer(func(c *x509.Certificate) { c.MaxPathLenZero = false }), "cp2", "further CAs"},
		"expired":              {signer(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), "cp2", "check the clocks"},
		"another's signer":     {c.Signers()[0].Certificate, "cp2", `belongs to control plane "cp1"`},
	} {
		if _, err := c.Admit(tc.cert, tc.owner); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestMergeRefusals(t *testing.T) {
	c := open(t, config(t, "cp1"))
	before := c.Bundle()
	own := c.Signers()[0]
	stolen := own
	stolen.Owner = "cp2"
	claimed := trust.NewSigner(idtest.NewSigner(t, "mesh.test").Cert, "cp1", trust.Active)
	foreign, err := trust.NewBundle(idtest.NewSigner(t, "b.test").TrustDomain, 1, trust.NewSigner(idtest.NewSigner(t, "b.test").Cert, "x", trust.Active))
	if err != nil {
		t.Fatal(err)
	}
	b := func(s ...trust.Signer) *trust.Bundle {
		out, err := trust.NewBundle(td, before.Sequence+9, s...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for want, other := range map[string]*trust.Bundle{
		`belong to control plane "cp2"`: b(stolen),
		"does another one use the id":   b(own, claimed),
		"never merged":                  foreign,
		"would be empty":                {TrustDomain: td, Sequence: 99, Signers: []trust.Signer{trust.NewSigner(own.Certificate, "cp1", trust.Withdrawn)}},
	} {
		if _, err := c.Merge(other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if !c.Bundle().Equal(before) {
		t.Error("a refused bundle changed something")
	}
	cfg := config(t, "cp3")
	cfg.Joining = true
	joining := open(t, cfg)
	if _, err := joining.Merge(foreign); err == nil {
		t.Error("the first bundle may be of another trust domain")
	}
}

// Issuing and changing at once: every certificate is by a signer of the bundle.
func TestConcurrency(t *testing.T) {
	c := open(t, config(t, "cp1"))
	request := csr(t, idtest.Key(t))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				out, err := c.Issue(Request{CSR: request, ID: web})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := verify.Chain(td, c.Bundle().Anchors(), out.Chain, time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		s, err := c.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Activate(s.ID); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
