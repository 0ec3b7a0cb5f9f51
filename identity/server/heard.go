package server

import (
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// heard is when each other control plane last told its state.
type heard struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (h *heard) note(peer spiffeid.ID, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[string]time.Time{}
	}
	h.at[peer.String()] = now
}

// OtherControlPlane is another control plane, as this one knows it.
type OtherControlPlane struct {
	ID string
	// Heard is when it last told its state; the start of this process before
	// that.
	Heard time.Time
}

// Peers are the other control planes, by ID. Each repeats its state at every
// heartbeat, so that silence means something.
func (s *Server) Peers() []OtherControlPlane {
	s.heard.mu.Lock()
	defer s.heard.mu.Unlock()
	var out []OtherControlPlane
	for _, p := range s.peers.list() {
		if p.ID == s.id.String() {
			continue
		}
		at, ok := s.heard.at[p.ID]
		if !ok {
			at = s.started
		}
		out = append(out, OtherControlPlane{ID: p.ID, Heard: at})
	}
	return out
}
