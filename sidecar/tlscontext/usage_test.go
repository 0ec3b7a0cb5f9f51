package tlscontext

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
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

// TestPurposeIsNamed: a certificate that is for some purposes is for this one, as are those that lead from
// it to an anchor. For any is for none of them.
func TestPurposeIsNamed(t *testing.T) {
	const any, server, client, code = x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageCodeSigning
	type usages = []x509.ExtKeyUsage
	authorityFor := func(by *authority, name string, of usages) *authority {
		c := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: name}, ExtKeyUsage: of}
		own := by.issue(c)
		return &authority{t: t, cert: own.cert, key: own.key, n: 100}
	}
	for _, tc := range []struct {
		what               string
		root, middle, leaf usages
		want               bool
	}{
		{"for nothing in particular", nil, nil, nil, true},
		{"for servers", nil, nil, usages{server}, true},
		{"for servers and any", nil, nil, usages{any, server}, true},
		{"for any", nil, nil, usages{any}, false},
		{"for clients", nil, nil, usages{client}, false},
		{"by one for any", nil, usages{any}, usages{server}, false},
		{"by one for servers", nil, usages{server, client}, usages{server}, true},
		{"by one for code", nil, usages{code}, usages{server}, false},
		{"by an anchor for any", usages{any}, nil, usages{server}, true},
	} {
		root := authorityFor(&authority{t: t}, "root", tc.root)
		middle := authorityFor(root, "middle", tc.middle)
		leaf := middle.issue(&x509.Certificate{DNSNames: []string{"a"}, ExtKeyUsage: tc.leaf}).cert
		v := &verifier{cfg: &Validation{MaxDepth: DefaultDepth}, roots: poolOf([]*x509.Certificate{root.cert}), usage: server, now: time.Now}
		if _, err := v.judge([]*x509.Certificate{leaf, middle.cert}, "", false); (err == nil) != tc.want {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
	alone := newAuthority(t, "a").issue(&x509.Certificate{ExtKeyUsage: usages{any}}).cert
	v := &verifier{cfg: &Validation{MaxDepth: DefaultDepth}, roots: poolOf([]*x509.Certificate{alone}), usage: server, now: time.Now}
	if _, err := v.judge([]*x509.Certificate{alone}, "", false); err != nil {
		t.Errorf("an anchor itself: %v", err)
	}
}

// TestStrangersAreCheap: as in package verify, also where others beside the roots are in the configuration.
func TestStrangersAreCheap(t *testing.T) {
	root, stranger := newAuthority(t, "root"), newAuthority(t, "stranger")
	var circle []*x509.Certificate
	for i := range 8 {
		template := *stranger.cert
		template.SerialNumber, template.DNSNames = big.NewInt(int64(100+i)), []string{fmt.Sprintf("%d.test", i)}
		der, err := x509.CreateCertificate(rand.Reader, &template, stranger.cert, stranger.cert.PublicKey, stranger.key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		circle = append(circle, c)
	}
	v := &verifier{cfg: &Validation{MaxDepth: DefaultDepth}, roots: poolOf([]*x509.Certificate{root.cert}), usage: x509.ExtKeyUsageServerAuth, now: time.Now}
	leaf := stranger.issue(&x509.Certificate{DNSNames: []string{"a"}}).cert
	if _, err := v.judge(append([]*x509.Certificate{leaf}, circle...), "", false); err == nil || strings.Contains(err.Error(), "limit reached") {
		t.Errorf("signatures are looked at until the library gives up: %v", err)
	}
	by, chain := root, []*x509.Certificate{}
	for len(chain) < 4 {
		own := by.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: fmt.Sprint(len(chain))}})
		by, chain = &authority{t: t, cert: own.cert, key: own.key, n: 100}, append(chain, own.cert)
	}
	leaf = by.issue(&x509.Certificate{DNSNames: []string{"a"}}).cert
	for range 2 {
		slices.Reverse(chain)
		if by, err := v.judge(slices.Concat([]*x509.Certificate{leaf}, circle, chain), "", false); err != nil || len(by) != 6 {
			t.Errorf("by %d certificates: %v", len(by), err)
		}
	}
	v.between = chain[:1] // the lowest or the highest of them, whichever is first now
	if _, err := v.judge(slices.Concat([]*x509.Certificate{leaf}, circle, chain[1:]), "", false); err != nil {
		t.Error(err)
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
