// Package tlscontext is TLS as a foreign configuration asks for it: certificates
// from files or written in place, peers verified against a certificate authority
// and by any of their names, the parameters that Envoy's TLS contexts have. The
// mesh's own TLS, whose peers are SPIFFE IDs of a trust bundle, is package
// identity/tlsconf's.
//
// Peers are verified in VerifyConnection and nowhere else, and sessions are never
// resumed, for the reasons that package tlsconf gives.
package tlscontext

import (
	"crypto/tls"
	"encoding/asn1"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// Common is what both directions have (CommonTlsContext).
type Common struct {
	Certificates []Certificate
	Validation   *Validation // nil asks a client for no certificate
	// MinVersion and MaxVersion are crypto/tls numbers.
	MinVersion, MaxVersion uint16
	CipherSuites           []uint16 // of TLS 1.2; nil for ECDHE with AEAD
	Curves                 []tls.CurveID
	ALPN                   []string
}

// Server is a DownstreamTlsContext.
type Server struct {
	Common
	RequireClientCertificate bool
	// RequireSNI refuses a client that names no server.
	RequireSNI bool
	// FullScan looks at all certificates where none has the name that the client
	// asked for; otherwise the first is presented.
	FullScan bool
}

// Client is an UpstreamTlsContext.
type Client struct {
	Common
	SNI string
	// VerifySNI wants the server's certificate to have the name that was asked for, in
	// place of the validation's Names (auto_sni_san_validation).
	VerifySNI bool
	// NamesToo has it have one of those too: as in Envoy they are not replaced where the name of
	// the request is verified besides (auto_san_validation).
	NamesToo bool
}

// Certificate is an own certificate: a chain, leaf first, and its key, in PEM. Secret is
// set instead of both where it is discovered.
type Certificate struct {
	Chain, Key Source
	Secret     *SecretRef `json:",omitempty"`
}

// Source is where bytes come from: a file, or the configuration itself.
type Source struct {
	File   string `json:",omitempty"`
	Inline Secret `json:",omitempty"`
}

// Secret is material that no log and no dump shows.
type Secret string

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// Empty tells whether there is no source.
func (s Source) Empty() bool { return s.File == "" && s.Inline == "" }

// Validation is a CertificateValidationContext.
type Validation struct {
	// CA holds the anchors, in PEM; where it is empty and SystemRoots is set they are the
	// host's. Without either, a peer is known by the pins alone.
	CA          Source
	SystemRoots bool
	// TrustDomains take the place of both: a peer is an X509-SVID, which the bundle of
	// its own trust domain vouches for and no other (SPIFFECertValidatorConfig).
	TrustDomains []TrustDomain `json:",omitempty"`
	// Names are what the certificate must have one of; empty for any name.
	Names []NameMatch
	// SPKI and Hash are pins, of which one must hold where there are any: the
	// SHA-256 of the public key and of the certificate.
	SPKI, Hash [][32]byte
	// CRL holds revocation lists, in PEM. With any, each certificate of a chain
	// needs one of its issuer, or with LeafCRLOnly the leaf alone.
	CRL         Source
	LeafCRLOnly bool
	// MaxDepth is how many certificates a chain may have besides the leaf, the anchor among
	// them; one of a leaf and an anchor alone is never too long.
	MaxDepth int
	// AcceptUntrusted lets a peer in that fails all this, but for TrustDomains; its identity
	// counts for nothing then.
	AcceptUntrusted bool
	// HideCA keeps the anchors' names out of the request for a certificate.
	HideCA bool
	// Secret is discovered, and put over all this (Merge).
	Secret *SecretRef `json:",omitempty"`
}

// PinsAlone tells whether a peer needs no anchor: it is accepted for what its certificate or
// key is, also when that has expired. Where a secret is put over v, it may name anchors.
func (v *Validation) PinsAlone() bool {
	return v.Secret == nil && v.CA == (Source{}) && !v.SystemRoots && len(v.TrustDomains) == 0
}

// Demands tells whether a client must show a certificate though nothing else requires one:
// names, pins and trust domains say whom it is from.
func (v *Validation) Demands() bool {
	return v != nil && !v.Untrusted() && len(v.Names)+len(v.SPKI)+len(v.Hash)+len(v.TrustDomains) > 0
}

// Untrusted tells whether peers are let in that nothing vouches for. As in Envoy trust domains
// know nothing of AcceptUntrusted: a peer is of one of them.
func (v *Validation) Untrusted() bool { return v.AcceptUntrusted && len(v.TrustDomains) == 0 }

// TrustDomain is a trust domain's name, without a scheme, and its anchors in PEM.
type TrustDomain struct {
	Name   string
	Bundle Source
}

// NameType is a kind of subject alternative name.
type NameType uint8

// The name types.
const (
	URI NameType = iota
	DNS
	IP
	Email
	OtherName
)

func (t NameType) String() string {
	return [...]string{"URI", "DNS", "IP address", "email", "other name"}[t]
}

// NameMatch matches one kind of name. An exact DNS pattern also matches the
// wildcard names that cover it.
type NameMatch struct {
	Type  NameType
	Match *route.StringMatch
	// OID is the type of an OtherName.
	OID asn1.ObjectIdentifier `json:",omitempty"`
}
