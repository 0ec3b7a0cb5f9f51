package altname

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzNames: of a certificate that crypto/x509 can read the names are those that it has read, in
// their order; names of other kinds are what a rule, or a line of a log, can take.
func FuzzNames(f *testing.F) {
	for _, names := range [][]asn1.RawValue{
		{{Class: asn1.ClassContextSpecific, Tag: uri, Bytes: []byte("SPIFFE://td/a%20b#")}, {Class: asn1.ClassContextSpecific, Tag: dnsName, Bytes: []byte("A.test")}},
		{{Class: asn1.ClassContextSpecific, Tag: uri, IsCompound: true, Bytes: []byte("\x16\x01a")}, {Class: asn1.ClassContextSpecific, Tag: uri, Bytes: []byte("spiffe://td/b")}},
		{{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte("x@y")}, {Class: asn1.ClassContextSpecific, Tag: 7, Bytes: []byte{10, 0, 0, 1}}},
		{{Class: asn1.ClassContextSpecific, Tag: uri}, {Class: asn1.ClassUniversal, Tag: uri, Bytes: []byte{42}}},
		{},
	} {
		value, err := asn1.Marshal(names)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	for _, value := range [][]byte{
		{12, 1, 'a'}, {2, 2, 0xff, 0x7f}, {10, 1, 5}, {1, 1, 0xff}, {6, 6, 0x69, 0x90, 0x80, 0x80, 0x80, 0}, {3, 2, 4, 0xf0},
		{30, 4, 0, 'b', 0x20, 0xac}, {28, 4, 0, 1, 0xf6, 0}, {48, 3, 2, 1, 1}, {5, 0}, slices.Concat([]byte{2, 0x81, 0x80}, make([]byte, 128)),
	} {
		f.Add(othersOf(f, upn, value, value).Extensions[0].Value)
	}
	f.Add([]byte{0x30, 0x80, 0x86, 0, 0, 0})
	f.Add([]byte{0x30, 3, 0x9f, 6, 0})
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	f.Fuzz(func(t *testing.T, value []byte) {
		raw := &x509.Certificate{Extensions: []pkix.Extension{{Id: extension, Value: value}}}
		of(raw, uri)
		for _, name := range Others(raw, upn) {
			if !utf8.ValidString(name) || len(name) > 2*len(value)+3*mostNumber {
				t.Errorf("a name of %d bytes: %.200q", len(name), name)
			}
		}
		if texts := strings.Join(OtherTexts(raw), ","); len(texts) > mostTexts {
			t.Errorf("texts of %d bytes", len(texts))
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<31, 0), ExtraExtensions: []pkix.Extension{{Id: extension, Value: value}}}
		der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
		if err != nil {
			return
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if got := DNS(c); !slices.Equal(got, c.DNSNames) {
			t.Errorf("DNS %q, x509 has %q", got, c.DNSNames)
		}
		spelt := URIs(c)
		if len(spelt) != len(c.URIs) {
			t.Fatalf("URIs %q, x509 has %v", spelt, c.URIs)
		}
		for i, s := range spelt {
			if u, err := url.Parse(s); err != nil || u.String() != c.URIs[i].String() {
				t.Errorf("URI %q, x509 has %v", s, c.URIs[i])
			}
		}
		if got := IPs(c); len(got) != len(c.IPAddresses) {
			t.Errorf("addresses %v, x509 has %v", got, c.IPAddresses)
		}
	})
}
