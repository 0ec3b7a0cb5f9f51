// Package idtest makes signers and certificates for tests, right ones and, with
// a change to the template, wrong ones.
package idtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// Signer is a CA of a trust domain.
type Signer struct {
	TrustDomain spiffeid.TrustDomain
	Cert        *x509.Certificate
	Key         crypto.Signer
}

// Key makes a P-256 key.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// URL parses a URI name.
func URL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// NewSigner makes a self-signed signer, valid for a day around now.
func NewSigner(t testing.TB, td string, change ...func(*x509.Certificate)) *Signer {
	t.Helper()
	return newSigner(t, td, nil, change)
}

// Intermediate makes a signer below s.
func (s *Signer) Intermediate(t testing.TB, change ...func(*x509.Certificate)) *Signer {
	t.Helper()
	return newSigner(t, s.TrustDomain.Name(), s, change)
}

func newSigner(t testing.TB, td string, parent *Signer, change []func(*x509.Certificate)) *Signer {
	t.Helper()
	key := Key(t)
	out := &Signer{TrustDomain: spiffeid.RequireTrustDomainFromString(td), Key: key}
	serial := Serial(t)
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "signer " + serial.Text(16)},
		URIs:         []*url.URL{URL(t, "spiffe://"+td)},
		NotBefore:    time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, f := range change {
		f(template)
	}
	if parent == nil {
		parent = &Signer{Cert: template, Key: key}
	}
	out.Cert = Sign(t, template, parent.Cert, key.Public(), parent.Key)
	return out
}

// Serial makes a serial number.
func Serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Sign makes a certificate of a template.
func Sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Leaf makes an SVID that is valid for an hour around now, as changed.
func (s *Signer) Leaf(t testing.TB, id string, change ...func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := Key(t)
	template := &x509.Certificate{
		SerialNumber: Serial(t),
		URIs:         []*url.URL{URL(t, id)},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	return Sign(t, template, s.Cert, key.Public(), s.Key), key
}

// SVID makes an SVID with its key; more are appended to its chain.
func (s *Signer) SVID(t testing.TB, id string, more ...*x509.Certificate) *svid.SVID {
	t.Helper()
	leaf, key := s.Leaf(t, id)
	v, err := svid.New(append([]*x509.Certificate{leaf}, more...), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Snapshot holds the SVIDs, the first as default, and trusts the signers.
func Snapshot(signers []*Signer, svids ...*svid.SVID) *svid.Snapshot {
	out := &svid.Snapshot{SVIDs: map[string]*svid.SVID{}, Bundles: map[string]*svid.Anchors{}}
	for i, v := range svids {
		if i == 0 {
			out.Default = v.ID.String()
		}
		out.SVIDs[v.ID.String()] = v
	}
	byDomain := map[string][]*x509.Certificate{}
	for _, s := range signers {
		td := s.TrustDomain.Name()
		byDomain[td] = append(byDomain[td], s.Cert)
	}
	for td, certs := range byDomain {
		out.Bundles[td] = svid.NewAnchors(1, certs)
	}
	return out
}

// CertPEM encodes certificates.
func CertPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// KeyPEM encodes a key as PKCS#8.
func KeyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
