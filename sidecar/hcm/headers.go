package hcm

import "github.com/hauberk-mesh/hauberk/sidecar/message"

// forwardClientCert treats x-forwarded-client-cert by Envoy's modes.
func (x *exchange) forwardClientCert() {
	f := &x.req.Fields
	if x.m.cfg.ForwardClientCert == AlwaysForwardOnly {
		return
	}
	if !x.d.Info.TLS || x.d.Info.PeerCertHash == "" {
		f.DelID(message.XForwardedClientCert)
		return
	}
	switch x.m.cfg.ForwardClientCert {
	case Sanitize:
		f.DelID(message.XForwardedClientCert)
	case AppendForward:
		if v, ok := f.Joined("x-forwarded-client-cert"); ok {
			b := append(append(append(x.scratch[:0], v...), ','), x.xfcc...)
			x.scratch = b
			f.SetIDBytes(message.XForwardedClientCert, b)
			return
		}
		f.AddID(message.XForwardedClientCert, x.xfcc)
	case SanitizeSet:
		f.SetID(message.XForwardedClientCert, x.xfcc)
	}
}
