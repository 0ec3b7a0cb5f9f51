package hcm

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// appendJSON appends this hop's object of x-forwarded-client-cert. Names and order are Envoy's.
func (c ClientCert) appendJSON(b []byte, info *stream.Info) []byte {
	by := info.OwnURIs()
	if by == nil && info.OwnID != "" {
		by = []string{info.OwnID}
	}
	b = append(b, '{')
	b = appendTexts(b, "by", by)
	b = appendText(b, "hash", info.PeerCertHash)
	var leaf *x509.Certificate
	if len(info.PeerChain) > 0 {
		leaf = info.PeerChain[0]
	}
	if c.Cert && leaf != nil {
		b = appendText(b, "cert", plainPEM(leaf))
	}
	if c.Chain && leaf != nil {
		var all []string
		for _, cert := range info.PeerChain {
			all = append(all, plainPEM(cert))
		}
		b = appendTexts(b, "chain", all)
	}
	if c.Subject && leaf != nil {
		b = appendText(b, "subject", peercert.DistinguishedName(leaf.RawSubject))
	}
	if c.URI {
		uris := peerURIs(info)
		if len(uris) == 0 && info.PeerID != "" {
			uris = []string{info.PeerID}
		}
		b = appendTexts(b, "uri", uris)
	}
	if c.DNS && leaf != nil {
		b = appendTexts(b, "dns", leaf.DNSNames)
	}
	if c.Issuer && leaf != nil {
		b = appendText(b, "issuer", peercert.DistinguishedName(leaf.RawIssuer))
	}
	return append(b, '}')
}

func plainPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func appendKey(b []byte, key string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(append(append(b, '"'), key...), '"', ':')
}

func appendText(b []byte, key, value string) []byte {
	return appendString(appendKey(b, key), value)
}

// appendTexts leaves out what there is nothing of.
func appendTexts(b []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}

// appendString writes a JSON string in ASCII (RFC 8259 7), as it goes into a header.
func appendString(b []byte, v string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range v {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r >= ' ' && r <= '~':
			b = append(b, byte(r))
		default:
			if r > 0xffff {
				r = utf8.RuneError // no name of a certificate has any
			}
			b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
	}
	return append(b, '"')
}

// inJSON tells whether a value of x-forwarded-client-cert is a list in JSON, by which Envoy
// goes too.
func inJSON(v string) bool {
	v = strings.Trim(v, " \t")
	return len(v) > 1 && v[0] == '[' && v[len(v)-1] == ']'
}

// joinJSON appends this hop's object to a list. One that is no JSON is dropped: a reader could take
// our object for a part of the client's.
func (x *exchange) joinJSON(v, own string) {
	b := append(x.scratch[:0], '[')
	if v = strings.Trim(v, " \t"); v != "" && json.Valid([]byte(v)) {
		if inside := v[1 : len(v)-1]; strings.Trim(inside, " \t") != "" {
			b = append(append(b, inside...), ',')
		}
	}
	x.scratch = append(append(b, own...), ']')
	x.req.Fields.SetIDBytes(message.XForwardedClientCert, x.scratch)
}
