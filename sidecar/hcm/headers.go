package hcm

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// identifyClient settles the fields that say who asks: what a client may not say
// of itself is removed, what we know is added. It runs before authorization, which
// may look at any of them.
func (x *exchange) identifyClient() {
	f, cfg, info := &x.req.Fields, x.m.cfg, x.d.Info
	// Control headers would let a client choose timeouts and retries; the
	// informational ones are kept from a peer that proved to be part of the mesh.
	if f.Has(message.XEnvoyOther) {
		f.DelID(message.XEnvoyOther)
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
		x.scratch = appendUUID(x.scratch[:0])
		f.AddBytes("x-request-id", x.scratch)
	}
	x.forwardClientCert()
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

const hexDigits = "0123456789abcdef"

// appendUUID appends a random UUID (RFC 9562 version 4).
func appendUUID(dst []byte) []byte {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// mutateRequest applies the selected route to the request: host, path, headers.
// It runs once, before the first attempt.
func (x *exchange) mutateRequest() {
	fw := x.sel.Route.Forward
	if x.sel.Leg != nil {
		x.mutate(&x.req.Fields, x.sel.Leg.Headers.RequestAdd, x.sel.Leg.Headers.RequestRemove)
	}
	x.mutate(&x.req.Fields, x.sel.Route.Headers.RequestAdd, x.sel.Route.Headers.RequestRemove)
	x.mutate(&x.req.Fields, x.sel.VirtualHost.Headers.RequestAdd, x.sel.VirtualHost.Headers.RequestRemove)
	if fw.PrefixRewrite != "" {
		x.scratch = x.sel.Route.AppendPath(x.scratch[:0], x.req.Path)
		if x.scratch[0] != '/' {
			x.scratch = append([]byte{'/'}, x.scratch...)
		}
		if message.View(x.scratch) != x.req.Path {
			x.req.Fields.SetID(message.XEnvoyOriginalPath, x.req.Path)
			x.req.SetPath(message.View(x.scratch))
		}
	}
	if fw.HostRewrite != "" {
		x.req.SetAuthority(fw.HostRewrite)
	}
}

// mutateResponse applies the selected route's changes to a response that an
// upstream, or we ourselves, gave.
func (x *exchange) mutateResponse() {
	if x.sel.Route == nil {
		return
	}
	if x.sel.Leg != nil {
		x.mutate(&x.resp.Fields, x.sel.Leg.Headers.ResponseAdd, x.sel.Leg.Headers.ResponseRemove)
	}
	x.mutate(&x.resp.Fields, x.sel.Route.Headers.ResponseAdd, x.sel.Route.Headers.ResponseRemove)
	x.mutate(&x.resp.Fields, x.sel.VirtualHost.Headers.ResponseAdd, x.sel.VirtualHost.Headers.ResponseRemove)
}

func (x *exchange) mutate(f *message.Fields, adds []route.HeaderAdd, removes []string) {
	for _, name := range removes {
		f.Del(name)
	}
	for i := range adds {
		a := &adds[i]
		value := a.Value
		if format := x.formats.byAdd[a]; format != nil {
			x.scratch = format.AppendHeader(x.scratch[:0], x.record())
			value = message.View(x.scratch)
			if value == "" {
				continue
			}
		}
		addHeader(f, a, value)
	}
}

func addHeader(f *message.Fields, a *route.HeaderAdd, value string) {
	switch a.Action {
	case route.AppendIfExistsOrAdd:
		f.Add(a.Name, value)
		return
	case route.OverwriteIfExistsOrAdd:
		f.Set(strings.ToLower(a.Name), value)
		return
	}
	lower := strings.ToLower(a.Name)
	_, exists := f.Get(lower)
	switch {
	case a.Action == route.AddIfAbsent && !exists:
		f.Add(a.Name, value)
	case a.Action == route.OverwriteIfExists && exists:
		f.Set(lower, value)
	}
}

func redirectStatus(r *route.Redirect) int {
	if r.Code == 0 {
		return 301
	}
	return r.Code
}

// redirectLocation builds the Location of a redirect (a rare thing: it allocates).
func (x *exchange) redirectLocation(r *route.Route) string {
	d := r.Redirect
	scheme, host := x.req.Scheme, x.req.Authority
	if d.Scheme != "" {
		scheme = d.Scheme
	}
	if d.Host != "" {
		host = d.Host
	}
	if d.Port != 0 || d.Scheme != "" {
		host = stripPort(host)
	}
	if d.Port != 0 {
		host = joinPort(host, d.Port)
	}
	path, query, hasQuery := strings.Cut(x.req.Path, "?")
	switch {
	case d.Path != "":
		path, hasQuery = d.Path, hasQuery && !strings.Contains(d.Path, "?")
	case d.PrefixRewrite != "":
		path = rewritePrefix(r, path, d.PrefixRewrite)
	}
	loc := scheme + "://" + host + path
	if hasQuery && !d.StripQuery {
		loc += "?" + query
	}
	return loc
}

func rewritePrefix(r *route.Route, path, replacement string) string {
	matched := len(path)
	switch {
	case r.Match.Prefix != nil:
		matched = len(*r.Match.Prefix)
	case r.Match.PathSeparatedPrefix != nil:
		matched = len(*r.Match.PathSeparatedPrefix)
	}
	return replacement + path[min(matched, len(path)):]
}
