package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"sync"
	"testing"
	"unsafe"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
)

// TestIssuer: who vouched for a peer is what the verification says, and only kept where it is asked.
func TestIssuer(t *testing.T) {
	issuer := &x509.Certificate{Raw: []byte{1}, SerialNumber: big.NewInt(0xab)}
	for name, tc := range map[string]struct {
		by   []*x509.Certificate // behind the peer's own
		keep bool
		want string
	}{
		"an issuer":       {[]*x509.Certificate{issuer}, true, "ab"},
		"an intermediate": {[]*x509.Certificate{issuer, {SerialNumber: big.NewInt(0xcd)}}, true, "ab"},
		"its own":         {nil, true, ""},
		"asked by nobody": {[]*x509.Certificate{issuer}, false, ""},
	} {
		a, b := tcpPair(t)
		cert := certificate(t, clientID)
		server, err := ServerTLS(a, nil, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
			VerifyConnection: func(cs tls.ConnectionState) error {
				handshake.Chain(cs, append(cs.PeerCertificates[:1:1], tc.by...))
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		if tc.keep {
			server.KeepPeerChain()
		}
		client, err := ClientTLS(b, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = client.Handshake(context.Background()) })
		if err := server.Handshake(context.Background()); err != nil {
			t.Fatal(name, err)
		}
		wg.Wait()
		if got := server.Info().Peer.Text(peercert.IssuerSerial); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestPinnedPeers: who is accepted for what its certificate is, is so whenever that ends.
func TestPinnedPeers(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		a, b := tcpPair(t)
		cert := certificate(t, clientID)
		server, err := ServerTLS(a, nil, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
			VerifyConnection: func(cs tls.ConnectionState) error {
				if pinned {
					handshake.Pinned(cs, cs.PeerCertificates[:1])
				} else {
					handshake.Chain(cs, cs.PeerCertificates[:1])
				}
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		client, err := ClientTLS(b, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = client.Handshake(context.Background()) })
		if err := server.Handshake(context.Background()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if i := server.Info(); i.PeerNotAfter.IsZero() != pinned || i.PeerSigner == "" || i.PeerCertHash == "" {
			t.Errorf("pinned %v: it ends %v", pinned, i.PeerNotAfter)
		}
	}
}

// TestSizes: what each connection has is at its size class; more would cost the next one.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(Info{}); n > 224 {
		t.Errorf("Info has %d bytes", n)
	}
	if n := unsafe.Sizeof(shaking{}); n > 128 {
		t.Errorf("shaking has %d bytes", n)
	}
}
