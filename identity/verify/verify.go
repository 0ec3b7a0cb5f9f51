// Package verify decides whether a peer's certificate chain is an X509-SVID of a
// trust domain. It holds peers to every rule of the specification, where common
// libraries let some pass: a leaf whose ID is the trust domain itself, one
// without key usage, one for other purposes, a signer that has a workload's ID.
//
// A verdict is made from one snapshot, and only from the bundle of the trust
// domain that the leaf claims: a signer of one trust domain has no say in
// another.
package verify

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/internal/altname"
)

// maxChain bounds the work that a stranger can ask for.
const maxChain = 8

// Peer verifies a chain, leaf first, at the time now, with one snapshot.
func Peer(snapshot *svid.Snapshot, chain []*x509.Certificate, now time.Time) (spiffeid.ID, error) {
	id, _, err := PeerChain(snapshot, chain, now)
	return id, err
}

// PeerChain is Peer and also returns the chain that was accepted, which ends with an
// anchor. Of what else the peer sent nothing counts.
func PeerChain(snapshot *svid.Snapshot, chain []*x509.Certificate, now time.Time) (spiffeid.ID, []*x509.Certificate, error) {
	id, err := first(chain)
	if err != nil {
		return spiffeid.ID{}, nil, err
	}
	td := id.TrustDomain()
	anchors, ok := snapshot.Bundles[td.Name()]
	if !ok || anchors == nil {
		return spiffeid.ID{}, nil, refuse(RuleChain, id.String(), "there is no trust bundle for the trust domain %s here", td)
	}
	return find(td, anchors, chain, now)
}

// Chain verifies against the anchors of one trust domain, to which the leaf
// must belong.
func Chain(td spiffeid.TrustDomain, anchors *svid.Anchors, chain []*x509.Certificate, now time.Time) (spiffeid.ID, error) {
	id, _, err := find(td, anchors, chain, now)
	return id, err
}

func find(td spiffeid.TrustDomain, anchors *svid.Anchors, chain []*x509.Certificate, now time.Time) (spiffeid.ID, []*x509.Certificate, error) {
	id, err := first(chain)
	if err != nil {
		return spiffeid.ID{}, nil, err
	}
	claimed := id.String()
	if id.TrustDomain() != td {
		return spiffeid.ID{}, nil, refuse(RuleChain, claimed, "it is not of the trust domain %s", td)
	}
	if len(anchors.Certificates) == 0 {
		return spiffeid.ID{}, nil, refuse(RuleChain, claimed, "the trust bundle of %s has no signer: all its identities are revoked", td)
	}
	for _, c := range chain[1:] {
		if err := keyUsage(c); err != nil {
			return spiffeid.ID{}, nil, &Error{RuleKeyUsage, claimed, fmt.Errorf("signer %q: %w", c.Subject, err)}
		}
	}
	// Extended usage is judged by our own rule, below, because the library's
	// accepts one of two purposes where the specification wants both.
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         anchors.Pool,
		Intermediates: pool(Leading(chain[1:], anchors.Pool, nil, now)),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return spiffeid.ID{}, nil, &Error{RuleChain, claimed, explain(err, td, anchors, chain, now)}
	}
	// The peer sends intermediates as it likes; one chain in which every signer
	// may sign is enough, and none of the others makes it weaker.
	var failed error
	for _, v := range verified {
		if failed = signers(td, v[1:], claimed); failed == nil {
			return id, v, nil
		}
	}
	return spiffeid.ID{}, nil, failed
}

// Leaf checks what the leaf alone tells.
func Leaf(leaf *x509.Certificate) (spiffeid.ID, error) {
	if len(leaf.URIs) != 1 {
		return spiffeid.ID{}, refuse(RuleOneURI, "", "the certificate has %d URI names, an SVID has exactly one", len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return spiffeid.ID{}, refuse(RuleID, "", "%q is not a SPIFFE ID: %w", leaf.URIs[0], err)
	}
	claimed := id.String()
	if written := altname.URIs(leaf); len(written) != 1 || written[0] != claimed {
		return spiffeid.ID{}, refuse(RuleID, "", "%q is not a SPIFFE ID as it is spelt, %s would be", written, claimed)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, refuse(RulePath, claimed, "the ID has no path: it is the trust domain's, not a workload's")
	}
	if leaf.IsCA {
		return spiffeid.ID{}, refuse(RuleNotCA, claimed, "the certificate is a CA, which signs and does not authenticate")
	}
	if err := keyUsage(leaf); err != nil {
		return spiffeid.ID{}, &Error{RuleKeyUsage, claimed, err}
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return spiffeid.ID{}, refuse(RuleLeafUsage, claimed, "the key usage lacks digitalSignature")
	}
	if leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return spiffeid.ID{}, refuse(RuleLeafUsage, claimed, "the key usage has keyCertSign or cRLSign, which are a signer's")
	}
	if !bothPurposes(leaf) {
		return spiffeid.ID{}, refuse(RuleExtendedUsage, claimed, "the extended key usage lacks serverAuth or clientAuth")
	}
	if emptySubject(leaf) && !critical(leaf, oidSubjectAltName) {
		return spiffeid.ID{}, refuse(RuleCriticalName, claimed, "the certificate has no subject, and its alternative name is not critical")
	}
	return id, nil
}

func first(chain []*x509.Certificate) (spiffeid.ID, error) {
	if len(chain) == 0 {
		return spiffeid.ID{}, refuse(RuleChain, "", "the peer sent no certificate")
	}
	if len(chain) > maxChain {
		return spiffeid.ID{}, refuse(RuleChain, "", "the peer sent %d certificates, at most %d are read", len(chain), maxChain)
	}
	return Leaf(chain[0])
}

// signers checks the signing part of a verified chain, the anchor included.
func signers(td spiffeid.TrustDomain, chain []*x509.Certificate, claimed string) error {
	for _, c := range chain {
		if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return refuse(RuleSigner, claimed, "signer %q is not a CA with keyCertSign", c.Subject)
		}
		if !bothPurposes(c) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return refuse(RuleExtendedUsage, claimed, "signer %q has an extended key usage without serverAuth or clientAuth", c.Subject)
		}
		for _, u := range c.URIs {
			if !strings.EqualFold(u.Scheme, "spiffe") {
				continue
			}
			if len(c.URIs) > 1 {
				return refuse(RuleOneURI, claimed, "signer %q has %d URI names, an SVID has exactly one", c.Subject, len(c.URIs))
			}
			if u.Path != "" {
				return refuse(RuleSignerPath, claimed, "signer %q has the ID %q, a signer's has no path", c.Subject, u)
			}
			if u.Host != td.Name() {
				return refuse(RuleChain, claimed, "signer %q is for the trust domain %s, not %s", c.Subject, u.Host, td)
			}
		}
	}
	return nil
}

// explain turns the library's verdict into one that a person can act on.
func explain(err error, td spiffeid.TrustDomain, anchors *svid.Anchors, chain []*x509.Certificate, now time.Time) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil {
		what := "the certificate"
		if !invalid.Cert.Equal(chain[0]) {
			what = fmt.Sprintf("the signer %q", invalid.Cert.Subject)
		}
		return &TimeError{What: what, Now: now, NotBefore: invalid.Cert.NotBefore, NotAfter: invalid.Cert.NotAfter}
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("it was issued by %q (key %x), which is not among the %d signers of the trust bundle of %s, sequence %d: %w",
			chain[len(chain)-1].Issuer, chain[len(chain)-1].AuthorityKeyId, len(anchors.Certificates), td, anchors.Sequence, err)
	}
	return err
}

var (
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

func keyUsage(c *x509.Certificate) error {
	i := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidKeyUsage) })
	if i < 0 {
		return errors.New("the certificate has no key usage")
	}
	if !c.Extensions[i].Critical {
		return errors.New("the key usage is not critical")
	}
	return nil
}

func critical(c *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid) && e.Critical })
}

// bothPurposes: without the extension every purpose is allowed (RFC 5280 section
// 4.2.1.12).
func bothPurposes(c *x509.Certificate) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

// emptySubject: an empty SEQUENCE is two bytes.
func emptySubject(c *x509.Certificate) bool { return len(c.RawSubject) <= 2 }

func pool(certs []*x509.Certificate) *x509.CertPool {
	if len(certs) == 0 {
		return nil
	}
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func refuse(rule Rule, id, format string, args ...any) error {
	return &Error{Rule: rule, ID: id, Err: fmt.Errorf(format, args...)}
}
