package hcm

import (
	"net"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// identifyClient settles the fields that say who asks: what a client may not say
// of itself is removed, what we know is added. It runs before authorization, which
// may look at any of them.
func (x *exchange) identifyClient() {
	f, cfg, info := &x.req.Fields, x.m.cfg, x.d.Info
	// Control headers would let a client choose timeouts and retries; the
	// informational ones are kept from a peer that proved to be part of the mesh.
	if f.Has(message.XEnvoyOther) {
		x.dropControls(f)
	}
	f.DelID(message.XEnvoyInternal)
	f.DelID(message.XEnvoyOverloaded)
	f.DelID(message.XEnvoyUpstreamServiceTime)
	if info.PeerID == "" || cfg.UseRemoteAddress {
		f.DelID(message.XEnvoyOriginalPath)
		f.DelID(message.XEnvoyAttemptCount)
		f.DelID(message.XEnvoyExpectedTimeout)
		f.DelID(message.XEnvoyExternalAddress)
	}
	if cfg.UseRemoteAddress {
		if !cfg.SkipXFFAppend {
			x.appendForwardedFor(info.Remote)
		}
		f.SetID(message.XForwardedProto, x.req.Scheme)
		// At the edge an id is ours to give.
		f.DelID(message.XRequestID)
	} else if !f.Has(message.XForwardedProto) {
		f.AddID(message.XForwardedProto, x.req.Scheme)
	}
	if cfg.GenerateRequestID && !f.Has(message.XRequestID) {
		x.scratch = telemetry.AppendUUID(x.scratch[:0])
		f.AddBytes("x-request-id", x.scratch)
	}
	x.forwardClientCert()
}

// dropControls removes control headers. Those that choose faults stay where the
// configuration asks for them.
func (x *exchange) dropControls(f *message.Fields) {
	if !x.m.chain.faultHeaders {
		f.DelID(message.XEnvoyOther)
		return
	}
	const faults = "x-envoy-fault-"
	for i := f.Find(message.XEnvoyOther, 0); i >= 0; i = f.Find(message.XEnvoyOther, i+1) {
		if name, _, _ := f.At(i); len(name) < len(faults) || !message.EqualFold(name[:len(faults)], faults) {
			f.DelAt(i)
		}
	}
}

func (x *exchange) appendForwardedFor(a net.Addr) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return
	}
	f := &x.req.Fields
	b := x.scratch[:0]
	if v, ok := f.Joined("x-forwarded-for"); ok {
		b = append(append(b, v...), ',')
	}
	b = tcp.AddrPort().Addr().Unmap().AppendTo(b)
	x.scratch = b
	f.SetBytes("x-forwarded-for", b)
}

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
			f.SetBytes("x-forwarded-client-cert", b)
			return
		}
		f.AddID(message.XForwardedClientCert, x.xfcc)
	case SanitizeSet:
		f.SetID(message.XForwardedClientCert, x.xfcc)
	}
}

// clientCertElement is this hop's element, made once for a connection.
func clientCertElement(cfg *Config, info *stream.Info) string {
	if info.PeerCertHash == "" || cfg.ForwardClientCert != AppendForward && cfg.ForwardClientCert != SanitizeSet {
		return ""
	}
	var b strings.Builder
	if info.OwnID != "" {
		b.WriteString("By=" + info.OwnID + ";")
	}
	b.WriteString("Hash=" + info.PeerCertHash)
	if cfg.SetClientCertURI {
		b.WriteString(";URI=" + info.PeerID)
	}
	return b.String()
}
