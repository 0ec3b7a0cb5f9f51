package server

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
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
	// local are the paths that only the Unix socket serves.
	local map[string]bool
	// trustDomain and record tell whether an operator's certificate still
	// stands: it is good for as long as it lives, a record is not.
	trustDomain spiffeid.TrustDomain
	record      func(name string) (token.Node, bool)
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
		if !g.open[r.URL.Path] {
			if whoIs(r) != operator {
				fail(w, http.StatusForbidden, "this needs an operator's SVID; create one with `hauberk token create --role operator`, or use the control plane's Unix socket")
				return
			}
			if err := g.onRecord(r.TLS.PeerCertificates[0]); err != nil {
				fail(w, http.StatusForbidden, err.Error()+"; join again with a new token (`hauberk token create --role operator`), or use the control plane's Unix socket")
				return
			}
		}
		if g.local[r.URL.Path] {
			fail(w, http.StatusForbidden, "only the control plane's Unix socket serves this; run the command on its host")
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

// onRecord checks an operator's certificate against the operator's record.
func (g *guard) onRecord(leaf *x509.Certificate) error {
	id, err := spiffe.Parse(leaf.URIs[0].String())
	if err != nil {
		return err
	}
	// A federated trust domain's certificate verifies, and has no say here.
	if id.ID.TrustDomain() != g.trustDomain {
		return fmt.Errorf("%s is not of the trust domain %s", id.ID, g.trustDomain)
	}
	switch rec, ok := g.record(id.Name); {
	case !ok:
		return fmt.Errorf("%s is not on record here", id.ID)
	case rec.Banned:
		return fmt.Errorf("%s is banned: %s", id.ID, rec.BanReason)
	case rec.Key != trust.PinOf(leaf):
		return fmt.Errorf("the key of this certificate of %s is not the one on record", id.ID)
	}
	return nil
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
