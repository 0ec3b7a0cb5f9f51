package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/files"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// tlsProvider turns secret names into TLS configurations, in process: the names
// that Envoy would ask the agent's socket for are looked up in the agent's
// snapshot at each handshake.
type tlsProvider struct {
	identity svid.Source // nil without an agent
	log      *slog.Logger

	mu    sync.Mutex
	ctx   context.Context
	wg    sync.WaitGroup
	files map[fileKey]*files.Source
}

type fileKey struct{ chain, key, ca string }

func newTLSProvider(ctx context.Context, identity svid.Source, log *slog.Logger) *tlsProvider {
	return &tlsProvider{identity: identity, log: log, ctx: ctx, files: map[fileKey]*files.Source{}}
}

// wait returns when the sources of files have ended; the context must have.
func (p *tlsProvider) wait() { p.wg.Wait() }

// ServerTLS implements listener.TLSProvider.
func (p *tlsProvider) ServerTLS(workload, name string, t *listener.TLS) (*tls.Config, string, error) {
	var key *fileKey
	if f := t.Files; f != nil {
		key = &fileKey{f.CertificateChain, f.PrivateKey, f.TrustedCA}
	}
	source, id, err := p.source(key, t.Certificate, t.Validation, workload)
	if err != nil {
		return nil, "", fmt.Errorf("listener %s: tls: %w", name, err)
	}
	authorize, err := peers(t.PeerIDs)
	if err != nil {
		return nil, "", err
	}
	params := tlsconf.ServerParams{
		Source: source, ID: id, Authorize: authorize, ALPN: t.ALPN, AllowTLS12: t.MinVersion == tls.VersionTLS12,
	}
	if !t.RequireClientCertificate {
		params.Client = tlsconf.RequestClient
	}
	cfg, err := tlsconf.Server(params)
	if err != nil {
		return nil, "", err
	}
	narrow(cfg, t.MaxVersion, t.CipherSuites)
	return cfg, id, nil
}

// narrow applies what the configuration takes away from the mesh's own terms. It
// has to reach the configuration that each handshake makes.
func narrow(cfg *tls.Config, maxVersion uint16, suites []uint16) {
	if maxVersion != tls.VersionTLS12 && len(suites) == 0 {
		return
	}
	each := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := each(h)
		if err != nil || c == nil {
			return c, err
		}
		if maxVersion == tls.VersionTLS12 {
			c.MaxVersion = maxVersion
		}
		if len(suites) > 0 {
			c.CipherSuites = suites
		}
		return c, nil
	}
}

// ClientTLS implements cluster.TLSProvider.
func (p *tlsProvider) ClientTLS(source, name string, t *cluster.TLS) (*tls.Config, string, error) {
	var key *fileKey
	if f := t.Files; f != nil {
		key = &fileKey{f.CertificateChain, f.PrivateKey, f.TrustedCA}
	}
	from, id, err := p.source(key, t.Certificate, t.Validation, source)
	if err != nil {
		return nil, "", fmt.Errorf("cluster %s: tls: %w", name, err)
	}
	authorize, err := peers(t.PeerIDs)
	if err != nil {
		return nil, "", err
	}
	if len(t.PeerIDs) == 0 && !t.AnyPeer {
		return nil, "", fmt.Errorf("cluster %s: tls: names no peer, so nobody is the right one", name)
	}
	cfg, err := tlsconf.ClientOnce(tlsconf.ClientParams{
		Source: from, ID: id, Authorize: authorize, ALPN: t.ALPN, ServerName: t.SNI,
		AllowTLS12: t.MinVersion == tls.VersionTLS12,
	})
	if err != nil {
		return nil, "", err
	}
	if t.MaxVersion == tls.VersionTLS12 {
		cfg.MaxVersion = t.MaxVersion
	}
	return cfg, id, nil
}

func peers(ids []string) (func(spiffeid.ID) error, error) {
	if len(ids) == 0 {
		return tlsconf.Any, nil
	}
	var allowed []spiffeid.ID
	for _, s := range ids {
		id, err := spiffeid.FromString(s)
		if err != nil {
			return nil, fmt.Errorf("peer %q: %w", s, err)
		}
		allowed = append(allowed, id)
	}
	return tlsconf.Exactly(allowed...), nil
}

// source finds where an identity comes from, and its SPIFFE ID.
func (p *tlsProvider) source(key *fileKey, certificate, validation, workload string) (svid.Source, string, error) {
	if key != nil {
		return p.fromFiles(*key)
	}
	if p.identity == nil {
		return nil, "", fmt.Errorf("secret %q: this sidecar has no agent; run it with a join token, or name files", certificate)
	}
	switch {
	case certificate == names.DefaultSecret:
		if workload == "" {
			return nil, "", errors.New(`secret "default": the listener names no workload whose identity it could be`)
		}
		certificate = workload
	case certificate == "":
		return nil, "", errors.New("no certificate is named; the mesh has no anonymous side")
	}
	own, err := spiffeid.FromString(certificate)
	if err != nil {
		return nil, "", fmt.Errorf("secret %q: the agent serves SPIFFE IDs and %q: %w", certificate, names.DefaultSecret, err)
	}
	if validation != "" && validation != names.RootSecret && validation != own.TrustDomain().IDString() {
		return nil, "", fmt.Errorf("secret %q: the trust bundle is called %q", validation, names.RootSecret)
	}
	return p.identity, certificate, nil
}

// fromFiles opens a set of files once and keeps looking at it.
func (p *tlsProvider) fromFiles(key fileKey) (svid.Source, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.files[key]
	if s == nil {
		if key.ca == "" {
			return nil, "", errors.New("trusted_ca is needed, also where no client certificate is required")
		}
		if key.chain == "" {
			return nil, "", errors.New("a certificate is needed: the mesh has no anonymous side")
		}
		td, err := trustDomain(key.chain)
		if err != nil {
			return nil, "", err
		}
		if s, err = files.Open(files.Config{
			Pairs: []files.Pair{{Chain: key.chain, Key: key.key}}, Bundles: map[string]string{td: key.ca}, Log: p.log,
		}); err != nil {
			return nil, "", err
		}
		p.files[key] = s
		p.wg.Go(func() { _ = s.Run(p.ctx) })
	}
	return s, s.Snapshot().Default, nil
}

// trustDomain reads the trust domain of the SPIFFE ID in a PEM file.
func trustDomain(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	block, b := pem.Decode(b)
	for block != nil && block.Type != "CERTIFICATE" {
		block, b = pem.Decode(b)
	}
	if block == nil {
		return "", fmt.Errorf("%s: holds no PEM certificate", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	for _, u := range cert.URIs {
		if strings.EqualFold(u.Scheme, "spiffe") {
			id, err := spiffeid.FromURI(u)
			if err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
			return id.TrustDomain().Name(), nil
		}
	}
	return "", fmt.Errorf("%s: the certificate has no SPIFFE ID; the sidecar knows peers by SPIFFE ID only", file)
}

// ages tells, by the file of the bundle, how old trust from files is.
func (p *tlsProvider) ages() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]time.Time{}
	for key, s := range p.files {
		// The same bundle may be in several sets: the oldest counts.
		if asOf := s.AsOf(); out[key.ca].IsZero() || asOf.Before(out[key.ca]) {
			out[key.ca] = asOf
		}
	}
	return out
}

// sources are all snapshots in use, for people and metrics.
func (p *tlsProvider) sources() []*svid.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*svid.Snapshot
	if p.identity != nil {
		out = append(out, p.identity.Snapshot())
	}
	for _, s := range p.files {
		out = append(out, s.Snapshot())
	}
	return out
}
