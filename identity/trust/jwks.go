package trust

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/strictjson"
)

// use is the JWK "use" of a signer of X509-SVIDs (X509-SVID section 6.1).
const use = "x509-svid"

type jwks struct {
	// Keys is a pointer because an absent array is an error and an empty one
	// revokes everything (SPIFFE Trust Domain and Bundle section 4.1.3).
	Keys        *[]json.RawMessage `json:"keys"`
	Sequence    *uint64            `json:"spiffe_sequence,omitempty"`
	RefreshHint *int64             `json:"spiffe_refresh_hint,omitempty"`
}

type jwk struct {
	Kty string   `json:"kty"`
	Use string   `json:"use,omitempty"`
	Crv string   `json:"crv,omitempty"`
	X   string   `json:"x,omitempty"`
	Y   string   `json:"y,omitempty"`
	N   string   `json:"n,omitempty"`
	E   string   `json:"e,omitempty"`
	X5c []string `json:"x5c,omitempty"`
}

// JWKS writes the bundle as SPIFFE's trust bundle format, for readers outside
// the mesh. Owners and states are ours and stay out; what is withdrawn is gone.
func (b *Bundle) JWKS() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	keys := []json.RawMessage{}
	for _, cert := range b.anchors() {
		k, err := keyOf(cert)
		if err != nil {
			return nil, fmt.Errorf("trust: bundle of %s: signer %s: %w", b.TrustDomain, SignerID(cert), err)
		}
		raw, err := json.Marshal(k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, raw)
	}
	out := jwks{Keys: &keys}
	if b.Sequence != 0 {
		out.Sequence = &b.Sequence
	}
	if hint := int64(b.RefreshHint / time.Second); hint > 0 {
		out.RefreshHint = &hint
	}
	return json.MarshalIndent(out, "", "  ")
}

func keyOf(cert *x509.Certificate) (jwk, error) {
	enc := base64.RawURLEncoding
	k := jwk{Use: use, X5c: []string{base64.StdEncoding.EncodeToString(cert.Raw)}}
	switch pub := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 0x04, x, y (SEC 1 section 2.3.3)
		if err != nil {
			return jwk{}, err
		}
		half := (len(point) - 1) / 2
		k.Kty, k.Crv = "EC", pub.Curve.Params().Name
		k.X, k.Y = enc.EncodeToString(point[1:1+half]), enc.EncodeToString(point[1+half:])
	case ed25519.PublicKey:
		k.Kty, k.Crv, k.X = "OKP", "Ed25519", enc.EncodeToString(pub)
	case *rsa.PublicKey:
		k.Kty, k.N, k.E = "RSA", enc.EncodeToString(pub.N.Bytes()), enc.EncodeToString(big.NewInt(int64(pub.E)).Bytes())
	default:
		return jwk{}, fmt.Errorf("a key of type %T has no JWK form", cert.PublicKey)
	}
	return k, nil
}

// ParseJWKS reads a SPIFFE trust bundle of the trust domain. Elements of an
// unknown use or key type are ignored, as the specification asks; when none is
// left, the trust domain has revoked everything, and the bundle says so.
func ParseJWKS(td spiffeid.TrustDomain, data []byte) (*Bundle, error) {
	fail := func(format string, args ...any) (*Bundle, error) {
		return nil, fmt.Errorf("trust: bundle of %s: %w", td, fmt.Errorf(format, args...))
	}
	var in jwks
	if err := strictjson.UnmarshalOpen(data, &in); err != nil {
		return fail("%w", err)
	}
	if in.Keys == nil {
		return fail("%w", errors.New(`there is no "keys" array: this is not a SPIFFE trust bundle`))
	}
	b := &Bundle{TrustDomain: td}
	if in.Sequence != nil {
		b.Sequence = *in.Sequence
	}
	if in.RefreshHint != nil {
		hint, err := seconds(*in.RefreshHint)
		if err != nil {
			return fail("spiffe_refresh_hint: %w", err)
		}
		b.RefreshHint = hint
	}
	var signers []Signer
	seen := map[string]bool{}
	for i, k := range *in.Keys {
		cert, err := certificate(k)
		if err != nil {
			return fail("keys[%d]: %w", i, err)
		}
		if cert == nil || seen[SignerID(cert)] {
			continue
		}
		seen[SignerID(cert)] = true
		signers = append(signers, NewSigner(cert, "", Active))
	}
	b.Signers, b.Revoked = sorted(signers), len(signers) == 0
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, nil
}

// certificate returns nil for an element that is not ours to read. Such an
// element's other fields may have types that we do not know.
func certificate(raw json.RawMessage) (*x509.Certificate, error) {
	var kind struct {
		Kty string `json:"kty"`
		Use string `json:"use"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, err
	}
	if kind.Use != use || kind.Kty != "EC" && kind.Kty != "RSA" && kind.Kty != "OKP" {
		return nil, nil
	}
	var k jwk
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, err
	}
	switch len(k.X5c) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, fmt.Errorf("x5c has %d certificates, exactly one is allowed", len(k.X5c))
	}
	der, err := base64.StdEncoding.DecodeString(k.X5c[0])
	if err != nil {
		return nil, fmt.Errorf("x5c[0]: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("x5c[0]: %w", err)
	}
	return cert, nil
}
