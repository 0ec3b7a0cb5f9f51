package telemetry

import (
	"net"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

func downstreamCerts(r *Record) *peercert.Chain { return r.Peer }
func downstreamOwn(r *Record) *handshake.Own    { return r.Own }
func downstreamRemote(r *Record) net.Addr       { return r.DownstreamRemote }
func downstreamDirect(r *Record) net.Addr       { return r.DownstreamDirect }
func downstreamLocal(r *Record) net.Addr        { return r.DownstreamLocal }

var downstreamOperators = []operatorDef{
	text("FILTER_CHAIN_NAME", "Name of the filter chain.", func(r *Record) string { return r.Chain }),
	takes("REQUESTED_SERVER_NAME", "SNI_ONLY, SNI_FIRST or HOST_FIRST:ORIG, HOST or ORIG_OR_HOST", "SNI of the downstream connection; with the other words the request's host, before or after it was rewritten, where there is no SNI, or first, and the SNI where there is none.", serverName),
	address("DOWNSTREAM_REMOTE_ADDRESS", "The client's address; a trusted hop may have named it.", downstreamRemote),
	host("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "The same without the port.", downstreamRemote),
	port("DOWNSTREAM_REMOTE_PORT", "The client's port.", downstreamRemote),
	address("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "Address at the other end of the connection.", downstreamDirect),
	host("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "The same without the port.", downstreamDirect),
	port("DOWNSTREAM_DIRECT_REMOTE_PORT", "Its port.", downstreamDirect),
	appends("DOWNSTREAM_LOCAL_ADDRESS", "Where the client connected to: the original destination where a firewall redirected it.", func(dst []byte, r *Record) []byte { return appendDestination(dst, r, true) }),
	takes("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "BITS", "The same without the port.", destinationHost),
	appends("DOWNSTREAM_LOCAL_PORT", "Its port.", destinationPort),
	address("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", "Own address of the downstream connection.", downstreamLocal),
	host("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", "The same without the port.", downstreamLocal),
	port("DOWNSTREAM_DIRECT_LOCAL_PORT", "Its port.", downstreamLocal),
	appends("DOWNSTREAM_PEER_URI_SAN", "SPIFFE ID that the client proved.", func(dst []byte, r *Record) []byte { return appendURIs(dst, r.PeerID, r.Peer.URIs()) }),
	appends("DOWNSTREAM_LOCAL_URI_SAN", "SPIFFE ID shown to the client.", func(dst []byte, r *Record) []byte { return appendOwnURIs(dst, r) }),
	presented("DOWNSTREAM_LOCAL_DNS_SAN", "DNS names of the certificate shown to the client.", peercert.DNSNames, downstreamOwn),
	presented("DOWNSTREAM_LOCAL_IP_SAN", "Its IP addresses.", peercert.IPs, downstreamOwn),
	presented("DOWNSTREAM_LOCAL_EMAIL_SAN", "Its addresses for mail.", peercert.Emails, downstreamOwn),
	presented("DOWNSTREAM_LOCAL_OTHERNAME_SAN", "The values of its names of other kinds.", peercert.OtherNames, downstreamOwn),
	presented("DOWNSTREAM_LOCAL_SUBJECT", "Its subject (RFC 2253).", peercert.Subject, downstreamOwn),
	certificate("DOWNSTREAM_PEER_DNS_SAN", "DNS names of the client's certificate.", peercert.DNSNames, downstreamCerts),
	certificate("DOWNSTREAM_PEER_IP_SAN", "IP addresses of the client's certificate.", peercert.IPs, downstreamCerts),
	certificate("DOWNSTREAM_PEER_EMAIL_SAN", "Addresses for mail of the client's certificate.", peercert.Emails, downstreamCerts),
	certificate("DOWNSTREAM_PEER_OTHERNAME_SAN", "Values of the names of other kinds of the client's certificate.", peercert.OtherNames, downstreamCerts),
	certificate("DOWNSTREAM_PEER_SUBJECT", "Subject of the client's certificate (RFC 2253).", peercert.Subject, downstreamCerts),
	certificate("DOWNSTREAM_PEER_ISSUER", "Issuer of the client's certificate (RFC 2253).", peercert.Issuer, downstreamCerts),
	certificate("DOWNSTREAM_PEER_SERIAL", "Serial number of the client's certificate, hexadecimal.", peercert.Serial, downstreamCerts),
	certificate("DOWNSTREAM_PEER_CERT", "The client's certificate, PEM encoded for a URL.", peercert.PEM, downstreamCerts),
	text("DOWNSTREAM_PEER_FINGERPRINT_256", "SHA-256 of the client's certificate, hexadecimal.", func(r *Record) string { return r.PeerCertHash }),
	certificate("DOWNSTREAM_PEER_FINGERPRINT_1", "SHA-1 of the client's certificate, hexadecimal.", peercert.SHA1, downstreamCerts),
	certificate("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", "SHA-256 of every certificate that the client sent.", peercert.ChainSHA256, downstreamCerts),
	certificate("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", "SHA-1 of every certificate that the client sent.", peercert.ChainSHA1, downstreamCerts),
	certificate("DOWNSTREAM_PEER_CHAIN_SERIALS", "Serial numbers of every certificate that the client sent.", peercert.ChainSerials, downstreamCerts),
	certificate("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", "SHA-256 of the certificate that the client's was verified with, hexadecimal.", peercert.IssuerSHA256, downstreamCerts),
	certificate("DOWNSTREAM_PEER_ISSUER_SERIAL", "Its serial number, hexadecimal.", peercert.IssuerSerial, downstreamCerts),
	validity("DOWNSTREAM_PEER_CERT_V_START", "When the client's certificate became valid.", false, downstreamCerts),
	validity("DOWNSTREAM_PEER_CERT_V_END", "When the client's certificate expires.", true, downstreamCerts),
	text("DOWNSTREAM_TLS_VERSION", "TLS version of the downstream connection.", func(r *Record) string { return tlsVersion(r.TLSVersion) }),
	text("DOWNSTREAM_TLS_CIPHER", "Cipher suite of the downstream connection, OpenSSL's name.", func(r *Record) string { return cipherName(r.CipherSuite) }),
	text("DOWNSTREAM_TLS_GROUP", "Key exchange of the downstream connection.", func(r *Record) string { return groupName(r.TLSGroup) }),
	fingerprint("TLS_JA3_FINGERPRINT", "JA3 fingerprint of the client's first message, where its listener's TLS inspector makes one.", func(n *stream.Noted) stream.Fingerprint { return n.JA3 }),
	fingerprint("TLS_JA4_FINGERPRINT", "The same of JA4.", func(n *stream.Noted) stream.Fingerprint { return n.JA4 }),
	handshakeDuration,
	transportFailure("DOWNSTREAM_TRANSPORT_FAILURE_REASON", "Why the downstream handshake failed, spaces written as underscores.", func(r *Record) string { return r.TransportFailure }),
}

// fingerprint is an operator over one of what a client's first message is known by.
func fingerprint(name, help string, get func(*stream.Noted) stream.Fingerprint) operatorDef {
	d := text(name, help+keptHelp, func(r *Record) string {
		if r.Noted == nil {
			return ""
		}
		return get(r.Noted).String()
	})
	d.wants = WantFingerprints
	return d
}

// handshakeDuration is less than 0 for a request on a connection that was there already, as in Envoy.
var handshakeDuration = func() operatorDef {
	d := appends("DOWNSTREAM_HANDSHAKE_DURATION", "Time from the beginning of a connection, or request, to the end of the connection's handshake, in milliseconds; of a request that began later a negative number."+keptHelp, func(dst []byte, r *Record) []byte {
		if r.Noted == nil || r.Noted.Secured.IsZero() {
			return dst
		}
		return appendNumber(dst, r.Noted.Secured.Sub(r.Start).Milliseconds())
	})
	d.wants = WantHandshakes
	return plain(d)
}()

func appendOwnURIs(dst []byte, r *Record) []byte {
	if r.Own == nil {
		return append(dst, r.OwnID...)
	}
	return appendURIs(dst, r.OwnID, r.Own.URIs)
}

// appendURIs is the one identity of an end, or all URIs of one whose context takes others.
func appendURIs(dst []byte, id string, uris []string) []byte {
	if len(uris) == 0 {
		return append(dst, id...)
	}
	for i, u := range uris {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, u...)
	}
	return dst
}

func serverName(argument string) (valueFunc, error) {
	words, err := logformat.Operators["REQUESTED_SERVER_NAME"].Choose(argument)
	if err != nil {
		return nil, err
	}
	return func(dst []byte, r *Record) ([]byte, bool) {
		if words[0] == "SNI_ONLY" || words[0] == "SNI_FIRST" && r.SNI != "" {
			return append(dst, r.SNI...), r.SNI != ""
		}
		v, ok := original(r, words[1], originalHost, ":authority")
		if words[0] == "HOST_FIRST" && v == "" {
			return append(dst, r.SNI...), r.SNI != "" // nor has TCP a host
		}
		return append(dst, v...), ok
	}, nil
}

func appendDestination(dst []byte, r *Record, withPort bool) []byte {
	switch ap := r.Destination; {
	case !ap.IsValid():
		return appendAddr(dst, r.DownstreamLocal, withPort)
	case withPort:
		return ap.AppendTo(dst)
	default:
		return ap.Addr().AppendTo(dst)
	}
}

func destinationHost(argument string) (valueFunc, error) {
	bits, err := logformat.PrefixBits(argument)
	if err != nil || bits < 0 {
		return ifAny(func(dst []byte, r *Record) []byte { return appendDestination(dst, r, false) }), err
	}
	return ifAny(func(dst []byte, r *Record) []byte {
		ap := r.Destination
		if !ap.IsValid() {
			return appendNetwork(dst, r.DownstreamLocal, bits)
		}
		p, err := ap.Addr().WithZone("").Prefix(bits)
		if err != nil {
			return dst
		}
		return p.AppendTo(dst)
	}), nil
}

func destinationPort(dst []byte, r *Record) []byte {
	ap := r.Destination
	if !ap.IsValid() {
		ap = addrPort(r.DownstreamLocal)
	}
	if !ap.IsValid() {
		return dst
	}
	return appendPort(dst, ap.Port())
}
