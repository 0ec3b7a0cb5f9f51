// Package workloadapi is the host socket of an agent: a Unix socket on which the
// processes of a host get the identities that are theirs, by the SPIFFE Workload
// API (X.509) and by Envoy's secret discovery service.
//
// Nobody proves anything on this socket: the kernel says who connected
// (SO_PEERCRED, and a pidfd that pins the process), systemd's cgroup says in
// which unit it runs, and the node's record and the host's own file say which
// identities that process may have. This is asked again before each answer.
//
// It is the one place where a workload's private key leaves the agent.
package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	workloadv1 "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/svid"
)

// Source is what is served: an *agent.Agent, or in a test something like it. A
// change of the record shows as a change of the snapshot.
type Source interface {
	svid.Source
	Record() *agent.Record
}

// Config says where the socket is and who gets what.
type Config struct {
	// Socket is its path, at most 107 bytes.
	Socket string
	// Mode of the socket; 0666 when zero. It need not keep anybody out: who gets
	// what is decided by attestation, not by who may connect.
	Mode fs.FileMode
	// Source must be running, or begin to.
	Source Source
	// Workloads is a file that says which identities are for which processes, in
	// addition to the selectors of the node's record; empty for none. See
	// ParseEntries.
	Workloads string
	// Want is told the SPIFFE IDs that some process of this host may ask for, so
	// that the source holds them; nil where it holds every one anyway.
	Want func(...spiffeid.ID)
	// Register adds other services to the socket. Their handlers find the
	// attested caller with CallerFromContext.
	Register func(grpc.ServiceRegistrar)
	// Limits bound what callers can make the agent hold.
	Limits Limits
	// Observer counts; nil for none.
	Observer Observer
	Log      *slog.Logger
}

// Observer counts what happens on the socket. It is called concurrently and must
// not block.
type Observer interface {
	// Connections is told how many are open.
	Connections(open int)
	// Refused is told of each connection that could not be attested or was one
	// too many.
	Refused()
	// Ended is told of each call that ended: its full method, which is one of
	// those registered, and its gRPC code.
	Ended(method, code string)
}

// unobserved is the Observer of a socket that nobody counts.
type unobserved struct{}

func (unobserved) Connections(int)      {}
func (unobserved) Refused()             {}
func (unobserved) Ended(string, string) {}

// Limits bound what callers can make the agent hold. Zero takes the default.
type Limits struct {
	// Connections of all callers, 1024 by default.
	Connections int
	// ConnectionsPerUser bounds those of one user, 64 by default.
	ConnectionsPerUser int
	// StreamsPerUser bounds the calls under way of one user, 512 by default.
	StreamsPerUser int
}

func (l *Limits) complete() error {
	for _, x := range []struct {
		name  string
		value *int
		ours  int
	}{{"connections", &l.Connections, 1024}, {"connections per user", &l.ConnectionsPerUser, 64}, {"streams per user", &l.StreamsPerUser, 512}} {
		if *x.value < 0 {
			return fmt.Errorf("%s: %d is negative", x.name, *x.value)
		}
		if *x.value == 0 {
			*x.value = x.ours
		}
	}
	return nil
}

const (
	// handshakeTimeout bounds how long a connection may stay without HTTP/2.
	handshakeTimeout = 5 * time.Second
	// buffer is each way's, per connection. Most carry some kilobytes an hour.
	buffer = 4 << 10
	// maxHeaders bounds a call's headers, for each stream: gRPC's own bound is 16 MiB.
	// maxRequest bounds a request, of which those of a relayed Envoy that names thousands of
	// resources are the largest.
	maxHeaders, maxRequest = 16 << 10, 1 << 20
)

// Server is the host socket. Build binds it, Run serves it.
type Server struct {
	cfg    Config
	log    *slog.Logger
	socket *socket
	grpc   *grpc.Server
	health *health.Server
	use    *usage
	peers  *peers
	file   *entryFile
	world  atomic.Pointer[world]
	// What tests replace.
	reads    peerReader
	patience time.Duration
	interval time.Duration

	mu       sync.Mutex // serialises look
	problems []string   // those logged already

	fileErr string // the one logged already; follow's
}

// Build binds the socket, and fails if the file of workloads cannot be used.
func Build(cfg Config) (_ *Server, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("host socket: %w", err)
		}
	}()
	if cfg.Source == nil {
		return nil, errors.New("there is no source of identities")
	}
	if err := cfg.Limits.complete(); err != nil {
		return nil, err
	}
	if cfg.Mode == 0 {
		cfg.Mode = 0o666
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = unobserved{}
	}
	s := &Server{cfg: cfg, log: cfg.Log.With("component", "hostsocket"), use: newUsage(cfg.Limits, cfg.Observer.Connections), peers: newPeers(), reads: kernel{}, patience: pendingWait, interval: entryInterval}
	if s.file, err = openEntryFile(cfg.Workloads); err != nil {
		return nil, err
	}
	s.health = health.NewServer()
	s.look()
	if s.socket, err = listen(cfg.Socket, cfg.Mode); err != nil {
		return nil, err
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(attestor{s}),
		grpc.ConnectionTimeout(handshakeTimeout), grpc.WaitForHandlers(true),
		grpc.MaxConcurrentStreams(uint32(cfg.Limits.StreamsPerUser)), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxRequest),
		grpc.ReadBufferSize(buffer), grpc.WriteBufferSize(buffer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream))
	s.register()
	return s, nil
}

// register puts every service on the socket. Reflection lists them and their
// schemas; it has no way to call one.
func (s *Server) register() {
	workloadv1.RegisterSpiffeWorkloadAPIServer(s.grpc, &workloadServer{s: s})
	secretv3.RegisterSecretDiscoveryServiceServer(s.grpc, &secretServer{s: s})
	healthv1.RegisterHealthServer(s.grpc, s.health)
	if s.cfg.Register != nil {
		s.cfg.Register(s.grpc)
	}
	reflection.Register(s.grpc)
}

// Addr is where the socket is.
func (s *Server) Addr() net.Addr { return s.socket.Addr() }

// Run serves until ctx ends. Calls under way are ended then; nothing is left
// running when it returns.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	served := make(chan error, 1)
	wg.Go(func() { served <- s.grpc.Serve(s.socket) })
	wg.Go(func() { s.follow(ctx) })
	s.log.Info("host socket", "path", s.cfg.Socket, "mode", fmt.Sprintf("%04o", s.cfg.Mode))
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		err = fmt.Errorf("host socket %s: %w", s.cfg.Socket, err)
	}
	cancel()
	s.health.Shutdown()
	s.grpc.Stop()
	wg.Wait()
	s.peers.wait()
	return err
}

// Close releases the socket. Run must have ended, or never begun.
func (s *Server) Close() error {
	s.grpc.Stop()
	return s.socket.Close()
}
