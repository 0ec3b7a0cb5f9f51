package altname

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
)

func TestNamesAsTheyAreSpelt(t *testing.T) {
	value, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: dnsName, Bytes: []byte("A.test")},
		{Class: asn1.ClassContextSpecific, Tag: uri, Bytes: []byte("SPIFFE://td/a b#")},
		{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte("x@y")},
		{Class: asn1.ClassUniversal, Tag: uri, Bytes: []byte{1}},
		{Class: asn1.ClassContextSpecific, Tag: uri, IsCompound: true, Bytes: []byte("a\nb")}, // no URI to x509, which would refuse it as one
		{Class: asn1.ClassContextSpecific, Tag: uri, Bytes: []byte("spiffe://td/b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	with := func(value []byte) *x509.Certificate {
		return &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{1}}, {Id: extension, Value: value}}}
	}
	if got := URIs(with(value)); !slices.Equal(got, []string{"SPIFFE://td/a b#", "spiffe://td/b"}) {
		t.Errorf("URIs %q", got)
	}
	if got := DNS(with(value)); !slices.Equal(got, []string{"A.test"}) {
		t.Errorf("DNS %q", got)
	}
	if got := URIs(&x509.Certificate{}); got != nil {
		t.Errorf("no names: %q", got)
	}
	if got := URIs(with([]byte{0x30})); got != nil {
		t.Errorf("damaged: %q", got)
	}
}
