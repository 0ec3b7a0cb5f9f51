// Package server assembles a control plane: the source of its catalog, the
// store, the views, xDS and identity on one TLS port, and the operator API.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/controlplane/source"
	"github.com/hauberk-mesh/hauberk/controlplane/store"
	"github.com/hauberk-mesh/hauberk/controlplane/view"
	identityserver "github.com/hauberk-mesh/hauberk/identity/server"
	"github.com/hauberk-mesh/hauberk/internal/stale"
	"github.com/hauberk-mesh/hauberk/xds/ads"
)

// Config says what a control plane is made of. Addresses are host:port, port 0
// picks a free one.
type Config struct {
	// StateDir holds the signer key, tokens and records (0700).
	StateDir    string
	TrustDomain spiffeid.TrustDomain
	// ID is the last part of this control plane's SPIFFE ID.
	ID string
	// JoinToken lets another control plane admit this one.
	JoinToken string

	// Source delivers the catalog. Datacenter, when set, overrides its word.
	Source     source.Source
	Datacenter string

	// XDSAddress serves xDS and identity; Advertise is where nodes reach it,
	// the bound address when empty, or an address of this host's where that
	// names none.
	XDSAddress string
	Advertise  []string
	// APIAddress serves operators, metrics and health over TLS; Socket
	// is the path of the Unix socket for everything. APIHostnames are names
	// that the API is reached by.
	APIAddress   string
	Socket       string
	APIHostnames []string

	LeafTTL, SignerTTL time.Duration
	// StaleAfter is the age of the catalog, and of what another control plane
	// said, from which it is warned of; stale.After when zero.
	StaleAfter time.Duration
	// Now is the clock of identities; time.Now when nil.
	Now     func() time.Time
	Version string
	Log     *slog.Logger
}

// Server is one control plane. Build binds, Run serves.
type Server struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	metrics  *prometheus.Registry
	identity *identityserver.Server
	store    *store.Store
	views    *view.Manager
	ads      *ads.Server
	grpc     *grpc.Server
	api      *apiServer
	xds      net.Listener
}

// Build opens the state directory and binds every address, so that what cannot
// work fails before anything is served.
func Build(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Log, started: time.Now(), metrics: prometheus.NewRegistry()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.StaleAfter == 0 {
		s.cfg.StaleAfter = stale.After
	}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) build(ctx context.Context) error {
	if s.cfg.TrustDomain.IsZero() {
		return errors.New("control plane: trust domain: must be set")
	}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if s.xds, err = listen(ctx, "tcp", s.cfg.XDSAddress, "xDS"); err != nil {
		return err
	}
	s.identity, err = identityserver.Build(ctx, identityserver.Config{
		Dir:          s.cfg.StateDir,
		TrustDomain:  s.cfg.TrustDomain,
		ControlPlane: s.cfg.ID,
		JoinToken:    s.cfg.JoinToken,
		LeafTTL:      s.cfg.LeafTTL,
		SignerTTL:    s.cfg.SignerTTL,
		Now:          s.cfg.Now,
		Log:          s.log.With("component", "identity"),
	})
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	advertise := s.cfg.Advertise
	if len(advertise) == 0 {
		own, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("control plane: this host's addresses: %w; set --advertise", err)
		}
		advertise = []string{reachable(s.xds.Addr(), own)}
	}
	if err := s.identity.SetAddresses(advertise); err != nil {
		return fmt.Errorf("control plane: advertised addresses: %w", err)
	}
	s.metrics.MustRegister((*ages)(s))
	confirmer, _ := s.cfg.Source.(source.Confirmer)
	s.store = store.New(store.Config{
		TrustDomain: s.cfg.TrustDomain.Name(),
		Datacenter:  s.cfg.Datacenter,
		Confirmer:   confirmer,
		Logger:      s.log.With("component", "store"),
		Registerer:  s.metrics,
	})
	s.metrics.MustRegister(sourceMetrics{s.cfg.Source})
	s.views = view.NewManager(s.log.With("component", "view"))
	if err := s.buildXDS(); err != nil {
		return err
	}
	s.api, err = newAPIServer(ctx, s)
	return err
}

func (s *Server) buildXDS() error {
	records := &records{identity: s.identity}
	s.ads = ads.New(ads.Config{
		Provider:    &provider{views: s.views, records: records},
		Identifier:  s.identity.ID().String(),
		Log:         s.log.With("component", "xds"),
		Observer:    newObserver(s.metrics),
		StreamRate:  200,
		StreamBurst: 400,
		// It opens few again and again, and many after an outage alone.
		PeerStreamRate:  25,
		PeerStreamBurst: 200,
		// A node's agent relays those of every proxy on its host, twice as many as it takes of one
		// user. Each is a view of its own, which a change of what they show has built anew under one
		// lock: 85 µs with twenty upstreams.
		MaxPeerSessions: 1024,
	}, ads.WithPeerID(peerID))
	opts, err := s.identity.ServerOptions()
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	s.grpc = grpc.NewServer(opts...)
	s.identity.Register(s.grpc)
	s.ads.Register(s.grpc)
	return nil
}

// peerID is the identity that the connection's authentication has verified.
func peerID(ctx context.Context) (string, error) {
	p, ok := identityserver.PeerFrom(ctx)
	if !ok {
		return "", errors.New("no client certificate")
	}
	return p.ID.String(), nil
}

// Addrs tells what Build has bound.
type Addrs struct {
	XDS, API, Socket string
}

// Addrs returns the bound addresses.
func (s *Server) Addrs() Addrs {
	return Addrs{XDS: s.xds.Addr().String(), API: s.api.addr(), Socket: s.cfg.Socket}
}

// ID returns the control plane's SPIFFE ID.
func (s *Server) ID() spiffeid.ID { return s.identity.ID() }

// Run serves until ctx ends, or until something fails that waiting cannot mend,
// such as a refused Consul token.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return quiet(ctx, "identity", s.identity.Run(ctx)) })
	g.Go(func() error { return quiet(ctx, "store", s.store.Run(ctx)) })
	g.Go(func() error { return quiet(ctx, "source", s.cfg.Source.Run(ctx, s.store)) })
	g.Go(func() error { return quiet(ctx, "views", s.views.Run(ctx, s.publications())) })
	g.Go(func() error { return s.closeWithdrawn(ctx) })
	g.Go(func() error { return s.api.serve(ctx) })
	g.Go(func() error { stale.Watch(ctx, s.log, s.cfg.StaleAfter, s.kept); return nil })
	g.Go(func() error { return s.serveXDS(ctx) })
	return g.Wait()
}

// quiet turns the end of the context into success.
func quiet(ctx context.Context, what string, err error) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("control plane: %s: %w", what, err)
}

func (s *Server) publications() func(context.Context) (view.Published, error) {
	sub := s.store.Subscribe()
	return func(ctx context.Context) (view.Published, error) {
		p, err := sub.Next(ctx)
		if err != nil {
			return view.Published{}, err
		}
		return view.Published{Snapshot: p.Snapshot, Dirty: p.Dirty, Received: p.Received, Index: p.Index}, nil
	}
}

func (s *Server) serveXDS(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		// Sessions hold streams open for ever, so they are told to end; clients
		// move to another control plane with their configuration kept.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := s.ads.Drain(bounded, 500*time.Millisecond); err != nil {
			s.log.Warn("xds streams did not end in time", "err", err)
		}
		s.grpc.Stop()
	}()
	err := s.grpc.Serve(s.xds)
	if ctx.Err() == nil {
		return fmt.Errorf("control plane: xDS: %w", err)
	}
	<-stopped
	return nil
}

// Close releases what Build took. Run must have ended.
func (s *Server) Close() error {
	var errs []error
	if s.api != nil {
		errs = append(errs, s.api.close())
	}
	if s.grpc != nil {
		s.grpc.Stop()
	}
	if s.xds != nil {
		if err := s.xds.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.identity != nil {
		errs = append(errs, s.identity.Close())
	}
	return errors.Join(errs...)
}

func listen(ctx context.Context, network, address, what string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("control plane: %s address %q: %w; is another control plane running?", what, address, err)
	}
	return ln, nil
}
