package tlscontext

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	domains := []TrustDomain{{"one.test", Source{Inline: Secret(one.pem() + below.pem())}}, {"two.test", Source{Inline: Secret(two.pem() + alone.pem())}}}
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
		{"of a signer without its root", svid(alone, "spiffe://two.test/a"), Validation{}, "signed by unknown authority"},
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

// authorityNamed is an authority's certificate under these two names, which its own key has signed or
// another's. The names may be encoded as no library would.
func authorityNamed(t *testing.T, subject, issuer asn1.RawValue, by *ecdsa.PrivateKey) (*authority, string) {
	t.Helper()
	name := func(v asn1.RawValue) []byte {
		der, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}}})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	c := &x509.Certificate{RawSubject: name(subject), SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{RawSubject: name(issuer)}, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t: t, cert: made, key: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestRootsOfATrustDomain: a root is what its own key has signed, however its names are encoded,
// and a bundle without any is refused where it is read.
func TestRootsOfATrustDomain(t *testing.T) {
	text := func(tag int, s string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(s)} }
	utf8, printable, other := text(asn1.TagUTF8String, "root"), text(asn1.TagPrintableString, "Root"), text(asn1.TagUTF8String, "other")
	stranger := newAuthority(t, "stranger")
	for _, tc := range []struct {
		what            string
		subject, issuer asn1.RawValue
		by              *ecdsa.PrivateKey
		root            bool
	}{
		{"its own", utf8, utf8, nil, true},
		{"its own name in two encodings", utf8, printable, nil, true},
		{"its own key under another name", utf8, other, nil, false},
		{"its own name by another key", utf8, utf8, stranger.key, false},
		{"of another", utf8, other, stranger.key, false},
	} {
		a, text := authorityNamed(t, tc.subject, tc.issuer, tc.by)
		client, err := NewClient(&Client{Common: Common{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
			Validation: &Validation{MaxDepth: DefaultDepth, TrustDomains: []TrustDomain{{"one.test", Source{Inline: Secret(text)}}}}}}, Options{})
		if !tc.root {
			if err == nil || !strings.Contains(err.Error(), `trust domain "one.test": inline data holds no root`) {
				t.Errorf("%s: %v", tc.what, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		own := a.issue(&x509.Certificate{URIs: uri("spiffe://one.test/a"), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
		if _, _, _, err := shake(t, serverOf(t, own.own()), client.ClientConfig()); err != nil {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
}

// TestRootlessBundleIsNotTaken: the last good bundle stays where its file has no root any more.
func TestRootlessBundleIsNotTaken(t *testing.T) {
	one, other := newAuthority(t, "one"), newAuthority(t, "other")
	signer := one.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "signer"}})
	file := filepath.Join(t.TempDir(), "bundle.pem")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one.pem())
	client, err := NewClient(&Client{Common: Common{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
		Validation: &Validation{MaxDepth: DefaultDepth, TrustDomains: []TrustDomain{{"one.test", Source{File: file}}}}}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	own := one.issue(&x509.Certificate{URIs: uri("spiffe://one.test/a"), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	for i, text := range []string{signer.chain, other.pem()} {
		write(text)
		client.Refresh(slog.New(slog.DiscardHandler))
		if _, _, _, err := shake(t, serverOf(t, own.own()), client.ClientConfig()); (err == nil) != (i == 0) {
			t.Errorf("bundle %d: %v", i, err)
		}
	}
}
