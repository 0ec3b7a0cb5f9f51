package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Admit adds another control plane's signer as prepared: everyone learns it
// before it signs. The caller has authenticated the owner and its proof.
func (c *CA) Admit(signer *x509.Certificate, owner string) (*trust.Bundle, error) {
	if err := spiffe.CheckName("control plane", owner); err != nil {
		return nil, fmt.Errorf("ca: admit: %w", err)
	}
	if owner == c.cfg.ControlPlane {
		return nil, fmt.Errorf("ca: admit: %q is this control plane itself: give each control plane an id of its own", owner)
	}
	if err := trust.CheckSigner(c.cfg.TrustDomain, signer); err != nil {
		return nil, fmt.Errorf("ca: admit control plane %q: %w", owner, err)
	}
	if !signer.MaxPathLenZero || signer.MaxPathLen != 0 {
		return nil, fmt.Errorf("ca: admit control plane %q: its signer may sign further CAs (path length is not 0)", owner)
	}
	if now := c.cfg.Now(); now.After(signer.NotAfter) || now.Before(signer.NotBefore) {
		return nil, fmt.Errorf("ca: admit control plane %q: its signer is not valid now, check the clocks", owner)
	}
	if err := trust.CheckKey(signer.PublicKey); err != nil {
		return nil, fmt.Errorf("ca: admit control plane %q: %w", owner, err)
	}
	return c.change(func(b *trust.Bundle) (*trust.Bundle, error) {
		return b.With(trust.NewSigner(signer, owner, trust.Prepared))
	})
}

// Merge takes in the bundle of another control plane: every signer of either, in
// its later state. An own signer that the other reports active has been
// published there.
func (c *CA) Merge(other *trust.Bundle) (*trust.Bundle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range other.Signers {
		_, mine := c.own[s.ID]
		if s.Owner == c.cfg.ControlPlane && !mine && s.State != trust.Withdrawn && s.State != trust.Retired {
			return nil, fmt.Errorf("ca: merge: signer %s is said to be this control plane's and is not: does another one use the id %q? If its key was lost with an older backup, withdraw it at the other control plane", s.ID, c.cfg.ControlPlane)
		}
		if mine && s.Owner != c.cfg.ControlPlane {
			return nil, fmt.Errorf("ca: merge: own signer %s is said to belong to control plane %q", s.ID, s.Owner)
		}
	}
	if c.bundle == nil {
		if other.TrustDomain != c.cfg.TrustDomain {
			return nil, fmt.Errorf("ca: merge: the bundle is of %s, this control plane of %s", other.TrustDomain, c.cfg.TrustDomain)
		}
		if err := other.Validate(); err != nil {
			return nil, fmt.Errorf("ca: merge: %w", err)
		}
		return other, c.publish(other)
	}
	merged, err := trust.Merge(c.bundle, other)
	if err != nil {
		return nil, fmt.Errorf("ca: merge: %w", err)
	}
	return merged, c.publish(merged)
}

// Prepare makes the next own signer and adds it to the bundle as prepared. On a
// control plane that is not admitted yet there is no bundle to add it to, and
// its signer exists already.
func (c *CA) Prepare() (trust.Signer, error) {
	if c.Bundle() == nil {
		return trust.Signer{}, fmt.Errorf("ca: prepare: %w: it has not been admitted yet", ErrNotActive)
	}
	k, ok := c.unpublished()
	if !ok {
		var err error
		if k, err = c.newSigner(); err != nil {
			return trust.Signer{}, fmt.Errorf("ca: prepare: %w", err)
		}
	}
	s := trust.NewSigner(k.cert, c.cfg.ControlPlane, trust.Prepared)
	c.mu.Lock()
	c.own[s.ID] = k
	c.mu.Unlock()
	_, err := c.change(func(b *trust.Bundle) (*trust.Bundle, error) { return b.With(s) })
	return s, err
}

// unpublished finds an own signer that is not in the bundle: one that was made when the disk was
// full, or the process ended, before the bundle was stored.
func (c *CA) unpublished() (key, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	now := c.cfg.Now()
	for _, id := range slices.Sorted(maps.Keys(c.own)) {
		cert := c.own[id].cert
		if _, ok := c.bundle.Signer(id); !ok && !now.Before(cert.NotBefore) && now.Before(cert.NotAfter) {
			return c.own[id], true
		}
	}
	return key{}, false
}

// Activate makes a prepared own signer the one that signs, and retires the one
// before it. The caller has seen that everyone who verifies has a bundle with
// it: a certificate signed earlier would be refused by those who have not.
func (c *CA) Activate(signerID string) error {
	_, err := c.change(func(b *trust.Bundle) (*trust.Bundle, error) {
		if _, mine := c.own[signerID]; !mine {
			return nil, fmt.Errorf("signer %s is not this control plane's: only the owner activates it", signerID)
		}
		next, err := b.WithState(signerID, trust.Active)
		if err != nil {
			return nil, err
		}
		for _, s := range b.Signers {
			if _, mine := c.own[s.ID]; mine && s.ID != signerID && s.State == trust.Active {
				if next, err = next.WithState(s.ID, trust.Retired); err != nil {
					return nil, err
				}
			}
		}
		return next, nil
	})
	return err
}

// Withdraw takes a signer, own or another's, out of the anchors for good. What
// it has signed is refused from then on.
func (c *CA) Withdraw(signerID string) error {
	_, err := c.change(func(b *trust.Bundle) (*trust.Bundle, error) {
		next, err := b.WithState(signerID, trust.Withdrawn)
		if err != nil {
			return nil, err
		}
		for _, s := range next.Signers {
			if s.State == trust.Active && c.cfg.Now().Before(s.NotAfter) {
				return next, nil
			}
		}
		return nil, errors.New("no active signer would be left: activate another one first")
	})
	return err
}

// change applies f to the bundle, and publishes the result once it is on disk.
func (c *CA) change(f func(*trust.Bundle) (*trust.Bundle, error)) (*trust.Bundle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bundle == nil {
		return nil, fmt.Errorf("ca: %w: it has not been admitted to the trust domain %s yet", ErrNotActive, c.cfg.TrustDomain)
	}
	next, err := f(c.bundle)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if !next.SameAnchors(c.bundle) {
		next = next.AtLeast(sequenceAt(c.cfg.Now()))
	}
	return next, c.publish(next)
}

// publish stores a bundle and wakes those who wait. The caller holds mu.
func (c *CA) publish(next *trust.Bundle) error {
	if c.bundle != nil && next.Equal(c.bundle) {
		return nil
	}
	if err := writeJSON(c.path(bundleFile), next); err != nil {
		return fmt.Errorf("ca: store the trust bundle: %w", err)
	}
	c.bundle = next
	close(c.changed)
	c.changed = make(chan struct{})
	c.cfg.Log.Info("trust bundle changed", "component", "ca", "version", next.Sequence, "signers", len(next.Signers))
	return nil
}

// Prove signs a digest with the key of an own signer: the proof of possession
// for the control plane that admits it.
func (c *CA) Prove(signerID string, digest [32]byte) ([]byte, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, ok := c.own[signerID]
	if !ok {
		return nil, fmt.Errorf("ca: prove: signer %s is not this control plane's", signerID)
	}
	sig, err := k.signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("ca: prove: %w", err)
	}
	return sig, nil
}

// CheckProof verifies what Prove made. Signers of this mesh are ECDSA keys.
func CheckProof(signer *x509.Certificate, digest [32]byte, proof []byte) error {
	public, ok := signer.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("ca: proof: a signer with a key of type %T is not taken: use ECDSA P-256", signer.PublicKey)
	}
	if !ecdsa.VerifyASN1(public, digest[:], proof) {
		return errors.New("ca: proof: it is not by the signer's key")
	}
	return nil
}
