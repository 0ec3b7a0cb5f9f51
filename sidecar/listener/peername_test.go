package listener

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// certificate makes one with any names.
func certificate(t *testing.T, subject string, dns []string, ids ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{CommonName: subject}, DNSNames: dns}
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// byName is a filter whose only policy is about a peer's name, or any peer's where it
// is empty.
func byName(action authz.Action, name string) authz.NetworkFilter {
	who := authz.Principal{Authenticated: true}
	if name != "" {
		who.Name = &route.StringMatch{Exact: &name}
	}
	return authz.NetworkFilter{Rules: &authz.Rules{Action: action, Policies: []authz.Policy{{Name: "name",
		Permissions: []authz.Permission{{Any: true}}, Principals: []authz.Principal{who}}}}}
}

// TestNamesOfForeignPeers: behind a foreign TLS context a rule by name is about any URI,
// any DNS name and the subject of the certificate, whether it denies or allows; behind
// the mesh's own, about the one SPIFFE ID alone.
func TestNamesOfForeignPeers(t *testing.T) {
	anyClient := &tlscontext.Validation{}
	for name, c := range map[string]struct {
		validation *tlscontext.Validation // nil for the mesh's own TLS
		rule       string
		peer       tls.Certificate
		matches    bool
	}{
		"the URI":                      {anyClient, webID, certificate(t, "", nil, webID), true},
		"one of two URIs":              {anyClient, webID, certificate(t, "", nil, apiID, webID), true},
		"the DNS name":                 {anyClient, "web.example", certificate(t, "", []string{"web.example"}), true},
		"one of two DNS names":         {anyClient, "web.example", certificate(t, "", []string{"a.example", "web.example"}), true},
		"the DNS name beside a URI":    {anyClient, "web.example", certificate(t, "", []string{"web.example"}, apiID), true},
		"the subject":                  {anyClient, "CN=web", certificate(t, "web", nil), true},
		"the subject beside a URI":     {anyClient, "CN=web", certificate(t, "web", nil, apiID), true},
		"none of them":                 {anyClient, webID, certificate(t, "a", []string{"a.example"}, apiID), false},
		"any peer, without a URI":      {anyClient, "", certificate(t, "", []string{"web.example"}), true},
		"any peer, untrusted":          {&tlscontext.Validation{AcceptUntrusted: true}, "", certificate(t, "web", nil), true},
		"a name nothing vouches for":   {&tlscontext.Validation{AcceptUntrusted: true}, "CN=web", certificate(t, "web", nil), false},
		"the mesh: the ID":             {nil, webID, certificate(t, "", nil, webID), true},
		"the mesh: one of two URIs":    {nil, webID, certificate(t, "", nil, apiID, webID), false},
		"the mesh: a DNS name":         {nil, "web.example", certificate(t, "", []string{"web.example"}, apiID), false},
		"the mesh: the subject":        {nil, "CN=web", certificate(t, "web", nil, apiID), false},
		"the mesh: a peer without IDs": {nil, "", certificate(t, "web", []string{"web.example"}), false},
	} {
		for action, served := range map[authz.Action]bool{authz.Allow: c.matches, authz.Deny: !c.matches} {
			m := newTestManager(t, func(o *Options) { o.TLS = testTLS{selfSigned(t, apiID)} })
			cfg := echoConfig("in", byName(action, c.rule))
			cfg.Chains[0].TLS = &TLS{Certificate: apiID}
			if c.validation != nil {
				cfg.Chains[0].TLS = &TLS{Context: &tlscontext.Server{Common: tlscontext.Common{Validation: c.validation}}}
			}
			mustApply(t, m, cfg)
			err := roundTrip(tls.Client(dial(t, m, "in"), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c.peer}}))
			if (err == nil) != served {
				t.Errorf("%s: action %d: %v, want served: %v", name, action, err, served)
			}
			_ = m.Close()
		}
	}
}

// vouching is a provider whose handshakes are verified by a foreign context.
type vouching struct {
	cert tls.Certificate
	// by is what every peer is accepted by; nil where nothing vouches for any.
	by *x509.Certificate
}

func (p vouching) ServerTLS(string, string, *TLS) (*tls.Config, string, error) {
	return &tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: func(cs tls.ConnectionState) error {
		if p.by != nil {
			handshake.Chain(cs, []*x509.Certificate{cs.PeerCertificates[0], p.by})
		}
		return nil
	}}, "", nil
}

// TestVouchedForAllTheSame: where anybody is let in, but for trust domains that a secret brings,
// a peer is known if the handshake says what vouched for it.
func TestVouchedForAllTheSame(t *testing.T) {
	own := selfSigned(t, apiID)
	anchor, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []*x509.Certificate{nil, anchor} {
		m := newTestManager(t, func(o *Options) { o.TLS = vouching{own, by} })
		cfg := echoConfig("in", byName(authz.Allow, webID))
		cfg.Chains[0].TLS = &TLS{Context: &tlscontext.Server{Common: tlscontext.Common{
			Validation: &tlscontext.Validation{AcceptUntrusted: true, Secret: &tlscontext.SecretRef{Name: "domains"}}}}}
		mustApply(t, m, cfg)
		err := roundTrip(tls.Client(dial(t, m, "in"), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate(t, "", nil, webID)}}))
		if (err == nil) != (by != nil) {
			t.Errorf("vouched for: %v: %v", by != nil, err)
		}
		_ = m.Close()
	}
}

// TestForeignPeerIsNoPeerOfTheMesh: what a foreign authority vouched for has no place
// behind a chain that is the mesh's now.
func TestForeignPeerIsNoPeerOfTheMesh(t *testing.T) {
	mesh := &chain{cfg: &FilterChain{TLS: &TLS{Certificate: apiID, RequireClientCertificate: true}}}
	info := &stream.Info{TLS: true, PeerID: webID}
	if !mesh.admits(info) {
		t.Error("a peer of the mesh is refused")
	}
	info.Peer = info.Peer.WithNames(nil)
	if mesh.admits(info) {
		t.Error("a foreign peer is admitted by its URI")
	}
}
