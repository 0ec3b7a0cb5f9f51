// Package trust is the trust bundle: who may sign for a trust domain. It is a
// set of signers from the first line, one or more for each control plane, so
// that no private key is shared, and a signer is added before it signs and
// removed after the last certificate it signed has gone.
//
// A Bundle is a value: every change returns a new one. Its sequence numbers the
// set of anchors and never goes back.
package trust

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// State is how far a signer is in its life. States only advance, so that
// replicas of a bundle that changed apart agree again by taking the later one.
type State string

// The states, in their order.
const (
	// Prepared: in the bundle so that everyone learns it, not signing yet.
	Prepared State = "prepared"
	// Active: signing.
	Active State = "active"
	// Retired: no longer signing, still verifying what it has signed.
	Retired State = "retired"
	// Withdrawn: verifies nothing. The entry stays as a tombstone, without
	// which a replica that missed the withdrawal would bring the signer back.
	Withdrawn State = "withdrawn"
)

var order = map[State]int{Prepared: 1, Active: 2, Retired: 3, Withdrawn: 4}

// Signer is a certificate that issues SVIDs, and is itself the trust anchor.
type Signer struct {
	// ID is the hash of the certificate's public key, as SignerID gives it.
	ID string
	// Owner is the id of the control plane that holds the key; empty in a
	// bundle that came from another trust domain.
	Owner string
	State State
	// NotAfter is the certificate's.
	NotAfter    time.Time
	Certificate *x509.Certificate
}

// NewSigner describes a certificate as a signer.
func NewSigner(cert *x509.Certificate, owner string, state State) Signer {
	return Signer{ID: SignerID(cert), Owner: owner, State: state, NotAfter: cert.NotAfter, Certificate: cert}
}

// SignerID is the signer's name everywhere: the text form of its key's pin.
func SignerID(cert *x509.Certificate) string { return PinOf(cert).String() }

// Bundle is the signers of one trust domain. Immutable.
type Bundle struct {
	TrustDomain spiffeid.TrustDomain
	// Sequence grows whenever the set of anchors changes. It is 0 only for a
	// foreign trust domain that does not number its bundles.
	Sequence uint64
	// Signers are in the order of their IDs.
	Signers []Signer
	// Revoked says that the bundle has no anchor on purpose: its trust domain
	// has revoked everything. Without it an empty bundle is an error.
	Revoked bool
	// RefreshHint is how often a foreign trust domain asks to be polled; zero
	// when it does not say.
	RefreshHint time.Duration
}

// Errors that callers tell apart.
var (
	// ErrEmpty: the change would leave no anchor, by which every peer of the
	// trust domain would be refused.
	ErrEmpty = errors.New("the trust bundle would be empty")
	// ErrUnknownSigner: no signer has this ID.
	ErrUnknownSigner = errors.New("no such signer in the trust bundle")
	// ErrOlder: the bundle offered is older than the one held.
	ErrOlder = errors.New("the trust bundle offered is older than the one in use")
	// ErrDiverged: two different bundles carry one sequence.
	ErrDiverged = errors.New("two different trust bundles have the same sequence")
	// ErrWithdrawn: a withdrawn signer does not come back.
	ErrWithdrawn = errors.New("the signer is withdrawn")
)

// NewBundle makes the first bundle of a trust domain.
func NewBundle(td spiffeid.TrustDomain, sequence uint64, signers ...Signer) (*Bundle, error) {
	b := &Bundle{TrustDomain: td, Sequence: sequence, Signers: sorted(signers)}
	if sequence == 0 {
		return nil, fmt.Errorf("trust: bundle of %s: the sequence is 0, the first is 1", td)
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, nil
}

// Validate checks what every bundle promises.
func (b *Bundle) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("trust: bundle of %s: %w", b.TrustDomain, fmt.Errorf(format, args...))
	}
	if b.TrustDomain.IsZero() {
		return errors.New("trust: the bundle names no trust domain")
	}
	if b.RefreshHint < 0 {
		return fail("the refresh hint is negative")
	}
	for i, s := range b.Signers {
		if s.Certificate == nil {
			return fail("signer %d has no certificate", i)
		}
		if _, ok := order[s.State]; !ok {
			return fail("signer %s: unknown state %q", s.ID, s.State)
		}
		if s.ID != SignerID(s.Certificate) {
			return fail("signer %s: its certificate has the key %s", s.ID, SignerID(s.Certificate))
		}
		if !s.NotAfter.Equal(s.Certificate.NotAfter) {
			return fail("signer %s: not_after is %s, the certificate says %s", s.ID, s.NotAfter, s.Certificate.NotAfter)
		}
		if i > 0 && b.Signers[i-1].ID >= s.ID {
			return fail("signer %s appears twice or out of order", s.ID)
		}
		if err := CheckSigner(b.TrustDomain, s.Certificate); err != nil {
			return fail("signer %s: %w", s.ID, err)
		}
	}
	empty := len(b.anchors()) == 0
	if empty && !b.Revoked {
		return fail("%w", ErrEmpty)
	}
	if !empty && b.Revoked {
		return fail("it is marked revoked and has anchors")
	}
	return nil
}

// CheckSigner says whether a certificate may sign SVIDs of the trust domain:
// it is a CA that signs certificates, and its SPIFFE ID, if it has one, is the
// trust domain itself (X509-SVID sections 3.1 and 4).
func CheckSigner(td spiffeid.TrustDomain, c *x509.Certificate) error {
	if !c.BasicConstraintsValid || !c.IsCA {
		return errors.New("the certificate is not a CA")
	}
	if c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("the certificate's key usage does not include keyCertSign")
	}
	for _, u := range c.URIs {
		if !strings.EqualFold(u.Scheme, "spiffe") {
			continue
		}
		if u.Host != td.Name() {
			return fmt.Errorf("the certificate is for %q, not for the trust domain %s", u, td)
		}
		if u.Path != "" {
			return fmt.Errorf("the certificate's SPIFFE ID %q has a path, a signer's has none", u)
		}
	}
	return nil
}

// Signer finds a signer by its ID.
func (b *Bundle) Signer(id string) (Signer, bool) {
	i, ok := slices.BinarySearchFunc(b.Signers, id, func(s Signer, id string) int { return strings.Compare(s.ID, id) })
	if !ok {
		return Signer{}, false
	}
	return b.Signers[i], true
}

// With adds a signer. One that is there already with the same owner and
// certificate is no change.
func (b *Bundle) With(s Signer) (*Bundle, error) {
	if old, ok := b.Signer(s.ID); ok {
		switch {
		case old.State == Withdrawn:
			return nil, fmt.Errorf("trust: signer %s: %w: make a new key", s.ID, ErrWithdrawn)
		case old.Owner != s.Owner:
			return nil, fmt.Errorf("trust: signer %s belongs to control plane %q already, not to %q", s.ID, old.Owner, s.Owner)
		case !old.Certificate.Equal(s.Certificate):
			return nil, fmt.Errorf("trust: signer %s is in the bundle with another certificate: make a new key", s.ID)
		}
		return b, nil
	}
	return b.changed(append(slices.Clone(b.Signers), s))
}

// WithState advances a signer.
func (b *Bundle) WithState(id string, state State) (*Bundle, error) {
	old, ok := b.Signer(id)
	if !ok {
		return nil, fmt.Errorf("trust: %s: %w", id, ErrUnknownSigner)
	}
	if old.State == state {
		return b, nil
	}
	if order[state] < order[old.State] {
		return nil, fmt.Errorf("trust: signer %s is %s and cannot become %s again", id, old.State, state)
	}
	signers := slices.Clone(b.Signers)
	for i := range signers {
		if signers[i].ID == id {
			signers[i].State = state
		}
	}
	return b.changed(signers)
}

// Prune drops the tombstones and signers whose certificates have expired: they
// verify nothing with or without an entry.
func (b *Bundle) Prune(now time.Time) (*Bundle, error) {
	signers := slices.DeleteFunc(slices.Clone(b.Signers), func(s Signer) bool { return now.After(s.NotAfter) })
	if len(signers) == len(b.Signers) {
		return b, nil
	}
	return b.changed(signers)
}

// AtLeast raises the sequence. A control plane restored from a backup does so
// before it changes anything, or its changes would look old to everyone.
func (b *Bundle) AtLeast(sequence uint64) *Bundle {
	if b.Sequence >= sequence {
		return b
	}
	next := *b
	next.Sequence = sequence
	return &next
}

// changed makes the successor with these signers.
func (b *Bundle) changed(signers []Signer) (*Bundle, error) {
	next := *b
	next.Signers = sorted(signers)
	next.Revoked = false
	if !slices.EqualFunc(next.anchors(), b.anchors(), (*x509.Certificate).Equal) {
		next.Sequence++
	}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	return &next, nil
}

// Merge joins two replicas that may have changed apart: every signer of either,
// in its later state. It is commutative and idempotent, so control planes that
// exchange bundles in any order arrive at one and the same.
func Merge(a, b *Bundle) (*Bundle, error) {
	if a.TrustDomain != b.TrustDomain {
		return nil, fmt.Errorf("trust: the bundles of %s and %s are never merged", a.TrustDomain, b.TrustDomain)
	}
	all := map[string]Signer{}
	for _, s := range a.Signers {
		all[s.ID] = s
	}
	for _, s := range b.Signers {
		old, ok := all[s.ID]
		if ok && (old.Owner != s.Owner || !old.Certificate.Equal(s.Certificate)) {
			return nil, fmt.Errorf("trust: signer %s is not the same in both bundles: owners %q and %q", s.ID, old.Owner, s.Owner)
		}
		if !ok || order[s.State] > order[old.State] {
			all[s.ID] = s
		}
	}
	merged := &Bundle{
		TrustDomain: a.TrustDomain,
		Signers:     sorted(slices.Collect(maps.Values(all))),
		RefreshHint: max(a.RefreshHint, b.RefreshHint),
	}
	merged.Revoked = len(merged.anchors()) == 0 && (a.Revoked || b.Revoked)
	merged.Sequence = mergedSequence(merged, a, b)
	if err := merged.Validate(); err != nil {
		return nil, err
	}
	return merged, nil
}

// mergedSequence keeps a sequence whose set of anchors the merge did not change,
// and otherwise takes one that neither side has used.
func mergedSequence(merged, a, b *Bundle) uint64 {
	highest := max(a.Sequence, b.Sequence)
	for _, side := range []*Bundle{a, b} {
		if side.Sequence != highest || !merged.SameAnchors(side) {
			continue
		}
		// The other side may carry the same number with another set.
		if a.Sequence != b.Sequence || a.SameAnchors(b) {
			return highest
		}
	}
	return highest + 1
}

// Accept says whether a reader that holds current may replace it with next: nil
// for a newer one or the same one. It is the reader's protection against a
// control plane, or a thief of its network, that offers yesterday's trust.
func Accept(current, next *Bundle) error {
	if err := next.Validate(); err != nil {
		return err
	}
	switch {
	case current == nil:
		return nil
	case current.TrustDomain != next.TrustDomain:
		return fmt.Errorf("trust: a bundle of %s cannot replace that of %s", next.TrustDomain, current.TrustDomain)
	case next.Sequence < current.Sequence:
		return fmt.Errorf("trust: bundle of %s: %w: sequence %d after %d", next.TrustDomain, ErrOlder, next.Sequence, current.Sequence)
	case next.Sequence == current.Sequence && next.Sequence != 0 && !next.SameAnchors(current):
		return fmt.Errorf("trust: bundle of %s: %w (%d)", next.TrustDomain, ErrDiverged, next.Sequence)
	}
	return nil
}

// Anchors is the bundle as a handshake reads it. A revoked bundle gives no
// certificates, and then verifies nothing.
func (b *Bundle) Anchors() *svid.Anchors { return svid.NewAnchors(b.Sequence, b.anchors()) }

// SameAnchors reports whether both bundles trust the same certificates.
func (b *Bundle) SameAnchors(o *Bundle) bool {
	return slices.EqualFunc(b.anchors(), o.anchors(), (*x509.Certificate).Equal)
}

// Equal reports whether both bundles are the same in every respect.
func (b *Bundle) Equal(o *Bundle) bool {
	return b.TrustDomain == o.TrustDomain && b.Sequence == o.Sequence && b.Revoked == o.Revoked && b.RefreshHint == o.RefreshHint &&
		slices.EqualFunc(b.Signers, o.Signers, func(x, y Signer) bool {
			return x.ID == y.ID && x.Owner == y.Owner && x.State == y.State && bytes.Equal(x.Certificate.Raw, y.Certificate.Raw)
		})
}

func (b *Bundle) anchors() []*x509.Certificate {
	out := make([]*x509.Certificate, 0, len(b.Signers))
	for _, s := range b.Signers {
		if s.State != Withdrawn {
			out = append(out, s.Certificate)
		}
	}
	return out
}

func sorted(signers []Signer) []Signer {
	return slices.SortedFunc(slices.Values(signers), func(a, b Signer) int { return strings.Compare(a.ID, b.ID) })
}
