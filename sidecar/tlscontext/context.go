package tlscontext

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/internal/handshake"
)

// Context is a Server or a Client with what its sources hold now. Handshakes read
// the current state; connections that are open are not affected by a change. Safe
// for concurrent use.
type Context struct {
	common  *Common
	build   func(*material) *state
	now     func() time.Time
	secrets Secrets
	state   atomic.Pointer[state]
	client  *tls.Config // of a client

	mu    sync.Mutex // one look at a time
	files []string
	stats []stat
	found []*Discovered
	said  string    // the last complaint
	since time.Time // when what is in use was last found, while there is one
}

// state is immutable. A server's plain configuration has no ALPN: a client that
// offers only protocols which are not spoken is served without, as Envoy does.
type state struct {
	config, plain *tls.Config // of a server
	certificates  []tls.Certificate
	own           []*handshake.Own // of each certificate
	anchors       []*x509.Certificate
	trust         string // where the anchors are from, "" where from nowhere that can change
	verifier      *verifier
	// absent is set before all secrets have come, and all else is not: it is what
	// each handshake fails with.
	absent error
}

// Options are a context's surroundings.
type Options struct {
	Now     func() time.Time // time.Now when nil
	Secrets Secrets          // nil where none are discovered
}

// NewServer reads what a downstream context names.
func NewServer(cfg *Server, o Options) (*Context, error) {
	if len(cfg.Certificates) == 0 {
		return nil, errors.New("tls: a listener needs a certificate")
	}
	own := *cfg // the context outlives no configuration that it would hold
	cfg = &own
	c := &Context{common: &cfg.Common, now: o.Now, secrets: o.Secrets}
	c.build = func(m *material) *state {
		s := &state{certificates: m.certificates, own: m.own(), anchors: m.anchors}
		t := c.base()
		t.GetCertificate = (&selector{s.certificates, s.own, cfg.FullScan}).present
		v := c.verifier(m, x509.ExtKeyUsageClientAuth)
		required := cfg.RequireClientCertificate || m.validation.Demands()
		if v != nil {
			t.ClientAuth = tls.RequestClientCert
			if required {
				t.ClientAuth = tls.RequireAnyClientCert
			}
			if !m.validation.HideCA {
				t.ClientCAs = m.roots
			}
		}
		t.VerifyConnection = func(cs tls.ConnectionState) error {
			if cs.DidResume {
				return errResumed
			}
			if len(cs.PeerCertificates) == 0 && !required {
				return nil
			}
			return v.verify(cs, "", false)
		}
		s.config, s.plain = t, t
		if len(t.NextProtos) > 0 {
			s.plain = t.Clone()
			s.plain.NextProtos = nil
		}
		return s
	}
	return c, c.open()
}

// NewClient reads what an upstream context names.
func NewClient(cfg *Client, o Options) (*Context, error) {
	if cfg.Validation == nil {
		return nil, errors.New("tls: the server would not be verified")
	}
	own := *cfg
	cfg = &own
	c := &Context{common: &cfg.Common, now: o.Now, secrets: o.Secrets}
	c.build = func(m *material) *state {
		return &state{certificates: m.certificates, own: m.own(), anchors: m.anchors, verifier: c.verifier(m, x509.ExtKeyUsageServerAuth)}
	}
	t := c.base()
	t.ServerName = cfg.SNI
	// The library's own verification is of the name alone, against the host's
	// roots. VerifyConnection takes its place; it runs whatever this says.
	t.InsecureSkipVerify = true
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.DidResume {
			return errResumed
		}
		if cfg.VerifySNI && cs.ServerName == "" {
			return &VerifyError{Rule: "name", Err: errors.New("no server name was sent that it could be checked against")}
		}
		name := ""
		if cfg.VerifySNI {
			name = cs.ServerName
		}
		s := c.state.Load()
		if s.absent != nil {
			return s.absent
		}
		return s.verifier.verify(cs, name, cfg.NamesToo)
	}
	t.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return c.state.Load().present(r)
	}
	c.client = t
	return c, c.open()
}

// present is a hook GetClientCertificate.
func (s *state) present(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if s.absent != nil {
		return nil, s.absent
	}
	if len(s.certificates) > 0 {
		return &s.certificates[0], nil
	}
	return &tls.Certificate{}, nil
}

var errResumed = errors.New("tls: a resumed session is refused")

// errNoName refuses a client where a server name is required.
var errNoName = errors.New("tls: the client names no server, and one is required")

func (c *Context) open() error {
	if c.now == nil {
		c.now = time.Now
	}
	if err := c.common.usable(c.secrets); err != nil {
		return err
	}
	err := c.read()
	if absent(err) {
		c.state.Store(&state{absent: err})
		return nil
	}
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return nil
}

// read puts in force what the sources hold.
func (c *Context) read() error {
	resolved, found, err := c.common.resolve(c.secrets)
	if err != nil {
		return err
	}
	c.found, c.files = found, resolved.files()
	c.stats = look(c.files)
	m, err := load(resolved)
	if err != nil {
		return err
	}
	m.validation = resolved.Validation
	s := c.build(m)
	s.trust = c.trust(resolved)
	c.state.Store(s)
	return nil
}

// trust names where the anchors come from.
func (c *Context) trust(resolved *Common) string {
	v := c.common.Validation
	switch {
	case v == nil:
		return ""
	case v.Secret != nil:
		return v.Secret.String()
	}
	out := resolved.Validation.CA.File
	for _, d := range resolved.Validation.TrustDomains {
		if out == "" {
			out = d.Bundle.File
		}
	}
	return out
}

// base is what both directions have in common.
func (c *Context) base() *tls.Config {
	t := &tls.Config{
		MinVersion: c.common.MinVersion, MaxVersion: c.common.MaxVersion, NextProtos: c.common.ALPN,
		CipherSuites: c.common.CipherSuites, CurvePreferences: c.common.Curves,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true, Renegotiation: tls.RenegotiateNever,
	}
	if len(t.CipherSuites) == 0 {
		t.CipherSuites = DefaultSuites
	}
	if len(t.CurvePreferences) == 0 {
		t.CurvePreferences = DefaultCurves
	}
	return t
}

// DefaultSuites are those of TLS 1.2 that have forward secrecy and AEAD.
var DefaultSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// DefaultCurves has the post-quantum hybrids first.
var DefaultCurves = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}

func (c *Context) verifier(m *material, usage x509.ExtKeyUsage) *verifier {
	if m.validation == nil {
		return nil
	}
	return &verifier{cfg: m.validation, roots: m.ends, between: m.between, trust: m.trust, crls: m.crls, usage: usage, now: c.now}
}

// ServerConfig returns the configuration of a listening side, whose handshakes
// always take the current state.
func (c *Context) ServerConfig(cfg *Server) *tls.Config {
	return &tls.Config{
		MinVersion: cfg.MinVersion, MaxVersion: cfg.MaxVersion, SessionTicketsDisabled: true,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if cfg.RequireSNI && h.ServerName == "" {
				return nil, errNoName
			}
			s := c.state.Load()
			if s.absent != nil {
				return nil, s.absent
			}
			if len(h.SupportedProtos) > 0 && !slices.ContainsFunc(h.SupportedProtos, func(p string) bool { return slices.Contains(cfg.ALPN, p) }) {
				return s.plain, nil
			}
			return s.config, nil
		},
		// Reached only if the hook above is lost: then there is no handshake rather
		// than an unverified one.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("tls: this configuration works only through GetConfigForClient")
		},
	}
}

// ClientConfig returns the configuration of a client, whose handshakes always take
// the current state. It is shared.
func (c *Context) ClientConfig() *tls.Config { return c.client }

// ClientOnce returns a configuration of a client for one handshake, which the caller may add to, and
// whom the certificate names that it presents. Peers are verified by the current state.
func (c *Context) ClientOnce() (*tls.Config, *handshake.Own) {
	s, cfg := c.state.Load(), c.client.Clone()
	cfg.GetClientCertificate = s.present
	return cfg, s.first()
}

// AsOf is when what is in use was last found in the files, or its secrets were last
// known to be true: now, unless they cannot be used any more.
func (c *Context) AsOf() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.now()
	if c.said != "" {
		out = c.since
	}
	for _, r := range c.common.SecretRefs() {
		if asOf := c.secrets.AsOf(r); asOf.Before(out) {
			out = asOf
		}
	}
	return out
}

// Leaves are the own certificates.
func (c *Context) Leaves() []*x509.Certificate {
	var out []*x509.Certificate
	for _, cert := range c.state.Load().certificates {
		out = append(out, cert.Leaf)
	}
	return out
}

// Own is whom the first own certificate names; nobody where there is none. It is what a
// client presents, if anything.
func (c *Context) Own() *handshake.Own { return c.state.Load().first() }

func (s *state) first() *handshake.Own {
	if len(s.own) > 0 {
		return s.own[0]
	}
	return &handshake.Own{}
}

// Refresh looks at the files and secrets, and reads them when they have changed. What
// cannot be used leaves the last good state in force, and is said once.
func (c *Context) Refresh(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said == "" && !c.changed() {
		return
	}
	err := c.read()
	if absent(err) {
		return // its source says why
	}
	if err != nil {
		if c.said == "" {
			c.since = c.now()
		}
		if text := err.Error(); c.said != text {
			c.said = text
			log.Error("TLS files cannot be used, the last good ones stay", "component", "tls", "err", err)
		}
		return
	}
	if c.said != "" {
		log.Info("TLS files can be used again", "component", "tls", "files", c.files)
		c.said = ""
	}
}

// changed tells whether there is something to read: other secrets, or files that are
// not what they were.
func (c *Context) changed() bool {
	if refs := c.common.SecretRefs(); len(refs) > 0 {
		if _, found, err := c.common.resolve(c.secrets); err != nil || !slices.Equal(found, c.found) {
			return true
		}
	}
	return !slices.EqualFunc(look(c.files), c.stats, stat.same)
}

// selector picks the certificate that a client is shown.
type selector struct {
	certs    []tls.Certificate
	own      []*handshake.Own // of each
	fullScan bool
}

// present chooses, and tells the connection.
func (s *selector) present(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	i := s.choose(h)
	handshake.Presented(h.Conn, s.own[i])
	return &s.certs[i], nil
}

// choose takes a certificate whose name is the one asked for, exactly or by
// wildcard, among those the client can use; then, as Envoy does, the first, or
// with a full scan the first that the client can use. Of several that would do it is the
// first with an ECDSA key, whose handshakes cost a fraction, and else the first.
func (s *selector) choose(h *tls.ClientHelloInfo) int {
	name := strings.ToLower(h.ServerName)
	anyName := *h
	anyName.ServerName = ""
	usable := func(c *tls.Certificate) bool { return anyName.SupportsCertificate(c) == nil }
	if name != "" {
		for _, exact := range []bool{true, false} {
			if i := s.first(func(c *tls.Certificate) bool { return named(c.Leaf, name, exact) && usable(c) }); i >= 0 {
				return i
			}
		}
	}
	if name == "" || s.fullScan {
		return max(s.first(usable), 0)
	}
	return 0
}

// first is the first certificate that fits, ECDSA before others; -1 for none.
func (s *selector) first(fits func(*tls.Certificate) bool) int {
	other := -1
	for i := range s.certs {
		c := &s.certs[i]
		if ecdsa := c.Leaf.PublicKeyAlgorithm == x509.ECDSA; (ecdsa || other < 0) && fits(c) {
			if ecdsa {
				return i
			}
			other = i
		}
	}
	return other
}

func named(leaf *x509.Certificate, name string, exact bool) bool {
	return slices.ContainsFunc(serverNames(leaf), func(n string) bool {
		if exact {
			return strings.EqualFold(n, name)
		}
		return covers(n, name)
	})
}

// serverNames are the names that a certificate is chosen by: of one without alternative names
// it is the common name, as in Envoy. Nobody is verified by that.
func serverNames(leaf *x509.Certificate) []string {
	alternativeNames := asn1.ObjectIdentifier{2, 5, 29, 17}
	if leaf.Subject.CommonName == "" || slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(alternativeNames) }) {
		return leaf.DNSNames
	}
	return []string{leaf.Subject.CommonName}
}
