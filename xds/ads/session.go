package ads

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// firstRequestTimeout bounds how long a stream may stay open without saying who
// it is.
const firstRequestTimeout = 15 * time.Second

// session is one stream. Its goroutine decides; a second receives and a third
// sends, so that a client that does not read can neither stop its own
// acknowledgements from being read nor delay being kicked.
type session struct {
	// Set once.
	id     uint64
	peerID string
	server *Server
	wire   wire
	cancel context.CancelCauseFunc
	// charged is what the peer answers for, of this session. It is run's.
	charged int

	mu     sync.Mutex
	info   SessionInfo
	opened bool
	core   *core
	clock  clock
	last   *Convergence
}

func newSession(s *Server, id uint64, peerID string, w wire, cancel context.CancelCauseFunc) *session {
	return &session{
		id: id, peerID: peerID, server: s, wire: w, cancel: cancel,
		info: SessionInfo{ID: id, Since: time.Now(), Client: Client{PeerID: peerID, Delta: w.delta()}},
		core: newCore(w.delta(), s.cfg.HoldTimeout),
	}
}

type received struct {
	req request
	err error
}

// run serves the stream until it, its client or its identity ends.
func (s *session) run(ctx context.Context) error {
	in := make(chan received)
	go func() {
		for {
			req, err := s.wire.recv()
			select {
			case in <- received{req, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	first, err := s.hello(ctx, in)
	if err != nil || first == nil {
		return err
	}
	s.mu.Lock()
	s.info.Client = clientOf(ctx, first.GetNode(), s.peerID, s.wire.delta())
	s.core.forceEndpoints = s.info.Client.UserAgent == names.EnvoyUserAgent
	info := s.info
	s.mu.Unlock()

	view, err := s.server.cfg.Provider.Open(ctx, info.Client)
	if err != nil {
		s.server.cfg.Observer.Refused("provider")
		s.server.log.Info("stream refused", "src", info.Client.NodeID, "src_id", info.Client.PeerID, "err", err)
		if _, ok := status.FromError(err); ok {
			return err
		}
		return status.Error(codes.Unavailable, err.Error())
	}
	defer view.Close()
	s.mu.Lock()
	s.opened = true
	s.mu.Unlock()
	s.server.cfg.Observer.SessionOpened(info)
	s.server.log.Info("stream opened", "src", info.Client.NodeID, "src_id", info.Client.PeerID, "version", info.Client.Version)
	return s.loop(ctx, view, first, in)
}

// hello waits for the first request. It returns nil, nil when the client leaves
// without one.
func (s *session) hello(ctx context.Context, in <-chan received) (request, error) {
	timeout := time.NewTimer(firstRequestTimeout)
	defer timeout.Stop()
	select {
	case r := <-in:
		if errors.Is(r.err, io.EOF) {
			return nil, nil
		}
		if r.err != nil {
			return nil, r.err
		}
		if r.req.GetNode() == nil {
			return nil, status.Error(codes.InvalidArgument, "the first discovery request of a stream must carry the node")
		}
		// An Envoy lists all of its extensions there, which nobody keeps.
		r.req.GetNode().Extensions = nil
		if n := proto.Size(r.req.GetNode()); n > maxNode {
			return nil, status.Errorf(codes.InvalidArgument, "the node of a discovery request has %d bytes, at most %d are taken", n, maxNode)
		}
		return r.req, nil
	case <-timeout.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no discovery request within %v", firstRequestTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *session) loop(ctx context.Context, view View, first request, in <-chan received) error {
	work := make(chan []*response)
	sent := make(chan error, 1)
	defer close(work)
	go func() {
		for batch := range work {
			var err error
			for _, r := range batch {
				if err = s.wire.send(r); err != nil {
					break
				}
			}
			sent <- err
		}
	}()
	timer, rest := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer timer.Stop()
	defer rest.Stop()
	changed := view.Changed()
	s.see(view.Current())
	wait, err := s.handle(first)
	if err != nil {
		return err
	}
	from := in
	for sending := false; ; {
		if wait > 0 { // the peer has spent what its requests may cost
			from = nil
			rest.Reset(wait)
			wait = 0
		}
		if !sending {
			batch, wake := s.decide()
			if len(batch) > 0 {
				work <- batch
				sending = true
			}
			timer.Stop()
			if !wake.IsZero() {
				timer.Reset(time.Until(wake))
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-rest.C:
			from = in
		case r := <-from:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			if wait, err = s.handle(r.req); err != nil {
				return err
			}
		case <-changed:
			changed = view.Changed()
			s.see(view.Current())
		case err := <-sent:
			if err != nil {
				return err
			}
			sending = false
		case <-timer.C:
		}
	}
}

// handle gives a request to the core and tells the observer what it was. It returns how long the
// next one has to wait.
func (s *session) handle(req request) (time.Duration, error) {
	now := time.Now()
	s.mu.Lock()
	ev, err := s.core.apply(req, now)
	more, cost := s.core.size()-s.charged, s.core.cost(req)
	info := s.info
	s.mu.Unlock()
	if err == nil && more != 0 {
		s.charged += more
		err = s.server.charge(s.peerID, more)
	}
	if err != nil {
		s.server.log.Warn("stream ended for its request", "src", info.Client.NodeID, "src_id", info.Client.PeerID, "err", err)
		return 0, err
	}
	switch {
	case ev == nil:
	case ev.acked:
		s.server.cfg.Observer.Acked(info, ev.url, ev.took)
	default:
		if s.server.said.allow(s.peerID, now) {
			s.server.log.Warn("configuration rejected by its client", "src", info.Client.NodeID, "src_id", info.Client.PeerID,
				"type", ev.url, "resources", few(ev.nacked), "err", ev.detail)
		}
		s.server.cfg.Observer.Nacked(info, ev.url, ev.nacked, ev.detail)
	}
	return s.server.work.spend(s.peerID, cost, now), nil
}

// see takes the view's newest set.
func (s *session) see(set *resource.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set == nil || set == s.core.set {
		return
	}
	s.clock.see(set, s.core.set == nil, time.Now())
	s.core.setView(set)
}

// decide asks the core what to send.
func (s *session) decide() ([]*response, time.Time) {
	now := time.Now()
	s.mu.Lock()
	out, wake := s.core.next(now)
	if len(out) > 0 {
		s.clock.sent(now)
	}
	var done *Convergence
	if len(out) == 0 && s.core.set != nil && s.core.quiet() {
		if done = s.clock.settled(now); done != nil {
			s.last = done
		}
	}
	info := s.info
	s.mu.Unlock()
	for _, r := range out {
		s.server.cfg.Observer.Sent(info, r.url, r.changed, len(r.removed))
	}
	if done != nil {
		s.server.cfg.Observer.Converged(info, *done)
	}
	return out, wake
}

func (s *session) closed(err error) {
	s.mu.Lock()
	info, opened := s.info, s.opened
	s.mu.Unlock()
	if !opened {
		return
	}
	s.server.log.Info("stream closed", "src", info.Client.NodeID, "src_id", info.Client.PeerID, "err", err)
	s.server.cfg.Observer.SessionClosed(info, err)
}

func (s *session) status(resources bool) SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SessionStatus{SessionInfo: s.info, LastConvergence: s.last, Types: s.core.status(resources, time.Now())}
	if set := s.core.set; set != nil {
		st.Generation, st.Index = set.Generation, set.Index
		st.InSync = len(s.core.types) > 0 && s.core.quiet()
	}
	for _, ts := range s.core.order {
		if len(ts.nacked)+len(ts.fallen) > 0 || len(ts.gone) > 0 {
			st.InSync = false
		}
		if ts.lastAck.After(st.LastAck) {
			st.LastAck = ts.lastAck
		}
	}
	return st
}

// clock measures one change at one client, from the first unacknowledged set to
// the moment when nothing is left to do.
type clock struct {
	running bool
	c       Convergence
}

func (k *clock) see(set *resource.Set, initial bool, now time.Time) {
	if !k.running {
		k.running = true
		k.c = Convergence{Initial: initial, Seen: now}
		if set.Received != 0 {
			k.c.Received = time.Unix(0, set.Received)
		}
		if set.Built != 0 {
			k.c.Built = time.Unix(0, set.Built)
		}
	}
	k.c.Index = set.Index
}

func (k *clock) sent(now time.Time) {
	if k.c.FirstSent.IsZero() {
		k.c.FirstSent = now
	}
	k.c.LastSent = now
}

// settled ends the measurement. A change that sent nothing to this client
// measures nothing.
func (k *clock) settled(now time.Time) *Convergence {
	if !k.running {
		return nil
	}
	if k.c.FirstSent.IsZero() {
		// The first set waits for the client to ask for something.
		k.running = k.c.Initial
		return nil
	}
	k.running = false
	done := k.c
	done.Acked = now
	return &done
}
