package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Request asks for an SVID.
type Request struct {
	// CSR is PKCS#10, DER. Its names and extensions are ignored: names come from
	// the caller, who has them from a record.
	CSR []byte
	ID  spiffeid.ID
	// TTL is zero for the default.
	TTL time.Duration
	// Node is the node that asked, for the journal.
	Node string
}

// Issued is an SVID without its key.
type Issued struct {
	// Chain is leaf first, without the signer: that is the trust anchor.
	Chain    []*x509.Certificate
	Serial   *big.Int
	NotAfter time.Time
	// LimitedBy says what decided NotAfter.
	LimitedBy Limit
	// Signer is the signer's ID.
	Signer string
}

// Limit is what decided how long an SVID lives.
type Limit string

// The limits.
const (
	LimitRequest Limit = "request"
	LimitDefault Limit = "default"
	LimitMaximum Limit = "maximum"
	LimitSigner  Limit = "signer"
)

// Issue signs. The journal has the certificate before the caller does.
func (c *CA) Issue(r Request) (*Issued, error) {
	csr, err := parseCSR(r.CSR)
	if err != nil {
		return nil, fmt.Errorf("ca: issue %s: %w: %w", r.ID, ErrRequest, err)
	}
	out, _, err := c.sign(r.ID, csr.PublicKey, r.TTL, r.Node)
	return out, err
}

// Self makes a key and an SVID for the control plane itself. Its chain carries
// the signer, so that a joiner finds the pinned key in it.
func (c *CA) Self(id spiffeid.ID, ttl time.Duration) (*svid.SVID, error) {
	who, err := spiffe.Of(id)
	if err != nil || who.Kind != spiffe.ControlPlane || who.Name != c.cfg.ControlPlane {
		return nil, fmt.Errorf("ca: %s is not the identity of control plane %q", id, c.cfg.ControlPlane)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: issue %s: %w", id, err)
	}
	out, signer, err := c.sign(id, private.Public(), ttl, "")
	if err != nil {
		return nil, err
	}
	return svid.New(append(out.Chain, signer), private)
}

func (c *CA) sign(id spiffeid.ID, public crypto.PublicKey, ttl time.Duration, node string) (*Issued, *x509.Certificate, error) {
	fail := func(err error) (*Issued, *x509.Certificate, error) {
		return nil, nil, fmt.Errorf("ca: issue %s: %w", id, err)
	}
	if err := c.checkName(id); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrRequest, err))
	}
	if err := trust.CheckKey(public); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrRequest, err))
	}
	// Held while signing: a withdrawal that has returned is one after which
	// nothing more is signed.
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, err := c.signing()
	if err != nil {
		return fail(err)
	}
	now := c.cfg.Now()
	notAfter, limit, err := c.expiry(now, ttl, k.cert)
	if err != nil {
		return fail(err)
	}
	serial, err := newSerial()
	if err != nil {
		return fail(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// No subject: a second name would be a second opinion. The alternative
		// name is then critical (RFC 5280 section 4.1.2.6), as Go makes it.
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             latest(now.Add(-backdate), k.cert.NotBefore),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.cert, public, k.signer)
	if err != nil {
		return fail(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	signerID := trust.SignerID(k.cert)
	if err := c.journal.append(entry{
		Time: now.UTC(), Serial: serial.Text(16), ID: id.String(), Node: node,
		Key: trust.PinOf(leaf).String(), Signer: signerID, NotAfter: leaf.NotAfter.UTC(),
	}); err != nil {
		return fail(fmt.Errorf("the journal cannot be written, so nothing is issued: %w", err))
	}
	return &Issued{
		Chain: []*x509.Certificate{leaf}, Serial: serial, NotAfter: leaf.NotAfter, LimitedBy: limit, Signer: signerID,
	}, k.cert, nil
}

// expiry decides how long a leaf lives. X.509 counts in whole seconds.
func (c *CA) expiry(now time.Time, ttl time.Duration, signer *x509.Certificate) (time.Time, Limit, error) {
	limit := LimitRequest
	switch {
	case ttl == 0:
		ttl, limit = c.cfg.LeafTTL, LimitDefault
	case ttl < minLeafTTL:
		return time.Time{}, "", fmt.Errorf("%w: a lifetime of %s is under %s", ErrRequest, ttl, minLeafTTL)
	case ttl > c.cfg.MaxLeafTTL:
		ttl, limit = c.cfg.MaxLeafTTL, LimitMaximum
	}
	notAfter := now.Add(ttl).Truncate(time.Second)
	if notAfter.After(signer.NotAfter) {
		return signer.NotAfter, LimitSigner, nil
	}
	return notAfter, limit, nil
}

func (c *CA) checkName(id spiffeid.ID) error {
	if id.TrustDomain() != c.cfg.TrustDomain {
		return fmt.Errorf("the ID is not of the trust domain %s", c.cfg.TrustDomain)
	}
	if id.Path() == "" {
		return errors.New("the ID has no path: that is a signer's name")
	}
	_, err := spiffe.Of(id)
	return err
}

// maxCSR is far above a CSR of the largest key that we take.
const maxCSR = 16 << 10

func parseCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("the CSR has %d bytes, at most %d are read", len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the CSR cannot be read: %w", err)
	}
	// Before the signature: verifying with a huge RSA key costs a lot.
	if err := trust.CheckKey(csr.PublicKey); err != nil {
		return nil, err
	}
	// Proof of possession: without it a certificate could be had for the key of
	// someone else.
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the CSR is not signed by the key in it: %w", err)
	}
	return csr, nil
}

// newSerial: RFC 5280 section 4.1.2.2 wants positive and at most 20 octets.
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
