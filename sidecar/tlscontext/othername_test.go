package tlscontext

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestOtherNameIsMatched: the type and the text of a name must both be those that are expected.
func TestOtherNameIsMatched(t *testing.T) {
	id := asn1.ObjectIdentifier{1, 2, 3}
	// SEQUENCE { [0] { OBJECT IDENTIFIER 1.2.3, [0] { UTF8String "a" } } }
	cert := &x509.Certificate{Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{48, 11, 0xa0, 9, 6, 2, 0x2a, 3, 0xa0, 3, 12, 1, 'a'}}}}
	for _, c := range []struct {
		id   asn1.ObjectIdentifier
		text string
		want bool
	}{{id, "a", true}, {id, "b", false}, {asn1.ObjectIdentifier{1, 2, 4}, "a", false}, {nil, "a", false}} {
		if got := (NameMatch{Type: OtherName, OID: c.id, Match: &route.StringMatch{Exact: &c.text}}).Matches(cert); got != c.want {
			t.Errorf("%v %q: %v", c.id, c.text, got)
		}
	}
}
