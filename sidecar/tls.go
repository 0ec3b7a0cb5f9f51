package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/internal/handshake"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// tlsProvider turns TLS contexts into configurations. The mesh's name secrets of
// the agent, which are looked up in its snapshot at each handshake; foreign ones
// say themselves what they want.
type tlsProvider struct {
	identity svid.Source // nil without an agent
	contexts *tlscontext.Cache
	wg       sync.WaitGroup
}

func newTLSProvider(ctx context.Context, identity svid.Source, found *secrets.Store, log *slog.Logger) *tlsProvider {
	p := &tlsProvider{identity: identity, contexts: tlscontext.NewCache(log, found)}
	p.wg.Go(func() { p.contexts.Run(ctx) })
	return p
}

// wait returns when nothing looks at files any more; the context must have ended.
func (p *tlsProvider) wait() { p.wg.Wait() }

// ServerTLS implements listener.TLSProvider.
func (p *tlsProvider) ServerTLS(workload, name string, t *listener.TLS) (*tls.Config, string, error) {
	if t.Context != nil {
		c, err := p.contexts.Server(t.Context)
		if err != nil {
			return nil, "", err
		}
		return c.ServerConfig(t.Context), "", nil
	}
	id, err := p.own(t.Certificate, t.Validation, workload)
	if err != nil {
		return nil, "", fmt.Errorf("listener %s: tls: %w", name, err)
	}
	authorize, err := peers(t.PeerIDs)
	if err != nil {
		return nil, "", err
	}
	params := tlsconf.ServerParams{
		Source: p.identity, ID: id, Authorize: authorize, ALPN: t.ALPN, AllowTLS12: t.MinVersion == tls.VersionTLS12,
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
func (p *tlsProvider) ClientTLS(source, name string, t *cluster.TLS) (*tls.Config, *handshake.Own, error) {
	if t.Context != nil {
		c, err := p.contexts.Client(t.Context)
		if err != nil {
			return nil, nil, fmt.Errorf("cluster %s: %w", name, err)
		}
		cfg, own := c.ClientOnce()
		if len(t.ALPN) > 0 {
			cfg.NextProtos = t.ALPN // health checks offer others than the context
		}
		return cfg, own, nil
	}
	id, err := p.own(t.Certificate, t.Validation, source)
	if err != nil {
		return nil, nil, fmt.Errorf("cluster %s: tls: %w", name, err)
	}
	authorize, err := peers(t.PeerIDs)
	if err != nil {
		return nil, nil, err
	}
	if len(t.PeerIDs) == 0 && !t.AnyPeer {
		return nil, nil, fmt.Errorf("cluster %s: tls: names no peer, so nobody is the right one", name)
	}
	cfg, err := tlsconf.ClientOnce(tlsconf.ClientParams{
		Source: p.identity, ID: id, Authorize: authorize, ALPN: t.ALPN, ServerName: t.SNI,
		AllowTLS12: t.MinVersion == tls.VersionTLS12,
	})
	if err != nil {
		return nil, nil, err
	}
	if t.MaxVersion == tls.VersionTLS12 {
		cfg.MaxVersion = t.MaxVersion
	}
	return cfg, &handshake.Own{ID: id}, nil
}

// check says why a cluster's context could not be used, before anything depends
// on it.
func (p *tlsProvider) check(c *cluster.Config) error {
	contexts := []*cluster.TLS{c.TLS}
	for i := range c.Sockets {
		contexts = append(contexts, c.Sockets[i].TLS)
	}
	for _, t := range contexts {
		if t == nil || t.Context == nil {
			continue
		}
		if _, err := p.contexts.Client(t.Context); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
	}
	return nil
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

// own finds the SPIFFE ID that secrets of the agent stand for.
func (p *tlsProvider) own(certificate, validation, workload string) (string, error) {
	if p.identity == nil {
		return "", fmt.Errorf("secret %q: this sidecar has no agent; run it with a join token, or name files", certificate)
	}
	switch {
	case certificate == names.DefaultSecret:
		if workload == "" {
			return "", errors.New(`secret "default": the listener names no workload whose identity it could be`)
		}
		certificate = workload
	case certificate == "":
		return "", errors.New("no certificate is named; the mesh has no anonymous side")
	}
	own, err := spiffeid.FromString(certificate)
	if err != nil {
		return "", fmt.Errorf("secret %q: the agent serves SPIFFE IDs and %q: %w", certificate, names.DefaultSecret, err)
	}
	if validation != "" && validation != names.RootSecret && validation != own.TrustDomain().IDString() {
		return "", fmt.Errorf("secret %q: the trust bundle is called %q", validation, names.RootSecret)
	}
	return certificate, nil
}

// snapshot is the agent's, nil without one.
func (p *tlsProvider) snapshot() *svid.Snapshot {
	if p.identity == nil {
		return nil
	}
	return p.identity.Snapshot()
}

// files are the own certificates that come from files, for people and metrics.
func (p *tlsProvider) files() []*x509.Certificate { return p.contexts.Leaves() }

// ages tells, by the file of the anchors, how old trust from files is.
func (p *tlsProvider) ages() map[string]time.Time { return p.contexts.AsOf() }
