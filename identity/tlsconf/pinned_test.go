package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

const cp1 = "spiffe://mesh.test/hauberk/controlplane/cp1"

func TestPinnedClient(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	thief := idtest.NewSigner(t, "mesh.test")
	nameless := idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) { c.URIs = nil })
	sub := idtest.NewSigner(t, "mesh.test", func(c *x509.Certificate) { c.URIs = []*url.URL{idtest.URL(t, cp1)} })
	pin := func(s *idtest.Signer) PinnedParams { return PinnedParams{Pin: trust.PinOf(s.Cert)} }
	leafPin := ca.SVID(t, cp1)
	for _, tc := range []struct {
		name   string
		params PinnedParams
		served *svid.SVID
		want   string // empty when it must pass
	}{
		{"good", pin(ca), ca.SVID(t, cp1, ca.Cert), ""},
		{"good, trust domain expected", PinnedParams{Pin: trust.PinOf(ca.Cert), TrustDomain: ca.TrustDomain}, ca.SVID(t, cp1, ca.Cert), ""},
		{"another signer", pin(ca), thief.SVID(t, cp1, thief.Cert), "does not have the pinned key"},
		{"the signer is not sent", pin(ca), ca.SVID(t, cp1), "does not have the pinned key"},
		{"the pin is the leaf's", PinnedParams{Pin: trust.PinOf(leafPin.Leaf())}, leafPin, "does not have the pinned key"},
		{"the pinned signer beside another's leaf", pin(ca), thief.SVID(t, cp1, ca.Cert, thief.Cert), "X5-11"},
		{"a service, not a control plane", pin(ca), ca.SVID(t, api, ca.Cert), "a token is given to a control plane only"},
		{"a node, not a control plane", pin(ca), ca.SVID(t, "spiffe://mesh.test/hauberk/node/n1", ca.Cert), "a token is given to a control plane only"},
		{"another trust domain expected", PinnedParams{Pin: trust.PinOf(ca.Cert), TrustDomain: spiffeid.RequireTrustDomainFromString("b.test")}, ca.SVID(t, cp1, ca.Cert), "expected b.test"},
		{"the signer names no trust domain", pin(nameless), nameless.SVID(t, cp1, nameless.Cert), "names no trust domain"},
		{"the signer has a workload's name", pin(sub), sub.SVID(t, cp1, sub.Cert), "has a path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*tc.served.TLS}}
			var peers int
			server.ClientAuth = tls.RequestClientCert
			server.VerifyConnection = func(cs tls.ConnectionState) error { peers = len(cs.PeerCertificates); return nil }
			out := run(t, must(t)(PinnedClient(tc.params)), server, "tcp")
			if peers != 0 {
				t.Error("the joiner presented a certificate")
			}
			if tc.want == "" {
				if out.client != nil || out.server != nil {
					t.Fatal(out.client, out.server)
				}
				if info, err := Describe(out.clientState); err != nil || info.Peer.String() != cp1 {
					t.Errorf("%+v, %v", info, err)
				}
				return
			}
			// The handshake itself fails, so the server has not got a byte of
			// what would be sent after it.
			if out.client == nil || !strings.Contains(out.client.Error(), tc.want) {
				t.Errorf("the client says %v, want %q", out.client, tc.want)
			}
			if out.server == nil {
				t.Error("the server read a byte")
			}
			var fault *PinError
			if errors.As(out.client, &fault) {
				for _, p := range append(fault.Got, tc.params.Pin) {
					if !strings.Contains(out.client.Error(), p.String()) {
						t.Errorf("%q does not name the pin %s", out.client, p)
					}
				}
				if !strings.Contains(out.client.Error(), "nothing was sent") || !strings.Contains(out.client.Error(), "make a new token") {
					t.Errorf("%q does not say what to do", out.client)
				}
			}
		})
	}
}

func TestPinnedClientExpired(t *testing.T) {
	ca := idtest.NewSigner(t, "mesh.test")
	cfg := must(t)(PinnedClient(PinnedParams{Pin: trust.PinOf(ca.Cert), Now: in(-3 * 60 * 60 * 1e9)}))
	server := &tls.Config{Certificates: []tls.Certificate{*ca.SVID(t, cp1, ca.Cert).TLS}}
	out := run(t, cfg, server, "tcp")
	if out.client == nil || !strings.Contains(out.client.Error(), "check the clocks") {
		t.Errorf("got %v", out.client)
	}
	if cfg.VerifyConnection(tls.ConnectionState{DidResume: true, PeerCertificates: ca.SVID(t, cp1, ca.Cert).Chain}) == nil {
		t.Error("a resumed session was accepted")
	}
}
