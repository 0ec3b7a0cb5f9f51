package tlscontext

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
)

// A peer is vouched for by the bundle of its own trust domain and by no other, whoever
// else is trusted.
func TestTrustDomains(t *testing.T) {
	one, two, other := newAuthority(t, "one"), newAuthority(t, "two"), newAuthority(t, "other")
	svid := func(a *authority, id string) *issued {
		return a.issue(&x509.Certificate{URIs: uri(id), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	}
	signer := func(a *authority) *authority {
		own := a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "signer"}})
		return &authority{t: t, cert: own.cert, key: own.key}
	}
	below, alone := signer(one), signer(other)
	domains := []TrustDomain{{"one.test", Source{Inline: Secret(one.pem() + below.pem())}}, {"two.test", Source{Inline: Secret(two.pem())}}, {"rootless.test", Source{Inline: Secret(alone.pem())}}}
	for _, c := range []struct {
		what string
		show *issued
		v    Validation
		want string
	}{
		{"of the first", svid(one, "spiffe://one.test/a"), Validation{}, ""},
		{"of the second", svid(two, "spiffe://two.test/a"), Validation{}, ""},
		{"of the second, vouched for by the first", svid(one, "spiffe://two.test/a"), Validation{}, "signed by unknown authority"},
		{"of another", svid(other, "spiffe://other.test/a"), Validation{}, `no trust bundle for the trust domain "other.test"`},
		{"of the first, vouched for by another", svid(other, "spiffe://one.test/a"), Validation{}, "signed by unknown authority"},
		{"without an identity", one.issue(&x509.Certificate{DNSNames: []string{"a"}}), Validation{}, "exactly one"},
		{"a signer", one.issue(&x509.Certificate{URIs: uri("spiffe://one.test/a"), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}), Validation{}, "CA"},
		{"of a signer in the bundle", svid(below, "spiffe://one.test/a"), Validation{}, ""},
		{"of a signer without its root", svid(alone, "spiffe://rootless.test/a"), Validation{}, "signed by unknown authority"},
		{"of another, where any is accepted", svid(other, "spiffe://one.test/a"), Validation{AcceptUntrusted: true}, "signed by unknown authority"},
		{"of the expected name", svid(one, "spiffe://one.test/a"), Validation{Names: exact(URI, "spiffe://one.test/a")}, ""},
		{"of another name", svid(one, "spiffe://one.test/b"), Validation{Names: exact(URI, "spiffe://one.test/a")}, "none of its names"},
	} {
		v := c.v
		v.TrustDomains, v.MaxDepth = domains, DefaultDepth
		client, err := NewClient(&Client{Common: Common{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, Validation: &v}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = shake(t, serverOf(t, c.show.own()), client.ClientConfig())
		var refused *VerifyError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
	}
}
