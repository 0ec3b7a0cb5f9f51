// Package handshake tells whoever makes a TLS connection what crypto/tls does not: by which
// certificates the peer was accepted, and as whom it was itself shown to the peer.
package handshake

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
)

// Chain is called by a VerifyConnection hook for a peer that it accepts, with the
// certificates that led there: the peer's own first, the anchor last. Where that hook takes
// the place of the library's verification, the connection's state has only what the peer
// sent, which may be anything besides.
func Chain(cs tls.ConnectionState, chain []*x509.Certificate) {
	if room := cs.VerifiedChains; len(room) == 0 && cap(room) > 0 {
		room[:1][0] = chain
	}
}

// Pinned is Chain for a peer that is accepted for what its certificate is, whenever that ends.
func Pinned(cs tls.ConnectionState, leaf []*x509.Certificate) {
	Chain(cs, leaf)
	if room := cs.VerifiedChains; len(room) == 0 && cap(room) > 1 {
		room[:2][1] = leaf
	}
}

// Listen returns a copy of a configuration, for one connection, that gives tell the chain
// by which the peer was accepted, and secrets the lines of a key log, which stay within this
// connection. tell is called within the handshake, and not for a peer that was accepted
// without a chain.
func Listen(cfg *tls.Config, secrets io.Writer, tell func(chain []*x509.Certificate, pinned bool)) *tls.Config {
	cfg = overheard(cfg, secrets, tell)
	if each := cfg.GetConfigForClient; each != nil {
		cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			inner, err := each(h)
			if err != nil || inner == nil {
				return inner, err
			}
			return overheard(inner, secrets, tell), nil
		}
	}
	return cfg
}

func overheard(cfg *tls.Config, secrets io.Writer, tell func(chain []*x509.Certificate, pinned bool)) *tls.Config {
	cfg = cfg.Clone()
	cfg.VerifyConnection = hook(cfg.VerifyConnection, tell)
	// With a ticket a server writes a record more, which who goes on from the secrets could
	// not know of. No session is ever resumed besides.
	cfg.KeyLogWriter, cfg.SessionTicketsDisabled = secrets, true
	return cfg
}

// maxCertificates is how many bytes of certificates a peer may send, as with BoringSSL. The
// library takes 256 KB, and a connection may keep them while it lives.
const maxCertificates = 100 << 10

func bounded(sent []*x509.Certificate) error {
	n := 0
	for _, c := range sent {
		n += len(c.Raw)
	}
	if n > maxCertificates {
		return fmt.Errorf("tls: the peer sent %d bytes of certificates, more than %d", n, maxCertificates)
	}
	return nil
}

// hook gives a verification room for one chain, and for another word of it. Its length stays zero: nobody is to
// take it for a chain that the library has verified.
func hook(verify func(tls.ConnectionState) error, tell func([]*x509.Certificate, bool)) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if err := bounded(cs.PeerCertificates); err != nil {
			return err
		}
		var room [][]*x509.Certificate
		if len(cs.VerifiedChains) == 0 {
			room = make([][]*x509.Certificate, 2)
			cs.VerifiedChains = room[:0]
		}
		if verify != nil {
			if err := verify(cs); err != nil {
				return err
			}
		}
		if chain := cs.VerifiedChains[:1][0]; len(chain) > 0 {
			tell(chain, room != nil && room[1] != nil)
		}
		return nil
	}
}
