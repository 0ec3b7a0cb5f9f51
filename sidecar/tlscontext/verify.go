package tlscontext

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/identity/verify"
	"github.com/hauberk-mesh/hauberk/internal/altname"
	"github.com/hauberk-mesh/hauberk/internal/handshake"
)

// VerifyError says why a peer was refused.
type VerifyError struct {
	// Rule is a word for counters: chain, name, pin, revoked, depth, usage or missing.
	Rule string
	// Subject is the certificate's first name, as far as there is one.
	Subject string
	Err     error
}

func (e *VerifyError) Error() string {
	if e.Subject == "" {
		return "the peer's certificate: " + e.Err.Error()
	}
	return fmt.Sprintf("the certificate of %s: %v", e.Subject, e.Err)
}

// Unwrap gives the cause.
func (e *VerifyError) Unwrap() error { return e.Err }

// verifier is a Validation, compiled.
type verifier struct {
	cfg     *Validation
	roots   *x509.CertPool // that chains end with; nil where pins alone decide
	between []*x509.Certificate
	trust   map[string]*bundle // nil unless each trust domain has its own
	crls    []*revocations
	usage   x509.ExtKeyUsage
	now     func() time.Time
}

// verify judges a peer's certificates. serverName, when not empty, is what its own
// must be valid for in place of the names that are expected, or besides with namesToo.
func (v *verifier) verify(cs tls.ConnectionState, serverName string, namesToo bool) error {
	if v == nil {
		return nil
	}
	if len(cs.PeerCertificates) > 0 && !signs(cs.PeerCertificates[0]) {
		// Also of those whom nothing vouches for: it is a matter of the handshake.
		return &VerifyError{Rule: "usage", Subject: subject(cs.PeerCertificates[0]), Err: errors.New("its key is not for signatures")}
	}
	if v.cfg.Untrusted() {
		return nil
	}
	by, err := v.judge(cs.PeerCertificates, serverName, namesToo)
	switch {
	case err != nil:
	case v.roots == nil:
		handshake.Pinned(cs, by)
	default:
		handshake.Chain(cs, by)
	}
	return err
}

// signs tells whether a certificate's key may sign, as it does in every handshake of the
// versions and suites that there are (RFC 8446 4.4.2.2). One without key usage may.
func signs(leaf *x509.Certificate) bool {
	return leaf.KeyUsage == 0 || leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0
}

// judge returns the chain by which the peer is accepted, of which pins alone need only
// the leaf.
func (v *verifier) judge(chain []*x509.Certificate, serverName string, namesToo bool) (by []*x509.Certificate, err error) {
	if len(chain) == 0 {
		return nil, &VerifyError{Rule: "missing", Err: errors.New("the peer sent none")}
	}
	leaf := chain[0]
	refuse := func(rule string, err error) error { return &VerifyError{Rule: rule, Subject: subject(leaf), Err: err} }
	by = chain[:1]
	if v.roots != nil {
		if by, err = v.chain(chain); err != nil {
			var own *VerifyError
			if errors.As(err, &own) {
				own.Subject = subject(leaf)
				return nil, own
			}
			return nil, refuse("chain", err)
		}
	}
	if (serverName == "" || namesToo) && len(v.cfg.Names) > 0 && !slices.ContainsFunc(v.cfg.Names, func(m NameMatch) bool { return m.Matches(leaf) }) {
		return nil, refuse("name", errors.New("none of its names is one that is expected"))
	}
	if serverName != "" && !validFor(leaf, serverName) {
		return nil, refuse("name", fmt.Errorf("it is not valid for %q", serverName))
	}
	if len(v.cfg.SPKI)+len(v.cfg.Hash) > 0 && !v.pinned(leaf) {
		return nil, refuse("pin", errors.New("neither it nor its key is pinned"))
	}
	return by, nil
}

func (v *verifier) pinned(leaf *x509.Certificate) bool {
	return slices.Contains(v.cfg.SPKI, sha256.Sum256(leaf.RawSubjectPublicKeyInfo)) ||
		slices.Contains(v.cfg.Hash, sha256.Sum256(leaf.Raw))
}

// chain finds a chain to an anchor that keeps to depth and revocation.
func (v *verifier) chain(chain []*x509.Certificate) ([]*x509.Certificate, error) {
	roots, between, crls := v.roots, v.between, v.crls
	if v.trust != nil {
		b, err := v.bundleFor(chain[0])
		if err != nil {
			return nil, err
		}
		roots, between, crls = b.roots, b.between, slices.Concat(b.crls, crls)
	}
	now, intermediates := v.now(), x509.NewCertPool()
	for _, c := range slices.Concat(between, verify.Leading(chain[1:], roots, between, now)) {
		intermediates.AddCert(c)
	}
	found, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{v.usage},
	})
	if err != nil {
		if len(v.between) > 0 {
			err = fmt.Errorf("%w (with revocation lists of all of a chain it ends with a root, and %d of the anchors are none)", err, len(v.between))
		}
		return nil, err
	}
	var failed error
	for _, c := range found {
		if failed = v.accept(c, crls); failed == nil {
			return c, nil
		}
	}
	return nil, failed
}

// bundleFor is what may vouch for a certificate: with trust domains that of its own alone
// (SPIFFE X.509-SVID, section 5).
func (v *verifier) bundleFor(leaf *x509.Certificate) (*bundle, error) {
	id, err := verify.Leaf(leaf)
	if err != nil {
		return nil, err
	}
	b := v.trust[id.TrustDomain().Name()]
	if b == nil {
		return nil, fmt.Errorf("there is no trust bundle for the trust domain %q", id.TrustDomain().Name())
	}
	return b, nil
}

func (v *verifier) accept(chain []*x509.Certificate, crls []*revocations) error {
	if err := v.purpose(chain); err != nil {
		return err
	}
	if above, most := len(chain)-1, max(v.cfg.MaxDepth, 1); above > most {
		return &VerifyError{Rule: "depth", Err: fmt.Errorf("%d certificates lead to its anchor, at most %d may", above, most)}
	}
	if len(crls) == 0 {
		return nil
	}
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		if err := v.revocation(crls, c, issuer); err != nil {
			return &VerifyError{Rule: "revoked", Err: err}
		}
		if v.cfg.LeafCRLOnly {
			break
		}
	}
	return nil
}

// purpose asks that each certificate below the anchor names the purpose, if it names any. For whom any will
// do is for none in particular (RFC 5280 4.2.1.12 leaves that to who asks): as in Envoy that is not enough. With
// trust domains the SVID's own rules ask for more of the leaf.
func (v *verifier) purpose(chain []*x509.Certificate) error {
	if v.trust != nil || v.usage == x509.ExtKeyUsageAny {
		return nil
	}
	for _, c := range chain[:len(chain)-1] {
		if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 && !slices.Contains(c.ExtKeyUsage, v.usage) {
			return &VerifyError{Rule: "usage", Err: fmt.Errorf("the extended key usage of %q does not name its purpose here", c.Subject)}
		}
	}
	return nil
}

// Matches tells whether a certificate has a name that m means.
func (m NameMatch) Matches(c *x509.Certificate) bool {
	switch m.Type {
	case URI:
		return slices.ContainsFunc(altname.URIs(c), m.Match.Match)
	case DNS:
		for _, n := range c.DNSNames {
			if m.Match.Match(n) || m.Match.Exact != nil && covers(n, *m.Match.Exact) {
				return true
			}
		}
	case IP:
		return slices.ContainsFunc(altname.IPs(c), func(ip netip.Addr) bool { return m.Match.Match(ip.String()) })
	case Email:
		return slices.ContainsFunc(c.EmailAddresses, m.Match.Match)
	case OtherName:
		return slices.ContainsFunc(altname.Others(c, m.OID), m.Match.Match)
	}
	return false
}

// VerifyName refuses a peer whose certificate has not the name, of a host or an IP address.
func VerifyName(chain []*x509.Certificate, name string) error {
	if len(chain) == 0 {
		return &VerifyError{Rule: "missing", Err: errors.New("the peer sent none")}
	}
	leaf := chain[0]
	if ip, err := netip.ParseAddr(name); err == nil {
		if slices.Contains(altname.IPs(leaf), ip) {
			return nil
		}
	} else if slices.ContainsFunc(leaf.DNSNames, func(own string) bool { return covers(own, name) }) {
		return nil
	}
	return &VerifyError{Rule: "name", Subject: subject(leaf), Err: fmt.Errorf("it is not valid for %q", name)}
}

// validFor is VerifyHostname, but for addresses.
func validFor(leaf *x509.Certificate, name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return slices.Contains(altname.IPs(leaf), ip)
	}
	return leaf.VerifyHostname(name) == nil
}

// covers tells whether a certificate's DNS name, perhaps a wildcard for one whole
// label, covers a host (RFC 6125 6.4.3).
func covers(name, host string) bool {
	if !ascii(name) || !ascii(host) {
		return false // a letter beyond it may be one within it in lower case
	}
	name, host = strings.ToLower(name), strings.ToLower(host)
	if name == host {
		return true
	}
	suffix, ok := strings.CutPrefix(name, "*")
	if !ok || !strings.HasPrefix(suffix, ".") || strings.Contains(suffix, "*") {
		return false
	}
	label, ok := strings.CutSuffix(host, suffix)
	return ok && label != "" && !strings.Contains(label, ".")
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// subject is a name for people.
func subject(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return altname.URIs(c)[0]
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	}
	return c.Subject.String()
}
