// Package server is the control plane's side of identity: it admits nodes and
// further control planes by token, signs SVIDs for the keys and names on record,
// tells nodes at once what changed, and keeps control planes in agreement.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/hauberk-mesh/hauberk/identity/ca"
	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/token"
)

// Config says what a control plane's identity service keeps where.
type Config struct {
	// Dir is the control plane's state directory. It is made with mode 0700, or
	// must have it.
	Dir         string
	TrustDomain spiffeid.TrustDomain
	// ControlPlane is this control plane's id, the last part of its SPIFFE ID.
	ControlPlane string
	// JoinToken is a token of the role control plane, with which another control
	// plane admits this one. It is used only while the state directory holds no
	// signer that may sign and no SVID, so it may stay configured after use.
	JoinToken string
	// SignerTTL and LeafTTL are the CA's; zero takes its defaults.
	SignerTTL, LeafTTL time.Duration
	// Settle is how long a new signer has been in every control plane's and every
	// connected node's bundle before it signs; three seconds when zero.
	Settle time.Duration
	// Heartbeat is how often WatchTrust and PeerSync repeat what has not changed,
	// which also carries the clock; 30 seconds when zero.
	Heartbeat time.Duration
	Log       *slog.Logger
	Now       func() time.Time
}

// Server is one control plane's identity service.
type Server struct {
	identityv1.UnimplementedIdentityServer

	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	id     spiffeid.ID
	ca     *ca.CA
	tokens *token.Store
	nodes  *token.Nodes
	peers  *directory
	source *svid.Holder
	auth   *Authenticator
	limits *limits

	started time.Time
	heard   heard

	watchers  watchers
	published *published
	reports   reports
	// self serialises what replaces the own SVID.
	self sync.Mutex
}

const (
	defaultSettle    = 3 * time.Second
	defaultHeartbeat = 30 * time.Second
)

// Build opens the state directory. With a JoinToken that is still needed it also
// joins, so that an own SVID is there before the listener is.
func Build(ctx context.Context, cfg Config) (*Server, error) {
	s, err := build(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("identity server: %w", err)
	}
	return s, nil
}

func build(ctx context.Context, cfg Config) (_ *Server, err error) {
	id, err := spiffe.ForControlPlane(cfg.TrustDomain, cfg.ControlPlane)
	if err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return nil, errors.New("no state directory is configured")
	}
	if cfg.Settle == 0 {
		cfg.Settle = defaultSettle
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Log.With("component", "identity"), now: cfg.Now, id: id, started: cfg.Now(), limits: newLimits(), published: newPublished()}
	s.source = svid.NewHolder(nil)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if s.ca, err = ca.OpenOrCreate(ca.Config{
		Dir: cfg.Dir, TrustDomain: cfg.TrustDomain, ControlPlane: cfg.ControlPlane,
		Joining: cfg.JoinToken != "", SignerTTL: cfg.SignerTTL, LeafTTL: cfg.LeafTTL, Log: cfg.Log, Now: cfg.Now,
	}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.ca.Close()
		}
	}()
	if s.tokens, err = token.OpenStore(filepath.Join(cfg.Dir, "tokens"), cfg.TrustDomain, cfg.Now); err != nil {
		return nil, err
	}
	if s.nodes, err = token.OpenNodes(filepath.Join(cfg.Dir, "nodes"), cfg.TrustDomain); err != nil {
		return nil, err
	}
	if s.peers, err = openDirectory(filepath.Join(cfg.Dir, "controlplanes.json"), cfg.TrustDomain); err != nil {
		return nil, err
	}
	s.auth = newAuthenticator(s)
	if err = s.openSelf(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// ID is this control plane's SPIFFE ID.
func (s *Server) ID() spiffeid.ID { return s.id }

// Source gives this control plane's own SVID and every bundle.
func (s *Server) Source() svid.Source { return s.source }

// Authenticator checks the callers of every service on the control plane's port.
func (s *Server) Authenticator() *Authenticator { return s.auth }

// TLS is the configuration of the control plane's port: a client without a
// certificate is let in as nobody, and nobody may call only Join.
func (s *Server) TLS() (*tls.Config, error) {
	return tlsconf.Server(tlsconf.ServerParams{
		Source: s.source, ID: s.id.String(), Client: tlsconf.RequestClient, Authorize: tlsconf.Any, ALPN: []string{"h2"}, Now: s.cfg.Now,
	})
}

// ServerOptions are what the gRPC server of the control plane's port needs: TLS,
// authentication of every method of every service registered on it, and
// keepalive. With these credentials a connection ends when its client's
// certificate expires or its node is banned, whatever streams it carries.
func (s *Server) ServerOptions() ([]grpc.ServerOption, error) {
	conf, err := s.TLS()
	if err != nil {
		return nil, fmt.Errorf("identity server: %w", err)
	}
	return []grpc.ServerOption{
		grpc.Creds(s.auth.credentials(conf)),
		grpc.ConnectionTimeout(handshakeTime), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ChainUnaryInterceptor(s.auth.Unary()),
		grpc.ChainStreamInterceptor(s.auth.Stream()),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}, nil
}

// Register adds the identity service.
func (s *Server) Register(r grpc.ServiceRegistrar) { identityv1.RegisterIdentityServer(r, s) }

// SetAddresses says where this control plane is reached, host:port. They are in
// every token it makes and are told to nodes and control planes.
func (s *Server) SetAddresses(addresses []string) error {
	if err := s.peers.setOwn(s.id, addresses); err != nil {
		return fmt.Errorf("identity server: %w", err)
	}
	return nil
}

// Run keeps the own SVID, the signers, the connections and the other control
// planes current until ctx ends. Call SetAddresses first.
func (s *Server) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { s.auth.run(ctx) })
	wait.Go(func() { s.keepSelf(ctx) })
	wait.Go(func() { s.keepPeers(ctx) })
	wait.Go(func() { s.keepHouse(ctx) })
	wait.Wait()
	return nil
}

// Close releases the state directory. Run must have ended.
func (s *Server) Close() error { return s.ca.Close() }
