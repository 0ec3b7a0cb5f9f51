package altname

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
)

func TestOtherTexts(t *testing.T) {
	var list []byte
	var want []string
	for _, tc := range []struct {
		value []byte // DER
		want  string
	}{
		{[]byte{12, 2, 'h', 'i'}, "hi"},                                    // UTF8String
		{[]byte{22, 1, 'a'}, "a"},                                          // IA5String
		{[]byte{1, 1, 0xff}, "true"},                                       // BOOLEAN
		{[]byte{2, 2, 0xff, 0x7f}, "-129"},                                 // INTEGER
		{[]byte{10, 1, 5}, "5"},                                            // ENUMERATED
		{[]byte{6, 3, 42, 3, 4}, "1.2.3.4"},                                // OBJECT IDENTIFIER
		{[]byte{6, 6, 0x69, 0x90, 0x80, 0x80, 0x80, 0}, "2.25.4294967296"}, // with a number above 1<<31
		{[]byte{6, 11, 0x69, 0x83, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, ""},                          // above 1<<64
		{[]byte{6, 11, 0x69, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, "2.25.18446744073709551615"}, // the largest
		{[]byte{6, 2, 0x69, 0x80}, ""},                   // cut short
		{[]byte{6, 3, 0x69, 0x80, 1}, ""},                // spelt too long
		{[]byte{6, 1, 0x88}, ""},                         // cut short at once
		{[]byte{6, 2, 0x88, 0x37}, "2.999"},              // the first two are more than a byte
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
	list = append(list, 0xa0, 13, 6, 6, 0x69, 0x90, 0x80, 0x80, 0x80, 0, 0xa0, 3, 12, 1, 'k') // of a kind with a number above 1<<31
	want = append(want, "k")
	list = append(list, 0xa0, 8, 12, 1, 'x', 0xa0, 3, 12, 1, 'x') // whose kind is a text
	list = append(list, 0xa0, 2, 6, 0)                            // no identifier
	list = append(list, 0xa0, 5, 6, 3, 42, 3, 4)                  // no value
	list = append(list, 0x82, 1, 'd')                             // a DNS name
	list = append(list, 0xa0, 8, 6, 3, 42, 3, 4, 0x80, 1, 1)      // not explicit, and cut short
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

// TestOtherTextsAreBounded: what has no room is empty, and no value stands in the place of another.
func TestOtherTextsAreBounded(t *testing.T) {
	value := func(tag, n int) []byte {
		b, err := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: bytes.Repeat([]byte{0x41}, n)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	most := new(big.Int).SetBytes(bytes.Repeat([]byte{0x41}, mostNumber)).String()
	for _, tc := range []struct {
		values [][]byte
		want   []string
	}{
		{[][]byte{value(asn1.TagInteger, 250_000), value(asn1.TagIA5String, 1)}, []string{"", "A"}},
		{[][]byte{value(asn1.TagInteger, mostNumber), value(asn1.TagInteger, mostNumber+1), value(asn1.TagEnum, mostNumber+1)}, []string{most, "", ""}},
		{[][]byte{value(asn1.TagIA5String, 250_000), value(asn1.TagBMPString, 250_000), value(tagUniversalString, 250_000), value(asn1.TagIA5String, 1)}, []string{"", "", "", "A"}},
		{[][]byte{value(asn1.TagIA5String, 4000), value(asn1.TagIA5String, 95), value(asn1.TagIA5String, 93)}, []string{strings.Repeat("A", 4000), "", strings.Repeat("A", 93)}},
	} {
		if got := OtherTexts(othersOf(t, upn, tc.values...)); !slices.Equal(got, tc.want) {
			t.Errorf("%d values: %.200q", len(got), got)
		}
	}
	if got := OtherTexts(othersOf(t, upn, slices.Repeat([][]byte{{5, 0}}, 2*mostTexts)...)); len(got) != mostTexts {
		t.Errorf("%d values that are empty", len(got))
	}
}
