// Package svid holds what a TLS handshake needs: own identities with their keys
// and the trust bundles of peers, as one immutable snapshot that a Source
// replaces as a whole.
package svid

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// SVID is an X.509 identity with its private key. Immutable.
type SVID struct {
	ID spiffeid.ID
	// Chain is leaf first.
	Chain []*x509.Certificate
	Key   crypto.Signer
	// TLS is the same material as crypto/tls takes it.
	TLS *tls.Certificate
}

// Leaf returns the identity's own certificate.
func (s *SVID) Leaf() *x509.Certificate { return s.Chain[0] }

// Snapshot is everything one handshake reads. Immutable.
type Snapshot struct {
	// Version grows with each change of one source.
	Version uint64
	// SVIDs are the own identities by SPIFFE ID.
	SVIDs map[string]*SVID
	// Default is the SPIFFE ID used where none is named; may be empty.
	Default string
	// Bundles are the trust anchors by trust domain name. A domain that is
	// absent, or has no anchors, verifies nothing.
	Bundles map[string]*Anchors
}

// Anchors are the trust anchors of one trust domain: the signers themselves
// (a signer need not be self-signed to be an anchor).
type Anchors struct {
	// Sequence is the bundle's version; it never goes back.
	Sequence     uint64
	Certificates []*x509.Certificate
	// Pool is built once from Certificates.
	Pool *x509.CertPool
}

// NewAnchors builds the pool.
func NewAnchors(sequence uint64, certs []*x509.Certificate) *Anchors {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return &Anchors{Sequence: sequence, Certificates: certs, Pool: pool}
}

// Source provides identity to TLS configurations. Implementations: the agent
// (built-in CA), files, a SPIRE agent. All methods may be called concurrently.
type Source interface {
	// Snapshot returns the current state; never nil, but perhaps without the
	// SVID that is asked for (then the handshake fails, saying so).
	Snapshot() *Snapshot
	// Changed returns a channel that is closed at the next change.
	Changed() <-chan struct{}
}
