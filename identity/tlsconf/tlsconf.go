// Package tlsconf builds every TLS configuration of the mesh.
//
// Identity is verified in VerifyConnection and nowhere else: the hook for raw
// certificates is skipped when a session is resumed, and it is the client who
// chooses to resume. Nothing is resumed here either: no tickets, no session
// cache, no 0-RTT. A resumed handshake would save a quarter of the work, and
// would carry an identity past the moment at which it was withdrawn.
package tlsconf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/verify"
	"github.com/hauberk-mesh/hauberk/internal/handshake"
)

// ClientAuth says what a server asks of its clients.
type ClientAuth int

const (
	// RequireClient refuses a client without an SVID.
	RequireClient ClientAuth = iota
	// RequestClient lets a client without a certificate in, as nobody; one that
	// it shows must verify. For the control plane's port, where Join has none.
	RequestClient
)

// Any authorizes every verified peer. It is spelled out, because a forgotten
// Authorize is refused.
func Any(spiffeid.ID) error { return nil }

// ServerParams are the parameters of Server.
type ServerParams struct {
	Source svid.Source
	// ID is the own SPIFFE ID; empty takes the snapshot's default.
	ID string
	// Authorize decides on a verified peer; its error refuses the handshake. It
	// is not called for nobody.
	Authorize func(peer spiffeid.ID) error
	ALPN      []string
	Client    ClientAuth
	// AllowTLS12 also accepts TLS 1.2, ECDHE with AEAD only.
	AllowTLS12 bool
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Server builds the configuration of a listening side. Each handshake reads one
// snapshot, from which it both presents and verifies; open connections are not
// affected by a change.
//
// Use the result as it is: a copy made with Clone shares nothing that matters,
// but fields set on it do not reach the handshake.
func Server(p ServerParams) (*tls.Config, error) {
	clock, err := parameters(p.Source, p.Authorize, p.Now)
	if err != nil {
		return nil, fmt.Errorf("tls server %s: %w", p.ID, err)
	}
	outer := base(p.AllowTLS12, p.ALPN)
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		snapshot := p.Source.Snapshot()
		inner := base(p.AllowTLS12, p.ALPN)
		inner.ClientAuth = tls.RequireAnyClientCert
		if p.Client == RequestClient {
			inner.ClientAuth = tls.RequestClientCert
		}
		inner.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return own(snapshot, p.ID, clock())
		}
		inner.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 && p.Client == RequestClient {
				return nil
			}
			return admit(snapshot, cs, p.Authorize, clock())
		}
		return inner, nil
	}
	// Reached only if the hook above is lost, for example by a copy of single
	// fields: then there is no handshake rather than an unverified one.
	outer.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("tls server: this configuration works only through GetConfigForClient")
	}
	return outer, nil
}

// ClientParams are the parameters of Client.
type ClientParams struct {
	Source svid.Source
	// ID is the own SPIFFE ID; empty takes the snapshot's default.
	ID string
	// Authorize decides on the verified server, usually with Exactly.
	Authorize func(peer spiffeid.ID) error
	ALPN      []string
	// ServerName is sent as SNI. It takes no part in verification: a name in DNS
	// is not an identity.
	ServerName string
	// AllowTLS12 also speaks TLS 1.2, ECDHE with AEAD only.
	AllowTLS12 bool
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Client builds a configuration for any number of dials. The verdict on the
// server is made from one snapshot, the presented SVID is read from one; where
// both must be the same one, use ClientOnce.
//
// In TLS 1.3 a client's Handshake returns before the server has judged the
// client: a refusal arrives with the first Read.
func Client(p ClientParams) (*tls.Config, error) {
	return client(p, func() *svid.Snapshot { return p.Source.Snapshot() })
}

// ClientOnce builds the configuration of one dial. It fails at once, before any
// connection, when the own SVID cannot be presented.
func ClientOnce(p ClientParams) (*tls.Config, error) {
	clock, err := parameters(p.Source, p.Authorize, p.Now)
	if err != nil {
		return nil, fmt.Errorf("tls client %s: %w", p.ID, err)
	}
	snapshot := p.Source.Snapshot()
	if _, err := own(snapshot, p.ID, clock()); err != nil {
		return nil, err
	}
	return client(p, func() *svid.Snapshot { return snapshot })
}

func client(p ClientParams, snapshot func() *svid.Snapshot) (*tls.Config, error) {
	clock, err := parameters(p.Source, p.Authorize, p.Now)
	if err != nil {
		return nil, fmt.Errorf("tls client %s: %w", p.ID, err)
	}
	cfg := base(p.AllowTLS12, p.ALPN)
	cfg.ServerName = p.ServerName
	// The library's own verification is of DNS names against the host's roots.
	// VerifyConnection takes its place; it runs whatever this field says.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		s, now := snapshot(), clock()
		// A server that asks for no certificate must not get an anonymous client
		// where the own SVID is what is missing.
		if _, err := own(s, p.ID, now); err != nil {
			return err
		}
		return admit(s, cs, p.Authorize, now)
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return own(snapshot(), p.ID, clock())
	}
	return cfg, nil
}

// base is what all configurations have in common.
func base(tls12 bool, alpn []string) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		MaxVersion: tls.VersionTLS13,
		NextProtos: alpn,
		// Hybrid first. Named here so that no GODEBUG or go.mod line decides it.
		CurvePreferences: []tls.CurveID{
			tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384,
		},
		SessionTicketsDisabled: true,
		ClientSessionCache:     nil,
		// Small first records help a browser's first paint, and cost a proxy a
		// system call and a header for each of the first thousand.
		DynamicRecordSizingDisabled: true,
		Renegotiation:               tls.RenegotiateNever,
	}
	if tls12 {
		cfg.MinVersion = tls.VersionTLS12
		cfg.CipherSuites = []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		}
	}
	return cfg
}

func parameters(source svid.Source, authorize func(spiffeid.ID) error, now func() time.Time) (func() time.Time, error) {
	if source == nil {
		return nil, errors.New("no identity source")
	}
	if authorize == nil {
		return nil, errors.New("no Authorize function: name tlsconf.Any if every verified peer is meant")
	}
	if now == nil {
		now = time.Now
	}
	return now, nil
}

// own returns the SVID to present. An expired one is never presented: the peer
// would refuse it, with an alert that says nothing.
func own(s *svid.Snapshot, id string, now time.Time) (*tls.Certificate, error) {
	name := id
	if name == "" {
		name = s.Default
	}
	if name == "" {
		return nil, &OwnError{Err: errors.New("no identity has been issued to this process yet")}
	}
	v, ok := s.Own(id)
	if !ok {
		return nil, &OwnError{ID: name, Err: fmt.Errorf("this process holds no SVID of that name (it holds %d)", len(s.SVIDs))}
	}
	leaf := v.Leaf()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, &OwnError{ID: name, Err: &verify.TimeError{What: "the own certificate", Now: now, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}}
	}
	return v.TLS, nil
}

// OwnError says that a handshake failed here, for want of an own SVID, and not
// for anything that the peer did.
type OwnError struct {
	ID  string
	Err error
}

func (e *OwnError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("own identity: %v", e.Err)
	}
	return fmt.Sprintf("own identity %s: %v", e.ID, e.Err)
}

// Unwrap gives the cause.
func (e *OwnError) Unwrap() error { return e.Err }

// DeniedError says that a peer proved its identity and is not allowed.
type DeniedError struct {
	Peer spiffeid.ID
	Err  error
}

func (e *DeniedError) Error() string { return fmt.Sprintf("peer %s is not allowed: %v", e.Peer, e.Err) }

// Unwrap gives the cause.
func (e *DeniedError) Unwrap() error { return e.Err }

// Exactly authorizes the listed IDs.
func Exactly(ids ...spiffeid.ID) func(spiffeid.ID) error {
	allowed := make(map[spiffeid.ID]struct{}, len(ids))
	for _, id := range ids {
		allowed[id] = struct{}{}
	}
	return func(peer spiffeid.ID) error {
		if _, ok := allowed[peer]; ok {
			return nil
		}
		return fmt.Errorf("expected %s", list(ids))
	}
}

func list(ids []spiffeid.ID) string {
	switch len(ids) {
	case 0:
		return "nobody"
	case 1:
		return ids[0].String()
	}
	return fmt.Sprintf("%s or one of %d others", ids[0], len(ids)-1)
}

// admit verifies the peer and asks whether it may.
func admit(s *svid.Snapshot, cs tls.ConnectionState, authorize func(spiffeid.ID) error, now time.Time) error {
	// Belt and braces: nothing here offers or takes a session.
	if cs.DidResume {
		return errors.New("tls: a resumed session is refused")
	}
	peer, chain, err := verify.PeerChain(s, cs.PeerCertificates, now)
	if err != nil {
		return err
	}
	if err := authorize(peer); err != nil {
		return &DeniedError{Peer: peer, Err: err}
	}
	handshake.Chain(cs, chain)
	return nil
}
