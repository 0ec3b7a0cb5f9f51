package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
)

// WatchTrust implements identityv1.IdentityServer.
func (s *Server) WatchTrust(_ *identityv1.WatchTrustRequest, stream grpc.ServerStreamingServer[identityv1.TrustUpdate]) error {
	ctx := stream.Context()
	who, ok := PeerFrom(ctx)
	if !ok {
		return errNobody
	}
	watcher, err := s.watchers.add(who.ID.String())
	if err != nil {
		return err
	}
	defer s.watchers.remove(watcher)
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	var sent lastSent
	repeat := true
	for {
		trustChanged, nodesChanged, peersChanged := s.ca.Changed(), s.nodes.Changed(), s.peers.Changed()
		bundle := s.ca.Bundle()
		rec, ok := s.nodes.Get(who.role(), who.Name)
		if !ok {
			return status.Errorf(codes.PermissionDenied, "%s is not on record any more", who.ID)
		}
		if rec.Banned {
			if err := sendWithin(stream, &identityv1.TrustUpdate{ServerTime: identityv1.Time(s.now()), Record: identityv1.NewRecord(rec)}, s.cfg.Heartbeat); err != nil {
				return err
			}
			return status.Errorf(codes.PermissionDenied, "%s is banned: %s", who.ID, rec.BanReason)
		}
		// Other nodes' records change the same channel; only what concerns this
		// node is sent.
		now := lastSent{sequence: bundle.Sequence, revision: rec.Revision, peers: s.peers.version()}
		if repeat || now != sent {
			update := &identityv1.TrustUpdate{
				ServerTime: identityv1.Time(s.now()), Bundles: []*identityv1.Bundle{identityv1.NewBundle(bundle)},
				ControlPlanes: s.peers.wire(false), Record: identityv1.NewRecord(rec),
			}
			if err := sendWithin(stream, update, s.cfg.Heartbeat); err != nil {
				if status.Code(err) == codes.DeadlineExceeded {
					s.log.Warn("a trust stream is ended, its peer does not read", "peer", who.ID.String(), "err", err)
				}
				return err
			}
			sent = now
			s.watchers.sent(watcher, bundle.Sequence)
		}
		repeat = false
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-trustChanged:
		case <-nodesChanged:
		case <-peersChanged:
		case <-heartbeat.C:
			repeat = true
		}
	}
}

// sendWithin sends, and gives up on a peer that does not read: while it is
// connected no signer is activated that it has not been sent.
func sendWithin(stream grpc.ServerStreamingServer[identityv1.TrustUpdate], update *identityv1.TrustUpdate, limit time.Duration) error {
	done := make(chan error, 1)
	// It ends with the stream, which ends when the handler returns.
	go func() { done <- stream.Send(update) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return status.Errorf(codes.DeadlineExceeded, "the trust stream was not read for %s", limit)
	}
}

// lastSent is what a watcher has; equal values need no message.
type lastSent struct{ sequence, revision, peers uint64 }

func (s *Server) bundles() []*identityv1.Bundle {
	return []*identityv1.Bundle{identityv1.NewBundle(s.ca.Bundle())}
}

// watchers know which bundle each connected node was last sent.
type watchers struct {
	mu   sync.Mutex
	last map[*watcher]uint64
	of   map[string]int // streams by caller
}

// watcher is one stream.
type watcher struct{ caller string }

// maxWatches bounds the streams of one caller: an agent has one. Each change of anybody's record
// wakes all of them.
const maxWatches = 32

func (w *watchers) add(caller string) (*watcher, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[caller] >= maxWatches {
		return nil, status.Errorf(codes.ResourceExhausted, "%s has %d trust streams already, which is the limit", caller, maxWatches)
	}
	if w.last == nil {
		w.last, w.of = map[*watcher]uint64{}, map[string]int{}
	}
	one := &watcher{caller}
	w.last[one] = 0
	w.of[caller]++
	return one, nil
}

func (w *watchers) remove(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, one)
	if w.of[one.caller]--; w.of[one.caller] == 0 {
		delete(w.of, one.caller)
	}
}

func (w *watchers) sent(one *watcher, sequence uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[one] = sequence
}

// all reports whether every watcher was sent the sequence or a later one.
func (w *watchers) all(sequence uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, last := range w.last {
		if last < sequence {
			return false
		}
	}
	return true
}

// NodeReport is what a node last told of itself.
type NodeReport struct {
	Node      string
	Received  time.Time
	Version   string
	Workloads []*identityv1.WorkloadReport
	Warnings  []string
}

type reports struct {
	mu     sync.Mutex
	byNode map[string]NodeReport
}

// Limits of one report; a node that lies about itself must not fill memory.
const (
	maxReported = 1000
	maxText     = 1024
)

// Report implements identityv1.IdentityServer.
func (s *Server) Report(ctx context.Context, r *identityv1.ReportRequest) (*identityv1.ReportResponse, error) {
	who, ok := PeerFrom(ctx)
	if !ok {
		return nil, errNobody
	}
	if err := s.limits.caller(who.ID.String()); err != nil {
		return nil, err
	}
	if err := checkReport(r); err != nil {
		return nil, err
	}
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	if s.reports.byNode == nil {
		s.reports.byNode = map[string]NodeReport{}
	}
	s.reports.byNode[who.Name] = NodeReport{
		Node: who.Name, Received: s.now(), Version: r.GetVersion(), Workloads: r.GetWorkloads(), Warnings: r.GetWarnings(),
	}
	return &identityv1.ReportResponse{ServerTime: identityv1.Time(s.now())}, nil
}

func checkReport(r *identityv1.ReportRequest) error {
	tooMuch := func(what string) error {
		return status.Errorf(codes.InvalidArgument, "the report has more %s than the control plane keeps (%d entries of %d bytes)", what, maxReported, maxText)
	}
	texts := append([]string{r.GetVersion()}, r.GetWarnings()...)
	if len(r.GetWorkloads()) > maxReported || len(texts) > maxReported {
		return tooMuch("entries")
	}
	for _, w := range r.GetWorkloads() {
		if len(w.GetListening()) > maxReported {
			return tooMuch("listening addresses")
		}
		texts = append(texts, w.GetSpiffeId(), w.GetProxyId(), w.GetService(), w.GetApplication())
		texts = append(texts, w.GetListening()...)
	}
	for _, text := range texts {
		// A SPIFFE ID has up to 2048 bytes.
		if len(text) > 2*maxText {
			return tooMuch("text")
		}
	}
	return nil
}

// Reports returns the last report of each node that this control plane heard, by
// name.
func (s *Server) Reports() []NodeReport {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	out := make([]NodeReport, 0, len(s.reports.byNode))
	for _, name := range slices.Sorted(maps.Keys(s.reports.byNode)) {
		out = append(out, s.reports.byNode[name])
	}
	return out
}
