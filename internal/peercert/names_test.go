package peercert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	// A URI that package net/url would write differently stands as it is.
	san, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("a.test")},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("SPIFFE://td/a#")},
		{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: []byte("x@y")},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://td/b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	named := issue(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a", Organization: []string{"o"}},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}})
	other := issue(t, &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"ca.test"}})
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		want  []string
		uris  int
	}{
		"all kinds":      {[]*x509.Certificate{named, other}, []string{"SPIFFE://td/a#", "spiffe://td/b", "a.test", "CN=a,O=o"}, 2},
		"no subject":     {[]*x509.Certificate{other}, []string{"ca.test", ""}, 0},
		"no certificate": {nil, []string{""}, 0},
	} {
		chain := Of(nil).WithNames(c.chain)
		if got := chain.Names(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if got := chain.URIs(); !slices.Equal(got, c.want[:c.uris]) {
			t.Errorf("%s: the URIs are %q", name, got)
		}
	}
	if got := (*Chain)(nil).URIs(); got != nil {
		t.Errorf("nobody has URIs %q", got)
	}
	if kept := Of([]*x509.Certificate{named}); kept.Names() != nil || kept.WithNames([]*x509.Certificate{named}).Text(Subject) != "CN=a,O=o" || len(kept.Names()) != 4 {
		t.Errorf("of a chain that is kept: %q", kept.Names())
	}
	only := Of(nil).WithNames([]*x509.Certificate{named})
	if _, _, ok := only.Validity(); ok || only.Text(Subject) != "" || Of(nil).Names() != nil {
		t.Error("names are more than names")
	}
}
