package sidecar

import (
	"errors"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
)

// The time until a listener is tried again that cannot have its address: from the first to the
// longest, each twice the one before.
const (
	retryFirst = time.Second
	retryMax   = 10 * time.Second
)

// retry is a listener that was acknowledged and could not have its address. Its sender cannot be
// told, and has no reason to send it again.
type retry struct {
	cfg   *listener.Config
	timer *time.Timer
	wait  time.Duration
}

// mayBeFree tells whether a listener failed for want of an address that it may have later.
func mayBeFree(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// tryLater has a listener tried again, and wanted until then.
func (s *state) tryLater(cfg *listener.Config) {
	r := s.retries[cfg.Name]
	if r == nil || r.cfg != cfg {
		s.forgo(cfg.Name)
		r = &retry{cfg: cfg, wait: retryFirst}
		s.retries[cfg.Name] = r
	} else {
		r.wait = min(2*r.wait, retryMax)
	}
	s.wants[cfg.Name] = cfg
	r.timer = time.AfterFunc(r.wait, func() { s.tryAgain(r) })
}

func (s *state) tryAgain(r *retry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retries[r.cfg.Name] != r {
		return
	}
	s.late([]*listener.Config{r.cfg})
	s.sweep()
}

// triesFor tells whether a listener is one that is tried again.
func (s *state) triesFor(cfg *listener.Config) bool {
	return cfg != nil && s.retries[cfg.Name] != nil && s.retries[cfg.Name].cfg == cfg
}

// forgo ends the tries of a listener: it is in force, another one, or gone.
func (s *state) forgo(name string) {
	if r := s.retries[name]; r != nil {
		r.timer.Stop()
		delete(s.retries, name)
	}
}
