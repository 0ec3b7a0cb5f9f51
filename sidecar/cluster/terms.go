package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// ServerNames is how connections over TLS depend on the host that a request names
// (UpstreamHttpProtocolOptions).
type ServerNames struct {
	// SNI asks for that host, in place of what the TLS context says. An address is not asked for.
	SNI bool
	// Verify wants the peer's certificate to have that name too, or that address.
	Verify bool
	// Header, in lower case, is of a request header that names the host where it is there and not
	// empty; "" for none.
	Header string
}

// Terms are what a connection is opened with because of the request that it is opened for. It
// serves only requests with the same. nil is what all others have.
type Terms struct {
	name string // of the server, to be asked for; "" leaves that to the TLS context
	san  string // what the peer's certificate must have; "" for nothing more
	// from and to are the client's address and the one it connected to, which are announced;
	// invalid for none.
	from, to netip.AddrPort
}

// Asker is whom a connection is opened for.
type Asker struct {
	Request   *message.Request // nil for a byte stream
	Authority string           // of the request; not always what the host gets to see
	// From is the client's address, and To the one that it connected to; invalid for a request of
	// the process itself.
	From, To netip.AddrPort
}

// longestName is what a server name may have (RFC 6066, and RFC 1035 2.3.4).
const longestName = 255

// Particular tells whether connections of the host's cluster depend on the request that they are
// opened for.
func (h *Host) Particular() bool { return h.cluster.cfg.Load().particular }

// TermsFor are the terms of a connection to the host. The error is an *Error.
func (h *Host) TermsFor(asker *Asker) (*Terms, error) {
	s := h.cluster.cfg.Load()
	t := &Terms{}
	if h.announcement(s) != 0 {
		t.from, t.to = asker.From, asker.To
	}
	if s.HTTP.Names != nil && asker.Request != nil && h.tls(s) != nil {
		if err := h.nameIn(t, s.HTTP.Names, asker); err != nil {
			return nil, err
		}
	}
	if *t == (Terms{}) {
		return nil, nil
	}
	return t, nil
}

// nameIn adds the names to the terms.
func (h *Host) nameIn(t *Terms, n *ServerNames, asker *Asker) error {
	authority := asker.Authority
	if n.Header != "" {
		if v, _ := asker.Request.Fields.Get(n.Header); v != "" {
			authority = v
		}
	}
	name := withoutPort(authority)
	_, notIP := netip.ParseAddr(name)
	if n.SNI && notIP != nil {
		t.name = name
	}
	if n.Verify {
		t.san = name
	}
	switch {
	case n.Verify && name == "":
		return &Error{Kind: NoServerName, Cluster: h.cluster.name, Host: h.key, Err: errNoServerName}
	case len(name) > longestName:
		return &Error{Kind: NoServerName, Cluster: h.cluster.name, Host: h.key,
			Err: fmt.Errorf("the request's host has %d bytes, and a server name at most %d", len(name), longestName)}
	}
	return nil
}

// errNoServerName is why a request is refused whose host is to be verified and is not named.
var errNoServerName = errors.New("the request names no host that the server could be verified as")

// withoutPort is an authority's host, of IPv6 without brackets.
func withoutPort(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 {
		if _, err := strconv.ParseUint(authority[i+1:], 10, 16); err == nil && strings.IndexByte(authority[:i], ':') < 0 || i > 0 && authority[i-1] == ']' {
			authority = authority[:i]
		}
	}
	if n := len(authority); n > 1 && authority[0] == '[' && authority[n-1] == ']' {
		return authority[1 : n-1]
	}
	return authority
}

// own is a copy that needs nothing of the request.
func (t *Terms) own() *Terms {
	return &Terms{strings.Clone(t.name), strings.Clone(t.san), t.from, t.to}
}

// unnamed tells whether a connection for requests has no name that is to be verified: they came
// before it was to be.
func (p *pool) unnamed(s *settings, want protocol) bool {
	return s.HTTP.Names != nil && s.HTTP.Names.Verify && (want == protocolHTTP1 || want == protocolHTTP2) &&
		(p.terms == nil || p.terms.san == "") && p.host.tls(s) != nil
}

// demand has a handshake ask for the terms' name, and verify what they want beside what it
// verifies already.
func (t *Terms) demand(cfg *tls.Config) {
	if t.name != "" {
		cfg.ServerName = t.name
	}
	if t.san == "" {
		return
	}
	verify, san := cfg.VerifyConnection, t.san
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if verify != nil {
			if err := verify(cs); err != nil {
				return err
			}
		}
		return tlscontext.VerifyName(cs.PeerCertificates, san)
	}
}
