package identityv1

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Time writes a time as the protocol does: Unix milliseconds, 0 for none.
func Time(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// FromTime reads Time's form.
func FromTime(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Chain writes certificates as DER.
func Chain(certs []*x509.Certificate) [][]byte {
	out := make([][]byte, len(certs))
	for i, c := range certs {
		out[i] = c.Raw
	}
	return out
}

// maxCertificates bounds what one message may make the reader parse.
const maxCertificates = 1024

// ParseChain reads DER certificates.
func ParseChain(der [][]byte) ([]*x509.Certificate, error) {
	if len(der) > maxCertificates {
		return nil, fmt.Errorf("identity: %d certificates in one message, at most %d are accepted", len(der), maxCertificates)
	}
	out := make([]*x509.Certificate, len(der))
	for i, d := range der {
		c, err := x509.ParseCertificate(d)
		if err != nil {
			return nil, fmt.Errorf("identity: certificate %d: %w", i, err)
		}
		out[i] = c
	}
	return out, nil
}

// NewBundle writes the anchors of a bundle.
func NewBundle(b *trust.Bundle) *Bundle {
	out := &Bundle{TrustDomain: b.TrustDomain.Name(), Sequence: b.Sequence, Revoked: b.Revoked}
	out.Certificates = Chain(b.Anchors().Certificates)
	return out
}

// Trust reads a bundle. The states and owners of its signers are the control
// planes' own affair, so every anchor is taken as active.
func (b *Bundle) Trust() (*trust.Bundle, error) {
	td, err := spiffe.TrustDomain(b.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("identity: bundle: %w", err)
	}
	certs, err := ParseChain(b.GetCertificates())
	if err != nil {
		return nil, fmt.Errorf("identity: bundle of %s: %w", td, err)
	}
	if b.GetRevoked() {
		if len(certs) > 0 {
			return nil, fmt.Errorf("identity: bundle of %s is revoked and has certificates", td)
		}
		out := &trust.Bundle{TrustDomain: td, Sequence: b.GetSequence(), Revoked: true}
		if err := out.Validate(); err != nil {
			return nil, err
		}
		return out, nil
	}
	signers := make([]trust.Signer, len(certs))
	for i, c := range certs {
		signers[i] = trust.NewSigner(c, "", trust.Active)
	}
	return trust.NewBundle(td, b.GetSequence(), signers...)
}

// SetBundle writes the signers of the own trust domain's bundle into a state.
func (p *PeerState) SetBundle(b *trust.Bundle) {
	p.BundleSequence, p.Revoked, p.Signers = b.Sequence, b.Revoked, nil
	for _, s := range b.Signers {
		p.Signers = append(p.Signers, &Signer{Certificate: s.Certificate.Raw, Owner: s.Owner, State: string(s.State)})
	}
}

// Bundle reads SetBundle's form.
func (p *PeerState) Bundle(td spiffeid.TrustDomain) (*trust.Bundle, error) {
	if len(p.GetSigners()) > maxCertificates {
		return nil, fmt.Errorf("identity: %d signers in one message, at most %d are accepted", len(p.GetSigners()), maxCertificates)
	}
	signers := make([]trust.Signer, len(p.GetSigners()))
	for i, s := range p.GetSigners() {
		c, err := x509.ParseCertificate(s.GetCertificate())
		if err != nil {
			return nil, fmt.Errorf("identity: signer %d: %w", i, err)
		}
		signers[i] = trust.NewSigner(c, s.GetOwner(), trust.State(s.GetState()))
	}
	if !p.GetRevoked() {
		return trust.NewBundle(td, p.GetBundleSequence(), signers...)
	}
	slices.SortFunc(signers, func(a, b trust.Signer) int { return strings.Compare(a.ID, b.ID) })
	out := &trust.Bundle{TrustDomain: td, Sequence: p.GetBundleSequence(), Signers: signers, Revoked: true}
	if err := out.Validate(); err != nil {
		return nil, err
	}
	return out, nil
}

// NewRecord writes a node record.
func NewRecord(n token.Node) *NodeRecord {
	out := &NodeRecord{
		Role: string(n.Role), Name: n.Name, Key: n.Key[:], Revision: n.Revision,
		Banned: n.Banned, BanReason: n.BanReason, Joined: Time(n.Joined), JoinedAt: n.JoinedAt,
	}
	for _, p := range n.Permitted {
		out.Workloads = append(out.Workloads, &Workload{SpiffeId: p.ID.String(), Selectors: p.Selectors})
	}
	return out
}

// Node reads a node record of the trust domain.
func (r *NodeRecord) Node(td spiffeid.TrustDomain) (token.Node, error) {
	out := token.Node{
		Role: token.Role(r.GetRole()), Name: r.GetName(), Revision: r.GetRevision(), Banned: r.GetBanned(),
		BanReason: r.GetBanReason(), Joined: FromTime(r.GetJoined()), JoinedAt: r.GetJoinedAt(),
	}
	fail := func(err error) (token.Node, error) {
		return token.Node{}, fmt.Errorf("identity: record of %q: %w", r.GetName(), err)
	}
	switch out.Role {
	case token.RoleNode, token.RoleControlPlane, token.RoleOperator:
	default:
		return fail(fmt.Errorf("unknown role %q", r.GetRole()))
	}
	if err := spiffe.CheckName(r.GetRole(), r.GetName()); err != nil {
		return fail(err)
	}
	if len(r.GetKey()) != sha256.Size {
		return fail(fmt.Errorf("its key's hash has %d bytes, not %d", len(r.GetKey()), sha256.Size))
	}
	copy(out.Key[:], r.GetKey())
	for _, w := range r.GetWorkloads() {
		id, err := spiffe.Parse(w.GetSpiffeId())
		switch {
		case err != nil:
			return fail(err)
		case id.ID.TrustDomain() != td:
			return fail(fmt.Errorf("%s is not of the trust domain %s", id.ID, td))
		case spiffe.Reserved(id.ID):
			return fail(fmt.Errorf("%s is reserved and cannot be a workload's", id.ID))
		}
		out.Permitted = append(out.Permitted, token.Permit{ID: id.ID, Selectors: w.GetSelectors()})
	}
	return out, nil
}

// ID is the SPIFFE ID of a role's holder.
func ID(td spiffeid.TrustDomain, role token.Role, name string) (spiffeid.ID, error) {
	switch role {
	case token.RoleNode:
		return spiffe.ForNode(td, name)
	case token.RoleControlPlane:
		return spiffe.ForControlPlane(td, name)
	case token.RoleOperator:
		return spiffe.ForOperator(td, name)
	}
	return spiffeid.ID{}, fmt.Errorf("identity: unknown role %q", role)
}

// MaxCSR bounds a certificate request before anything of it is parsed.
const MaxCSR = 16 << 10

// CSRKey checks a request's signature, which proves possession of its key, and
// returns the key's pin. Nothing else of the request is read.
func CSRKey(der []byte) (trust.Pin, error) {
	if len(der) > MaxCSR {
		return trust.Pin{}, fmt.Errorf("identity: the certificate request has %d bytes, at most %d are accepted", len(der), MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return trust.Pin{}, fmt.Errorf("identity: certificate request: %w", err)
	}
	// Before the signature: a caller without a certificate decides what is verified.
	if err := trust.CheckKey(csr.PublicKey); err != nil {
		return trust.Pin{}, fmt.Errorf("identity: certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return trust.Pin{}, errors.New("identity: the certificate request is not signed by its own key")
	}
	return sha256.Sum256(csr.RawSubjectPublicKeyInfo), nil
}

// AdmitDigest is what a control plane's signer signs to be admitted. It binds
// the certificate to the control plane that offers it.
func AdmitDigest(controlPlane spiffeid.ID, signer []byte) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("hauberk admit v1"), []byte(controlPlane.String()), signer} {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
