package peercert

import (
	"encoding/asn1"
	"strconv"
	"strings"
	"unicode/utf16"
)

// attributeNames are those that OpenSSL and Envoy have.
var attributeNames = map[string]string{
	"1.2.840.113549.1.9.1": "emailAddress", "1.2.840.113549.1.9.2": "unstructuredName", "1.2.840.113549.1.9.3": "contentType",
	"1.2.840.113549.1.9.4": "messageDigest", "1.2.840.113549.1.9.5": "signingTime", "1.2.840.113549.1.9.6": "countersignature",
	"1.2.840.113549.1.9.7": "challengePassword", "1.2.840.113549.1.9.8": "unstructuredAddress", "1.2.840.113549.1.9.9": "extendedCertificateAttributes",
}

func init() {
	for prefix, list := range map[string]string{
		"2.5.4.": "3 CN SN serialNumber C L ST street O OU title description searchGuide businessCategory postalAddress postalCode postOfficeBox " +
			"physicalDeliveryOfficeName telephoneNumber telexNumber teletexTerminalIdentifier facsimileTelephoneNumber x121Address " +
			"internationaliSDNNumber registeredAddress destinationIndicator preferredDeliveryMethod presentationAddress " +
			"supportedApplicationContext member owner roleOccupant seeAlso userPassword userCertificate cACertificate authorityRevocationList " +
			"certificateRevocationList crossCertificatePair name GN initials generationQualifier x500UniqueIdentifier dnQualifier " +
			"enhancedSearchGuide protocolInformation distinguishedName uniqueMember houseIdentifier supportedAlgorithms deltaRevocationList " +
			"dmdName 65 pseudonym 72 role",
		"0.9.2342.19200300.100.1.": "1 UID textEncodedORAddress mail info favouriteDrink roomNumber photo userClass host manager documentIdentifier " +
			"documentTitle documentVersion documentAuthor documentLocation 20 homeTelephoneNumber secretary otherMailbox lastModifiedTime " +
			"lastModifiedBy DC aRecord pilotAttributeType27 mXRecord nSRecord sOARecord cNAMERecord 37 associatedDomain associatedName " +
			"homePostalAddress personalTitle mobileTelephoneNumber pagerTelephoneNumber friendlyCountryName 45 organizationalStatus janetMailbox " +
			"mailPreferenceOption buildingName dSAQuality singleLevelQuality subtreeMinimumQuality subtreeMaximumQuality personalSignature " +
			"dITRedirect audio documentPublisher",
	} {
		n := 0
		for word := range strings.FieldsSeq(list) { // a name is of the number behind that of the one before it
			if first, err := strconv.Atoi(word); err == nil {
				n = first
				continue
			}
			attributeNames[prefix+strconv.Itoa(n)] = word
			n++
		}
	}
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributesSET is what a part of a name has together; its name tells encoding/asn1 what it is.
type attributesSET []attribute

// DistinguishedName writes a DER-encoded name as a string (RFC 2253): the last part
// first, everything that is not plain ASCII escaped. Attributes and types that have no name, or
// are no text, are written as they are encoded.
func DistinguishedName(der []byte) string {
	var name []attributesSET
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
			a := &name[i][j]
			if j < len(name[i])-1 {
				b.WriteByte('+')
			}
			kind := a.Type.String()
			short := attributeNames[kind]
			if short != "" {
				kind = short
			}
			b.WriteString(kind + "=")
			if v, ok := a.text(); ok && short != "" {
				writeAttribute(&b, v)
			} else {
				b.WriteByte('#')
				for _, c := range a.Value.FullBytes {
					b.WriteByte(upperHex[c>>4])
					b.WriteByte(upperHex[c&15])
				}
			}
		}
	}
	return b.String()
}

// text is a value in UTF-8. Certificates whose names have other types are not read.
func (a *attribute) text() (v string, ok bool) {
	if a.Value.Class != asn1.ClassUniversal || a.Value.IsCompound {
		return "", false
	}
	switch b := a.Value.Bytes; a.Value.Tag {
	case asn1.TagUTF8String:
		return string(b), true
	case asn1.TagNumericString, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String:
		var out []rune // of ISO 8859-1
		for _, c := range b {
			out = append(out, rune(c))
		}
		return string(out), true
	case asn1.TagBMPString:
		if len(b)%2 != 0 {
			return "", false
		}
		var out []uint16
		for i := 0; i < len(b); i += 2 {
			out = append(out, uint16(b[i])<<8|uint16(b[i+1]))
		}
		return string(utf16.Decode(out)), true
	}
	return "", false
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
