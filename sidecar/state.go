package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/files"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/secrets"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// subscriber is the part of the xDS client that applying resources needs.
type subscriber interface {
	Subscribe(typeURL string, names ...string)
	Unsubscribe(typeURL string, names ...string)
}

// replacer is the part of the listener manager that applying resources needs.
type replacer interface {
	Available(*listener.Config) error
	// Check says why one could not be made, but for its address.
	Check(*listener.Config) error
	Replace(remove []string, add []*listener.Config) map[string]error
	// Judge decides by one over what removed listeners of its name still serve.
	Judge(*listener.Config) error
	// Hold has none accept a connection before Open.
	Hold()
	Open()
	// Draining are the removed listeners that still have connections.
	Draining() []*listener.Config
}

// nobody is the subscriber of a static bootstrap.
type nobody struct{}

func (nobody) Subscribe(string, ...string)   {}
func (nobody) Unsubscribe(string, ...string) {}

func (nobody) Usable(*discovery.Stream) error { return config.ErrServer }

// sources are a control plane, files and services of one type. A name says which is asked.
type sources struct {
	controlPlane, files subscriber
	streams             streamer
}

func (s sources) Subscribe(typeURL string, names ...string) {
	for _, n := range names {
		s.of(n).Subscribe(typeURL, n)
	}
}

func (s sources) Unsubscribe(typeURL string, names ...string) {
	for _, n := range names {
		s.of(n).Unsubscribe(typeURL, n)
	}
}

func (s sources) of(name string) subscriber {
	if _, _, ok := resource.SplitFile(name); ok {
		return s.files
	}
	if _, _, ok := resource.SplitStream(name); ok {
		return s.streams
	}
	return s.controlPlane
}

// state is what the sidecar has been told, and how far that is in force. It is
// the xDS client's Handler. A resource is decoded and checked whole before
// anything changes, so what is rejected leaves the last good one in force.
type state struct {
	log       *slog.Logger
	listeners replacer
	clusters  *cluster.Manager
	routes    *routes
	accessLog *telemetry.AccessLogConfig
	metrics   *telemetry.Metrics
	warmUp    time.Duration
	// checkTLS says why a cluster's TLS context cannot be used; nil says nothing.
	checkTLS func(*cluster.Config) error
	// secrets are discovered for TLS contexts; nil where none are.
	secrets *secrets.Store
	// runtime is what listeners may read; nil has nothing.
	runtime *config.Runtime
	// pinned are those of a context that is no listener's or cluster's.
	pinned []tlscontext.SecretRef
	// wanted is called with every workload that a listener names.
	wanted func(ids []string)

	mu  sync.Mutex
	sub sources
	// what has been accepted
	clusterConfigs map[string]*cluster.Config
	assignments    map[string]*cluster.Assignment
	wants          map[string]*listener.Config
	// The names of the bootstrap's resources.
	staticListeners, staticClusters map[string]bool
	routeNames                      map[string]bool // subscribed
	refusedRoutes                   map[string]bool // by their last update
	// leaving are clusters that are gone but still named by something in force.
	leaving map[string]bool
	// unneeded are services whose endpoints a cluster asked for that no longer does; another
	// may, and of the same response.
	unneeded map[string]bool
	// inForce are listeners as applied; warming are those that still wait.
	inForce map[string]*listener.Config
	warming map[string]*warming
	held    map[string]*heldCluster
	failed  map[string]error
	retries map[string]*retry
	// opening ends the time in which no listener accepts, nil when it is over; loading is set
	// while the bootstrap's resources are taken.
	opening *time.Timer
	// provenDue: somebody is to look at what waited for first checks. It is set without the lock.
	provenDue atomic.Bool
	loading   bool
	draining  bool // no inbound listener may come back
	// clustersCome is set until a control plane that has clusters has sent some.
	clustersCome bool
	// unaggregated is set where there is no aggregated stream.
	unaggregated bool
	// fetches are of the resources whose source says how long they are waited for.
	fetches map[askedFor]*fetch
}

func newState(s *state) *state {
	s.clusterConfigs, s.assignments = map[string]*cluster.Config{}, map[string]*cluster.Assignment{}
	s.wants, s.leaving = map[string]*listener.Config{}, map[string]bool{}
	s.staticListeners, s.staticClusters = map[string]bool{}, map[string]bool{}
	s.inForce, s.warming, s.failed = map[string]*listener.Config{}, map[string]*warming{}, map[string]error{}
	s.held, s.unneeded = map[string]*heldCluster{}, map[string]bool{}
	if s.routes == nil {
		s.routes = newRoutes()
	}
	s.sub, s.routeNames, s.refusedRoutes = sources{nobody{}, nobody{}, nobody{}}, map[string]bool{}, map[string]bool{}
	s.fetches, s.retries = map[askedFor]*fetch{}, map[string]*retry{}
	return s
}

// Apply implements client.Handler.
func (s *state) Apply(u client.Update) map[string]error {
	return s.applyLive(u, func(string) bool { return true })
}

// applyLive applies what of an update is live then. The list stays as its sender has it.
func (s *state) applyLive(u client.Update, live func(name string) bool) map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.Upserts = slices.DeleteFunc(slices.Clone(u.Upserts), func(r *resource.Resource) bool { return !live(r.Name) })
	errs := map[string]error{}
	switch u.Type {
	case resource.ClusterType:
		s.applyClusters(u, errs)
	case resource.EndpointType:
		s.applyEndpoints(u, errs)
	case resource.RouteType:
		s.applyRoutes(u, errs)
	case resource.ListenerType:
		s.applyListeners(u, errs)
	}
	s.warmed()
	s.sweep()
	result := "ack"
	if len(errs)+len(u.Refused) > 0 {
		result = "nack"
	}
	kind := shortType(u.Type)
	s.metrics.XDSUpdates.With(kind, result).Inc(0)
	s.metrics.ConfigTimestamp.With(kind).Set(float64(time.Now().Unix()))
	return errs
}

// read decodes a resource. A fault in that refuses the resource, and ends nothing.
func read[T any](decode func([]byte) (T, error), r *resource.Resource) (v T, err error) {
	err = panics.Refuse(panics.Configuration, func() (err error) { v, err = decode(r.Body.GetValue()); return err })
	return v, err
}

func shortType(url string) string {
	switch url {
	case resource.ClusterType:
		return "cluster"
	case resource.EndpointType:
		return "endpoints"
	case resource.RouteType:
		return "routes"
	case resource.ListenerType:
		return "listener"
	}
	return "other"
}

func (s *state) applyClusters(u client.Update, errs map[string]error) {
	for _, r := range u.Upserts {
		if s.staticClusters[r.Name] {
			errs[r.Name] = errStatic("cluster")
			continue
		}
		fair.Background(fair.Cluster)
		cfg, err := read(s.runtime.Cluster, r)
		if err == nil {
			err = s.setCluster(cfg)
		}
		if err != nil {
			errs[r.Name] = err
		}
	}
	for _, name := range u.Removed {
		if !s.staticClusters[name] {
			s.release(name)
		}
		if cfg := s.clusterConfigs[name]; cfg != nil && !s.staticClusters[name] {
			// It goes when nothing in force names it any more: between two
			// responses a listener may still send requests to it.
			s.leaving[name] = true
		}
	}
}

// setCluster puts a cluster in force once what it waits for has come.
func (s *state) setCluster(cfg *cluster.Config) error {
	if cfg.Type == cluster.EDS {
		if err := s.comes(edsName(cfg), cfg.Discovery); err != nil {
			return fmt.Errorf("cluster %q: eds_cluster_config.eds_config: %w", cfg.Name, err)
		}
	}
	if s.checkTLS != nil {
		if err := panics.Refuse(panics.Configuration, func() error { return s.checkTLS(cfg) }); err != nil {
			return err
		}
	}
	if s.heldAlready(cfg) {
		return nil
	}
	if s.clusterWaits(cfg) {
		s.hold(cfg, nil)
		return nil
	}
	trial, err := s.try(cfg)
	if err != nil {
		return err
	}
	if trial != nil {
		s.hold(cfg, trial)
		return nil
	}
	if err := s.putCluster(cfg, nil); err != nil {
		return err // what waits was accepted, and goes on waiting
	}
	s.release(cfg.Name)
	return nil
}

// putCluster puts a cluster in force, with the endpoints that are known, and what a trial has
// found of them.
func (s *state) putCluster(cfg *cluster.Config, trial *cluster.Trial) error {
	if err := s.clusters.UpdateTried(cfg, s.assignments[edsName(cfg)], trial); err != nil {
		return err
	}
	old := s.clusterConfigs[cfg.Name]
	s.clusterConfigs[cfg.Name] = cfg
	delete(s.leaving, cfg.Name)
	if cfg.Type == cluster.EDS {
		s.ask(resource.EndpointType, edsName(cfg), cfg.Discovery)
	}
	if old != nil {
		s.forgetEndpoints(old)
	}
	return nil
}

func edsName(c *cluster.Config) string { return c.Service() }

// forgetEndpoints notes that a cluster does not need the endpoints of its service any more.
func (s *state) forgetEndpoints(was *cluster.Config) {
	if was.Type == cluster.EDS {
		s.unneeded[edsName(was)] = true
	}
}

// sweepEndpoints drops those that no cluster needs, neither one that is nor one that is to
// be. It comes after the last of a response: what is dropped and asked for again before the
// server hears of either does not come again.
func (s *state) sweepEndpoints() {
	if len(s.unneeded) == 0 {
		return
	}
	needed := s.services()
	maps.DeleteFunc(s.unneeded, func(service string, _ bool) bool { return needed[service] })
	for service := range s.unneeded {
		delete(s.assignments, service)
		s.unask(resource.EndpointType, service)
	}
	clear(s.unneeded)
}

// applyEndpoints: that an assignment is gone changes nothing. Endpoints go with
// their cluster, or by an assignment that says so.
func (s *state) applyEndpoints(u client.Update, errs map[string]error) {
	for _, r := range u.Upserts {
		fair.Background(fair.Cluster)
		a, err := read(config.Assignment, r)
		if err == nil {
			a.Cluster = r.Name
			err = s.setEndpoints(a)
		}
		if err != nil {
			errs[r.Name] = err
		}
	}
}

// applyRoutes: as with endpoints, routes go with the listener that names them.
func (s *state) applyRoutes(u client.Update, errs map[string]error) {
	for _, name := range u.Refused {
		s.refuseRoutes(name)
	}
	for _, r := range u.Upserts {
		cfg, err := read(s.runtime.Route, r)
		if err == nil {
			err = s.missing(cfg, r.Name)
		}
		var table *route.Table
		if err == nil {
			err = panics.Refuse(panics.Configuration, func() (err error) { table, err = route.Compile(cfg); return err })
		}
		if err != nil {
			errs[r.Name] = err
			if errors.Is(err, files.ErrEarly) {
				delete(s.refusedRoutes, r.Name)
			} else {
				s.refuseRoutes(r.Name)
			}
			continue
		}
		delete(s.refusedRoutes, r.Name)
		s.routes.set(r.Name, table)
	}
}

// refuseRoutes has nobody wait for routes. Those that nobody asks for are not remembered.
func (s *state) refuseRoutes(name string) {
	if s.routeNames[name] {
		s.refusedRoutes[name] = true
	}
}

// known tells whether there is a cluster, though it may have no endpoints yet. Clusters
// come before the routes to them; one that is leaving is there for old routes only.
func (s *state) known(cluster string) bool {
	return s.held[cluster] != nil || s.clusterConfigs[cluster] != nil && !s.leaving[cluster]
}

// wantWorkloads tells which identities the listeners need.
func (s *state) wantWorkloads() {
	if s.wanted != nil {
		s.wanted(workloads(s.wants))
	}
}

// workloads are the SPIFFE IDs that listeners name, sorted.
func workloads(listeners map[string]*listener.Config) []string {
	set := map[string]bool{}
	for _, l := range listeners {
		for _, id := range workloadsOf(l) {
			set[id] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// drained drops what the connections of a removed listener were the last to use.
func (s *state) drained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
}

// sweep drops what nothing names any more: leaving clusters, endpoints and routes. A listener that
// drains still answers what is on its way, with what it names.
func (s *state) sweep() {
	defer s.tally()
	usedRoutes := map[string]bool{}
	used := map[string]bool{}
	name := func(l *listener.Config) {
		refs := config.ListenerRefs(l)
		for _, n := range slices.Concat(refs.Clusters, refs.Collectors) {
			used[n] = true
		}
		for _, n := range refs.Routes {
			usedRoutes[n] = true
		}
	}
	for _, set := range []map[string]*listener.Config{s.inForce, s.wants} {
		for _, l := range set {
			name(l)
		}
	}
	for _, l := range s.listeners.Draining() {
		name(l)
	}
	s.sweepRoutes(usedRoutes, used)
	defer s.sweepSecrets()
	defer s.sweepEndpoints()
	if len(s.leaving) == 0 {
		return
	}
	for name, c := range s.clusterConfigs {
		if !s.leaving[name] {
			for _, n := range slices.Concat(c.Aggregate, c.HTTP.Copies()) {
				used[n] = true
			}
		}
	}
	for name := range s.leaving {
		if used[name] {
			continue
		}
		cfg := s.clusterConfigs[name]
		s.clusters.Remove(name)
		delete(s.leaving, name)
		delete(s.clusterConfigs, name)
		s.forgetEndpoints(cfg)
	}
}

func (s *state) sweepRoutes(usedRoutes, used map[string]bool) {
	for name := range s.routeNames {
		t := s.routes.get(name)
		if usedRoutes[name] {
			if t != nil {
				for _, n := range config.RouteClusters(t.Config()) {
					used[n] = true
				}
			}
			continue
		}
		delete(s.routeNames, name)
		delete(s.refusedRoutes, name)
		s.routes.forget(name)
		s.unask(resource.RouteType, name)
	}
}

// drainInbound stops what peers come in through; outbound listeners go on.
func (s *state) drainInbound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	var names []string
	for name, l := range s.inForce {
		if l.Direction == listener.Inbound {
			names = append(names, name)
		}
	}
	for name, w := range s.warming {
		if w.cfg.Direction == listener.Inbound {
			s.cool(name)
		}
	}
	for name, r := range s.retries {
		if r.cfg.Direction == listener.Inbound {
			s.forgo(name)
			s.restore(name)
			delete(s.failed, name)
		}
	}
	s.replace(names, nil)
	s.tally()
}
