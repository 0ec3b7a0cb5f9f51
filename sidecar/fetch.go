package sidecar

import (
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

type askedFor struct{ url, name string }

// fetch is a resource that its source says how long to wait for (initial_fetch_timeout).
type fetch struct {
	timer *time.Timer // nil for ever
	over  bool
}

// ask subscribes to a resource. From then on it is waited for as long as its source says,
// whoever else asks for it: as in Envoy that is of the subscription.
func (s *state) ask(url, name string, from discovery.Source) {
	s.sub.Subscribe(url, name)
	key := askedFor{url, name}
	if from.Wait == nil || s.fetches[key] != nil {
		return
	}
	f := &fetch{}
	s.fetches[key] = f
	if *from.Wait == 0 {
		return
	}
	f.timer = time.AfterFunc(*from.Wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.fetches[key] != f {
			return
		}
		f.over = true
		s.goOn()
	})
}

// unask is the reverse.
func (s *state) unask(url, name string) {
	s.sub.Unsubscribe(url, name)
	key := askedFor{url, name}
	if f := s.fetches[key]; f != nil {
		f.stop()
		delete(s.fetches, key)
	}
}

func (f *fetch) stop() {
	if f.timer != nil {
		f.timer.Stop()
	}
}

// overdue tells whether a resource is not to be waited for any more, as its source says.
func (s *state) overdue(url, name string) bool {
	f := s.fetches[askedFor{url, name}]
	return f != nil && f.over
}

// awaited tells whether a resource that is not there is to be waited for by what its source
// says, beyond the sidecar's own patience.
func (s *state) awaited(url, name string) bool {
	f := s.fetches[askedFor{url, name}]
	return f != nil && !f.over
}

// routesAwaited tells that of the routes of a listener.
func (s *state) routesAwaited(cfg *listener.Config) bool {
	for _, n := range config.ListenerRefs(cfg).Routes {
		if s.routes.get(n) == nil && !s.refusedRoutes[n] && s.awaited(resource.RouteType, n) {
			return true
		}
	}
	return false
}

// endpointsAwaited tells that of the endpoints of a cluster.
func (s *state) endpointsAwaited(cfg *cluster.Config) bool {
	return cfg.Type == cluster.EDS && s.assignments[edsName(cfg)] == nil && s.awaited(resource.EndpointType, edsName(cfg))
}

// endpointsCame tells whether endpoints are there, or not to be waited for.
func (s *state) endpointsCame(name string) bool {
	return s.assignments[name] != nil || s.overdue(resource.EndpointType, name)
}

// goOn has what waited go on, where it need not wait any more.
func (s *state) goOn() {
	for _, h := range s.held {
		if !s.holds(h) {
			s.lateCluster(h)
		}
	}
	s.warmed()
	s.openInitialized()
	s.sweep()
}
