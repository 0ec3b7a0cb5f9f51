// Package altname reads the subject alternative names of a certificate as they are
// written in it. What crypto/x509 makes of a URI has been through package net/url, and may
// be spelt otherwise: a scheme in capitals or an empty fragment is gone, and two names would
// be one. Rules are about the text. That the names can be read x509 has checked.
package altname

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"iter"
	"net/netip"
	"slices"
)

// The kinds of names (RFC 5280 section 4.2.1.6).
const (
	other   = 0
	dnsName = 2
	uri     = 6
)

var extension = asn1.ObjectIdentifier{2, 5, 29, 17}

// URIs are the names of that kind, in the order of the certificate.
func URIs(c *x509.Certificate) []string { return of(c, uri) }

// DNS are the names of that kind, in the order of the certificate.
func DNS(c *x509.Certificate) []string { return of(c, dnsName) }

// IPs are the certificate's addresses by their length (RFC 5280 4.2.1.6): one of 16 bytes that
// maps an IPv4 address is an IPv6 address. Constraints of issuers go by it too.
func IPs(c *x509.Certificate) []netip.Addr {
	out := make([]netip.Addr, 0, len(c.IPAddresses))
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a)
		}
	}
	return out
}

func of(c *x509.Certificate, kind int) (names []string) {
	for name := range raw(c) {
		if name.Class == asn1.ClassContextSpecific && name.Tag == kind && !name.IsCompound {
			names = append(names, string(name.Bytes))
		}
	}
	return names
}

// raw yields the certificate's names, of all kinds, as far as they can be read.
func raw(c *x509.Certificate) iter.Seq[asn1.RawValue] {
	return func(yield func(asn1.RawValue) bool) {
		at := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(extension) })
		if at < 0 {
			return
		}
		var list, name asn1.RawValue
		if _, err := asn1.Unmarshal(c.Extensions[at].Value, &list); err != nil {
			return
		}
		for rest := list.Bytes; len(rest) > 0; {
			var err error
			if rest, err = asn1.Unmarshal(rest, &name); err != nil || !yield(name) {
				return
			}
		}
	}
}
