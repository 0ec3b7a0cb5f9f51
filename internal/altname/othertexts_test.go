package altname

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
)

func TestOtherTexts(t *testing.T) {
	var list []byte
	var want []string
	for _, tc := range []struct {
		value []byte // DER
		want  string
	}{
		{[]byte{12, 2, 'h', 'i'}, "hi"},                  // UTF8String
		{[]byte{22, 1, 'a'}, "a"},                        // IA5String
		{[]byte{1, 1, 0xff}, "true"},                     // BOOLEAN
		{[]byte{2, 2, 0xff, 0x7f}, "-129"},               // INTEGER
		{[]byte{10, 1, 5}, "5"},                          // ENUMERATED
		{[]byte{6, 3, 42, 3, 4}, "1.2.3.4"},              // OBJECT IDENTIFIER
		{[]byte{3, 2, 4, 0xf0}, "\xf0"},                  // BIT STRING
		{[]byte{4, 1, 'o'}, "o"},                         // OCTET STRING
		{[]byte{5, 0}, ""},                               // NULL
		{[]byte{30, 4, 0, 'b', 0, 0xe9}, "bé"},           // BMPString
		{[]byte{30, 6, 0, 'b', 0, 0, 0, 'c'}, "b"},       // with a zero
		{[]byte{30, 2, 0xd8, 0}, ""},                     // half a character
		{[]byte{28, 4, 0, 1, 0xf6, 0}, "\U0001f600"},     // UniversalString
		{[]byte{48, 3, 2, 1, 1}, "\x30\x03\x02\x01\x01"}, // SEQUENCE
		{[]byte{18, 1, '1'}, ""},                         // NumericString, which Envoy does not write
	} {
		name := append([]byte{6, 3, 42, 3, 4, 0xa0, byte(len(tc.value))}, tc.value...)
		list = append(append(list, 0xa0, byte(len(name))), name...)
		want = append(want, tc.want)
	}
	list = append(list, 0xa0, 2, 6, 0)                       // no identifier
	list = append(list, 0xa0, 5, 6, 3, 42, 3, 4)             // no value
	list = append(list, 0x82, 1, 'd')                        // a DNS name
	list = append(list, 0xa0, 8, 6, 3, 42, 3, 4, 0x80, 1, 1) // not explicit, and cut short
	value, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: list})
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{Extensions: []pkix.Extension{{Id: extension, Value: value}}}
	if got := OtherTexts(c); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := DNS(c); !slices.Equal(got, []string{"d"}) {
		t.Errorf("DNS %q", got)
	}
}
