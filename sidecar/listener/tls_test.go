package listener

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
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
	if err := roundTrip(tls.Client(dial(t, m, "in"), &tls.Config{ServerName: "api.example", InsecureSkipVerify: true})); err == nil {
		t.Error("a client without a certificate is served")
	}
	waitFor(t, func() bool {
		var out strings.Builder
		_ = m.opts.Metrics.Registry.WritePrometheus(&out)
		return strings.Contains(out.String(), `hauberk_tls_handshakes_total{result="failed",reason="no_certificate",version=""} 1`)
	})
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

// TestTLSThatNobodyLookedFor: where the inspector did not run, or went on before the client
// said anything, a chain with TLS shakes hands with whoever comes. Bytes that are no TLS are
// refused all the same.
func TestTLSThatNobodyLookedFor(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"the inspector is disabled": func(c *Config) {
			c.Filters = []Filter{{TLSInspector: true, Disabled: &Predicate{Any: true}}}
		},
		"the client is late": func(c *Config) {
			c.Filters, c.FilterTimeout, c.ContinueOnTimeout = []Filter{{TLSInspector: true}}, 20*time.Millisecond, true
		},
	} {
		m := newTestManager(t, func(o *Options) { o.TLS = testTLS{selfSigned(t, apiID)} })
		cfg := echoConfig("in")
		cfg.Chains[0].TLS = &TLS{Certificate: apiID}
		change(cfg)
		mustApply(t, m, cfg)
		late := func() net.Conn {
			c := dial(t, m, "in")
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: a connection on which nothing was sent: %v", name, err)
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			return c
		}
		if err := roundTrip(tls.Client(late(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, webID)}})); err != nil {
			t.Errorf("%s: a TLS client is refused: %v", name, err)
		}
		plain := late()
		_, _ = io.WriteString(plain, "GET / HTTP/1.1\r\n\r\n")
		if answer, err := io.ReadAll(plain); bytes.Contains(answer, []byte("GET")) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: plaintext is served: %q %v", name, answer, err)
		}
		var out strings.Builder
		_ = m.opts.Metrics.Registry.WritePrometheus(&out)
		if want := `hauberk_connections_refused_total{listener="in",reason="plaintext"} 1`; !strings.Contains(out.String(), want) {
			t.Errorf("%s: no %s in\n%s", name, want, out.String())
		}
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

// TestHandshakeThatIsOver: nothing looks at its time any more, nor at that of one whose time is up.
func TestHandshakeThatIsOver(t *testing.T) {
	for over, want := range map[bool]int{true: 3, false: 6} {
		synctest.Test(t, func(t *testing.T) {
			looks := atomic.Int64{}
			stop := lookAgain(time.Now(), func(waited time.Duration) time.Duration {
				looks.Add(1)
				return min(time.Second, 5*time.Second-waited)
			})
			time.Sleep(2500 * time.Millisecond)
			if over {
				stop()
			}
			time.Sleep(time.Minute)
			if n := looks.Load(); n != int64(want) {
				t.Errorf("it was looked at %d times, want %d", n, want)
			}
			stop()
		})
	}
}

// TestReducedHandshakes: a handshake under way has what an overload leaves of its time.
func TestReducedHandshakes(t *testing.T) {
	heap := atomic.Uint64{}
	cfg := &overload.Config{MaxHeap: 1, Refresh: time.Millisecond, Actions: []overload.Action{
		{Kind: overload.ReduceTimeouts, Triggers: []overload.Trigger{{Resource: overload.Heap, Threshold: 1}}},
	}}
	cfg.Timeouts[overload.Handshake] = &overload.Least{Absolute: true, Time: 50 * time.Millisecond}
	o := overload.New(cfg, overload.Options{Heap: heap.Load, Collect: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { o.Run(ctx); close(over) }()
	t.Cleanup(func() { cancel(); <-over })
	m := newTestManager(t, func(opts *Options) {
		opts.TLS, opts.Overload, opts.HandshakeTimeout = testTLS{selfSigned(t, apiID)}, o, time.Hour
	})
	mtls := mtlsConfig()
	mtls.Chains[0].Match.ServerNames = nil
	mustApply(t, m, mtls)
	c := dial(t, m, "in")
	heap.Store(1)
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client is waited for: %v", err)
	}
	waitFor(t, func() bool {
		var out strings.Builder
		_ = m.opts.Metrics.Registry.WritePrometheus(&out)
		return strings.Contains(out.String(), `hauberk_connections_refused_total{listener="in",reason="timeout"} 1`)
	})
}
