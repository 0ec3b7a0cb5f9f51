package peercert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
)

// Names are what a foreign TLS context knows a peer by: each URI and each DNS name of its
// certificate as it stands there, and its subject (RFC 2253). A peer of whom nothing is
// vouched for has one name, which is empty, as in Envoy. nil is for peers of the mesh,
// which have a SPIFFE ID instead.
func (c *Chain) Names() []string {
	if c == nil {
		return nil
	}
	return c.names
}

// WithNames returns c, which may be nil, with the names of a certificate that its peer
// sent first; of c's own texts it keeps all.
func (c *Chain) WithNames(sent []*x509.Certificate) *Chain {
	if c == nil {
		c = &Chain{}
	}
	c.names = names(sent)
	return c
}

func names(chain []*x509.Certificate) []string {
	if len(chain) == 0 {
		return []string{""}
	}
	leaf := chain[0]
	all := append(alternativeNames(leaf, tagURI), alternativeNames(leaf, tagDNS)...)
	return append(all, DistinguishedName(leaf.RawSubject))
}

// The kinds of GeneralName (RFC 5280 4.2.1.6).
const (
	tagDNS = 2
	tagURI = 6
)

var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// alternativeNames are not taken from what package x509 made of them: a URI that was
// parsed and written again may be another text, and rules are about the text. That they
// can be read x509 has checked.
func alternativeNames(c *x509.Certificate, tag int) (names []string) {
	at := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(subjectAltName) })
	if at < 0 {
		return nil
	}
	var list, name asn1.RawValue
	if _, err := asn1.Unmarshal(c.Extensions[at].Value, &list); err != nil {
		return nil
	}
	for rest := list.Bytes; len(rest) > 0; {
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return names
		}
		if name.Class == asn1.ClassContextSpecific && name.Tag == tag {
			names = append(names, string(name.Bytes))
		}
	}
	return names
}
