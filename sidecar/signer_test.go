package sidecar

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// signerOf makes certificates for tests of whose a connection is.
type signerOf struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T, name string, notAfter time.Time) *signerOf {
	s := &signerOf{t: t}
	s.cert, s.key = s.sign(&x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "td"}}, Subject: pkix.Name{CommonName: name}, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return s
}

func (s *signerOf) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore = big.NewInt(7), time.Now().Add(-time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := s.cert, s.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return out, key
}

func (s *signerOf) leaf() (*x509.Certificate, *ecdsa.PrivateKey) {
	return s.sign(&x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/ns/default/dc/dc1/svc/web"}},
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}})
}

// TestSignerIsNotThePeersToName: whose a connection is, and so what withdraws it, tells
// the chain that was accepted, and no certificate that the peer sends with it.
func TestSignerIsNotThePeersToName(t *testing.T) {
	signer, other := newSigner(t, "signer", time.Time{}), newSigner(t, "anybody's", time.Time{})
	own, key := signer.leaf()
	junk, _ := other.leaf()
	id, err := svid.New([]*x509.Certificate{own}, key)
	if err != nil {
		t.Fatal(err)
	}
	source := svid.NewHolder(&svid.Snapshot{SVIDs: map[string]*svid.SVID{id.ID.String(): id}, Default: id.ID.String(),
		Bundles: map[string]*svid.Anchors{"td": svid.NewAnchors(1, []*x509.Certificate{signer.cert})}})
	mesh, err := tlsconf.Server(tlsconf.ServerParams{Source: source, Authorize: tlsconf.Any})
	if err != nil {
		t.Fatal(err)
	}
	meshClient, err := tlsconf.ClientOnce(tlsconf.ClientParams{Source: source, Authorize: tlsconf.Any})
	if err != nil {
		t.Fatal(err)
	}
	// A foreign context takes the same certificates from files.
	a := &authority{t: t, dir: t.TempDir()}
	a.write("ca.crt", "CERTIFICATE", signer.cert.Raw)
	a.write("own.crt", "CERTIFICATE", own.Raw)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write("own.key", "PRIVATE KEY", pkcs8)
	common := tlscontext.Common{
		Certificates: []tlscontext.Certificate{{Chain: tlscontext.Source{File: a.dir + "/own.crt"}, Key: tlscontext.Source{File: a.dir + "/own.key"}}},
		Validation:   &tlscontext.Validation{CA: tlscontext.Source{File: a.dir + "/ca.crt"}, MaxDepth: 100},
		MinVersion:   tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
	}
	in, out := &tlscontext.Server{Common: common, RequireClientCertificate: true}, &tlscontext.Client{Common: common}
	foreign, err := tlscontext.NewServer(in, tlscontext.Options{})
	if err != nil {
		t.Fatal(err)
	}
	foreignClient, err := tlscontext.NewClient(out, tlscontext.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sent := []tls.Certificate{{Certificate: [][]byte{own.Raw, junk.Raw}, PrivateKey: key}}
	for name, c := range map[string]struct {
		server bool
		cfg    *tls.Config
	}{
		"mesh, inbound":     {true, mesh},
		"mesh, outbound":    {false, meshClient},
		"foreign, inbound":  {true, foreign.ServerConfig(in)},
		"foreign, outbound": {false, foreignClient.ClientConfig()},
	} {
		near, far := sockets(t)
		var st *stream.TLS
		peer := tls.Client(far, &tls.Config{InsecureSkipVerify: true, Certificates: sent})
		if c.server {
			st, err = stream.ServerTLS(near, nil, c.cfg)
		} else {
			st, err = stream.ClientTLS(near, c.cfg)
			peer = tls.Server(far, &tls.Config{Certificates: sent, ClientAuth: tls.RequireAnyClientCert})
		}
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = peer.Handshake() }()
		if err := st.Handshake(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		<-done
		gone := signersGone(svid.NewAnchors(1, []*x509.Certificate{signer.cert, other.cert}), svid.NewAnchors(2, []*x509.Certificate{other.cert}), time.Now())
		if st.Info().PeerSigner != stream.SignerKey(signer.cert) || !signedBy(st.Info(), "td", gone) {
			t.Errorf("%s: the connection of %s does not count as its signer's: it stays when that is withdrawn", name, st.Info().PeerID)
		}
	}
}

func sockets(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return b.(*net.TCPConn), a.(*net.TCPConn)
}

// TestWhatWithdrawsASigner: that it is gone while its certificate was good. Neither its
// own expiry nor a new certificate for its key withdraws it, and the expiry of the peer's
// certificate excuses no connection.
func TestWhatWithdrawsASigner(t *testing.T) {
	now := time.Now()
	a, b, old := newSigner(t, "a", time.Time{}), newSigner(t, "b", time.Time{}), newSigner(t, "old", now.Add(-time.Minute))
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(8), Subject: pkix.Name{CommonName: "a again"}, NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	anchors := func(certs ...*x509.Certificate) *svid.Anchors { return svid.NewAnchors(1, certs) }
	of := func(s *signerOf, notAfter time.Time) *stream.Info {
		return &stream.Info{PeerID: id("web"), PeerSigner: stream.SignerKey(s.cert), PeerNotAfter: notAfter}
	}
	later, earlier := now.Add(time.Hour), now.Add(-time.Minute)
	for _, tc := range []struct {
		name          string
		before, after *svid.Anchors
		info          *stream.Info
		closed        bool
	}{
		{"withdrawn", anchors(a.cert, b.cert), anchors(b.cert), of(a, later), true},
		{"withdrawn, the peer's certificate has expired", anchors(a.cert, b.cert), anchors(b.cert), of(a, earlier), true},
		{"another's", anchors(a.cert, b.cert), anchors(b.cert), of(b, later), false},
		{"its own certificate has expired", anchors(old.cert, b.cert), anchors(b.cert), of(old, earlier), false},
		{"a new certificate for its key", anchors(a.cert, b.cert), anchors(renewed, b.cert), of(a, later), false},
		{"nobody knows whose", anchors(a.cert, b.cert), anchors(b.cert), &stream.Info{PeerID: id("web"), PeerNotAfter: later}, true},
		{"another trust domain", anchors(a.cert, b.cert), anchors(b.cert), &stream.Info{PeerID: "spiffe://td2/x", PeerSigner: stream.SignerKey(a.cert)}, false},
	} {
		gone := signersGone(tc.before, tc.after, now)
		if got := len(gone) > 0 && signedBy(tc.info, "td", gone); got != tc.closed {
			t.Errorf("%s: closed %v", tc.name, got)
		}
	}
}
