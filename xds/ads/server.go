package ads

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Server serves aggregated discovery. It holds no resources: each session has a
// View of the Provider's.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	// Set once.
	cfg     Config
	peerID  func(context.Context) (string, error)
	limiter *rate.Limiter
	log     *slog.Logger
	// streams are what a peer may open, work is what its requests may cost, said what is
	// written to the log of what it rejects.
	streams, work, said *budgets

	mu       sync.Mutex
	sessions map[uint64]*session
	peers    map[string]int // sessions by peer
	named    map[string]int // what the names cost that a peer has given
	lastID   uint64
	draining bool
	// idle is closed when the last session ends while draining.
	idle chan struct{}
}

// New returns a Server.
func New(cfg Config, opts ...Option) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = NopObserver{}
	}
	if cfg.HoldTimeout <= 0 {
		cfg.HoldTimeout = 5 * time.Second
	}
	s := &Server{
		cfg:      cfg,
		log:      cfg.Log.With("component", "ads"),
		sessions: map[uint64]*session{},
		peers:    map[string]int{},
		named:    map[string]int{},
		idle:     make(chan struct{}),
		work:     newBudgets(namesPerSecond, namesBurst),
		said:     newBudgets(rejectionsPerSecond, rejectionBurst),
	}
	if cfg.PeerStreamRate > 0 {
		s.streams = newBudgets(cfg.PeerStreamRate, cfg.PeerStreamBurst)
	}
	if cfg.StreamRate > 0 {
		s.limiter = rate.NewLimiter(cfg.StreamRate, max(1, cfg.StreamBurst))
	}
	for _, o := range opts {
		o(s)
	}
	return s
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// StreamAggregatedResources serves the state-of-the-world protocol.
func (s *Server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(stream.Context(), &sotwWire{stream: stream, identifier: s.cfg.Identifier})
}

// DeltaAggregatedResources serves the incremental protocol.
func (s *Server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(stream.Context(), &deltaWire{stream: stream, identifier: s.cfg.Identifier})
}

// serve runs one stream from admission to its end.
func (s *Server) serve(ctx context.Context, w wire) error {
	peer := ""
	if s.peerID != nil {
		id, err := s.peerID(ctx)
		if err != nil {
			s.cfg.Observer.Refused("unauthenticated")
			return status.Errorf(codes.Unauthenticated, "a discovery stream needs a client identity: %v", err)
		}
		peer = id
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sess, err := s.admit(peer, w, cancel)
	if err != nil {
		return err
	}
	err = sess.run(ctx)
	s.leave(sess, err)
	return err
}

// admit registers a session, or says why not.
func (s *Server) admit(peer string, w wire, cancel context.CancelCauseFunc) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		s.cfg.Observer.Refused("shutting down")
		return nil, errDraining
	case s.cfg.MaxSessions > 0 && len(s.sessions) >= s.cfg.MaxSessions:
		s.cfg.Observer.Refused("too many sessions")
		return nil, status.Errorf(codes.ResourceExhausted, "this control plane serves its limit of %d sessions; try another", s.cfg.MaxSessions)
	case s.cfg.MaxPeerSessions > 0 && s.peers[peer] >= s.cfg.MaxPeerSessions:
		s.cfg.Observer.Refused("too many sessions of a peer")
		return nil, status.Errorf(codes.ResourceExhausted, "%s has its limit of %d sessions at this control plane", peer, s.cfg.MaxPeerSessions)
	case s.streams != nil && !s.streams.allow(peer, time.Now()):
		s.cfg.Observer.Refused("too many new streams of a peer")
		return nil, status.Errorf(codes.ResourceExhausted, "this control plane admits %v new streams a second of %s; back off", float64(s.cfg.PeerStreamRate), peer)
	case s.limiter != nil && !s.limiter.Allow():
		s.cfg.Observer.Refused("too many new streams")
		return nil, status.Errorf(codes.ResourceExhausted, "this control plane admits %v new streams a second; back off", float64(s.cfg.StreamRate))
	}
	s.lastID++
	sess := newSession(s, s.lastID, peer, w, cancel)
	s.sessions[sess.id] = sess
	s.peers[peer]++
	return sess, nil
}

// charge has a peer answer for more, or with a negative number for less, of what is remembered.
func (s *Server) charge(peer string, more int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named[peer] += more; s.named[peer] <= 0 {
		delete(s.named, peer)
	}
	if more > 0 && s.named[peer] > maxPeerNames {
		return status.Errorf(codes.ResourceExhausted, "the streams of %s name more resources than %d bytes hold", peer, maxPeerNames)
	}
	return nil
}

func (s *Server) leave(sess *session, err error) {
	_ = s.charge(sess.peerID, -sess.charged)
	s.mu.Lock()
	delete(s.sessions, sess.id)
	if s.peers[sess.peerID]--; s.peers[sess.peerID] == 0 {
		delete(s.peers, sess.peerID)
	}
	if s.draining && len(s.sessions) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	sess.closed(err)
}

var errDraining = status.Error(codes.Unavailable, "this control plane is shutting down")

// Kick ends all sessions of a peer whose identity was withdrawn and returns how
// many there were. Keeping it away is the Provider's part.
func (s *Server) Kick(peerID string) int {
	n := 0
	for _, sess := range s.list() {
		if sess.peerID == peerID {
			sess.cancel(status.Errorf(codes.PermissionDenied, "identity %s was withdrawn", peerID))
			n++
		}
	}
	return n
}

// Drain refuses new streams and ends the open ones, evenly spread over a time,
// so that clients do not all arrive elsewhere at once. It returns when all have
// ended, or with ctx's error.
func (s *Server) Drain(ctx context.Context, spread time.Duration) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		if len(s.sessions) == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	open := s.list()
	var tick <-chan time.Time
	if len(open) > 0 && spread/time.Duration(len(open)) > 0 {
		t := time.NewTicker(spread / time.Duration(len(open)))
		defer t.Stop()
		tick = t.C
	}
	for i, sess := range open {
		if tick != nil && i > 0 {
			select {
			case <-tick:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		sess.cancel(errDraining)
	}
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// list returns the open sessions by age.
func (s *Server) list() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*session, 0, len(s.sessions))
	for _, sess := range s.sessions {
		out = append(out, sess)
	}
	slices.SortFunc(out, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return out
}

// Sessions reports all sessions by age, without their resources.
func (s *Server) Sessions() []SessionStatus {
	open := s.list()
	out := make([]SessionStatus, 0, len(open))
	for _, sess := range open {
		out = append(out, sess.status(false))
	}
	return out
}

// Session reports one session with its resources.
func (s *Server) Session(id uint64) (SessionStatus, bool) {
	s.mu.Lock()
	sess := s.sessions[id]
	s.mu.Unlock()
	if sess == nil {
		return SessionStatus{}, false
	}
	return sess.status(true), true
}

// Held returns the resources a session's client has acknowledged: its
// configuration, as seen from here.
func (s *Server) Held(id uint64) ([]*resource.Resource, bool) {
	s.mu.Lock()
	sess := s.sessions[id]
	s.mu.Unlock()
	if sess == nil {
		return nil, false
	}
	sess.mu.Lock()
	defer sess.mu.Unlock()
	return sess.core.held(), true
}
