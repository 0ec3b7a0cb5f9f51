package listener

import (
	"crypto/tls"
	"errors"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// foreignTLS is a provider for foreign contexts, which verifies nothing.
type foreignTLS struct{ cert tls.Certificate }

func (p foreignTLS) ServerTLS(_, _ string, t *TLS) (*tls.Config, string, error) {
	c := &tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequestClientCert}
	if t.Context.RequireClientCertificate {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	return c, "", nil
}

// foreignConfig has a chain for each server name, of one context.
func foreignConfig(ctx tlscontext.Server, names ...string) *Config {
	out := echoConfig("in")
	out.Chains = nil
	for _, name := range names {
		c := echoConfig("in").Chains[0]
		c.Name, c.Match.ServerNames = name, []string{name}
		c.TLS = &TLS{Context: &ctx, RequireClientCertificate: ctx.RequireClientCertificate}
		out.Chains = append(out.Chains, c)
	}
	return out
}

// dialTLS opens a connection that is served.
func dialTLS(t *testing.T, m *Manager, name string, certificates ...tls.Certificate) *tls.Conn {
	t.Helper()
	c := tls.Client(dial(t, m, "in"), &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: certificates})
	if err := roundTrip(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitEnd waits until the other end closes a connection.
func awaitEnd(t *testing.T, c *tls.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is open: %v", err)
	}
}

// TestClientCertificateRequiredLater: a connection without a client certificate does not
// outlive an update that requires one; one with a certificate that was not verified as it
// would be now ends with the drain time.
func TestClientCertificateRequiredLater(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.TLS = foreignTLS{selfSigned(t, apiID)} })
	mustApply(t, m, foreignConfig(tlscontext.Server{}, "a"))
	bare, shown := dialTLS(t, m, "a"), dialTLS(t, m, "a", selfSigned(t, webID))
	mustApply(t, m, foreignConfig(tlscontext.Server{}, "a"))
	for _, c := range []*tls.Conn{bare, shown} {
		if err := roundTrip(c); err != nil {
			t.Fatalf("an update that changes nothing: %v", err)
		}
	}
	var strict tlscontext.Server
	strict.RequireClientCertificate, strict.Validation = true, &tlscontext.Validation{Hash: [][32]byte{{1}}}
	mustApply(t, m, foreignConfig(strict, "a"))
	awaitEnd(t, bare)
	if err := roundTrip(shown); err != nil {
		t.Errorf("before the drain time is over: %v", err)
	}
	for _, l := range m.all() {
		l.endOrphans(time.Now().Add(m.opts.DrainTime))
	}
	awaitEnd(t, shown)
}

// TestExpiryOfPinnedPeers: who is accepted for the pin of a certificate is so for as long as
// the pin is there.
func TestExpiryOfPinnedPeers(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.TLS = foreignTLS{selfSigned(t, apiID)} })
	for expires, v := range map[bool]*tlscontext.Validation{
		false: {Hash: [][32]byte{{1}}},
		true:  {Hash: [][32]byte{{1}}, CA: tlscontext.Source{Inline: "ca"}},
	} {
		var ctx tlscontext.Server
		ctx.Validation = v
		mustApply(t, m, foreignConfig(ctx, "a"))
		c := dialTLS(t, m, "a", selfSigned(t, webID))
		for _, l := range m.all() {
			for _, tr := range l.established() {
				if got := !tr.conn.Info.PeerNotAfter.IsZero(); got != expires {
					t.Errorf("pins alone %v: expires %v", !expires, got)
				}
			}
		}
		_ = c.Close()
		waitFor(t, func() bool { return m.Serving() == 0 })
	}
}

// TestRemovedChainEndsItsConnections: those of a chain that is gone end with the drain
// time, as those of a listener that is gone do; those of other chains stay.
func TestRemovedChainEndsItsConnections(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.TLS, o.DrainTime = foreignTLS{selfSigned(t, apiID)}, time.Millisecond })
	mustApply(t, m, foreignConfig(tlscontext.Server{}, "a", "b"))
	a, b := dialTLS(t, m, "a"), dialTLS(t, m, "b")
	mustApply(t, m, foreignConfig(tlscontext.Server{}, "b"))
	awaitEnd(t, a)
	if err := roundTrip(b); err != nil {
		t.Error(err)
	}
}

// TestSlowHandshakeMissesNoWithdrawal: however long ago an identity was withdrawn, and
// whatever was since, it is while the handshake goes on that it was not.
func TestSlowHandshakeMissesNoWithdrawal(t *testing.T) {
	m := newTestManager(t, func(o *Options) { o.TLS = testTLS{selfSigned(t, apiID)} })
	mustApply(t, m, mtlsConfig())
	c := tls.Client(dial(t, m, "in"), &tls.Config{ServerName: "api.example", InsecureSkipVerify: true, Certificates: []tls.Certificate{selfSigned(t, webID)}})
	waitFor(t, func() bool { return m.Serving() == 1 })
	m.CloseConns(func(_ string, info *stream.Info) bool { return info.PeerID == webID }, "withdrawn")
	none := func(string, *stream.Info) bool { return false }
	age := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i := range m.withdrawals {
			m.withdrawals[i].at = time.Now().Add(-time.Hour)
		}
	}
	age()
	m.CloseConns(none, "other")
	if err := roundTrip(c); err == nil {
		t.Error("a withdrawn identity is served")
	}
	waitFor(t, func() bool { return m.Serving() == 0 })
	age()
	m.CloseConns(none, "other")
	if n := len(m.withdrawals); n != 1 {
		t.Errorf("%d withdrawals are kept when nothing arrives", n)
	}
}

// TestHandshakesAreTimed: where somebody shows how long they took.
func TestHandshakesAreTimed(t *testing.T) {
	if _, err := telemetry.ParseFormat("%DOWNSTREAM_HANDSHAKE_DURATION%"); err != nil {
		t.Fatal(err)
	}
	m := newTestManager(t, func(o *Options) { o.TLS = foreignTLS{selfSigned(t, apiID)} })
	mustApply(t, m, foreignConfig(tlscontext.Server{}, "a"))
	before := time.Now()
	c := dialTLS(t, m, "a")
	defer c.Close()
	for _, l := range m.all() {
		for _, tr := range l.established() {
			if n := tr.conn.Info.Noted; n == nil || n.Secured.Before(before) || n.Secured.After(time.Now()) {
				t.Errorf("noted %+v", n)
			}
		}
	}
}

func TestArrivalSize(t *testing.T) {
	if n := unsafe.Sizeof(arrival{}); n > 256 {
		t.Errorf("arrival has %d bytes", n)
	}
}
