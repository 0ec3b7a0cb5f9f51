package altname

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"unicode/utf16"
	"unicode/utf8"
)

// Others are the otherNames of a type, in the order of the certificate, as the texts that rules
// are about: Envoy's. A value of another type of ASN.1 than text, octets, a time, a number, a truth
// value, an identifier or none is left out, as is what is not DER, texts and octets that are not
// UTF-8, and a number of more than 64 bytes.
func Others(c *x509.Certificate, kind asn1.ObjectIdentifier) (names []string) {
	for name := range raw(c) {
		if name.Class != asn1.ClassContextSpecific || name.Tag != other || !name.IsCompound {
			continue
		}
		var id asn1.ObjectIdentifier
		rest, err := asn1.Unmarshal(name.Bytes, &id)
		if err != nil || !id.Equal(kind) {
			continue
		}
		var outer, value asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &outer); err != nil || len(rest) > 0 || outer.Class != asn1.ClassContextSpecific || outer.Tag != 0 || !outer.IsCompound {
			continue
		}
		if rest, err = asn1.Unmarshal(outer.Bytes, &value); err != nil || len(rest) > 0 || value.Class != asn1.ClassUniversal || value.IsCompound {
			continue
		}
		if text, ok := textOf(&value); ok {
			names = append(names, text)
		}
	}
	return names
}

func textOf(v *asn1.RawValue) (string, bool) {
	switch v.Tag {
	case asn1.TagNull:
		return "", len(v.Bytes) == 0
	case asn1.TagBoolean:
		var b bool
		if _, err := asn1.Unmarshal(v.FullBytes, &b); err != nil {
			return "", false
		}
		if b {
			return "true", true
		}
		return "false", true
	case asn1.TagInteger, asn1.TagEnum: // which is encoded as a number is (X.690 8.4)
		if len(v.Bytes) > mostNumber {
			return "", false
		}
		der := bytes.Clone(v.FullBytes)
		der[0] = asn1.TagInteger
		n := new(big.Int)
		_, err := asn1.Unmarshal(der, &n)
		return n.String(), err == nil
	case asn1.TagOID:
		var id asn1.ObjectIdentifier
		_, err := asn1.Unmarshal(v.FullBytes, &id)
		return id.String(), err == nil
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, asn1.TagGeneralString, tagVisibleString,
		asn1.TagOctetString, asn1.TagUTCTime, asn1.TagGeneralizedTime:
		return string(v.Bytes), utf8.Valid(v.Bytes)
	case asn1.TagBMPString:
		return wide(v.Bytes)
	}
	return "", false
}

// wide reads a BMPString.
func wide(b []byte) (string, bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i < len(b); i += 2 {
		u := uint16(b[i])<<8 | uint16(b[i+1])
		if utf16.IsSurrogate(rune(u)) {
			return "", false // it has no characters beyond
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), true
}
