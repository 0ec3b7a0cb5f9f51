package hcm

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestURIsOfAForeignContext: a peer that rules know by either of two URIs is told of by both, though
// nothing else of its certificate is kept.
func TestURIsOfAForeignContext(t *testing.T) {
	san, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://td/a")},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://td/b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}}
	info := &stream.Info{TLS: true, PeerCertHash: "ab", Peer: (*peercert.Chain)(nil).WithNames([]*x509.Certificate{leaf})}
	got := clientCertElement(&Config{ForwardClientCert: SanitizeSet, ClientCert: ClientCert{URI: true}}, info)
	if !strings.HasSuffix(got, ";URI=spiffe://td/a;URI=spiffe://td/b") {
		t.Errorf("%q", got)
	}
}

// TestInheritedClientCert: an element that a client sends does not take in ours.
func TestInheritedClientCert(t *testing.T) {
	for v, want := range map[string]bool{
		"":                               false,
		"By=a;Hash=b":                    false,
		`By=a;Subject="CN=a";URI=b`:      false,
		`By=a;Subject="CN=a\"b,c";URI=b`: false,
		`By=a;Subject="CN=a\\",By=b`:     false,
		`By=a;Subject="`:                 true,
		`By=a;Subject="CN=\"`:            true,
		`Subject="a";Cert="b\\\"`:        true,
		`By=a\`:                          true,
		`By=a\\`:                         false,
		`By=\"a`:                         false,
	} {
		if got := unclosed(v); got != want {
			t.Errorf("%s: %v", v, got)
		}
	}
}
