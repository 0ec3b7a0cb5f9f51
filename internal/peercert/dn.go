package peercert

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
)

// attributeNames are those that RFC 4514 and OpenSSL have for the usual attributes.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.17": "postalCode",
	"2.5.4.42": "GN", "1.2.840.113549.1.9.1": "emailAddress",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC",
}

// DistinguishedName writes a DER-encoded name as a string (RFC 2253): the last part
// first, everything that is not plain ASCII escaped.
func DistinguishedName(der []byte) string {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return ""
	}
	var b strings.Builder
	for i := len(name) - 1; i >= 0; i-- {
		if i < len(name)-1 {
			b.WriteByte(',')
		}
		// What a part has together is in reverse too, as in OpenSSL and Envoy.
		for j := len(name[i]) - 1; j >= 0; j-- {
			a := name[i][j]
			if j < len(name[i])-1 {
				b.WriteByte('+')
			}
			kind := a.Type.String()
			if short := attributeNames[kind]; short != "" {
				kind = short
			}
			b.WriteString(kind + "=")
			writeAttribute(&b, fmt.Sprint(a.Value))
		}
	}
	return b.String()
}

func writeAttribute(b *strings.Builder, v string) {
	for i := range len(v) {
		c := v[i]
		edge := c == ' ' && (i == 0 || i == len(v)-1) || c == '#' && i == 0
		switch {
		case c < 0x20 || c > 0x7e:
			b.WriteByte('\\')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		case edge || strings.IndexByte(`,+"\<>;`, c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
}

const upperHex = "0123456789ABCDEF"
