package server

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
)

// access says how far a request over TCP has proven itself.
type access int

const (
	anonymous access = iota
	operator
)

// guard protects the API's TCP port. The Unix socket needs none: its file mode
// is the authorization.
//
// A browser on an operator's machine is a confused deputy: a page from anywhere
// can make it send requests here, with a client certificate if it has one. So
// the Host must be a name this API is known by (against DNS rebinding), and an
// Origin, which browsers add, must be our own.
type guard struct {
	// hosts are the names, beside loopback and IP literals, that the API is
	// reached by, without port.
	hosts map[string]bool
	// open are the paths that need no identity: they tell that the process is
	// up, and the metrics.
	open map[string]bool
}

func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.hostAllowed(r.Host) {
			fail(w, http.StatusMisdirectedRequest, "host "+strconvQuote(r.Host)+" is not a name of this API; add it with --api-hostname")
			return
		}
		if o := r.Header.Get("Origin"); o != "" && !sameOrigin(o, r.Host) {
			fail(w, http.StatusForbidden, "requests from the origin "+strconvQuote(o)+" are refused")
			return
		}
		if !g.open[r.URL.Path] && whoIs(r) != operator {
			fail(w, http.StatusForbidden, "this needs an operator's SVID; create one with `hauberk token create --role operator`, or use the control plane's Unix socket")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// whoIs reads the identity the TLS handshake has verified.
func whoIs(r *http.Request) access {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || len(r.TLS.PeerCertificates[0].URIs) != 1 {
		return anonymous
	}
	id, err := spiffe.Parse(r.TLS.PeerCertificates[0].URIs[0].String())
	if err != nil || id.Kind != spiffe.Operator {
		return anonymous
	}
	return operator
}

func (g *guard) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	// A rebinding attack needs a name of the attacker's; an address is not one.
	return host == "localhost" || net.ParseIP(host) != nil || g.hosts[host]
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == "https" && strings.EqualFold(u.Host, host)
}
