package listener

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// nothingAnnounced is what most headers say beside addresses.
var nothingAnnounced = &authz.Announced{}

// announced is what a header's extensions say, beside what one before it said, nil for none: that
// stands above it, as in Envoy.
func (f *ProxyProtocol) announced(before *authz.Announced, said proxytlv.List) *authz.Announced {
	passed := f.Passed.Of(said)
	if before != nil {
		passed = before.Extensions.Said
	}
	metadata := f.metadata(before.Said(), said)
	if metadata == nil && passed == "" {
		return nothingAnnounced
	}
	return &authz.Announced{Metadata: metadata, Extensions: proxytlv.Client{Said: passed}}
}

// metadata adds what the rules make of extensions; the first of a type counts, as in Envoy.
func (f *ProxyProtocol) metadata(out *telemetry.Metadata, said proxytlv.List) *telemetry.Metadata {
	if len(f.Rules) == 0 {
		return out
	}
	for kind, value := range said.All() {
		r := f.rule(kind)
		if r == nil {
			continue
		}
		if _, has := out.Get(r.Namespace, r.Key); has {
			continue
		}
		if out == nil {
			out = &telemetry.Metadata{}
		}
		out.Set(r.Namespace, "", r.Key, r.text(value))
	}
	return out
}

func (f *ProxyProtocol) rule(kind byte) *ProxyRule {
	for i := len(f.Rules) - 1; i >= 0; i-- {
		if f.Rules[i].Type == kind {
			return &f.Rules[i]
		}
	}
	return nil
}

// text is a value as metadata have it.
func (r *ProxyRule) text(value string) string {
	switch {
	case r.Base64:
		return base64.StdEncoding.EncodeToString([]byte(value))
	case utf8.ValidString(value):
		return value
	}
	var out strings.Builder
	for i, c := range value {
		if _, size := utf8.DecodeRuneInString(value[i:]); c == utf8.RuneError && size == 1 {
			c = '!'
		}
		out.WriteRune(c)
	}
	return out.String()
}
