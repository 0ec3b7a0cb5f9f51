package server

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/ca"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// published knows which signers every verifier has. A signer that signed before
// would have its SVIDs refused by whoever has not heard of it.
type published struct {
	mu sync.Mutex
	// own are the signers given to all nodes connected here.
	own map[string]bool
	// peers are what the other control planes say of theirs, by SPIFFE ID.
	peers map[string]map[string]bool
	// since is when a signer was first published everywhere.
	since   map[string]time.Time
	changed chan struct{}
}

func newPublished() *published {
	return &published{own: map[string]bool{}, peers: map[string]map[string]bool{}, since: map[string]time.Time{}, changed: make(chan struct{})}
}

// Changed is closed when the own set changes.
func (p *published) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *published) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.own))
}

func (p *published) setOwn(ids map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if maps.Equal(p.own, ids) {
		return
	}
	p.own = ids
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *published) setPeer(peer spiffeid.ID, ids []string) {
	set := map[string]bool{}
	for _, id := range ids {
		set[id] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers[peer.String()] = set
}

// everywhere reports whether a signer has been published by this and all the
// named control planes for the time settle.
func (p *published) everywhere(signer string, peers []string, now time.Time, settle time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.own[signer]
	for _, peer := range peers {
		all = all && p.peers[peer][signer]
	}
	if !all {
		delete(p.since, signer)
		return false
	}
	if _, ok := p.since[signer]; !ok {
		p.since[signer] = now
	}
	return now.Sub(p.since[signer]) >= settle
}

// missing are those of the named control planes that have not confirmed a signer.
func (p *published) missing(signer string, peers []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(peers), func(peer string) bool { return p.peers[peer][signer] })
}

// otherIDs are the other control planes on record.
func (s *Server) otherIDs() []string {
	var out []string
	for _, p := range s.peers.list() {
		if p.ID != s.id.String() {
			out = append(out, p.ID)
		}
	}
	return out
}

// publishSigners records what all nodes connected here have been sent.
func (s *Server) publishSigners() {
	bundle := s.ca.Bundle()
	if !s.watchers.all(bundle.Sequence) {
		return
	}
	ids := map[string]bool{}
	for _, signer := range bundle.Signers {
		if signer.State != trust.Withdrawn {
			ids[signer.ID] = true
		}
	}
	s.published.setOwn(ids)
}

// isPublished says whether an own signer may sign. Every control plane on record
// must have confirmed it; one that is gone for good holds this up until an
// operator removes it, because the nodes it may still serve would refuse the
// signer's SVIDs.
func (s *Server) isPublished(signer string) bool {
	peers := s.otherIDs()
	// A signer that no other control plane has admitted is known to nobody. One that follows an
	// own one, which has expired, is of a control plane that is alone.
	if _, err := s.ca.Pin(); err != nil && !errors.Is(err, ca.ErrExpired) && len(peers) == 0 {
		return false
	}
	return s.published.everywhere(signer, peers, s.now(), s.cfg.Settle)
}
