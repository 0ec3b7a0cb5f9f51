package hcm

import (
	"crypto/x509"
	"strings"

	"github.com/hauberk-mesh/hauberk/internal/altname"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// NeedsPeerChain tells whether connections must keep the certificates that their
// peers sent, for x-forwarded-client-cert. Without, Info has what is needed.
func (m *Manager) NeedsPeerChain() bool { return m.cfg.needsPeerChain() }

func (c *Config) needsPeerChain() bool {
	own := c.ownClientCertRule()
	if own.needsPeerChain() || c.ClientCertCases == nil {
		return own.needsPeerChain()
	}
	for i := range c.ClientCertCases.Then {
		if c.ClientCertCases.Then[i].needsPeerChain() {
			return true
		}
	}
	return c.ClientCertCases.Otherwise != nil && c.ClientCertCases.Otherwise.needsPeerChain()
}

// clientCertElement is this hop's element of x-forwarded-client-cert, made once for a
// connection. The order of its parts is Envoy's.
func clientCertElement(cfg *Config, info *stream.Info) string {
	if own := cfg.ownClientCertRule(); !own.writes() {
		return ""
	}
	return cfg.ClientCert.element(info)
}

func (c ClientCert) element(info *stream.Info) string {
	switch {
	case info.PeerCertHash == "":
		return ""
	case c.JSON:
		return string(c.appendJSON(nil, info))
	}
	var b strings.Builder
	if info.OwnURIs() == nil && info.OwnID != "" {
		b.WriteString("By=" + info.OwnID + ";")
	}
	for _, u := range info.OwnURIs() {
		b.WriteString("By=" + quoted(u) + ";")
	}
	b.WriteString("Hash=" + info.PeerCertHash)
	var leaf *x509.Certificate
	if len(info.PeerChain) > 0 {
		leaf = info.PeerChain[0]
	}
	if c.Cert && leaf != nil {
		b.WriteString(`;Cert="`)
		b.WriteString(peercert.EncodePEM(leaf))
		b.WriteByte('"')
	}
	if c.Chain && leaf != nil {
		b.WriteString(`;Chain="`)
		for _, cert := range info.PeerChain {
			b.WriteString(peercert.EncodePEM(cert))
		}
		b.WriteByte('"')
	}
	if c.Subject {
		writeName(&b, `;Subject="`, leaf, func(c *x509.Certificate) []byte { return c.RawSubject })
	}
	if c.URI {
		writeURIs(&b, info)
	}
	if c.DNS && leaf != nil {
		for _, name := range leaf.DNSNames {
			b.WriteString(";DNS=" + quoted(name))
		}
	}
	if c.Issuer {
		writeName(&b, `;Issuer="`, leaf, func(c *x509.Certificate) []byte { return c.RawIssuer })
	}
	return b.String()
}

// writeName writes a distinguished name of a certificate, which is empty where that is not
// known. RFC 2253 has escaped what would end the quotation.
func writeName(b *strings.Builder, key string, leaf *x509.Certificate, name func(*x509.Certificate) []byte) {
	b.WriteString(key)
	if leaf != nil {
		b.WriteString(peercert.DistinguishedName(name(leaf)))
	}
	b.WriteByte('"')
}

// writeURIs: the key is there even if there is no URI.
func writeURIs(b *strings.Builder, info *stream.Info) {
	uris := peerURIs(info)
	if len(uris) < 2 {
		b.WriteString(";URI=" + quoted(info.PeerID))
		return
	}
	for _, u := range uris {
		b.WriteString(";URI=" + quoted(u))
	}
}

func peerURIs(info *stream.Info) []string {
	if len(info.PeerChain) > 0 {
		return altname.URIs(info.PeerChain[0])
	}
	return info.Peer.URIs() // which a foreign context keeps, whatever else is kept
}

// quoted puts a value between quotation marks that would otherwise end its part of
// the element, or the element: a certificate must not speak for other hops.
func quoted(v string) string {
	if !strings.ContainsAny(v, `,;="\`+"\\") {
		return v
	}
	return `"` + strings.NewReplacer(`"`, `\"`, "\\", "\\\\").Replace(v) + `"`
}
