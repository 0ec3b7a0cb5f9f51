package consul

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
	"github.com/hauberk-mesh/hauberk/controlplane/source/instance"
)

// marks are where the watches go on after the first full read.
type marks struct {
	list     uint64
	services map[string]uint64
	kinds    map[string]*kindState
}

// readAll reads the whole catalog once.
func (s *Source) readAll(ctx context.Context) (*source.Update, *marks, error) {
	u := &source.Update{
		Full: true, Received: time.Now(),
		Instances: map[catalog.Name][]*catalog.Instance{},
		Origins:   map[catalog.EntryKey]string{},
		Broken:    map[catalog.EntryKey]string{},
	}
	m := &marks{services: map[string]uint64{}, kinds: map[string]*kindState{}}
	dc, err := s.datacenter(ctx)
	if err != nil {
		return nil, nil, err
	}
	u.Datacenter = dc
	names, index, err := s.listServices(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	m.list = index
	for name := range names {
		list, index, err := s.endpoints(ctx, name, &api.QueryOptions{AllowStale: true})
		if err != nil {
			return nil, nil, err
		}
		m.services[name] = index
		if len(list) > 0 {
			u.Instances[catalog.NewName(dc, name)] = list
		}
		u.Index = max(u.Index, index)
	}
	for _, kind := range catalog.Kinds {
		st := &kindState{}
		change, err := s.readKind(ctx, kind, st, 0)
		if err != nil {
			return nil, nil, err
		}
		m.kinds[kind] = st
		u.Entries = append(u.Entries, change.Entries...)
		for k, v := range change.Origins {
			u.Origins[k] = v
		}
		for k, v := range change.Broken {
			u.Broken[k] = v
		}
	}
	allow, err := s.defaultAllow(ctx)
	if err != nil {
		return nil, nil, err
	}
	u.DefaultAllow = &allow
	s.answered("consul", u.Index)
	return u, m, nil
}

// datacenter is the agent's own. Reading it from a list of datacenters would
// need no rule but not say which is ours, so the catalog's nodes tell.
func (s *Source) datacenter(ctx context.Context) (string, error) {
	s.mu.Lock()
	dc := s.dc
	s.mu.Unlock()
	if dc != "" {
		return dc, nil
	}
	nodes, meta, err := s.client.Catalog().Nodes((&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	if err != nil {
		return "", asRefusal("nodes", nodeRule, err)
	}
	if err := s.check("nodes", nodeRule, meta); err != nil {
		return "", err
	}
	if len(nodes) == 0 {
		return "", errors.New("consul: the catalog has no node yet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dc = nodes[0].Datacenter
	return s.dc, nil
}

func (s *Source) listServices(ctx context.Context, index uint64) (map[string][]string, uint64, error) {
	names, meta, err := s.client.Catalog().Services(s.query(ctx, index))
	if err != nil {
		return nil, 0, asRefusal("services", catalogRule, err)
	}
	if err := s.check("services", catalogRule, meta); err != nil {
		return nil, 0, err
	}
	return names, meta.LastIndex, nil
}

// watchServices follows the list and keeps one watch for each name on it.
func (s *Source) watchServices(ctx context.Context, wg *sync.WaitGroup, m *marks) {
	for name, index := range m.services {
		s.startService(ctx, wg, name, index)
	}
	// A read's context ends with the read; what it starts lives as long as ctx.
	s.loop(ctx, "services", m.list, func(read context.Context, index uint64) (uint64, error) {
		names, next, err := s.listServices(read, index)
		if err != nil {
			return 0, err
		}
		reconnected := s.answered("services", next)
		gone := s.reconcile(ctx, wg, names)
		if reconnected || len(gone) > 0 {
			s.send(ctx, source.Update{DeletedServices: gone, Reconnected: reconnected, Received: time.Now(), Index: next})
		}
		return next, nil
	})
}

// reconcile starts watches for new names and stops those of names that are gone.
func (s *Source) reconcile(ctx context.Context, wg *sync.WaitGroup, names map[string][]string) []catalog.Name {
	s.mu.Lock()
	var gone []catalog.Name
	for name, stop := range s.services {
		if _, ok := names[name]; !ok {
			stop()
			delete(s.services, name)
			delete(s.status.Errors, "service "+name)
			gone = append(gone, catalog.NewName(s.dc, name))
		}
	}
	var fresh []string
	for name := range names {
		if s.services[name] == nil {
			fresh = append(fresh, name)
		}
	}
	s.mu.Unlock()
	for _, name := range fresh {
		s.startService(ctx, wg, name, 0)
	}
	return gone
}

func (s *Source) startService(ctx context.Context, wg *sync.WaitGroup, name string, index uint64) {
	ctx, stop := context.WithCancel(ctx)
	s.mu.Lock()
	s.services[name] = stop
	blocking := s.secure || s.watching < plainHTTPWatches
	if blocking {
		s.watching++
	}
	s.mu.Unlock()
	wg.Go(func() {
		defer func() {
			stop()
			if blocking {
				s.mu.Lock()
				s.watching--
				s.mu.Unlock()
			}
		}()
		s.watchService(ctx, name, index, blocking)
	})
}

func (s *Source) watchService(ctx context.Context, name string, index uint64, blocking bool) {
	what := "service " + name
	var known, sent bool
	var last []*catalog.Instance
	s.loop(ctx, what, index, func(ctx context.Context, index uint64) (uint64, error) {
		opts := s.query(ctx, index)
		if !blocking && known {
			opts.WaitIndex, opts.WaitTime = 0, 0
			if err := pause(ctx, pollEvery); err != nil {
				return 0, err
			}
		}
		list, next, err := s.endpoints(ctx, name, opts)
		if err != nil {
			return 0, err
		}
		known = true
		reconnected := s.answered(what, next)
		// An index that moved is no proof of a change, nor one that did not of
		// none: the answers are compared.
		if sent && !reconnected && sameReport(last, list) {
			return next, nil
		}
		sent, last = true, list
		s.mu.Lock()
		dc := s.dc
		s.mu.Unlock()
		s.send(ctx, source.Update{
			Instances:   map[catalog.Name][]*catalog.Instance{catalog.NewName(dc, name): list},
			Reconnected: reconnected, Received: time.Now(), Index: next,
		})
		return next, nil
	})
}

// sameReport is equality that includes how far a report can be believed: the
// store's guards wait for that to change.
func sameReport(a, b []*catalog.Instance) bool {
	return catalog.EqualInstances(a, b) && slices.EqualFunc(a, b, func(x, y *catalog.Instance) bool {
		return x.Evidence == y.Evidence
	})
}

// endpoints reads the mesh endpoints of a service.
func (s *Source) endpoints(ctx context.Context, name string, opts *api.QueryOptions) ([]*catalog.Instance, uint64, error) {
	what := "service " + name
	entries, meta, err := s.client.Health().Connect(name, "", false, opts.WithContext(ctx))
	if err != nil {
		return nil, 0, asRefusal(what, catalogRule, err)
	}
	if err := s.check(what, catalogRule, meta); err != nil {
		return nil, 0, err
	}
	dc, err := s.datacenter(ctx)
	if err != nil {
		return nil, 0, err
	}
	parents, err := s.parents(ctx, name, entries)
	if err != nil {
		return nil, 0, err
	}
	var out []*catalog.Instance
	for _, e := range entries {
		dropMerged(e)
		i, err := instance.FromEntry(catalog.NewName(dc, name), e, parents[parentKey(e)])
		if err != nil {
			// One that cannot be an endpoint is none; the others are.
			s.log.Warn("instance left out", "service", name, "err", err)
			continue
		}
		out = append(out, i)
	}
	catalog.SortInstances(out)
	return out, meta.LastIndex, nil
}

type nodeService struct{ node, id string }

func parentKey(e *api.ServiceEntry) nodeService {
	if e.Service == nil || e.Node == nil || e.Service.Proxy == nil {
		return nodeService{}
	}
	return nodeService{e.Node.Node, e.Service.Proxy.DestinationServiceID}
}

// parents reads the applications behind sidecars: Consul gives a sidecar
// neither their weights nor, but for a failing alias, their maintenance mode.
func (s *Source) parents(ctx context.Context, name string, sidecars []*api.ServiceEntry) (map[nodeService]*api.ServiceEntry, error) {
	if len(sidecars) == 0 {
		return nil, nil
	}
	entries, meta, err := s.client.Health().Service(name, "", false, (&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	if err != nil {
		return nil, asRefusal("service "+name, catalogRule, err)
	}
	if err := s.check("service "+name, catalogRule, meta); err != nil {
		return nil, err
	}
	out := make(map[nodeService]*api.ServiceEntry, len(entries))
	for _, e := range entries {
		if e.Node != nil && e.Service != nil {
			out[nodeService{e.Node.Node, e.Service.ID}] = e
		}
	}
	return out, nil
}

// Confirm implements source.Confirmer: an un-indexed read that the leader
// answers.
func (s *Source) Confirm(ctx context.Context, service catalog.Name) ([]*catalog.Instance, error) {
	list, _, err := s.endpoints(ctx, service.Service, &api.QueryOptions{})
	return list, err
}

// mergedKeys are what a Consul agent copies from config entries into the
// registrations of its services, to spare Envoy's configuration the look-up. The
// entries themselves are compiled here, so the copies are taken out again: they
// would be settings twice, and stale ones after a change.
var mergedKeys = []string{"protocol", "connect_timeout_ms", "limits", "passive_health_check", "mesh_gateway"}

func dropMerged(e *api.ServiceEntry) {
	if e.Service == nil || e.Service.Proxy == nil {
		return
	}
	for i := range e.Service.Proxy.Upstreams {
		for _, k := range mergedKeys {
			delete(e.Service.Proxy.Upstreams[i].Config, k)
		}
	}
}
