package tlscontext

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
)

// A key that is not for signatures shakes no hands, whoever is accepted otherwise.
func TestKeysSign(t *testing.T) {
	a := newAuthority(t, "a")
	for _, c := range []struct {
		what  string
		usage x509.KeyUsage
		want  bool
	}{
		{"for signatures", x509.KeyUsageDigitalSignature, true},
		{"for anything", 0, true},
		{"for keys", x509.KeyUsageKeyEncipherment, false},
		{"for agreement", x509.KeyUsageKeyAgreement, false},
	} {
		own := a.issue(&x509.Certificate{DNSNames: []string{"a"}, KeyUsage: c.usage})
		client, err := NewClient(&Client{Common: Common{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, Validation: &Validation{AcceptUntrusted: true}}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = shake(t, serverOf(t, own.own()), client.ClientConfig())
		if refused := (*VerifyError)(nil); (err == nil) != c.want || err != nil && (!errors.As(err, &refused) || refused.Rule != "usage") {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// Where the name of a request is verified besides, the name that was asked for takes the
// place of no other.
func TestNamesBesides(t *testing.T) {
	leaf := newAuthority(t, "a").issue(&x509.Certificate{DNSNames: []string{"a.example"}}).cert
	for name, want := range map[string]bool{"a.example": true, "b.example": false} {
		for _, too := range []bool{false, true} {
			v := &verifier{cfg: &Validation{Names: exact(DNS, name)}}
			if _, err := v.judge([]*x509.Certificate{leaf}, "a.example", too); (err == nil) != (want || !too) {
				t.Errorf("%s, besides %v: %v", name, too, err)
			}
		}
	}
}
