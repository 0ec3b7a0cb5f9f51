package hcm

import (
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// trimHost removes from the request's host what the configuration has removed before
// anything looks at it. A CONNECT gets its port back when it is passed on.
func (x *exchange) trimHost() {
	rules := &x.policy.cfg.HostRules
	if rules.StripPort == KeepPort && !rules.StripDot {
		return
	}
	host, port := splitAuthority(x.req.Authority)
	if rules.StripDot && len(host) > 1 && host[len(host)-1] == '.' {
		host = host[:len(host)-1]
		x.req.Authority = x.req.Fields.Store2(host, port)
		host = x.req.Authority[:len(host)]
	}
	n, ok := portNumber(port)
	if rules.StripPort == KeepPort || !ok || rules.StripPort == StripOwnPort && n != x.localPort() {
		return
	}
	if x.req.Method == "CONNECT" {
		x.portSent = port
	}
	x.req.Authority = host
}

// restorePort gives a CONNECT its port back, unless it has one again.
func (x *exchange) restorePort() {
	if x.portSent == "" {
		return
	}
	if _, port := splitAuthority(x.req.Authority); port == "" {
		x.req.Authority = x.req.Fields.Store2(x.req.Authority, x.portSent)
	}
}

// splitAuthority cuts an authority before its port's colon.
func splitAuthority(a string) (host, port string) {
	i := strings.LastIndexByte(a, ':')
	if i < 0 || strings.IndexByte(a[i:], ']') >= 0 {
		return a, ""
	}
	return a[:i], a[i:]
}

func portNumber(port string) (n uint16, ok bool) {
	if len(port) < 2 || len(port) > 6 {
		return 0, false
	}
	v := 0
	for i := 1; i < len(port); i++ {
		if port[i] < '0' || port[i] > '9' {
			return 0, false
		}
		v = v*10 + int(port[i]-'0')
	}
	return uint16(v), v <= 65535
}

// terms are what the attempt's connection depends on. The host that it asks for is the one that the
// route made of the request's, before it takes the name of the endpoint, as in Envoy.
func (a *attempt) terms() (cluster.Terms, error) {
	x := a.x
	authority := x.req.Authority
	if x.sel.Route.Forward.AutoHostRewrite && !x.shadow {
		authority = x.original
	}
	asker := &cluster.Asker{Request: x.req, Authority: authority, Named: x.cluster}
	if !x.shadow { // copies are the process's own requests
		asker.From, asker.To, asker.Extensions = route.AddrPort(x.d.Info.Remote), x.d.Destination, x.d.Announced.Passed()
		asker.Client = x.d.ID
	}
	return a.host.TermsFor(asker)
}
