package handshake

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"testing"
)

// TestListen: the chain that the hook accepts is told, on both ways to a configuration, and
// none of a peer that is refused or that nobody vouched for.
func TestListen(t *testing.T) {
	chain := []*x509.Certificate{{}, {}}
	refused := errors.New("refused")
	for _, tc := range []struct {
		name string
		hook func(tls.ConnectionState) error
		lib  [][]*x509.Certificate // what the library has verified
		told int
		err  error
	}{
		{"accepted", func(cs tls.ConnectionState) error { Chain(cs, chain); return nil }, nil, 2, nil},
		{"accepted, then refused", func(cs tls.ConnectionState) error { Chain(cs, chain); return refused }, nil, 0, refused},
		{"nobody vouched", func(cs tls.ConnectionState) error {
			if len(cs.VerifiedChains) > 0 {
				t.Error("the hook is shown a chain that nobody has verified")
			}
			return nil
		}, nil, 0, nil},
		{"the library's verdict", nil, [][]*x509.Certificate{chain[:1]}, 1, nil},
		{"no verdict at all", nil, nil, 0, nil},
	} {
		for _, server := range []bool{false, true} {
			original := &tls.Config{VerifyConnection: tc.hook, ClientAuth: tls.RequireAnyClientCert}
			cfg := original
			if server {
				cfg = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return original, nil }}
			}
			var told []*x509.Certificate
			got := Listen(cfg, io.Discard, func(chain []*x509.Certificate, _ bool) { told = chain })
			if server {
				var err error
				if got, err = got.GetConfigForClient(&tls.ClientHelloInfo{}); err != nil {
					t.Fatal(err)
				}
			}
			if got == original {
				t.Fatal("one connection's configuration is everybody's")
			}
			if got.KeyLogWriter == nil || original.KeyLogWriter != nil || !got.SessionTicketsDisabled {
				t.Error("secrets are not told, or to others, or tickets are given")
			}
			if err := got.VerifyConnection(tls.ConnectionState{VerifiedChains: tc.lib}); err != tc.err || len(told) != tc.told {
				t.Errorf("%s, server %v: %v, told of %d certificates", tc.name, server, err, len(told))
			}
		}
	}
	many := []*x509.Certificate{{Raw: make([]byte, maxCertificates)}}
	heard := Listen(&tls.Config{}, io.Discard, func([]*x509.Certificate, bool) {})
	if err := heard.VerifyConnection(tls.ConnectionState{PeerCertificates: many}); err != nil {
		t.Error(err)
	}
	if err := heard.VerifyConnection(tls.ConnectionState{PeerCertificates: append(many, &x509.Certificate{Raw: []byte{0}})}); err == nil {
		t.Error("a peer may send any number of certificates")
	}
	// A hook that nobody listens to may speak.
	Chain(tls.ConnectionState{}, chain)
}
