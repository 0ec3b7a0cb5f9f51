package hcm

import (
	"net/netip"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Detection is one of Envoy's original_ip_detection_extensions: a way to find out who asked in
// the first place. Exactly one of Hops, Trusted and Header is meant, Hops where neither of the
// others is set.
type Detection struct {
	// Hops is xff_num_trusted_hops, of x-forwarded-for.
	Hops int `json:",omitempty"`
	// Trusted are the proxies that are believed, xff_trusted_cidrs: nobody else's
	// x-forwarded-for is looked at, and the last address there that is none of theirs is
	// the client's.
	Trusted []netip.Prefix `json:",omitempty"`
	// AppendPeer has the connection's peer appended to x-forwarded-for once this was asked,
	// whatever it found; so has, as in Envoy, a peer that Trusted does not have.
	AppendPeer bool `json:",omitempty"`
	// Header, in lower case, has the client's address, the first where there are several.
	Header string `json:",omitempty"`
	// Internal lets the address that Header has make the request internal.
	Internal bool `json:",omitempty"`
	// Reject is the status of requests whose Header has no address, 0 to go on without.
	Reject int `json:",omitempty"`
}

// detected is what a Detection says.
type detected struct {
	addr     netip.Addr // invalid for none
	trusted  bool       // it may make the request internal
	appends  bool       // the peer is to be appended to x-forwarded-for
	rejected int        // the status to answer with, 0 for none
}

// detect asks the extensions one after the other for the client, until one knows. What one
// appends the next one sees, as in Envoy.
func (x *exchange) detect() detected {
	list := x.policy.cfg.Detections
	for i := range list {
		out := list[i].find(x)
		if out.appends {
			x.appendForwardedFor()
		}
		if out.addr.IsValid() || out.rejected != 0 {
			return out
		}
	}
	return detected{}
}

func (d *Detection) find(x *exchange) (out detected) {
	f := &x.req.Fields
	if d.Header != "" {
		v, _ := f.Get(d.Header)
		if a, ok := bareAddress(v); ok {
			return detected{addr: a, trusted: d.Internal}
		}
		return detected{rejected: d.Reject}
	}
	out.appends = d.AppendPeer
	list, ok := f.ByID(message.XForwardedFor)
	switch {
	case d.Trusted != nil && !contains(d.Trusted, x.d.Peer.Remote):
		out.appends = true
	case ok && d.Trusted != nil:
		out.addr, out.trusted = lastUntrusted(list, d.Trusted)
	case ok:
		out.addr, out.trusted = lastForwardedFor(list, d.Hops)
	}
	return out
}

// maxProxies is how many addresses of x-forwarded-for are gone through, as in Envoy: each is
// compared with every trusted range, and a client writes as many as a header holds.
const maxProxies = 20

// lastUntrusted returns the last address of a list that is no trusted proxy's, the first
// where all are, and whether the list has one alone. Behind what is no address nobody is
// believed, nor is a list of more than maxProxies.
func lastUntrusted(list string, proxies []netip.Prefix) (a netip.Addr, only bool) {
	if strings.Count(list, ",") >= maxProxies {
		return netip.Addr{}, false
	}
	only = true
	for end := len(list); end >= 0; {
		start := lastComma(list[:end])
		next, ok := bareAddress(list[start+1 : end])
		if !ok {
			return netip.Addr{}, false
		}
		a, only = next, only && start < 0
		if !contains(proxies, a) {
			break
		}
		end = start
	}
	return a, only
}

// bareAddress reads an address without a port or brackets, between spaces.
func bareAddress(text string) (a netip.Addr, ok bool) {
	text = strings.Trim(text, " \t")
	if text == "" || !digits(text) {
		return a, false
	}
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Zone() == ""
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	a = authz.Bare(a)
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
