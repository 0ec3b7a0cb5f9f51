package altname

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"
)

var upn = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}

// othersOf is a certificate with otherNames of the values, each DER.
func othersOf(t testing.TB, id asn1.ObjectIdentifier, values ...[]byte) *x509.Certificate {
	t.Helper()
	var names []asn1.RawValue
	for _, v := range values {
		kind, err := asn1.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: v})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: other, IsCompound: true, Bytes: append(kind, value...)})
	}
	b, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{Extensions: []pkix.Extension{{Id: extension, Value: b}}}
}

func TestOthers(t *testing.T) {
	for name, c := range map[string]struct {
		value []byte
		want  []string
	}{
		"UTF-8": {[]byte{12, 2, 'a', 'b'}, []string{"ab"}}, "printable": {[]byte{19, 1, 'a'}, []string{"a"}}, "IA5": {[]byte{22, 1, 'a'}, []string{"a"}},
		"no UTF-8": {[]byte{12, 1, 0xff}, nil}, "BMP": {[]byte{30, 4, 0, 'a', 0x20, 0xac}, []string{"a\u20ac"}}, "half a BMP": {[]byte{30, 3, 0, 'a', 0}, nil},
		"a surrogate": {[]byte{30, 2, 0xd8, 0}, nil}, "null": {[]byte{5, 0}, []string{""}}, "true": {[]byte{1, 1, 0xff}, []string{"true"}}, "false": {[]byte{1, 1, 0}, []string{"false"}},
		"a truth that is none": {[]byte{1, 1, 7}, nil}, "number": {[]byte{2, 2, 0xff, 0x00}, []string{"-256"}}, "enumerated": {[]byte{10, 1, 5}, []string{"5"}},
		"identifier": {[]byte{6, 3, 0x2a, 3, 4}, []string{"1.2.3.4"}}, "a sequence": {[]byte{48, 3, 12, 1, 'a'}, nil}, "octets": {[]byte{4, 1, 'a'}, []string{"a"}},
		"T61": {[]byte{20, 1, 'a'}, []string{"a"}}, "visible": {[]byte{26, 1, 'a'}, []string{"a"}}, "general": {[]byte{27, 1, 'a'}, []string{"a"}},
		"Latin 1": {[]byte{20, 1, 0xe9}, nil}, "octets that are no text": {[]byte{4, 2, 0xff, 0}, nil}, "a bit string": {[]byte{3, 2, 0, 'a'}, nil}, "a set": {[]byte{49, 3, 12, 1, 'a'}, nil},
		"universal": {[]byte{28, 4, 0, 0, 0, 'a'}, nil}, "a time": {append([]byte{23, 13}, "260102030405Z"...), []string{"260102030405Z"}},
		"enumerated beyond 32 bits": {[]byte{10, 5, 1, 0, 0, 0, 0}, []string{"4294967296"}}, "below none": {[]byte{10, 1, 0xff}, []string{"-1"}}, "enumerated at length": {[]byte{10, 2, 0, 5}, nil},
		"enumerated as nothing": {[]byte{10, 0}, nil}, "a long time": {append([]byte{24, 15}, "20260102030405Z"...), []string{"20260102030405Z"}},
		"two values": {[]byte{12, 1, 'a', 12, 1, 'b'}, nil}, "nothing": {nil, nil}, "cut short": {[]byte{12, 5, 'a'}, nil}, "an embedded NUL": {[]byte{12, 3, 'a', 0, 'b'}, []string{"a\x00b"}},
	} {
		c.value = slices.Clip(c.value)
		cert := othersOf(t, upn, c.value)
		if got := Others(cert, upn); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
		if got := Others(cert, asn1.ObjectIdentifier{1, 2, 3}); got != nil {
			t.Errorf("%s: %q of another type", name, got)
		}
	}
	if got := Others(othersOf(t, upn, []byte{5, 9}, []byte{12, 1, 'a'}, []byte{12, 1, 'b'}), upn); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("several: %q", got)
	}
	long, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagInteger, Bytes: slices.Repeat([]byte{1}, mostNumber+1)})
	if err != nil {
		t.Fatal(err)
	}
	if got := Others(othersOf(t, upn, long), upn); got != nil {
		t.Errorf("a number that is too long: %q", got)
	}
	if got := Others(&x509.Certificate{}, upn); got != nil {
		t.Errorf("none: %q", got)
	}
}
