package identityv1

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
)

// A stranger's request reaches CSRKey before its token is looked at: a key that
// is never taken must cost nothing, least of all a verification with it.
func TestCSRKeyLooksAtTheKeyBeforeTheSignature(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 63_999)
	modulus.Add(modulus, big.NewInt(1))
	csr := unsigned(t, &rsa.PublicKey{N: modulus, E: 65537}, modulus.BitLen()/8)
	if len(csr) > MaxCSR {
		t.Fatalf("the request has %d bytes", len(csr))
	}
	_, err := CSRKey(csr)
	if err == nil || !strings.Contains(err.Error(), "RSA key of 64000 bits is not taken") {
		t.Errorf("a request with an RSA key of 64000 bits: %v", err)
	}
}

func TestCSRKeyTakesWhatTheCATakes(t *testing.T) {
	for curve, taken := range map[elliptic.Curve]bool{elliptic.P256(): true, elliptic.P384(): true, elliptic.P224(): false, elliptic.P521(): false} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := CSRKey(csr); (err == nil) != taken {
			t.Errorf("%s: %v", curve.Params().Name, err)
		}
	}
}

// unsigned is a request (RFC 2986 section 4) whose signature is nothing but zeros.
func unsigned(t *testing.T, public any, signature int) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	type info struct {
		Version    int
		Subject    asn1.RawValue
		PublicKey  asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0,set"`
	}
	der, err := asn1.Marshal(struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		Info: info{Subject: asn1.RawValue{FullBytes: []byte{0x30, 0}}, PublicKey: asn1.RawValue{FullBytes: spki}},
		// sha256WithRSAEncryption
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue},
		Signature: asn1.BitString{Bytes: make([]byte, signature), BitLength: 8 * signature},
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
