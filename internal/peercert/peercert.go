// Package peercert turns the certificates that a peer showed into the texts that
// access logs and x-forwarded-client-cert have of them.
package peercert

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/altname"
)

// Text is one of the texts of a chain.
type Text uint8

// The texts. Several values of one kind are joined with commas.
const (
	Subject Text = iota // RFC 2253
	Issuer              // RFC 2253
	Serial              // hexadecimal
	URIs
	DNSNames
	IPs
	Emails
	SHA256 // of the certificate, hexadecimal
	SHA1
	PEM // of the certificate, percent-encoded
	OtherNames
	// Of the certificate that the peer's own was verified with.
	IssuerSHA256
	IssuerSerial
	// Of every certificate that the peer sent, its own first.
	ChainSHA256
	ChainSHA1
	ChainSerials

	texts
)

// Chain is what a peer sent, its own certificate first; nil knows nothing. Each
// text is made when it is first asked for. Safe for concurrent use.
type Chain struct {
	certs []*x509.Certificate // may be none
	names []string
	// uris is how many of names, the first ones, are URIs.
	uris int
	// issuer is nil where the peer was accepted by its own certificate, or by nobody.
	issuer *x509.Certificate
	// made is nil without certificates.
	made *[texts]atomic.Pointer[string]
}

// Of returns the chain, nil where there is none.
func Of(certs []*x509.Certificate) *Chain {
	if len(certs) == 0 {
		return nil
	}
	return &Chain{certs: certs, made: new([texts]atomic.Pointer[string])}
}

// WithIssuer returns c, which may be nil, with the certificate that vouched for the peer's own;
// nil is for none.
func (c *Chain) WithIssuer(issuer *x509.Certificate) *Chain {
	if c != nil {
		c.issuer = issuer
	}
	return c
}

// Text returns a text, empty where the certificate has nothing of the kind.
func (c *Chain) Text(t Text) string {
	if c == nil || len(c.certs) == 0 {
		return ""
	}
	if s := c.made[t].Load(); s != nil {
		return *s
	}
	s := c.make(t)
	c.made[t].Store(&s)
	return s
}

// Validity is when the peer's own certificate becomes valid, and when it expires.
// Without a certificate ok is false.
func (c *Chain) Validity() (notBefore, notAfter time.Time, ok bool) {
	if c == nil || len(c.certs) == 0 {
		return notBefore, notAfter, false
	}
	return c.certs[0].NotBefore, c.certs[0].NotAfter, true
}

func (c *Chain) make(t Text) string {
	leaf := c.certs[0]
	switch t {
	case Subject:
		return DistinguishedName(leaf.RawSubject)
	case Issuer:
		return DistinguishedName(leaf.RawIssuer)
	case Serial:
		return serial(leaf)
	case URIs:
		return strings.Join(altname.URIs(leaf), ",")
	case DNSNames:
		return strings.Join(leaf.DNSNames, ",")
	case IPs:
		var out []string
		for _, ip := range altname.IPs(leaf) {
			out = append(out, ip.String())
		}
		return strings.Join(out, ",")
	case Emails:
		return strings.Join(leaf.EmailAddresses, ",")
	case OtherNames:
		return strings.Join(altname.OtherTexts(leaf), ",")
	case IssuerSHA256:
		return ofIssuer(c.issuer, sum256)
	case IssuerSerial:
		return ofIssuer(c.issuer, serial)
	case SHA256:
		return sum256(leaf)
	case SHA1:
		return sum1(leaf)
	case PEM:
		return EncodePEM(leaf)
	case ChainSHA256:
		return join(c.certs, sum256)
	case ChainSHA1:
		return join(c.certs, sum1)
	case ChainSerials:
		return join(c.certs, serial)
	}
	return ""
}

func ofIssuer(issuer *x509.Certificate, text func(*x509.Certificate) string) string {
	if issuer == nil {
		return ""
	}
	return text(issuer)
}

func join[T any](list []T, text func(T) string) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = text(v)
	}
	return strings.Join(out, ",")
}

func sum256(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// sum1: nobody trusts the fingerprint, people look it up.
func sum1(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw)
	return hex.EncodeToString(sum[:])
}

// serial has whole bytes, as OpenSSL writes it.
func serial(c *x509.Certificate) string {
	n := c.SerialNumber
	if n == nil {
		n = new(big.Int)
	}
	if b := n.Bytes(); len(b) > 0 {
		return hex.EncodeToString(b)
	}
	return "00"
}

// EncodePEM writes a certificate in PEM, percent-encoded (RFC 3986 2.1).
func EncodePEM(cert *x509.Certificate) string {
	var b strings.Builder
	for _, c := range pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}
