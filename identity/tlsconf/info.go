package tlsconf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/verify"
)

// Info describes a connection whose peer this package's configurations have
// verified.
type Info struct {
	// Peer is zero for a client without a certificate.
	Peer spiffeid.ID
	// NotBefore and NotAfter bound the peer's certificate.
	NotBefore, NotAfter time.Time
	// Serial is the peer certificate's, in hexadecimal.
	Serial string
	// TLS12 is set when the connection is not TLS 1.3.
	TLS12 bool
	// Version, Cipher and Curve are as crypto/tls names them.
	Version, Cipher, Curve string
	ALPN, ServerName       string
}

// Describe reads a finished handshake. It reads the leaf and does not verify:
// the handshake has done that, and a connection that outlives its certificate
// still has the identity it was opened with.
func Describe(cs tls.ConnectionState) (Info, error) {
	if !cs.HandshakeComplete {
		return Info{}, errors.New("tls: the handshake is not complete")
	}
	info := Info{
		TLS12:      cs.Version < tls.VersionTLS13,
		Version:    tls.VersionName(cs.Version),
		Cipher:     tls.CipherSuiteName(cs.CipherSuite),
		Curve:      cs.CurveID.String(),
		ALPN:       cs.NegotiatedProtocol,
		ServerName: cs.ServerName,
	}
	if len(cs.PeerCertificates) == 0 {
		return info, nil
	}
	leaf := cs.PeerCertificates[0]
	id, err := verify.Leaf(leaf)
	if err != nil {
		return Info{}, fmt.Errorf("tls: %w", err)
	}
	info.Peer, info.NotBefore, info.NotAfter = id, leaf.NotBefore, leaf.NotAfter
	info.Serial = leaf.SerialNumber.Text(16)
	return info, nil
}
