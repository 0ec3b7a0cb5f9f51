package hcm

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// forwardClientCert treats x-forwarded-client-cert by Envoy's modes.
func (x *exchange) forwardClientCert() {
	f, rule := &x.req.Fields, x.clientCertRule()
	if rule.Forward == AlwaysForwardOnly {
		return
	}
	if !x.d.Info.TLS || x.d.Info.PeerCertHash == "" {
		f.DelID(message.XForwardedClientCert)
		return
	}
	switch rule.Forward {
	case Sanitize:
		f.DelID(message.XForwardedClientCert)
	case AppendForward:
		v, _ := f.Joined("x-forwarded-client-cert")
		list := inJSON(v)
		if list && !rule.Tell.JSON || !list && unclosed(v) {
			v = "" // a reader of text would find in a list what its client put there, and not us
		}
		json := rule.Tell.JSON && (list || v == "")
		own := x.clientCertElement(&rule, json)
		if json {
			x.joinJSON(v, own)
			return
		}
		if v != "" {
			b := append(append(append(x.scratch[:0], v...), ','), own...)
			x.scratch = b
			f.SetIDBytes(message.XForwardedClientCert, b)
			return
		}
		f.SetID(message.XForwardedClientCert, own)
	case SanitizeSet:
		own := x.clientCertElement(&rule, rule.Tell.JSON)
		if rule.Tell.JSON {
			x.joinJSON("", own)
			return
		}
		f.SetID(message.XForwardedClientCert, own)
	}
}

// unclosed tells whether what is appended to a value of x-forwarded-client-cert would be within
// quotation marks of its last element, or escaped: a client would speak for this hop.
func unclosed(v string) bool {
	if strings.IndexByte(v, '"') < 0 && strings.IndexByte(v, '\\') < 0 {
		return false
	}
	quoted, escaped := false, false
	for i := range len(v) {
		switch {
		case escaped:
			escaped = false
		case v[i] == '\\':
			escaped = true
		case v[i] == '"':
			quoted = !quoted
		}
	}
	return quoted || escaped
}

// clientCertElement is this hop's element of x-forwarded-client-cert. A connection that is
// older than the rule, or whose own rule is another, has its own from the first request that needs it. Should it have to tell of
// certificates that were not kept, it does not, and the client is to connect anew.
func (x *exchange) clientCertElement(rule *ClientCertRule, json bool) string {
	want := rule.Tell
	want.JSON = json
	if own := x.m.cfg.ownClientCertRule(); own.writes() && want == own.Tell {
		return x.xfcc
	}
	if rule.needsPeerChain() && len(x.d.Info.PeerChain) == 0 {
		x.d.StartDrain()
	}
	element := func() any { return want.element(x.d.Info) }
	return x.d.Kept(x.policy.whole(), x.policyInForce(), want, element).(string)
}
