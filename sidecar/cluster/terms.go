package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
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
// serves only requests with the same. nil is what requests have of clusters without such terms.
type Terms struct {
	generation uint64 // of the cluster's settings that they follow from
	name       string // of the server, to be asked for; "" leaves that to the TLS context
	san        string // what the peer's certificate must have; "" for nothing more
	// from and to are the client's address and the one it connected to, which are announced;
	// invalid for none.
	from, to netip.AddrPort
	// extensions are announced beside them.
	extensions proxytlv.Kept
	// client is the connection whose requests alone are served, 0 for any.
	client uint64
}

// Asker is whom a connection is opened for.
type Asker struct {
	Request   *message.Request // nil for a byte stream
	Authority string           // of the request; not always what the host gets to see
	// From is the client's address, and To the one that it connected to; invalid for a request of
	// the process itself.
	From, To netip.AddrPort
	// Extensions of the PROXY protocol are the client's own, and others that may be passed on; nil for
	// none.
	Extensions *proxytlv.Client
	// Client is the number of the connection that the request came on; 0 for one of the process itself.
	Client uint64
	// Named is the cluster that the route named, where the host may be of one within it: nil for the
	// host's own.
	Named *Cluster
}

// longestName is what a server name may have (RFC 6066, and RFC 1035 2.3.4).
const longestName = 255

// Particular tells whether connections to the host depend on the request that they are opened for,
// whose route named a cluster: nil for the host's own.
func (h *Host) Particular(named *Cluster) bool {
	s := h.cluster.cfg.Load()
	return s.particular || h.perClient(s, named)
}

// perClient tells whether a connection serves one client alone. That is for the cluster to say that the
// route named, as in Envoy: an aggregate, whatever those within it say.
func (h *Host) perClient(s *settings, named *Cluster) bool {
	if named != nil && named != h.cluster {
		s = named.cfg.Load()
	}
	return s.HTTP.PerClient
}

// StreamDuration is how long a request's stream to the host may last, 0 for ever.
func (h *Host) StreamDuration() int64 { return h.cluster.cfg.Load().streamDuration }

// TermsFor are the terms of a connection to the host, also where nothing is particular about
// them. The error is an *Error.
func (h *Host) TermsFor(asker *Asker) (t Terms, err error) {
	s := h.cluster.cfg.Load()
	t.generation = s.tlsGeneration
	if h.announcement(s) != 0 {
		t.from, t.to, t.extensions = asker.From, asker.To, h.told(s, asker.Extensions)
	}
	if h.perClient(s, asker.Named) {
		t.client = asker.Client
	}
	if s.HTTP.Names != nil && asker.Request != nil && h.tls(s) != nil {
		err = h.nameIn(&t, s.HTTP.Names, asker)
	}
	return t, err
}

// onTerms opens a connection on the asker's terms, anew where they change meanwhile.
func (h *Host) onTerms(asker *Asker, open func(*Terms) (*Conn, error)) (*Conn, error) {
	for {
		var t *Terms
		if h.Particular(asker.Named) {
			own, err := h.TermsFor(asker)
			if err != nil {
				return nil, err
			}
			t = &own
		}
		conn, err := open(t)
		if err == nil || !IsOutdated(err) {
			return conn, err
		}
	}
}

// IsOutdated tells whether a connection was not opened because the terms follow from settings that
// are not in force any more, or are nil and there are some now, because another protocol is spoken, or
// because its pool has gone: terms are to be computed, and it is to be asked for, again.
func IsOutdated(err error) bool {
	e, ok := err.(*Error)
	return ok && e.Kind == Outdated
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
	case strings.IndexFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0:
		// A server name is ASCII (RFC 6066 3), and only so it is clear which ones are the same.
		return &Error{Kind: NoServerName, Cluster: h.cluster.name, Host: h.key, Err: errNotASCII}
	}
	return nil
}

// errNoServerName is why a request is refused whose host is to be verified and is not named.
var errNoServerName = errors.New("the request names no host that the server could be verified as")

// errNotASCII is why a request is refused whose host could be taken for another.
var errNotASCII = errors.New("the request's host is not ASCII, as a server name is")

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
	return &Terms{t.generation, strings.Clone(t.name), strings.Clone(t.san), t.from, t.to, t.extensions, t.client}
}

// terms are what the pool's connections are opened with, nil where any request may have them.
func (p *pool) terms() *Terms {
	if p.own == nil {
		return nil
	}
	return p.own.terms
}

// outdated tells whether what the pool's connections are opened with follows from other settings: of
// requests that came before. They are not sent to a host that was not verified, or told of another
// client.
func (p *pool) outdated(s *settings) bool {
	if t := p.terms(); t != nil {
		return t.generation != s.tlsGeneration
	}
	return s.particular
}

// nameError is why a handshake fails where the certificate is not of the name that the client
// chose, which says nothing of the host.
type nameError struct{ err error }

func (e *nameError) Error() string { return e.err.Error() }
func (e *nameError) Unwrap() error { return e.err }

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
		if err := tlscontext.VerifyName(cs.PeerCertificates, san); err != nil {
			return &nameError{err}
		}
		return nil
	}
}
