package server

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc/status"

	identityserver "github.com/hauberk-mesh/hauberk/identity/server"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
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
	// local are the paths that the Unix socket alone serves: what they answer holds private
	// keys, which never cross the network.
	local map[string]bool
	// vouch says why a client is not who its certificate says, by what is on record now.
	vouch func(tls.ConnectionState) (identityserver.Peer, error)
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
		if g.local[r.URL.Path] {
			fail(w, http.StatusForbidden, "this is served on the control plane's Unix socket alone: the answer holds private keys")
			return
		}
		if !g.open[r.URL.Path] {
			if err := g.operator(r); err != "" {
				fail(w, http.StatusForbidden, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// operator says why a request is not an operator's.
func (g *guard) operator(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "this needs an operator's SVID; create one with `hauberk token create --role operator`, or use the control plane's Unix socket"
	}
	who, err := g.vouch(*r.TLS)
	if err != nil {
		return status.Convert(err).Message()
	}
	if who.Kind != spiffe.Operator {
		return who.ID.String() + " is no operator; create a token for one with `hauberk token create --role operator`"
	}
	return ""
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
