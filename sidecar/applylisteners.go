package sidecar

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/files"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func (s *state) applyListeners(u client.Update, errs map[string]error) {
	for _, name := range u.Removed {
		if !s.staticListeners[name] {
			delete(s.wants, name)
			delete(s.failed, name)
			s.cool(name)
			s.forgo(name)
		}
	}
	if u.Full {
		s.forgetFailed(u)
	}
	var now []*listener.Config
	held := s.addresses()
	for _, r := range u.Upserts {
		if s.staticListeners[r.Name] {
			errs[r.Name] = errStatic("listener")
			continue
		}
		cfg, err := read(s.runtime.Listener, r)
		if err != nil {
			errs[r.Name] = err
			continue
		}
		if s.accessLog != nil {
			addAccessLog(cfg, *s.accessLog)
		}
		if s.drains(cfg) { // it has no address any more
			if err := s.judge(cfg); err != nil {
				errs[r.Name] = err
			}
			continue
		}
		s.free(cfg, held, now)
		if err := cmp.Or(s.routesCome(cfg), s.unrouted(cfg), s.available(cfg, held), s.buildable(cfg)); err != nil {
			errs[r.Name] = err
			continue
		}
		held.vacate(cfg.Name, s.holding(cfg.Name))
		if s.want(cfg) {
			now = append(now, cfg)
		}
		held.occupy(cfg.Name, s.holding(cfg.Name))
	}
	s.wantWorkloads()
	for name, err := range s.replace(s.gone(u.Removed), now) {
		if s.wants[name] != nil {
			errs[name] = err
			s.restore(name)
		}
	}
}

// buildable says why a listener that is to wait could not be made then, when it is too late to
// tell its sender.
func (s *state) buildable(cfg *listener.Config) error {
	if w := s.warming[cfg.Name]; w != nil && reflect.DeepEqual(w.cfg, cfg) || s.ready(cfg) {
		return nil
	}
	if err := s.listeners.Check(cfg); err != nil {
		return fmt.Errorf("listener %s: %w", cfg.Name, err)
	}
	return nil
}

// drains tells whether a listener may not come back.
func (s *state) drains(cfg *listener.Config) bool {
	return s.draining && cfg.Direction == listener.Inbound
}

// judge has an update of a listener that may not come back decide over what it still serves. Without
// the routes that it names all requests would fail: then it says nothing of them.
func (s *state) judge(cfg *listener.Config) error {
	for _, n := range config.ListenerRefs(cfg).Routes {
		if s.routes.get(n) == nil {
			return nil
		}
	}
	return s.listeners.Judge(cfg)
}

// routesCome says why the routes that a listener names cannot come.
func (s *state) routesCome(cfg *listener.Config) error {
	refs := config.ListenerRefs(cfg)
	for _, n := range refs.Routes {
		if err := s.comes(n, refs.Sources[n]); err != nil {
			return fmt.Errorf("listener %q: rds.config_source: %w", cfg.Name, err)
		}
	}
	return nil
}

// unrouted says which cluster of a listener's own routes is missing, where they are to be
// validated. One that is said again unchanged was validated when it came.
func (s *state) unrouted(cfg *listener.Config) error {
	err := config.MissingOfListener(cfg, s.known)
	if err != nil && reflect.DeepEqual(s.wants[cfg.Name], cfg) {
		return nil
	}
	if err != nil && s.clustersCome {
		return fmt.Errorf("%w: %w", err, files.ErrEarly)
	}
	return err
}

// gone are the names that are in force and not wanted.
func (s *state) gone(removed []string) []string {
	var out []string
	for _, name := range removed {
		if s.inForce[name] != nil && s.wants[name] == nil {
			out = append(out, name)
		}
	}
	return out
}

// restore takes a rejected listener back to the one that was to be in its place, or is.
func (s *state) restore(name string) {
	if r := s.retries[name]; r != nil {
		s.wants[name] = r.cfg
		return
	}
	if w := s.warming[name]; w != nil {
		s.wants[name] = w.cfg
		return
	}
	if old := s.inForce[name]; old != nil {
		s.wants[name] = old
		return
	}
	delete(s.wants, name)
}

// want notes a listener and tells whether it can be applied at once. Otherwise
// it waits, for a bounded time, for the routes and clusters that it names. That time does not
// begin anew where it is the same, which the state of the world says with each change of another,
// nor where one is in force: what it is to be in its place may be a deny. The one that waits goes
// on until what is applied at once is in force, for that may be refused.
func (s *state) want(cfg *listener.Config) bool {
	s.wants[cfg.Name] = cfg
	refs := config.ListenerRefs(cfg)
	for _, n := range refs.Routes {
		s.routeNames[n] = true
		s.ask(resource.RouteType, n, refs.Sources[n])
	}
	if s.ready(cfg) {
		return true
	}
	if w := s.warming[cfg.Name]; w != nil && (s.inForce[cfg.Name] != nil || reflect.DeepEqual(w.cfg, cfg)) {
		w.cfg = cfg
		return false
	}
	s.cool(cfg.Name)
	s.forgo(cfg.Name)
	w := &warming{cfg: cfg}
	w.timer = time.AfterFunc(s.warmUp, func() { s.expire(w) })
	s.warming[cfg.Name] = w
	return false
}

// addAccessLog gives the sidecar's own access log to chains that have none.
func addAccessLog(cfg *listener.Config, l telemetry.AccessLogConfig) {
	own := []telemetry.AccessLogConfig{l}
	if len(cfg.AccessLog) == 0 {
		cfg.RefusedLog = own
	}
	each := func(c *listener.FilterChain) {
		if c.HTTP != nil && len(c.HTTP.AccessLog) == 0 {
			c.HTTP.AccessLog = own
		}
		if c.TCP != nil && len(c.TCP.AccessLog) == 0 {
			c.TCP.AccessLog = own
		}
	}
	for i := range cfg.Chains {
		each(&cfg.Chains[i])
	}
	if cfg.Default != nil {
		each(cfg.Default)
	}
}

// replace changes the listeners in force as one step.
func (s *state) replace(remove []string, add []*listener.Config) map[string]error {
	if len(remove) == 0 && len(add) == 0 {
		return nil
	}
	errs := s.listeners.Replace(remove, add)
	for _, name := range remove {
		delete(s.inForce, name)
		delete(s.failed, name)
	}
	for _, cfg := range add {
		if err := errs[cfg.Name]; err != nil {
			s.failed[cfg.Name] = err
			s.metrics.ListenerFailures.With().Inc(0)
			continue
		}
		delete(s.failed, cfg.Name)
		s.forgo(cfg.Name)
		s.cool(cfg.Name)
		s.inForce[cfg.Name] = cfg
	}
	return errs
}

// forgetFailed forgets those that were refused, and that their sender has no more.
func (s *state) forgetFailed(u client.Update) {
	for name := range s.failed {
		there := slices.Contains(u.Refused, name) || slices.ContainsFunc(u.Upserts, func(r *resource.Resource) bool { return r.Name == name })
		if s.inForce[name] == nil && !s.staticListeners[name] && !there {
			delete(s.failed, name)
		}
	}
}

// tally tells how many listeners wait, and how many could not be put in force.
func (s *state) tally() {
	s.metrics.ListenersActive.With("warming").Set(float64(len(s.warming)))
	s.metrics.ListenersActive.With("failed").Set(float64(len(s.failed)))
}

// failures are the listeners that could not be put in force, and why. What was before goes on.
func (s *state) failures() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.failed)
}
