package handshake

import (
	"crypto/x509"
	"net"
	"strings"

	"github.com/hauberk-mesh/hauberk/internal/altname"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
)

// Own is who a certificate of ours says we are. It is immutable; all connections that
// present the certificate share it.
type Own struct {
	// ID is the SPIFFE ID, empty in a certificate that is no X.509-SVID: one has a single
	// URI (X509-SVID 2).
	ID string
	// URIs are all URIs of the certificate, as they stand there.
	URIs []string
	// Certificate has the certificate's texts; nil where nothing of it is known but the ID.
	Certificate *peercert.Chain
}

// OwnOf reads a certificate.
func OwnOf(leaf *x509.Certificate) *Own {
	const scheme = "spiffe:"
	own := &Own{URIs: altname.URIs(leaf), Certificate: peercert.Of([]*x509.Certificate{leaf})}
	if len(own.URIs) == 1 && len(own.URIs[0]) >= len(scheme) && strings.EqualFold(own.URIs[0][:len(scheme)], scheme) {
		own.ID = own.URIs[0]
	}
	return own
}

// Listener is a connection that is told which of a server's certificates is presented on it.
type Listener interface{ Presented(*Own) }

// Presented is called by a GetCertificate hook, with the connection of its ClientHelloInfo.
func Presented(on net.Conn, own *Own) {
	if l, ok := on.(Listener); ok {
		l.Presented(own)
	}
}
