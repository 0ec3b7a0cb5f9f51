package telemetry

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/hauberk-mesh/hauberk/internal/peercert"
)

// TestURIsOfThePeer: one that rules know by each of two URIs is told of by both.
func TestURIsOfThePeer(t *testing.T) {
	san, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://td/a")},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://td/b")},
	})
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}}
	f, err := ParseFormat("%DOWNSTREAM_PEER_URI_SAN%")
	if err != nil {
		t.Fatal(err)
	}
	two := (*peercert.Chain)(nil).WithNames([]*x509.Certificate{leaf})
	for want, r := range map[string]*Record{"spiffe://td/a,spiffe://td/b": {Peer: two}, "spiffe://td/web": {PeerID: "spiffe://td/web"}, "-": {}} {
		if got := string(f.Append(nil, r)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
