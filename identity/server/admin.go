package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// What operators ask for. Whoever calls these has authenticated the operator.

// MintToken makes a join token. Addresses and Pin of the spec are this control
// plane's own; addresses that are given replace the announced ones.
func (s *Server) MintToken(spec token.Spec) (token.Token, token.Record, error) {
	fail := func(err error) (token.Token, token.Record, error) {
		return token.Token{}, token.Record{}, fmt.Errorf("token for %s %q: %w", spec.Role, spec.Name, err)
	}
	if rec, ok := s.nodes.Get(spec.Role, spec.Name); ok && rec.Banned {
		return fail(fmt.Errorf("it is banned (%s): lift the ban first", rec.BanReason))
	}
	if spec.Role == token.RoleControlPlane && spec.Name == s.cfg.ControlPlane {
		return fail(errors.New("that is the id of this control plane: give each its own"))
	}
	pin, err := s.ca.Pin()
	if err != nil {
		return fail(fmt.Errorf("this control plane does not sign yet: make the token at another one: %w", err))
	}
	spec.Pin = pin
	if len(spec.Addresses) == 0 {
		spec.Addresses = s.peers.entry(s.id).GetAddresses()
	}
	if len(spec.Addresses) == 0 {
		return fail(errors.New("this control plane does not know its own address: set it in its configuration"))
	}
	tok, rec, err := s.tokens.Create(spec)
	if err != nil {
		return fail(err)
	}
	s.log.Info("token made", "token", rec.ID, "role", string(rec.Role), "name", rec.Name, "expires", rec.Expires)
	return tok, rec, nil
}

// ListTokens returns the tokens made here, without their secrets.
func (s *Server) ListTokens() ([]token.Record, error) { return s.tokens.List() }

// RevokeToken removes a token that has not been used.
func (s *Server) RevokeToken(id string) error {
	if err := s.tokens.Revoke(id); err != nil {
		return err
	}
	s.log.Info("token revoked", "token", id)
	return nil
}

// ListNodes returns the records of all nodes, control planes and operators that
// joined anywhere.
func (s *Server) ListNodes() []token.Node { return s.nodes.List() }

// Node returns one record.
func (s *Server) Node(role token.Role, name string) (token.Node, bool) {
	return s.nodes.Get(role, name)
}

// NodesChanged is closed at the next change of a record.
func (s *Server) NodesChanged() <-chan struct{} { return s.nodes.Changed() }

// SetPermitted replaces the identities that a node may hold. Those it loses are
// dropped by its agent at once.
func (s *Server) SetPermitted(name string, permitted []token.Permit) (token.Node, error) {
	for _, p := range permitted {
		if p.ID.TrustDomain() != s.cfg.TrustDomain {
			return token.Node{}, fmt.Errorf("node %q: %s is not of the trust domain %s", name, p.ID, s.cfg.TrustDomain)
		}
		if spiffe.Reserved(p.ID) {
			return token.Node{}, fmt.Errorf("node %q: %s is reserved and cannot be a workload's", name, p.ID)
		}
	}
	return s.nodes.Update(token.RoleNode, name, func(rec *token.Node) error {
		rec.Permitted = permitted
		return nil
	})
}

// BanNode ends what the holder of a record may do: its connections here are
// closed, nothing is signed for it, and its agent drops what it holds.
func (s *Server) BanNode(role token.Role, name, reason string) (token.Node, error) {
	if role == token.RoleControlPlane {
		return token.Node{}, fmt.Errorf("control plane %q cannot be banned: remove it, which also withdraws its signers", name)
	}
	rec, err := s.nodes.Update(role, name, func(rec *token.Node) error {
		rec.Banned, rec.BanReason = true, reason
		return nil
	})
	if err == nil {
		s.log.Warn("banned", "role", string(role), "name", name, "reason", reason)
	}
	return rec, err
}

// UnbanNode lifts a ban. The holder joins again with a new token, or goes on with
// its SVID if that is still valid.
func (s *Server) UnbanNode(role token.Role, name string) (token.Node, error) {
	return s.nodes.Update(role, name, func(rec *token.Node) error {
		rec.Banned, rec.BanReason = false, ""
		return nil
	})
}

// ControlPlanes returns all control planes that have not been removed.
func (s *Server) ControlPlanes() []ControlPlane { return s.peers.list() }

// RemoveControlPlane withdraws another control plane's signers, bans it, and
// forgets its addresses. Every SVID it signed is refused from then on: the nodes
// it served get new ones from the others.
func (s *Server) RemoveControlPlane(id spiffeid.ID) error {
	who, err := spiffe.Of(id)
	if err != nil {
		return err
	}
	if who.Kind != spiffe.ControlPlane || id.TrustDomain() != s.cfg.TrustDomain {
		return fmt.Errorf("%s is not a control plane of the trust domain %s", id, s.cfg.TrustDomain)
	}
	if id == s.id {
		return errors.New("a control plane does not remove itself: ask another one")
	}
	if !s.peers.has(id) {
		return fmt.Errorf("control plane %s is not known here", id)
	}
	if _, ok := s.nodes.Get(token.RoleControlPlane, who.Name); ok {
		if _, err := s.nodes.Update(token.RoleControlPlane, who.Name, func(rec *token.Node) error {
			rec.Banned, rec.BanReason = true, "removed at control plane "+s.cfg.ControlPlane
			return nil
		}); err != nil {
			return err
		}
	}
	for _, signer := range s.ca.Bundle().Signers {
		if signer.Owner == who.Name && signer.State != trust.Withdrawn {
			if err := s.ca.Withdraw(signer.ID); err != nil {
				return err
			}
		}
	}
	s.log.Warn("control plane removed", "peer", id.String())
	return s.peers.remove(id)
}

// TrustBundle returns the own trust domain's bundle.
func (s *Server) TrustBundle() *trust.Bundle { return s.ca.Bundle() }

// TrustChanged is closed at the bundle's next change.
func (s *Server) TrustChanged() <-chan struct{} { return s.ca.Changed() }

// PrepareSigner makes the next own signer ahead of its time. It signs when
// ActivateSigner says so, or when the active one reaches two thirds of its life.
func (s *Server) PrepareSigner() (trust.Signer, error) { return s.ca.Prepare() }

// ActivateSigner makes a prepared own signer sign. Unless force is given, every
// control plane must have published it.
func (s *Server) ActivateSigner(id string, force bool) error {
	if !force && !s.isPublished(id) {
		return fmt.Errorf("signer %s is not yet in the bundle of every control plane and node: peers would refuse what it signs", id)
	}
	return s.ca.Activate(id)
}

// WithdrawSigner takes a signer out of the bundle, and with it everything it has
// signed.
func (s *Server) WithdrawSigner(id string) error {
	if err := s.ca.Withdraw(id); err != nil {
		return err
	}
	s.log.Warn("signer withdrawn", "signer", id)
	return nil
}

// CAStatus describes the certificate authority for people.
type CAStatus struct {
	ControlPlane string
	TrustDomain  string
	// Signing is the ID of the signer that signs, empty when none does yet.
	Signing  string
	Sequence uint64
	Signers  []SignerStatus
	// Self is when the own SVID expires.
	Self time.Time
}

// SignerStatus is one signer of the bundle.
type SignerStatus struct {
	ID       string
	Owner    string
	State    trust.State
	NotAfter time.Time
	// Published says that everyone connected here has it.
	Published bool
}

// CAStatus returns the present state.
func (s *Server) CAStatus() CAStatus {
	bundle := s.ca.Bundle()
	out := CAStatus{ControlPlane: s.cfg.ControlPlane, TrustDomain: s.cfg.TrustDomain.Name(), Sequence: bundle.Sequence, Self: s.ownSVID().Leaf().NotAfter}
	if pin, err := s.ca.Pin(); err == nil {
		out.Signing = pin.String()
	}
	given := map[string]bool{}
	for _, id := range s.published.list() {
		given[id] = true
	}
	for _, signer := range bundle.Signers {
		out.Signers = append(out.Signers, SignerStatus{
			ID: signer.ID, Owner: signer.Owner, State: signer.State, NotAfter: signer.NotAfter, Published: given[signer.ID],
		})
	}
	return out
}
