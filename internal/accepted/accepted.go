// Package accepted tells whoever makes a TLS connection by which certificates its peer
// was accepted. Where VerifyConnection takes the place of the library's verification,
// the connection's state has only what the peer sent, which may be anything besides.
package accepted

import (
	"crypto/tls"
	"crypto/x509"
)

// Chain is called by a VerifyConnection hook for a peer that it accepts, with the
// certificates that led there: the peer's own first, the anchor last.
func Chain(cs tls.ConnectionState, chain []*x509.Certificate) {
	if room := cs.VerifiedChains; len(room) == 0 && cap(room) > 0 {
		room[:1][0] = chain
	}
}

// Listen returns a copy of a configuration, for one connection, that gives tell the chain
// by which the peer was accepted. It is called within the handshake, and not for a peer
// that was accepted without a chain.
func Listen(cfg *tls.Config, tell func(chain []*x509.Certificate)) *tls.Config {
	cfg = cfg.Clone()
	cfg.VerifyConnection = hook(cfg.VerifyConnection, tell)
	if each := cfg.GetConfigForClient; each != nil {
		cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			inner, err := each(h)
			if err != nil || inner == nil {
				return inner, err
			}
			inner = inner.Clone()
			inner.VerifyConnection = hook(inner.VerifyConnection, tell)
			return inner, nil
		}
	}
	return cfg
}

// hook gives a verification room for one chain. Its length stays zero: nobody is to take
// it for a chain that the library has verified.
func hook(verify func(tls.ConnectionState) error, tell func([]*x509.Certificate)) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(cs.VerifiedChains) == 0 {
			cs.VerifiedChains = make([][]*x509.Certificate, 0, 1)
		}
		if verify != nil {
			if err := verify(cs); err != nil {
				return err
			}
		}
		if chain := cs.VerifiedChains[:1][0]; len(chain) > 0 {
			tell(chain)
		}
		return nil
	}
}
