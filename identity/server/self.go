package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/ca"
	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// openSelf gets the SVID that the control plane's port presents: from the own CA
// when it signs; else, for a control plane that is being admitted, from the state
// directory or with the token.
func (s *Server) openSelf(ctx context.Context) error {
	_, why := s.ca.Pin()
	if why == nil {
		return s.renewSelf()
	}
	expired := errors.Is(why, ca.ErrExpired)
	if expired && s.alone() {
		return s.beginAnew(why)
	}
	own, err := s.loadSelf()
	if err == nil {
		s.setSelf(own)
		return nil
	}
	switch {
	case s.cfg.JoinToken != "":
		if err := s.join(ctx); err != nil && expired {
			return fmt.Errorf("%w; a token that has not been used is needed, because %w", err, why)
		} else if err != nil {
			return err
		}
		return nil
	case expired:
		return fmt.Errorf("%w: it was off when its next one was due. Set the clock if that is wrong; otherwise give it a new token that another control plane made (hauberk token create --role controlplane --node %s)",
			why, s.cfg.ControlPlane)
	}
	return fmt.Errorf("the signer of control plane %q has not been admitted yet, and it has no SVID (%w): give it a token that a running control plane made (hauberk token create --role controlplane --node %s)",
		s.cfg.ControlPlane, err, s.cfg.ControlPlane)
}

// alone says that no other control plane is on record.
func (s *Server) alone() bool {
	return len(s.otherIDs()) == 0
}

// beginAnew has another signer sign at once, after the end of the only one that did: whatever that
// one has signed is at its end too, so that nobody is refused by it who was not before.
func (s *Server) beginAnew(why error) error {
	var next trust.Signer
	var err error
	now := s.now()
	own := s.ca.Signers()
	if i := slices.IndexFunc(own, func(k trust.Signer) bool {
		return k.State == trust.Prepared && !now.Before(k.Certificate.NotBefore) && now.Before(k.NotAfter)
	}); i >= 0 {
		next = own[i]
	} else {
		next, err = s.ca.Prepare()
	}
	if err == nil {
		err = s.ca.Activate(next.ID)
	}
	if err != nil {
		return fmt.Errorf("%w; another cannot take its place: %w", why, err)
	}
	s.log.Error("the signer expired while this control plane was off. Another signs from now on; every node and operator has to join again with a new token (hauberk token create)",
		"err", why, "signer", next.ID)
	return s.renewSelf()
}

// join uses the token of the role control plane.
func (s *Server) join(ctx context.Context) error {
	t, err := token.Parse(s.cfg.JoinToken)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return err
	}
	joined, err := identityv1.JoinWith(ctx, t, s.cfg.TrustDomain, key)
	if err != nil {
		return err
	}
	if joined.SVID.ID != s.id {
		return fmt.Errorf("the token is for %s, this control plane is %s: make one with --role controlplane --node %s", joined.SVID.ID, s.id, s.cfg.ControlPlane)
	}
	if err := s.mergeState(joined.Reply.GetState()); err != nil {
		return err
	}
	if err := s.storeSelf(joined.SVID); err != nil {
		return err
	}
	s.setSelf(joined.SVID)
	s.log.Info("joined the other control planes", "src_id", s.id.String())
	return nil
}

// setSelf publishes the own SVID with the bundles of this moment.
func (s *Server) setSelf(own *svid.SVID) {
	s.self.Lock()
	defer s.self.Unlock()
	s.setSnapshot(own)
}

// setSnapshot is called with self held.
func (s *Server) setSnapshot(own *svid.SVID) {
	next := &svid.Snapshot{
		SVIDs:   map[string]*svid.SVID{own.ID.String(): own},
		Default: own.ID.String(),
		Bundles: map[string]*svid.Anchors{s.cfg.TrustDomain.Name(): s.ca.Bundle().Anchors()},
	}
	s.source.Set(next)
}

func (s *Server) ownSVID() *svid.SVID {
	own, _ := s.source.Snapshot().Own("")
	return own
}

// renewSelf makes the next own SVID with the own signer. The one that another
// control plane made is not needed again.
func (s *Server) renewSelf() error {
	own, err := s.ca.Self(s.id, 0)
	if err != nil {
		return fmt.Errorf("own SVID: %w", err)
	}
	s.setSelf(own)
	if err := os.Remove(s.selfPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// keepSelf keeps the bundle of the own snapshot current, renews the own SVID at
// half its life, and takes one of the own signer as soon as that signs.
func (s *Server) keepSelf(ctx context.Context) {
	signer := ""
	if pin, err := s.ca.Pin(); err == nil {
		signer = pin.String()
	}
	for {
		changed := s.ca.Changed()
		own := s.ownSVID()
		due := renewAt(own)
		// Whether or not the SVID can be renewed: whoever was withdrawn is refused from now on.
		if s.ca.Bundle().Sequence != s.source.Snapshot().Bundles[s.cfg.TrustDomain.Name()].Sequence {
			s.setSelf(own)
		}
		pin, err := s.ca.Pin()
		switch signs := err == nil; {
		// One that is not valid yet was made when the clock was ahead.
		case signs && (pin.String() != signer || !s.now().Before(due) || s.now().Before(own.Leaf().NotBefore)):
			if err := s.renewSelf(); err != nil {
				s.log.Error("renewing the own SVID failed", "err", err)
				break
			}
			signer = pin.String()
			due = renewAt(s.ownSVID())
		case !signs && !s.now().Before(due):
			if err := s.renewAtPeer(ctx); err != nil {
				s.log.Error("renewing the own SVID at another control plane failed", "err", err)
				break
			}
			due = renewAt(s.ownSVID())
		}
		// A failure is tried again within a minute; the SVID still has half its life.
		wait := min(max(due.Sub(s.now()), 5*time.Second)+rand.N(5*time.Second), time.Minute)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func renewAt(own *svid.SVID) time.Time {
	leaf := own.Leaf()
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// renewAtPeer is for a control plane whose signer does not sign yet.
func (s *Server) renewAtPeer(ctx context.Context) error {
	own := s.ownSVID()
	csr, err := identityv1.NewCSR(own.Key)
	if err != nil {
		return err
	}
	var failures []error
	for _, p := range s.peers.list() {
		if p.ID == s.id.String() {
			continue
		}
		err := s.atPeer(ctx, p, func(ctx context.Context, client identityv1.IdentityClient) error {
			reply, err := client.Renew(ctx, &identityv1.RenewRequest{Csr: csr})
			if err != nil {
				return err
			}
			chain, err := identityv1.ParseChain(reply.GetChain())
			if err != nil {
				return err
			}
			next, err := svid.New(chain, own.Key)
			if err != nil {
				return err
			}
			if err := identityv1.Check(next, s.ca.Bundle(), s.id, identityv1.Skew(reply.GetServerTime(), s.now())); err != nil {
				return err
			}
			s.setSelf(next)
			return s.storeSelf(next)
		})
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return errors.Join(append(failures, errors.New("no other control plane renewed it"))...)
}

func (s *Server) selfPath() string { return filepath.Join(s.cfg.Dir, "controlplane.pem") }

// storeSelf keeps an SVID that another control plane made, key and chain in one
// file of mode 0600, so that a restart before the own signer signs needs no new
// token.
func (s *Server) storeSelf(own *svid.SVID) error {
	der, err := x509.MarshalPKCS8PrivateKey(own.Key)
	if err != nil {
		return err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range own.Chain {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return writeFile(s.selfPath(), data)
}

func (s *Server) loadSelf() (*svid.SVID, error) {
	data, err := os.ReadFile(s.selfPath())
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s does not begin with a private key", s.selfPath())
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: the private key cannot be read", s.selfPath()) // the cause could quote it
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %T is not a P-256 key", s.selfPath(), parsed)
	}
	var chain []*x509.Certificate
	for {
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.selfPath(), err)
		}
		chain = append(chain, c)
	}
	own, err := svid.New(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.selfPath(), err)
	}
	if err := identityv1.Check(own, s.ca.Bundle(), s.id, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", s.selfPath(), err)
	}
	return own, nil
}

// keepHouse prepares and activates the own signers, and drops what has expired.
func (s *Server) keepHouse(ctx context.Context) {
	const tick = time.Second
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	pruned := time.Time{}
	for {
		s.publishSigners()
		if err := s.rotateSigner(); err != nil {
			s.log.Error("rotating the own signer failed", "err", err)
		}
		if now := s.now(); now.Sub(pruned) > time.Hour {
			pruned = now
			if err := s.tokens.Prune(); err != nil {
				s.log.Error("removing expired tokens failed", "err", err)
			}
			if why := s.RotationHeld(); why != "" {
				s.log.Error("the next signer does not sign", "why", why)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// aheadOfTime is how far in the future a signer must begin to be left out: a clock that was months
// ahead has made it. Until one takes its place the one before it signs.
const aheadOfTime = 24 * time.Hour

// ownSigners are those of which rotation decides. ahead is an active one that is left out.
func (s *Server) ownSigners(now time.Time) (active, prepared, ahead *trust.Signer) {
	for _, own := range s.ca.Signers() {
		begins := own.Certificate.NotBefore
		switch {
		case own.State == trust.Active && begins.Sub(now) > aheadOfTime:
			ahead = &own
		case own.State == trust.Active:
			active = &own
		case own.State == trust.Prepared && !begins.After(now):
			prepared = &own
		}
	}
	return active, prepared, ahead
}

// dueAt is when the successor of an active signer signs: its certificate has been in every bundle for long then.
func dueAt(active *trust.Signer) time.Time {
	begins := active.Certificate.NotBefore
	return begins.Add(active.NotAfter.Sub(begins) / 3 * 2)
}

// rotateSigner prepares the next own signer at half the life of the active one,
// and activates a prepared one when everybody verifies with it: at once when
// none signs yet, else at two thirds of the active one's life.
func (s *Server) rotateSigner() error {
	now := s.now()
	active, prepared, ahead := s.ownSigners(now)
	if active != nil && prepared != nil {
		// One that never came into the bundle is prepared again, below.
		if _, ok := s.ca.Bundle().Signer(prepared.ID); !ok {
			prepared = nil
		}
	}
	switch {
	case active == nil && prepared == nil && ahead != nil:
		next, err := s.ca.Prepare()
		if err == nil {
			s.log.Error("the active signer is not valid yet, the clock was ahead when it was made; another is prepared",
				"signer", ahead.ID, "not_before", ahead.Certificate.NotBefore, "next", next.ID)
		}
		return err
	case active != nil && prepared == nil:
		begins := active.Certificate.NotBefore
		if now.Before(begins.Add(active.NotAfter.Sub(begins) / 2)) {
			return nil
		}
		next, err := s.ca.Prepare()
		if err == nil {
			s.log.Info("next signer prepared", "signer", next.ID)
		}
		return err
	case active != nil && now.Before(dueAt(active)):
		return nil
	}
	if prepared == nil || !s.isPublished(prepared.ID) {
		return nil
	}
	if err := s.ca.Activate(prepared.ID); err != nil {
		return err
	}
	s.log.Info("signer active", "signer", prepared.ID)
	return nil
}

// RotationHeld says why the next own signer does not sign for an hour and more though it is due;
// "" when all is well.
func (s *Server) RotationHeld() string {
	now := s.now()
	active, prepared, _ := s.ownSigners(now)
	if active == nil || prepared == nil || now.Before(dueAt(active).Add(time.Hour)) {
		return ""
	}
	waits := "this control plane's own nodes"
	if missing := s.published.missing(prepared.ID, s.otherIDs()); len(missing) > 0 {
		waits = strings.Join(missing, ", ")
	}
	return fmt.Sprintf("signer %s was to sign from %s on, and waits for %s to have it; at %s the present one ends, and nobody gets or renews an SVID here. "+
		"Bring back who is away, or remove a control plane that is gone for good: hauberk ca remove NAME",
		prepared.ID, dueAt(active).UTC().Format(time.RFC3339), waits, active.NotAfter.UTC().Format(time.RFC3339))
}
