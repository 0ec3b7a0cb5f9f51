package peercert

import (
	"crypto/x509"

	"github.com/hauberk-mesh/hauberk/internal/altname"
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
	c.names, c.uris = names(sent)
	return c
}

// URIs are those of the names that are URIs.
func (c *Chain) URIs() []string {
	if c == nil {
		return nil
	}
	return c.names[:c.uris]
}

// names returns the names of a certificate, and how many of the first are URIs.
func names(chain []*x509.Certificate) (all []string, uris int) {
	if len(chain) == 0 {
		return []string{""}, 0
	}
	leaf := chain[0]
	all = altname.URIs(leaf)
	uris = len(all)
	all = append(all, altname.DNS(leaf)...)
	return append(all, DistinguishedName(leaf.RawSubject)), uris
}
