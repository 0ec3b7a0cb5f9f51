package altname

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"strconv"
	"unicode/utf8"
)

// The types of values that encoding/asn1 has no names for (X.680 section 8.4).
const (
	tagVisibleString   = 26
	tagUniversalString = 28
)

// A peer chooses what its certificate says, and each line of a log repeats it.
const (
	mostTexts  = 4096 // bytes of all values, and one more for each
	mostNumber = 64   // bytes of a number: writing one in decimal takes time by the square of them
)

// OtherTexts are the values of the names of kinds that are numbered by object identifiers, in the
// order of the certificate, as Envoy writes them: texts as they are, numbers in decimal, what has
// parts as it is encoded. A value of another type is an empty one, as is one for which the ones
// before it leave no room.
func OtherTexts(c *x509.Certificate) (values []string) {
	room := mostTexts
	for name := range raw(c) {
		if name.Class != asn1.ClassContextSpecific || name.Tag != other || !name.IsCompound {
			continue
		}
		// Not an asn1.ObjectIdentifier, which is of numbers below 1<<31.
		var kind asn1.RawValue
		rest, err := asn1.Unmarshal(name.Bytes, &kind)
		if err != nil || kind.Class != asn1.ClassUniversal || kind.Tag != asn1.TagOID {
			continue
		}
		var explicit, value asn1.RawValue
		if _, err := asn1.Unmarshal(rest, &explicit); err != nil || explicit.Class != asn1.ClassContextSpecific || explicit.Tag != 0 {
			continue
		}
		if _, err := asn1.Unmarshal(explicit.Bytes, &value); err != nil {
			continue
		}
		if room--; room < 0 {
			break
		}
		text := ""
		if len(value.FullBytes) <= mostTexts {
			text = otherValue(value)
		}
		if len(text) > room {
			text = ""
		}
		room -= len(text)
		values = append(values, text)
	}
	return values
}

func otherValue(v asn1.RawValue) string {
	if v.Class != asn1.ClassUniversal {
		return ""
	}
	switch v.Tag {
	case asn1.TagBoolean:
		return strconv.FormatBool(len(v.Bytes) > 0 && v.Bytes[0] != 0)
	case asn1.TagInteger, asn1.TagEnum:
		return decimal(v.Bytes)
	case asn1.TagOID:
		return identifier(v.Bytes)
	case asn1.TagBitString:
		var bits asn1.BitString
		if _, err := asn1.Unmarshal(v.FullBytes, &bits); err == nil {
			return string(bits.Bytes)
		}
	case asn1.TagOctetString, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String, asn1.TagGeneralString,
		asn1.TagUTCTime, asn1.TagGeneralizedTime, tagVisibleString, asn1.TagUTF8String:
		return string(v.Bytes)
	case asn1.TagBMPString:
		return characters(v.Bytes, 2)
	case tagUniversalString:
		return characters(v.Bytes, 4)
	case asn1.TagSet, asn1.TagSequence:
		return string(v.FullBytes)
	}
	return ""
}

// decimal writes a number in two's complement (X.690 section 8.3).
func decimal(b []byte) string {
	if len(b) > mostNumber {
		return ""
	}
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n.String()
}

// identifier writes the numbers of an object identifier (X.690 section 8.19); nothing where one
// has more than 64 bits, as Envoy.
func identifier(b []byte) string {
	const more = 0x80
	var out []byte
	var n uint64
	for i, c := range b {
		first := i == 0 || b[i-1]&more == 0
		if first && c == more || n>>57 != 0 {
			return ""
		}
		if n = n<<7 | uint64(c&^more); c&more != 0 {
			continue
		}
		if out == nil { // the first two are one
			top := min(n/40, 2)
			out = strconv.AppendUint(out, top, 10)
			n -= 40 * top
		}
		out = strconv.AppendUint(append(out, '.'), n, 10)
		n = 0
	}
	if len(b) > 0 && b[len(b)-1]&more != 0 {
		return ""
	}
	return string(out)
}

// characters decodes characters of size bytes each.
func characters(b []byte, size int) string {
	var out []rune
	for ; len(b) >= size; b = b[size:] {
		c := rune(binary.BigEndian.Uint16(b))
		if size == 4 {
			c = rune(binary.BigEndian.Uint32(b))
		}
		if c == 0 {
			break // where Envoy's text ends
		}
		if !utf8.ValidRune(c) {
			return ""
		}
		out = append(out, c)
	}
	return string(out)
}
