package tlsconf

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/idtest"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/verify"
)

const (
	web = "spiffe://mesh.test/ns/default/dc/dc1/svc/web"
	api = "spiffe://mesh.test/ns/default/dc/dc1/svc/api"
)

func id(s string) spiffeid.ID { return spiffeid.RequireFromString(s) }

// outcome is one handshake and one exchanged byte, as both sides saw them.
type outcome struct {
	client, server           error
	clientState, serverState tls.ConnectionState
}

// run makes both sides read a byte of the other: in TLS 1.3 only that tells a
// client that it was accepted.
func run(t *testing.T, client, server *tls.Config, network string) outcome {
	t.Helper()
	a, b := connect(t, network)
	cc, sc := tls.Client(a, client), tls.Server(b, server)
	side := func(c *tls.Conn, first bool) error {
		if err := c.HandshakeContext(t.Context()); err != nil {
			_ = c.NetConn().Close()
			return err
		}
		buf := make([]byte, 1)
		if first {
			if _, err := c.Write([]byte{1}); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if !first {
			_, err := c.Write(buf)
			return err
		}
		return nil
	}
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		out.server = side(sc, false)
	}()
	out.client = side(cc, true)
	_ = a.Close()
	<-done
	out.clientState, out.serverState = cc.ConnectionState(), sc.ConnectionState()
	return out
}

func connect(t *testing.T, network string) (net.Conn, net.Conn) {
	t.Helper()
	if network == "pipe" {
		a, b := net.Pipe()
		t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
		return a, b
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

func must(t *testing.T) func(*tls.Config, error) *tls.Config {
	return func(c *tls.Config, err error) *tls.Config {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// pair is a web client and an api server that trust each other.
type pair struct {
	ca             *idtest.Signer
	client, server *svid.Holder
	cp             ClientParams
	sp             ServerParams
}

func newPair(t *testing.T) *pair {
	p := &pair{ca: idtest.NewSigner(t, "mesh.test")}
	trusted := []*idtest.Signer{p.ca}
	p.client = svid.NewHolder(idtest.Snapshot(trusted, p.ca.SVID(t, web)))
	p.server = svid.NewHolder(idtest.Snapshot(trusted, p.ca.SVID(t, api)))
	p.cp = ClientParams{Source: p.client, Authorize: Exactly(id(api)), ServerName: "api.default.dc1.internal.mesh.test", ALPN: []string{"http/1.1"}}
	p.sp = ServerParams{Source: p.server, Authorize: Exactly(id(web)), ALPN: []string{"http/1.1"}}
	return p
}

func (p *pair) run(t *testing.T, network string) outcome {
	return run(t, must(t)(Client(p.cp)), must(t)(Server(p.sp)), network)
}

func TestHandshake(t *testing.T) {
	for _, network := range []string{"tcp", "pipe"} {
		t.Run(network, func(t *testing.T) {
			p := newPair(t)
			out := p.run(t, network)
			if out.client != nil || out.server != nil {
				t.Fatal(out.client, out.server)
			}
			got, err := Describe(out.serverState)
			if err != nil {
				t.Fatal(err)
			}
			leaf := p.client.Snapshot().SVIDs[web].Leaf()
			want := Info{
				Peer: id(web), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Serial: leaf.SerialNumber.Text(16),
				Version: "TLS 1.3", Cipher: got.Cipher, Curve: "X25519MLKEM768", ALPN: "http/1.1", ServerName: p.cp.ServerName,
			}
			if got != want {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
			if out.clientState.CurveID != tls.X25519MLKEM768 {
				t.Errorf("the key exchange is %s, want the post-quantum hybrid", out.clientState.CurveID)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	other := idtest.NewSigner(t, "mesh.test")
	for _, tc := range []struct {
		name   string
		change func(*testing.T, *pair)
		// side is who refuses, want is in its error.
		side, want string
	}{
		{"server of another name", func(_ *testing.T, p *pair) { p.cp.Authorize = Exactly(id(web)) }, "client", "peer " + api + " is not allowed: expected " + web},
		{"client of another name", func(_ *testing.T, p *pair) { p.sp.Authorize = Exactly(id(api), id(api+"2")) }, "server", "peer " + web + " is not allowed"},
		{"server signed by a stranger", func(t *testing.T, p *pair) {
			p.server.Set(idtest.Snapshot([]*idtest.Signer{p.ca}, other.SVID(t, api)))
		}, "client", string(verify.RuleChain)},
		{"client signed by a stranger", func(t *testing.T, p *pair) {
			p.client.Set(idtest.Snapshot([]*idtest.Signer{p.ca}, other.SVID(t, web)))
		}, "server", string(verify.RuleChain)},
		{"client holds no SVID", func(_ *testing.T, p *pair) { p.client.Set(idtest.Snapshot([]*idtest.Signer{p.ca})) }, "client", "no identity has been issued"},
		{"client holds another SVID", func(_ *testing.T, p *pair) { p.cp.ID = api }, "client", "own identity " + api + ": this process holds no SVID"},
		{"server holds no SVID", func(_ *testing.T, p *pair) { p.server.Set(idtest.Snapshot([]*idtest.Signer{p.ca})) }, "server", "no identity has been issued"},
		{"client's SVID has expired", func(_ *testing.T, p *pair) { p.cp.Now = in(70 * time.Minute) }, "client", "own identity " + web + ": the own certificate expired"},
		{"server's SVID has expired", func(_ *testing.T, p *pair) { p.sp.Now = in(70 * time.Minute) }, "server", "own identity " + api + ": the own certificate expired"},
		{"server's SVID is of tomorrow", func(_ *testing.T, p *pair) { p.sp.Now = in(-70 * time.Minute) }, "server", "not yet valid"},
		{"no bundle", func(t *testing.T, p *pair) { p.server.Set(idtest.Snapshot(nil, p.ca.SVID(t, api))) }, "server", "no trust bundle"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			tc.change(t, p)
			out := p.run(t, "tcp")
			if out.client == nil || out.server == nil {
				t.Fatalf("accepted: client %v, server %v", out.client, out.server)
			}
			err := out.client
			if tc.side == "server" {
				err = out.server
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the %s says %q, want %q", tc.side, err, tc.want)
			}
		})
	}
}

func in(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// An own SVID that cannot be presented is never sent: the fault is found before
// the first byte, and ClientOnce finds it before the connection.
func TestOwnIdentityIsNotPresented(t *testing.T) {
	p := newPair(t)
	p.cp.Now = in(70 * time.Minute)
	var own *OwnError
	if _, err := ClientOnce(p.cp); !errors.As(err, &own) || own.ID != web {
		t.Errorf("ClientOnce: %v", err)
	}
	cfg := must(t)(Client(p.cp))
	if c, err := cfg.GetClientCertificate(&tls.CertificateRequestInfo{}); c != nil || !errors.As(err, &own) {
		t.Errorf("presented %v, %v", c, err)
	}
	p.sp.Now = p.cp.Now
	inner, err := must(t)(Server(p.sp)).GetConfigForClient(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := inner.GetCertificate(&tls.ClientHelloInfo{}); c != nil || !errors.As(err, &own) {
		t.Errorf("presented %v, %v", c, err)
	}
	// A server that asks for none does not get an anonymous client instead.
	p.cp.Now = nil
	p.client.Set(idtest.Snapshot([]*idtest.Signer{p.ca}))
	plain := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*p.server.Snapshot().SVIDs[api].TLS}}
	if out := run(t, must(t)(Client(p.cp)), plain, "tcp"); !errors.As(out.client, &own) {
		t.Errorf("the client says %v", out.client)
	}
}

func TestClientCertificateModes(t *testing.T) {
	for _, tc := range []struct {
		name        string
		mode        ClientAuth
		certificate bool
		stranger    bool
		ok          bool
	}{
		{"required and absent", RequireClient, false, false, false},
		{"requested and absent", RequestClient, false, false, true},
		{"requested and good", RequestClient, true, false, true},
		{"requested and bad", RequestClient, true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			p.sp.Client = tc.mode
			asked := 0
			p.sp.Authorize = func(spiffeid.ID) error { asked++; return nil }
			client := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
			if tc.certificate {
				signer := p.ca
				if tc.stranger {
					signer = idtest.NewSigner(t, "mesh.test")
				}
				client.Certificates = []tls.Certificate{*signer.SVID(t, web).TLS}
			}
			out := run(t, client, must(t)(Server(p.sp)), "tcp")
			if (out.server == nil) != tc.ok {
				t.Fatalf("server: %v", out.server)
			}
			if !tc.ok {
				return
			}
			info, err := Describe(out.serverState)
			if err != nil {
				t.Fatal(err)
			}
			if info.Peer.IsZero() == tc.certificate || (asked == 1) != tc.certificate {
				t.Errorf("peer %q, authorize called %d times", info.Peer, asked)
			}
		})
	}
}

// The attack that VerifyPeerCertificate does not stop: a client that chooses to
// resume after its authorization was withdrawn.
func TestResumptionDoesNotBypassAuthorization(t *testing.T) {
	for _, tls12 := range []bool{false, true} {
		p := newPair(t)
		var withdrawn atomic.Bool
		p.sp.AllowTLS12 = tls12
		p.sp.Authorize = func(peer spiffeid.ID) error {
			if withdrawn.Load() {
				return errors.New("withdrawn")
			}
			return nil
		}
		server := must(t)(Server(p.sp))
		client := &tls.Config{
			InsecureSkipVerify: true, ServerName: "api", NextProtos: []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(8),
			Certificates:       []tls.Certificate{*p.client.Snapshot().SVIDs[web].TLS},
		}
		if tls12 {
			client.MaxVersion = tls.VersionTLS12
		}
		for range 2 {
			out := run(t, client, server, "tcp")
			if out.client != nil || out.server != nil {
				t.Fatal(out.client, out.server)
			}
			if out.serverState.DidResume {
				t.Error("a session was resumed")
			}
		}
		withdrawn.Store(true)
		out := run(t, client, server, "tcp")
		var denied *DeniedError
		if !errors.As(out.server, &denied) || denied.Peer != id(web) {
			t.Errorf("after the withdrawal the server says %v", out.server)
		}
	}
}

// The verdict itself holds when something else resumes: it is made in
// VerifyConnection, which runs in a resumed handshake too.
func TestResumedSessionIsRefused(t *testing.T) {
	p := newPair(t)
	for name, cfg := range map[string]*tls.Config{"client": must(t)(Client(p.cp)), "once": must(t)(ClientOnce(p.cp))} {
		err := cfg.VerifyConnection(tls.ConnectionState{DidResume: true, PeerCertificates: p.server.Snapshot().SVIDs[api].Chain})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if cfg.ClientSessionCache != nil || !cfg.SessionTicketsDisabled {
			t.Errorf("%s: sessions are kept", name)
		}
	}
	inner, err := must(t)(Server(p.sp)).GetConfigForClient(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if !inner.SessionTicketsDisabled || !inner.DynamicRecordSizingDisabled {
		t.Error("server: tickets, or small records")
	}
	if err := inner.VerifyConnection(tls.ConnectionState{DidResume: true, PeerCertificates: p.client.Snapshot().SVIDs[web].Chain}); err == nil {
		t.Error("server: accepted")
	}
}

func TestTLS12(t *testing.T) {
	p := newPair(t)
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{*p.client.Snapshot().SVIDs[web].TLS}}
	if out := run(t, old, must(t)(Server(p.sp)), "tcp"); out.server == nil {
		t.Fatal("TLS 1.2 was accepted without being asked for")
	}
	p.sp.AllowTLS12 = true
	out := run(t, old, must(t)(Server(p.sp)), "tcp")
	if out.server != nil {
		t.Fatal(out.server)
	}
	if info, err := Describe(out.serverState); err != nil || !info.TLS12 || info.Peer != id(web) {
		t.Errorf("%+v, %v", info, err)
	}
	for _, weak := range []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA} {
		cbc := old.Clone()
		cbc.CipherSuites = []uint16{weak}
		if out := run(t, cbc, must(t)(Server(p.sp)), "tcp"); out.server == nil {
			t.Errorf("%s was accepted", tls.CipherSuiteName(weak))
		}
	}
	// Between our own sides it stays 1.3, and identity is checked as well in 1.2.
	p.cp.AllowTLS12 = true
	if out := p.run(t, "tcp"); out.server != nil || out.serverState.Version != tls.VersionTLS13 {
		t.Errorf("%v, %x", out.server, out.serverState.Version)
	}
	p.sp.Authorize = Exactly(id(api))
	if out := run(t, old, must(t)(Server(p.sp)), "tcp"); out.server == nil {
		t.Error("TLS 1.2 passed an authorization that refuses")
	}
}

// A change of identity and trust reaches the next handshake and no open
// connection.
func TestRotation(t *testing.T) {
	p := newPair(t)
	client, server := must(t)(Client(p.cp)), must(t)(Server(p.sp))
	a, b := connect(t, "tcp")
	cc, sc := tls.Client(a, client), tls.Server(b, server)
	go func() { _ = sc.HandshakeContext(context.WithoutCancel(t.Context())) }()
	if err := cc.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := idtest.NewSigner(t, "mesh.test")
	p.client.Set(idtest.Snapshot([]*idtest.Signer{next}, next.SVID(t, web)))
	p.server.Set(idtest.Snapshot([]*idtest.Signer{next}, next.SVID(t, api)))
	if out := run(t, client, server, "tcp"); out.client != nil || out.server != nil {
		t.Fatal(out.client, out.server)
	}
	if err := echo(cc, sc); err != nil {
		t.Errorf("the open connection: %v", err)
	}
}

func echo(a, b net.Conn) error {
	if _, err := a.Write([]byte{7}); err != nil {
		return err
	}
	_, err := io.ReadFull(b, make([]byte, 1))
	return err
}

// One handshake reads one snapshot, however often the source changes meanwhile.
func TestOneSnapshot(t *testing.T) {
	p := newPair(t)
	counting := &countingSource{Source: p.server}
	p.sp.Source = counting
	if out := p.run(t, "tcp"); out.server != nil {
		t.Fatal(out.server)
	}
	if n := counting.n.Load(); n != 1 {
		t.Errorf("the server read %d snapshots", n)
	}
	counting = &countingSource{Source: p.client}
	p.cp.Source, p.sp.Source = counting, p.server
	if out := run(t, must(t)(ClientOnce(p.cp)), must(t)(Server(p.sp)), "tcp"); out.client != nil {
		t.Fatal(out.client)
	}
	if n := counting.n.Load(); n != 1 {
		t.Errorf("ClientOnce read %d snapshots", n)
	}
}

type countingSource struct {
	svid.Source
	n atomic.Int64
}

func (c *countingSource) Snapshot() *svid.Snapshot { c.n.Add(1); return c.Source.Snapshot() }

func TestParameters(t *testing.T) {
	p := newPair(t)
	for name, f := range map[string]func() error{
		"server without Authorize": func() error { _, err := Server(ServerParams{Source: p.server}); return err },
		"server without a source":  func() error { _, err := Server(ServerParams{Authorize: Any}); return err },
		"client without Authorize": func() error { _, err := Client(ClientParams{Source: p.client}); return err },
		"once without a source":    func() error { _, err := ClientOnce(ClientParams{Authorize: Any}); return err },
		"nobody expected":          func() error { return Exactly()(id(web)) },
		"no handshake":             func() error { _, err := Describe(tls.ConnectionState{}); return err },
		"no pin":                   func() error { _, err := PinnedClient(PinnedParams{}); return err },
	} {
		if f() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// The outer configuration alone serves nobody.
	lost := must(t)(Server(p.sp)).Clone()
	lost.GetConfigForClient = nil
	if out := run(t, must(t)(Client(p.cp)), lost, "tcp"); out.server == nil || out.client == nil {
		t.Error("a configuration that lost its hook made a connection")
	}
}
