package sidecar

import (
	"slices"
	"time"
)

// holdListeners has no listener accept anything while a cluster of the bootstrap has hosts that were not
// checked yet, or names of which none was looked up. Their sockets are there: that one cannot be
// had is told at the start, and who connects waits in its queue. It is for as long as a listener
// waits for what it names, at most: one host that is silent is no reason to serve nobody.
func (s *state) holdListeners() {
	if len(s.uninitialized()) == 0 {
		return
	}
	s.listeners.Hold()
	s.opening = time.AfterFunc(s.warmUp, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.opening != nil {
			s.log.Warn("listeners accept before all clusters of the bootstrap were checked", "clusters", s.uninitialized(), "waited", s.warmUp)
			s.open()
		}
	})
}

// openInitialized has the listeners accept once all clusters of the bootstrap are initialized.
func (s *state) openInitialized() {
	if s.opening != nil && len(s.uninitialized()) == 0 {
		s.open()
	}
}

// endHold has them accept at once, and tells whether they did not before.
func (s *state) endHold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.opening != nil
	if held {
		s.open()
	}
	return held
}

func (s *state) open() {
	s.opening.Stop()
	s.opening = nil
	s.listeners.Open()
}

// uninitialized are the clusters of the bootstrap of which nothing is known yet. One that has its
// endpoints by discovery is among them once they came, while they are checked; before that the
// listeners that name it wait for them.
func (s *state) uninitialized() (names []string) {
	for name := range s.staticClusters {
		if c := s.clusters.Get(name); c != nil && c.AwaitsChecks() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
