package telemetry

import (
	"crypto/tls"
	"net"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/internal/peercert"
)

const keptHelp = " Known of connections made after a format asked for it."

// presented is an operator over the own certificate, which a foreign TLS context has.
func presented(name, help string, t peercert.Text, get func(*Record) *handshake.Own) operatorDef {
	return text(name, help+" Of foreign TLS contexts; the mesh's own certificates have none.", func(r *Record) string {
		own := get(r)
		if own == nil {
			return ""
		}
		return own.Certificate.Text(t)
	})
}

// certificate is an operator over the certificates of a peer.
func certificate(name, help string, t peercert.Text, get func(*Record) *peercert.Chain) operatorDef {
	d := text(name, help+keptHelp, func(r *Record) string { return get(r).Text(t) })
	d.wants = WantCertificates
	return d
}

func validity(name, help string, end bool, get func(*Record) *peercert.Chain) operatorDef {
	d := takes(name, timeArgument, help+keptHelp, timeOf(false, func(r *Record) (time.Time, bool) {
		from, until, ok := get(r).Validity()
		if end {
			return until, ok
		}
		return from, ok
	}))
	d.wants = WantCertificates
	return d
}

func upstreamCerts(r *Record) *peercert.Chain { return r.UpstreamPeer }
func upstreamOwn(r *Record) *handshake.Own    { return r.UpstreamOwn }
func upstreamHost(r *Record) net.Addr         { return r.UpstreamHost }
func upstreamLocal(r *Record) net.Addr        { return r.UpstreamLocal }

// upstreamRemote is that of a connection: a host that could not be connected to has none.
func upstreamRemote(r *Record) net.Addr {
	if r.UpstreamLocal == nil {
		return nil
	}
	return r.UpstreamHost
}

var upstreamOperators = []operatorDef{
	address("UPSTREAM_HOST", "Address of the upstream that answered or was tried last.", upstreamHost),
	address("UPSTREAM_REMOTE_ADDRESS", "The same where there is a connection.", upstreamRemote),
	host("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "The same without the port.", upstreamRemote),
	port("UPSTREAM_REMOTE_PORT", "Its port.", upstreamRemote),
	appends("UPSTREAM_HOST_NAME", "Host name of the upstream's endpoint, its address where it has none.", func(dst []byte, r *Record) []byte {
		return appendHost(dst, r.UpstreamHost, r.UpstreamHostname, true, true)
	}),
	appends("UPSTREAM_HOST_NAME_WITHOUT_PORT", "The same without the port.", func(dst []byte, r *Record) []byte {
		return appendHost(dst, r.UpstreamHost, r.UpstreamHostname, true, false)
	}),
	attempted("UPSTREAM_HOSTS_ATTEMPTED", "Addresses of the upstreams that were tried, in order; the last eight.", false, true),
	attempted("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", "The same without ports.", false, false),
	attempted("UPSTREAM_HOST_NAMES_ATTEMPTED", "Host names of the upstreams that were tried, addresses where they have none.", true, true),
	attempted("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", "The same without ports.", true, false),
	address("UPSTREAM_LOCAL_ADDRESS", "Own address of the upstream connection.", upstreamLocal),
	host("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "The same without the port.", upstreamLocal),
	port("UPSTREAM_LOCAL_PORT", "Its port.", upstreamLocal),
	text("UPSTREAM_CLUSTER", "Cluster that the route or filter chose.", (*Record).ObservedCluster),
	text("UPSTREAM_CLUSTER_RAW", "The same, by its own name where alt_stat_name gives it another.", func(r *Record) string { return r.Cluster }),
	text("UPSTREAM_PROTOCOL", "HTTP/1.1 or HTTP/2, as spoken to the upstream.", func(r *Record) string { return r.UpstreamProtocol }),
	transportFailure("UPSTREAM_TRANSPORT_FAILURE_REASON", "Why the upstream connection or its handshake failed, spaces written as underscores.", func(r *Record) string { return r.UpstreamTransportFailure }),
	upstreamID,
	number("UPSTREAM_REQUEST_ATTEMPT_COUNT", "Upstream attempts.", func(r *Record) int64 { return int64(r.Sent()) }),
	text("UPSTREAM_PEER_URI_SAN", "SPIFFE ID that the upstream proved.", func(r *Record) string { return r.UpstreamPeerID }),
	text("UPSTREAM_LOCAL_URI_SAN", "SPIFFE ID shown to the upstream.", func(r *Record) string { return r.UpstreamOwnID }),
	presented("UPSTREAM_LOCAL_DNS_SAN", "DNS names of the certificate shown to the upstream.", peercert.DNSNames, upstreamOwn),
	presented("UPSTREAM_LOCAL_IP_SAN", "Its IP addresses.", peercert.IPs, upstreamOwn),
	certificate("UPSTREAM_PEER_DNS_SAN", "DNS names of the upstream's certificate.", peercert.DNSNames, upstreamCerts),
	certificate("UPSTREAM_PEER_IP_SAN", "IP addresses of the upstream's certificate.", peercert.IPs, upstreamCerts),
	certificate("UPSTREAM_PEER_SUBJECT", "Subject of the upstream's certificate (RFC 2253).", peercert.Subject, upstreamCerts),
	certificate("UPSTREAM_PEER_ISSUER", "Issuer of the upstream's certificate (RFC 2253).", peercert.Issuer, upstreamCerts),
	certificate("UPSTREAM_PEER_CERT", "The upstream's certificate, PEM encoded for a URL.", peercert.PEM, upstreamCerts),
	validity("UPSTREAM_PEER_CERT_V_START", "When the upstream's certificate became valid.", false, upstreamCerts),
	validity("UPSTREAM_PEER_CERT_V_END", "When the upstream's certificate expires.", true, upstreamCerts),
	text("UPSTREAM_TLS_VERSION", "TLS version of the upstream connection.", func(r *Record) string { return tlsVersion(r.UpstreamTLSVersion) }),
	text("UPSTREAM_TLS_CIPHER", "Cipher suite of the upstream connection, OpenSSL's name.", func(r *Record) string { return cipherName(r.UpstreamCipher) }),
	text("UPSTREAM_TLS_GROUP", "Key exchange of the upstream connection.", func(r *Record) string { return groupName(r.UpstreamGroup) }),
	text("UPSTREAM_SERVER_NAME", "SNI sent to the upstream.", func(r *Record) string { return r.UpstreamSNI }),
}

// upstreamID is a number among the connections to hosts; those of clients are counted apart.
var upstreamID = func() operatorDef {
	d := appends("UPSTREAM_CONNECTION_ID", "Number of the upstream connection in this process, among those to upstreams; 0 without one."+keptHelp, func(dst []byte, r *Record) []byte {
		switch {
		case r.UpstreamNoted != nil:
			return appendNumber(dst, int64(r.UpstreamNoted.ID))
		case r.UpstreamLocal != nil:
			return dst // it has no number, which is not to say that there is no connection
		}
		return appendNumber(dst, 0)
	})
	d.wants = WantConnectionIDs
	return plain(d)
}()

// transportFailure has no spaces, as Envoy's.
func transportFailure(name, help string, get func(*Record) string) operatorDef {
	return appends(name, help, func(dst []byte, r *Record) []byte {
		start := len(dst)
		dst = append(dst, get(r)...)
		for i, c := range dst[start:] {
			if c == ' ' {
				dst[start+i] = '_'
			}
		}
		return dst
	})
}

// Attempts are the hosts that an exchange tried.
type Attempts interface {
	// Attempted returns the i-th host, from 0; ok is false beyond the last.
	Attempted(i int) (addr net.Addr, hostname string, ok bool)
}

func attempted(name, help string, names, withPort bool) operatorDef {
	return appends(name, help, func(dst []byte, r *Record) []byte {
		if r.Attempted == nil {
			return dst
		}
		for i := 0; ; i++ {
			addr, hostname, ok := r.Attempted.Attempted(i)
			if !ok {
				return dst
			}
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendHost(dst, addr, hostname, names, withPort)
		}
	})
}

func appendHost(dst []byte, addr net.Addr, hostname string, names, withPort bool) []byte {
	if !names || hostname == "" {
		return appendAddr(dst, addr, withPort)
	}
	if i := strings.LastIndexByte(hostname, ':'); !withPort && i > 0 && (hostname[i-1] == ']' || strings.IndexByte(hostname, ':') == i) {
		hostname = hostname[:i]
	}
	return append(dst, hostname...)
}

func tlsVersion(v uint16) string {
	switch v {
	case 0:
		return ""
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return "unknown"
}

// cipherName is OpenSSL's name, which for TLS 1.3 is the standard's.
func cipherName(id uint16) string {
	switch id {
	case 0:
		return ""
	case tls.TLS_AES_128_GCM_SHA256:
		return "TLS_AES_128_GCM_SHA256"
	case tls.TLS_AES_256_GCM_SHA384:
		return "TLS_AES_256_GCM_SHA384"
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return "TLS_CHACHA20_POLY1305_SHA256"
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
		return "ECDHE-RSA-AES128-GCM-SHA256"
	case tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return "ECDHE-RSA-AES256-GCM-SHA384"
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:
		return "ECDHE-ECDSA-AES128-GCM-SHA256"
	case tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:
		return "ECDHE-ECDSA-AES256-GCM-SHA384"
	case tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return "ECDHE-RSA-CHACHA20-POLY1305"
	case tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return "ECDHE-ECDSA-CHACHA20-POLY1305"
	}
	return tls.CipherSuiteName(id)
}

// groupName is the name that Envoy's library has for a group.
func groupName(id uint16) string {
	switch g := tls.CurveID(id); g {
	case 0:
		return ""
	case tls.CurveP256:
		return "P-256"
	case tls.CurveP384:
		return "P-384"
	case tls.CurveP521:
		return "P-521"
	default:
		return g.String()
	}
}
