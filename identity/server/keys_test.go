package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

// TestTheKeyOnRecordDecides: when a name joins again, the key that had it before
// gets nothing more, with whatever certificate it still has.
func TestTheKeyOnRecordDecides(t *testing.T) {
	w := serveIdentity(t)
	before := w.join(token.RoleNode, "n1", "api")
	now := w.join(token.RoleNode, "n1", "api")
	for who, c := range map[string]struct {
		identityv1.IdentityClient
		key crypto.Signer
		may bool
	}{
		"the one before":                     {w.as(before), before.PrivateKey.(crypto.Signer), false},
		"the one before, with another's key": {w.as(before), newKey(t), false},
		"the one on record":                  {w.as(now), now.PrivateKey.(crypto.Signer), true},
	} {
		_, renewed := c.Renew(t.Context(), &identityv1.RenewRequest{Csr: w.csr(c.key, nil)})
		_, issued := c.IssueWorkload(t.Context(), &identityv1.IssueWorkloadRequest{SpiffeId: w.service("api").String(), Csr: w.csr(newKey(t), nil)})
		for what, err := range map[string]error{"renewal": renewed, "workload": issued} {
			if (err == nil) != c.may || err != nil && !refusedCaller(err) {
				t.Errorf("%s: %s: %v, allowed %t", who, what, err, c.may)
			}
		}
	}
	// A rotation is asked for by the key on record; then the next one is on it.
	next := newKey(t)
	reply, err := w.as(now).Renew(t.Context(), &identityv1.RenewRequest{Csr: w.csr(next, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.as(pair(next, reply.GetChain())).Renew(t.Context(), &identityv1.RenewRequest{Csr: w.csr(next, nil)}); err != nil {
		t.Errorf("the next key: %v", err)
	}
}

// TestATokenIsForItsControlPlane: its secret is known where it was made, and
// nowhere else is it of use.
func TestATokenIsForItsControlPlane(t *testing.T) {
	one, two := serveIdentity(t), serveIdentity(t)
	tok := one.mint(token.RoleNode, "n1", "api")
	join := func(w *wire) error {
		_, err := w.as(nil).Join(t.Context(), &identityv1.JoinRequest{TokenId: tok.ID, Secret: tok.Secret(), Csr: w.csr(newKey(t), nil), TrustDomain: testTD.Name()})
		return err
	}
	if err := join(two); status.Code(err) != codes.PermissionDenied {
		t.Errorf("at another control plane: %v", err)
	}
	if err := join(one); err != nil {
		t.Errorf("at its own: %v", err)
	}
}

// TestAdmissionNeedsTheSignersKey: a control plane cannot have a signer admitted
// whose key it does not hold, nor another's entry changed.
func TestAdmissionNeedsTheSignersKey(t *testing.T) {
	w := serveIdentity(t)
	two := w.as(w.join(token.RoleControlPlane, "two"))
	signer := idtest.NewSigner(t, testTD.Name(), func(c *x509.Certificate) { c.MaxPathLenZero = true })
	id, err := identityv1.ID(testTD, token.RoleControlPlane, "two")
	if err != nil {
		t.Fatal(err)
	}
	digest := identityv1.AdmitDigest(id, signer.Cert.Raw)
	prove := func(key crypto.Signer) []byte {
		proof, err := ecdsa.SignASN1(rand.Reader, key.(*ecdsa.PrivateKey), digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	entry := &identityv1.ControlPlane{SpiffeId: id.String(), Addresses: []string{"127.0.0.1:1"}, Revision: 1}
	other := &identityv1.ControlPlane{SpiffeId: w.ID().String(), Addresses: []string{"127.0.0.1:1"}, Revision: 99}
	before := w.CAStatus().Sequence
	for name, r := range map[string]*identityv1.AdmitControlPlaneRequest{
		"another's signature": {Signer: signer.Cert.Raw, Proof: prove(newKey(t)), ControlPlane: entry},
		"no proof":            {Signer: signer.Cert.Raw, ControlPlane: entry},
		"another's entry":     {Signer: signer.Cert.Raw, Proof: prove(signer.Key), ControlPlane: other},
	} {
		if _, err := two.AdmitControlPlane(t.Context(), r); err == nil {
			t.Errorf("%s: admitted", name)
		}
	}
	if st := w.CAStatus(); st.Sequence != before || len(st.Signers) != 1 {
		t.Errorf("a refused signer is in the bundle: %+v", st)
	}
	if _, err := two.AdmitControlPlane(t.Context(), &identityv1.AdmitControlPlaneRequest{Signer: signer.Cert.Raw, Proof: prove(signer.Key), ControlPlane: entry}); err != nil {
		t.Errorf("its own: %v", err)
	}
}

// TestPublishedBeforeItSigns: this control plane's nodes have it, every other
// control plane says the same, and that for some time.
func TestPublishedBeforeItSigns(t *testing.T) {
	p, now := newPublished(), time.Now()
	id, err := identityv1.ID(testTD, token.RoleControlPlane, "two")
	if err != nil {
		t.Fatal(err)
	}
	peers := []string{id.String()}
	ask := func(want bool, what string) {
		t.Helper()
		if got := p.everywhere("s", peers, now, time.Second); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	ask(false, "nobody has it")
	p.setPeer(id, []string{"s"})
	ask(false, "the own nodes lack it")
	p.setOwn(map[string]bool{"s": true})
	p.setPeer(id, nil)
	ask(false, "the other control plane lacks it")
	p.setPeer(id, []string{"s"})
	ask(false, "just now")
	now = now.Add(time.Second)
	ask(true, "settled")
	p.setPeer(id, []string{"t"})
	ask(false, "the other one took it back")
	if got := p.list(); !slices.Equal(got, []string{"s"}) {
		t.Errorf("published: %v", got)
	}
}
