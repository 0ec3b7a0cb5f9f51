// Package stream is the seam between protocols and transports: an upstream is
// something one opens and gets a duplex stream from. TCP, TCP with TLS, an
// HTTP/2 stream and a QUIC stream are implementations; nothing above sees a
// net.Conn.
package stream

import (
	"crypto/x509"
	"io"
	"net"
	"time"
	"unique"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
)

// Stream is a duplex byte stream. Read and Write may run concurrently with each
// other; Close may be called from anywhere, more than once, and ends both.
type Stream interface {
	io.Reader
	io.Writer
	// CloseWrite tells the peer that no more bytes follow (TCP FIN after TLS
	// close_notify); reading goes on.
	CloseWrite() error
	Close() error
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Info() *Info
}

// Info says between whom a stream runs. It is set when the stream is opened or
// accepted and immutable afterwards.
type Info struct {
	// What each request asks for comes first, in as few of the processor's cache lines as can be.

	// Local and Remote are the transport addresses. Where a proxy in front has told of the client, that is
	// Remote, and Direct the address at the other end of the connection, else nil.
	Local, Remote, Direct net.Addr
	// TLS is set when the transport is encrypted; TLSVersion and CipherSuite
	// are crypto/tls's numbers, SNI what the client sent, ALPN what was chosen.
	TLS         bool
	TLSVersion  uint16
	CipherSuite uint16
	// Group is the key exchange, as crypto/tls numbers it.
	Group     uint16
	SNI, ALPN string
	// Noted is nil where nobody shows what it has.
	Noted *Noted
	// OwnID and PeerID are the SPIFFE IDs proven by the handshake; empty on
	// plaintext.
	OwnID, PeerID string
	// own is the certificate presented by a foreign TLS context; nil for the mesh's own.
	own *handshake.Own
	// PeerCertHash is the SHA-256 of the peer's certificate in hexadecimal, as
	// x-forwarded-client-cert names it.
	PeerCertHash string
	// PeerNotAfter is when the peer's certificate expires; zero on plaintext, and where a
	// peer is accepted whenever that is.
	PeerNotAfter time.Time
	// PeerSigner is the SignerKey of the anchor by which the peer was accepted; empty
	// where that is not known, and on plaintext. What the peer says of it counts for
	// nothing.
	PeerSigner string
	// PeerChain are the certificates that the peer sent, its own first, where the
	// stream was told to keep them.
	PeerChain []*x509.Certificate
	// Peer has the texts of PeerChain, and the names that a foreign TLS context knows the
	// peer by; nil without both.
	Peer *peercert.Chain
}

// Noted is what only logs show of a connection, and is measured for them alone.
type Noted struct {
	// ID numbers connections to hosts among all of the process.
	ID uint64
	// Secured is when the handshake had ended; zero without one.
	Secured time.Time
	// JA3 and JA4 are fingerprints of the client's first message.
	JA3, JA4 Fingerprint
}

// Fingerprint is a text that many clients share; the process holds one copy of it. The zero value
// is none.
type Fingerprint struct{ text unique.Handle[string] }

// FingerprintOf keeps a text.
func FingerprintOf(text string) Fingerprint { return Fingerprint{unique.Make(text)} }

// String is the text, empty for none.
func (f Fingerprint) String() string {
	if f == (Fingerprint{}) {
		return ""
	}
	return f.text.Value()
}

// Own is the certificate presented by a foreign TLS context; nil for the mesh's own.
func (i *Info) Own() *handshake.Own { return i.own }

// OwnURIs are all URIs of the certificate presented by a foreign TLS context; nil for the
// mesh's own, which have OwnID alone.
func (i *Info) OwnURIs() []string {
	if i.own == nil {
		return nil
	}
	return i.own.URIs
}
