package listener

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

const (
	apiID = "spiffe://td/ns/default/dc/dc1/svc/api"
	webID = "spiffe://td/ns/default/dc/dc1/svc/web"
)

// selfSigned makes a certificate for an ID; what a peer must verify is tested in
// identity/tlsconf.
func selfSigned(t *testing.T, id string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(id)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type testTLS struct{ cert tls.Certificate }

func (p testTLS) ServerTLS(string, string, *TLS) (*tls.Config, string, error) {
	return &tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}, apiID, nil
}

func mtlsConfig(rbac ...authz.NetworkFilter) *Config {
	cfg := echoConfig("in", rbac...)
	cfg.Chains[0].Match.ServerNames = []string{"api.example"}
	cfg.Chains[0].TLS = &TLS{Certificate: apiID, RequireClientCertificate: true}
	return cfg
}

func TestMutualTLS(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.TLS = testTLS{selfSigned(t, apiID)} })
	allowWeb := func(id string) authz.NetworkFilter {
		return authz.NetworkFilter{Rules: &authz.Rules{Action: authz.Allow, Policies: []authz.Policy{{Name: "web may",
			Permissions: []authz.Permission{{Any: true}},
			Principals:  []authz.Principal{{Authenticated: true, Name: &route.StringMatch{Exact: &id}}}}}}}
	}
	mustApply(t, m, mtlsConfig(allowWeb(webID)))
	open := func(id string) *tls.Conn {
		return tls.Client(dial(t, m, "in"), &tls.Config{ServerName: "api.example", InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, id)}})
	}
	web := open(webID)
	if err := roundTrip(web); err != nil {
		t.Fatal(err)
	}
	conns := m.Conns()
	if len(conns) != 1 || conns[0].Info.PeerID != webID || conns[0].Info.OwnID != apiID || conns[0].Service != "api" {
		t.Errorf("connections: %+v", conns)
	}
	if err := roundTrip(open(apiID)); err == nil {
		t.Error("a wrong identity is served")
	}
	if err := roundTrip(dial(t, m, "in")); err == nil {
		t.Error("plaintext is served")
	}
	var out strings.Builder
	_ = m.opts.Metrics.Registry.WritePrometheus(&out)
	for _, want := range []string{
		`hauberk_connections_refused_total{listener="in",reason="plaintext"} 1`,
		`hauberk_tls_handshakes_total{result="ok",reason="",version="TLSv1.3"} 2`,
		`hauberk_tls_handshake_duration_seconds_count 2`,
		`hauberk_authz_decisions_total{decision="deny",rule="default deny"} 1`,
		`hauberk_authz_decisions_total{decision="allow",rule="web may"} 1`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	// The intention now names somebody else: the live connection ends.
	mustApply(t, m, mtlsConfig(allowWeb(apiID)))
	if err := roundTrip(web); err == nil {
		t.Error("a connection that is denied now lives on")
	}
}

func TestHandshakeThatNeverEnds(t *testing.T) {
	m := newTestManager(t, func(o *Options) {
		o.TLS = testTLS{selfSigned(t, apiID)}
		o.HandshakeTimeout = 50 * time.Millisecond
	})
	cfg := mtlsConfig()
	cfg.Chains[0].Match.ServerNames = nil
	mustApply(t, m, cfg)
	began := time.Now()
	if _, err := dial(t, m, "in").Read(make([]byte, 1)); err == nil || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
