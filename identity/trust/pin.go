package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section
// 2.4): it names a key, whatever certificate carries it.
type Pin [sha256.Size]byte

const pinPrefix = "sha256:"

// PinOf returns the pin of a certificate's key.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// PinOfKey returns the pin of a public key.
func PinOfKey(public any) (Pin, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Pin{}, fmt.Errorf("trust: pin of a key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// ParsePin reads the text form, "sha256:" and unpadded base64url.
func ParsePin(s string) (Pin, error) {
	text, ok := strings.CutPrefix(s, pinPrefix)
	if !ok {
		return Pin{}, fmt.Errorf("trust: pin %q does not begin with %q", s, pinPrefix)
	}
	// Strict: a pin has one spelling, because it also serves as a name.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Pin{}, fmt.Errorf("trust: pin %q: %w", s, err)
	}
	if len(raw) != sha256.Size || strings.ContainsAny(text, "\r\n") {
		return Pin{}, fmt.Errorf("trust: pin %q has %d bytes, a SHA-256 has %d", s, len(raw), sha256.Size)
	}
	return Pin(raw), nil
}

// String returns the text form.
func (p Pin) String() string { return pinPrefix + base64.RawURLEncoding.EncodeToString(p[:]) }

// IsZero reports whether the pin is unset.
func (p Pin) IsZero() bool { return p == Pin{} }

// MarshalText implements encoding.TextMarshaler.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Pin) UnmarshalText(b []byte) error {
	parsed, err := ParsePin(string(b))
	if err == nil {
		*p = parsed
	}
	return err
}
