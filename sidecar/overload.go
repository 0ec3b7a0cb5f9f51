package sidecar

import (
	"os"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
)

// buildOverload makes what keeps the process within its means: the bootstrap's overload
// manager, or one that keeps to the limit of its memory. An error is that the host lacks what is to
// be looked at.
func (s *Sidecar) buildOverload() error {
	var cfg *overload.Config
	switch b := s.cfg.Bootstrap; {
	case b != nil && b.Overload != nil:
		cfg = b.Overload
		if s.cfg.MemoryLimit > 0 && len(cfg.Actions) == 0 && cfg.MaxHeap == 0 {
			cfg = limited(cfg, s.cfg.MemoryLimit)
		}
	case s.cfg.MemoryLimit > 0:
		cfg = overload.Within(s.cfg.MemoryLimit)
	default:
		return nil
	}
	if limit := s.cfg.MemoryLimit; limit > 0 {
		// A bootstrap with a manager of its own for memory is kept to instead.
		kept := cfg.MaxHeap == overload.Within(limit).MaxHeap
		s.cfg.Log.Info("memory limit", "component", "overload", "bytes", limit, "of", s.cfg.MemoryLimitOf, "kept", kept, "heap", cfg.MaxHeap)
	}
	m := overload.New(cfg, overload.Options{Host: os.DirFS("/"), Accept: func(yes bool) { s.listeners.Accept(yes) }, Hoards: hoards, Reduced: s.timers.Reduced, Log: s.cfg.Log})
	if err := m.Sense(); err != nil {
		return err
	}
	s.overload = m
	s.metrics.OverloadPressure.Collect(m.Pressures)
	s.metrics.OverloadActions.Collect(m.Shares)
	s.metrics.OverloadDone.Collect(m.Done)
	return nil
}

// limited is a configuration that limits connections alone, and has nothing done because of what it
// looks at, which keeps to a limit of memory too.
func limited(own *overload.Config, limit uint64) *overload.Config {
	cfg := overload.Within(limit)
	cfg.MaxConnections, cfg.ListenerConnections = own.MaxConnections, own.ListenerConnections
	cfg.GroupMemory, cfg.MaxGroupMemory, cfg.CPU, cfg.Paths = own.GroupMemory, own.MaxGroupMemory, own.CPU, own.Paths
	if own.Refresh > 0 {
		cfg.Refresh = own.Refresh
	}
	return cfg
}

// hoards are the streams of HTTP/2 that hold as much, with clients and with hosts.
func hoards(least int) (all []overload.Hoard) {
	for _, h := range http2.Hoards(least) {
		all = append(all, overload.Hoard{Bytes: h.Bytes, Reset: h.Reset})
	}
	return all
}
