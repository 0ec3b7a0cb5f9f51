package hcm

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/http1"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/percent"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tracing"
)

// identity is who asks, as the request says and we believe it.
type identity struct {
	own authz.Peer
	// named is the client's address where x-forwarded-for names it; it has no port.
	named   net.TCPAddr
	namedIP [16]byte
}

// identifyClient settles the fields that say who asks: what a client may not say
// of itself is removed, what we know is added. It runs before authorization, which
// may look at any of them. The order is Envoy's. It is false where the request was refused,
// as nobody can be told to ask.
func (x *exchange) identifyClient() bool {
	f, cfg := &x.req.Fields, x.policy.cfg
	f.DelID(message.XEnvoyInternal)
	f.DelID(message.XEnvoyOverloaded)
	f.DelID(message.XEnvoyUpstreamServiceTime)
	var client netip.Addr
	var alone bool
	if cfg.Detections == nil {
		client, alone = x.clientAddress()
		if cfg.UseRemoteAddress && !cfg.SkipXFFAppend {
			x.appendForwardedFor()
		}
	} else {
		var ok bool
		if client, alone, ok = x.detectClient(); !ok {
			return false
		}
	}
	x.settleScheme()
	if f.Has(message.Referer) {
		x.dropReferer()
	}
	internal := alone && cfg.isInternal(client, x.d.Info.Remote)
	edge := cfg.UseRemoteAddress && !internal
	x.dropClaims(internal, edge)
	if internal {
		f.AddID(message.XEnvoyInternal, "true")
	} else if t := x.table; t != nil && t.InternalOnly != nil {
		x.dropInternalOnly(t)
	}
	if cfg.AddUserAgent {
		x.sayWhoWeAre()
	}
	if cfg.Via != "" {
		x.appendVia(f, cfg.Via)
	}
	if edge && client.IsValid() {
		x.scratch = client.Unmap().AppendTo(x.scratch[:0]) // never mapped, as in Envoy
		f.SetIDBytes(message.XEnvoyExternalAddress, x.scratch)
	}
	if cfg.GenerateRequestID {
		x.settleRequestID(edge)
	}
	x.forwardClientCert()
	return true
}

// detectClient is clientAddress where the configuration says how it is found. It is not ok where
// the request was refused.
//
//go:noinline
func (x *exchange) detectClient() (a netip.Addr, alone, ok bool) {
	x.peer = &x.d.Peer
	found := x.detect()
	switch {
	case found.rejected != 0:
		x.answer(found.rejected, "rejecting_because_detection_failed")
		return a, false, false
	case found.addr.IsValid():
		x.nameClient(found.addr)
		return found.addr, found.trusted, true
	}
	return x.d.Peer.Remote, false, true
}

// settleRequestID: at the edge an id is ours to give, and one that is kept there brings no
// decision to trace.
func (x *exchange) settleRequestID(edge bool) {
	f := &x.req.Fields
	id, _ := f.ByID(message.XRequestID)
	switch {
	case id == "", edge && !x.policy.cfg.PreserveRequestID:
		f.DelID(message.XRequestID)
		x.scratch = telemetry.AppendUUID(x.scratch[:0])
		f.AddID(message.XRequestID, message.View(x.scratch))
	case edge && !x.policy.cfg.KeepTraceReason:
		tracing.Undecide(f)
	}
}

// clientAddress finds the client's address, and tells whether no hop is known of
// between it and us: only then can the request be internal.
func (x *exchange) clientAddress() (a netip.Addr, alone bool) {
	f, cfg := &x.req.Fields, x.policy.cfg
	x.peer = &x.d.Peer
	list, ok := f.ByID(message.XForwardedFor)
	skip := cfg.XFFTrustedHops
	if cfg.UseRemoteAddress {
		skip-- // the nearest hop is the connection's peer
		alone = !ok
	}
	if ok && skip >= 0 {
		var only bool
		if a, only = lastForwardedFor(list, skip); a.IsValid() {
			x.nameClient(a)
			if !cfg.UseRemoteAddress {
				alone = only
			}
			return a, alone
		}
	}
	return x.d.Peer.Remote, alone && cfg.UseRemoteAddress
}

// lastForwardedFor returns the last address of a list without the last skip ones, the
// zero Addr when there is none, and whether it is the only one.
func lastForwardedFor(list string, skip int) (a netip.Addr, only bool) {
	end := len(list)
	for n := skip; n > 0; n-- {
		if end = lastComma(list[:end]); end < 0 {
			return a, false
		}
	}
	start := lastComma(list[:end])
	text := list[start+1 : end]
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t') {
		text = text[1:]
	}
	for len(text) > 0 && (text[len(text)-1] == ' ' || text[len(text)-1] == '\t') {
		text = text[:len(text)-1]
	}
	if len(text) == 0 || text[0] != '[' && !digits(text) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a, start < 0 && skip == 0
}

// digits tells whether a text may be an address at all: parsing one that is not
// makes an error, which costs.
func digits(text string) bool {
	for i := range len(text) {
		if c := text[i]; percent.Digit(c) == 255 && c != '.' && c != ':' {
			return false
		}
	}
	return len(text) <= 45
}

func lastComma(s string) int {
	i := len(s) - 1
	for i >= 0 && s[i] != ',' {
		i--
	}
	return i
}

// nameClient makes an address that a hop has named the client's.
func (x *exchange) nameClient(a netip.Addr) {
	x.own = x.d.Peer
	a = authz.Bare(a)
	x.own.Remote = a
	x.peer = &x.own
	x.namedIP = a.As16()
	x.named.IP = x.namedIP[:]
	if a.Is4() {
		x.named.IP = x.namedIP[12:]
	}
}

// remoteAddr is the client's address, for the access log.
func (x *exchange) remoteAddr() net.Addr {
	if x.peer == &x.own {
		return &x.named
	}
	return x.d.Info.Remote
}

// isInternal tells whether a client belongs to us.
func (c *Config) isInternal(a netip.Addr, remote net.Addr) bool {
	if !a.IsValid() {
		return c.InternalUnixSockets && remote != nil && remote.Network() == "unix"
	}
	return contains(c.Internal, a)
}

// settleScheme has x-forwarded-proto, x-forwarded-port and :scheme say what the
// client used: as a trusted hop has it, or else the transport. The :scheme of HTTP/2, and
// of a target in absolute form, is that of the URI that is asked for, and whoever asks knows
// it; nothing that protects goes by it.
func (x *exchange) settleScheme() {
	f, cfg, info := &x.req.Fields, x.policy.cfg, x.d.Info
	transport := "http"
	if info.TLS {
		transport = "https"
	}
	if len(cfg.HTTPSPorts)+len(cfg.HTTPPorts) > 0 && info.Direct != nil {
		switch port := x.localPort(); {
		case slices.Contains(cfg.HTTPSPorts, port):
			transport = "https"
		case slices.Contains(cfg.HTTPPorts, port):
			transport = "http"
		}
	}
	trusted := !cfg.UseRemoteAddress || cfg.XFFTrustedHops > 0
	if v, _ := f.ByID(message.XForwardedProto); !trusted || v == "" {
		f.SetID(message.XForwardedProto, transport)
	}
	if cfg.AppendForwardedPort {
		if _, has := f.Get("x-forwarded-port"); !trusted || !has {
			if port := x.localPort(); port > 0 {
				x.scratch = strconv.AppendUint(x.scratch[:0], uint64(port), 10)
				f.SetBytes("x-forwarded-port", x.scratch)
			}
		}
	}
	if cfg.Scheme != "" {
		x.req.Scheme = cfg.Scheme
		f.SetID(message.XForwardedProto, cfg.Scheme)
	}
	if x.req.Scheme == "" {
		x.req.Scheme = transport
		switch v, _ := f.ByID(message.XForwardedProto); {
		case message.EqualFold(v, "http"):
			x.req.Scheme = "http"
		case message.EqualFold(v, "https"):
			x.req.Scheme = "https"
		}
	}
}

// dropReferer removes a referer that is no URI reference, or has a part that none may have,
// so that no rule and no host is told what only some parsers see (RFC 9110 10.1.3).
//
//go:noinline
func (x *exchange) dropReferer() {
	f := &x.req.Fields
	if v, ok := f.ByID(message.Referer); ok && !validReferer(v) {
		f.DelID(message.Referer)
	}
}

func validReferer(v string) bool {
	for i := range len(v) {
		if c := v[i]; c <= ' ' || c > '~' || c == '#' {
			return false
		}
	}
	scheme, rest, absolute := strings.Cut(v, "://")
	if !absolute || strings.ContainsAny(scheme, "/?") {
		first, _, _ := strings.Cut(v, "/")
		return strings.IndexByte(first, ':') < 0 || v == "about:blank"
	}
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return http1.ValidAuthority(rest)
}

// localPort is the port that the client wanted to go to, 0 for none.
func (x *exchange) localPort() uint16 {
	if d := x.d.Peer.Destination; d.IsValid() {
		return d.Port()
	}
	return 0
}

// controls are the fields by which Envoy lets an internal client choose how it is
// served. They are never taken, from anyone: what a route says holds.
var controls = map[string]bool{
	"x-envoy-retry-on": true, "x-envoy-retry-grpc-on": true, "x-envoy-max-retries": true,
	"x-envoy-retriable-status-codes": true, "x-envoy-retriable-header-names": true,
	"x-envoy-upstream-rq-timeout-ms": true, "x-envoy-upstream-rq-per-try-timeout-ms": true,
	"x-envoy-upstream-rq-timeout-alt-response": true, "x-envoy-upstream-stream-duration-ms": true,
	"x-envoy-upstream-alt-stat-name": true, "x-envoy-hedge-on-per-try-timeout": true,
	"x-envoy-ip-tags": true, "x-envoy-original-url": true,
	cluster.DestinationHeader: true,
}

// dropClaims removes what a client may not say. Those who are internal, or proved to be
// part of the mesh, may tell what they know of a request, and nobody how to serve it.
func (x *exchange) dropClaims(internal, edge bool) {
	f := &x.req.Fields
	if f.Has(message.XEnvoyOther) {
		x.dropControls(f, internal, edge)
	}
	if (x.d.Info.PeerID == "" || edge) && !internal {
		f.DelID(message.XEnvoyOriginalPath)
		f.DelID(message.XEnvoyAttemptCount)
		f.DelID(message.XEnvoyExpectedTimeout)
		f.DelID(message.XEnvoyExternalAddress)
	}
}

// dropInternalOnly removes what only internal clients may say. What is added to a request later
// (via, the request id, the client's certificate) is ours, and stays; what was settled by a header
// before (who asks, the scheme) holds. That is Envoy's order.
//
//go:noinline
func (x *exchange) dropInternalOnly(t *route.Table) {
	for _, name := range t.InternalOnly {
		x.req.Fields.Del(name)
	}
}

// faultPrefix is that of headers by which requests choose faults.
const faultPrefix = "x-envoy-fault-"

// dropControls removes control headers. Those that choose faults, or a host, stay where the
// configuration asks for them, and the name of a span where the client is not at the edge.
//
//go:noinline
func (x *exchange) dropControls(f *message.Fields, internal, edge bool) {
	const spanName = "x-envoy-decorator-operation"
	faults := x.policy.someFaults || x.policy.chain.faultHeaders
	destinations := x.m.clusters.DestinationHeaders()
	if !faults && edge && destinations == nil {
		f.DelID(message.XEnvoyOther)
		return
	}
	for i := f.Find(message.XEnvoyOther, 0); i >= 0; i = f.Find(message.XEnvoyOther, i+1) {
		name, _, _ := f.At(i)
		var lower [64]byte
		switch low := message.View(appendLower(lower[:0], name)); {
		case destinations[low]:
		case strings.HasPrefix(low, faultPrefix):
			if !faults {
				f.DelAt(i)
			}
		case !internal && (edge || low != spanName), controls[low]:
			f.DelAt(i)
		}
	}
}

func appendLower(dst []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}

// sayWhoWeAre names our cluster and node, and makes the cluster the user agent of
// those who name none.
//
//go:noinline
func (x *exchange) sayWhoWeAre() {
	f := &x.req.Fields
	f.Set("x-envoy-downstream-service-cluster", x.m.serviceCluster)
	if v, _ := f.ByID(message.UserAgent); v == "" {
		f.SetID(message.UserAgent, x.m.serviceCluster)
	}
	if x.m.node != "" {
		f.Set("x-envoy-downstream-service-node", x.m.node)
	}
}

// appendVia notes that the message passed us (RFC 9110 7.6.3).
//
//go:noinline
func (x *exchange) appendVia(f *message.Fields, via string) {
	b := x.scratch[:0]
	if v, _ := f.Joined("via"); v != "" {
		b = append(append(b, v...), ", "...)
	}
	x.scratch = append(b, via...)
	f.SetIDBytes(message.Via, x.scratch)
}

func (x *exchange) appendForwardedFor() {
	a := route.AddrPort(x.d.Info.Remote).Addr()
	if !a.IsValid() {
		return
	}
	f := &x.req.Fields
	b := x.scratch[:0]
	if v, _ := f.Joined("x-forwarded-for"); v != "" {
		b = append(append(b, v...), ',')
	}
	x.scratch = x.appendAddr(b, a)
	f.SetIDBytes(message.XForwardedFor, x.scratch)
}

func (x *exchange) appendAddr(dst []byte, a netip.Addr) []byte {
	a = a.Unmap()
	if x.policy.cfg.MapIPv4 && a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	return a.AppendTo(dst)
}
