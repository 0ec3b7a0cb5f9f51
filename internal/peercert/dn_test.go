package peercert

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

// TestDistinguishedNames: parts of several attributes, of seldom types and of none that has a name.
func TestDistinguishedNames(t *testing.T) {
	text := func(tag int, s string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(s)} }
	id := func(n ...int) asn1.ObjectIdentifier { return n }
	for want, parts := range map[string]pkix.RDNSequence{
		"OU=yy+OU=x,O=a":              {{{Type: id(2, 5, 4, 10), Value: "a"}}, {{Type: id(2, 5, 4, 11), Value: "x"}, {Type: id(2, 5, 4, 11), Value: "yy"}}},
		"1.2.3.4=#130161":             {{{Type: id(1, 2, 3, 4), Value: "a"}}},
		"CN=#020107":                  {{{Type: id(2, 5, 4, 3), Value: 7}}},
		"CN=#1E0161":                  {{{Type: id(2, 5, 4, 3), Value: text(asn1.TagBMPString, "a")}}},
		`title=b\C4\80`:               {{{Type: id(2, 5, 4, 12), Value: text(asn1.TagBMPString, "\x00b\x01\x00")}}},
		`postalCode=t\C3\A9`:          {{{Type: id(2, 5, 4, 17), Value: text(asn1.TagT61String, "t\xe9")}}},
		"dmdName=,businessCategory=b": {{{Type: id(2, 5, 4, 15), Value: "b"}}, {{Type: id(2, 5, 4, 54), Value: ""}}},
		"DC=d,audio=a,role=r":         {{{Type: id(2, 5, 4, 72), Value: "r"}}, {{Type: id(0, 9, 2342, 19200300, 100, 1, 55), Value: "a"}}, {{Type: id(0, 9, 2342, 19200300, 100, 1, 25), Value: "d"}}},
	} {
		der, err := asn1.Marshal(parts)
		if err != nil {
			t.Fatal(err)
		}
		if got := DistinguishedName(der); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
