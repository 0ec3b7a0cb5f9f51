package sidecar

import (
	"fmt"
	"slices"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
)

// addresses tell which listener has an address.
type addresses map[listener.Bound]string

// addresses are those of all listeners. One that waits or fails to move has both: it listens at the
// one until it does at the other, and may do so last of all that wait.
func (s *state) addresses() addresses {
	held := addresses{}
	for name := range s.wants {
		held.occupy(name, s.holding(name))
	}
	return held
}

// holding are the configurations whose addresses a listener has.
func (s *state) holding(name string) []*listener.Config {
	var out []*listener.Config
	if cfg := s.wants[name]; cfg != nil {
		out = append(out, cfg)
	}
	if old := s.inForce[name]; old != nil && (s.warms(s.wants[name]) || s.triesFor(s.wants[name])) {
		out = append(out, old)
	}
	return out
}

func (a addresses) occupy(name string, by []*listener.Config) {
	for _, cfg := range by {
		for _, at := range cfg.Bound() {
			a[at] = name
		}
	}
}

func (a addresses) vacate(name string, by []*listener.Config) {
	for _, cfg := range by {
		for _, at := range cfg.Bound() {
			if a[at] == name {
				delete(a, at)
			}
		}
	}
}

// clash says which other listener has an address of one.
func (a addresses) clash(cfg *listener.Config) error {
	for _, at := range cfg.Bound() {
		if other := a[at]; other != "" && other != cfg.Name {
			return fmt.Errorf("listener %s: %s is listener %q's", cfg.Name, at.Address, other)
		}
	}
	return nil
}

// free takes addresses that cfg asks for from listeners of the same update, now, that cannot be
// made, and so are refused before they have them. What was before of such a one may go on there.
func (s *state) free(cfg *listener.Config, held addresses, now []*listener.Config) {
	if held.clash(cfg) == nil {
		return
	}
	for _, c := range now {
		if c.Name == cfg.Name || s.inForce[c.Name] != nil || s.warming[c.Name] != nil || s.retries[c.Name] != nil {
			continue
		}
		if slices.ContainsFunc(c.Bound(), func(at listener.Bound) bool { return slices.Contains(cfg.Bound(), at) }) && s.listeners.Check(c) != nil {
			held.vacate(c.Name, []*listener.Config{c})
		}
	}
}

// available says why a listener cannot have its addresses. One that another has is refused
// while its sender listens, as in Envoy, though the other may still wait, and have no socket,
// or wait to leave it.
func (s *state) available(cfg *listener.Config, held addresses) error {
	if err := held.clash(cfg); err != nil {
		return err
	}
	return s.listeners.Available(cfg)
}
