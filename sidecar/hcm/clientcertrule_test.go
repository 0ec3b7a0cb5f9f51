package hcm

import (
	"net/netip"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// TestClientCertCases: the first case that holds says what becomes of x-forwarded-client-cert. One
// of which that is not known ends the search: a case behind it may let pass what it would remove.
func TestClientCertCases(t *testing.T) {
	exact := func(s string) *route.StringMatch { return &route.StringMatch{Exact: &s} }
	cfg := &Config{
		ForwardClientCert: SanitizeSet,
		ClientCertCases: &ClientCertCases{
			When: []authz.Condition{{Header: "x-mode", Value: exact("set")}, {URISAN: true, Value: exact("spiffe://td/a")}, {Header: "x-mode", Value: exact("keep")}},
			Then: []ClientCertRule{{Forward: SanitizeSet, Tell: ClientCert{URI: true}}, {Forward: AppendForward}, {Forward: AlwaysForwardOnly}},
		},
	}
	for _, tc := range []struct {
		name, mode, peer string
		otherwise        *ClientCertRule
		want             string
	}{
		{"the first", "set", "spiffe://td/a", nil, "Hash=ab;URI=spiffe://td/a"},
		{"the second", "keep", "spiffe://td/a", nil, "client,Hash=ab"},
		{"the third", "keep", "spiffe://td/b", nil, "client"},
		{"none", "", "spiffe://td/b", nil, "Hash=ab"},
		{"otherwise", "", "spiffe://td/b", &ClientCertRule{Forward: Sanitize}, ""},
		{"what is not known", "keep", "", &ClientCertRule{Forward: AlwaysForwardOnly}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg.ClientCertCases.Otherwise = tc.otherwise
			certs, err := newClientCertChoice(cfg.ClientCertCases)
			if err != nil {
				t.Fatal(err)
			}
			info := &stream.Info{}
			if tc.peer != "" {
				info = &stream.Info{TLS: true, PeerID: tc.peer, PeerCertHash: "ab"}
			}
			d := &downstream.Conn{}
			d.Info = info
			x := &exchange{m: &Manager{cfg: cfg}, policy: &policy{cfg: cfg, certs: certs}, d: d, req: &message.Request{}}
			d.Peer = authz.Peer{Info: info}
			x.peer, x.xfcc = &d.Peer, clientCertElement(cfg, info)
			x.req.Fields.Add("x-mode", tc.mode)
			x.req.Fields.SetID(message.XForwardedClientCert, "client")
			x.forwardClientCert()
			if got, _ := x.req.Fields.ByID(message.XForwardedClientCert); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// TestClientCertCasesByAddress: a client that names another by x-forwarded-for does not choose the
// rule with it.
func TestClientCertCasesByAddress(t *testing.T) {
	cfg := &Config{ClientCertCases: &ClientCertCases{
		When: []authz.Condition{{Source: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}},
		Then: []ClientCertRule{{Forward: AlwaysForwardOnly}},
	}}
	certs, err := newClientCertChoice(cfg.ClientCertCases)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		connected, named string
		want             ForwardClientCert
	}{{"127.0.0.1", "203.0.113.9", Sanitize}, {"203.0.113.9", "127.0.0.1", AlwaysForwardOnly}} {
		d := &downstream.Conn{}
		d.Peer = authz.Peer{Info: &stream.Info{}, Direct: netip.MustParseAddr(tc.connected), Remote: netip.MustParseAddr(tc.connected)}
		x := &exchange{m: &Manager{cfg: cfg}, policy: &policy{cfg: cfg, certs: certs}, d: d, req: &message.Request{}}
		named := d.Peer
		named.Remote = netip.MustParseAddr(tc.named)
		x.peer = &named
		if got := x.clientCertRule().Forward; got != tc.want {
			t.Errorf("%s, which names %s: %v, want %v", tc.connected, tc.named, got, tc.want)
		}
	}
}

// TestChainsOfClientCertCases: what any case tells of certificates is kept of each connection.
func TestChainsOfClientCertCases(t *testing.T) {
	tells := ClientCertRule{Forward: AppendForward, Tell: ClientCert{Subject: true}}
	for _, tc := range []struct {
		cases *ClientCertCases
		want  bool
	}{
		{nil, false},
		{&ClientCertCases{Then: []ClientCertRule{{Forward: Sanitize, Tell: ClientCert{Subject: true}}}}, false},
		{&ClientCertCases{Then: []ClientCertRule{{}, tells}}, true},
		{&ClientCertCases{Otherwise: &tells}, true},
	} {
		if got := (&Config{ClientCertCases: tc.cases}).needsPeerChain(); got != tc.want {
			t.Errorf("%+v: %v", tc.cases, got)
		}
	}
}
