package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// ByLocality is the Mode of PrioritizeByLocality that prefers instances near the caller.
const ByLocality = "failover"

// target is a place on the way through redirects.
type target struct {
	name   catalog.Name
	subset string
}

// id is Consul's target id.
func (t target) id() string {
	s := t.name.Service + "." + t.name.Namespace + "." + t.name.Partition + "." + t.name.Datacenter
	if t.subset != "" {
		s = t.subset + "." + s
	}
	return s
}

// rewrite moves a target as a redirect or failover says. Another service clears
// the subset, because subsets are a service's own.
func (t target) rewrite(service, subset, namespace, partition, datacenter string) target {
	out := t
	moved := inScope(t.name, service, namespace, partition)
	if moved != t.name {
		out.name, out.subset = moved, ""
	}
	if subset != "" {
		out.subset = subset
	}
	if datacenter != "" {
		out.name = out.name.In(datacenter)
	}
	return out
}

// resolve follows redirects and default subsets, records the target and its
// failover, and returns the resolver's key.
func (c *compiler) resolve(t target) (string, error) {
	final, entry, err := c.follow(t)
	if err != nil {
		return "", err
	}
	id := final.id()
	if _, done := c.out.Resolvers[id]; done {
		return id, nil
	}
	tgt, err := c.addTarget(final, entry)
	if err != nil {
		return "", err
	}
	r := &Resolver{Target: id, ConnectTimeout: tgt.ConnectTimeout, LoadBalancer: tgt.LoadBalancer}
	c.out.Resolvers[id] = r
	if entry == nil || len(entry.Failover) == 0 {
		return id, nil
	}
	key := final.subset
	failover, ok := entry.Failover[key]
	if !ok {
		key = catalog.Wildcard
		failover, ok = entry.Failover[key]
	}
	if !ok {
		return id, nil
	}
	where := fmt.Sprintf("service-resolver/%s Failover[%q]", entry.Name, key)
	for _, next := range failoverTargets(final, &failover) {
		f, fe, err := c.follow(next)
		if err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
		// A failover's own failover is not followed, and nothing fails over
		// to itself or twice to the same place.
		if f.id() == id || slices.Contains(r.Failover, f.id()) {
			continue
		}
		if err := c.sameProtocol(f.name, where); err != nil {
			return "", err
		}
		if _, err := c.addTarget(f, fe); err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
		r.Failover = append(r.Failover, f.id())
	}
	return id, nil
}

func failoverTargets(t target, f *api.ServiceResolverFailover) []target {
	var out []target
	switch {
	case len(f.Datacenters) > 0:
		for _, dc := range f.Datacenters {
			out = append(out, t.rewrite(f.Service, f.ServiceSubset, f.Namespace, "", dc))
		}
	case len(f.Targets) > 0:
		for _, ft := range f.Targets {
			out = append(out, t.rewrite(ft.Service, ft.ServiceSubset, ft.Namespace, ft.Partition, ft.Datacenter))
		}
	default:
		out = append(out, t.rewrite(f.Service, f.ServiceSubset, f.Namespace, "", ""))
	}
	return out
}

// follow applies redirects, then the default subset, until neither applies.
func (c *compiler) follow(t target) (target, *api.ServiceResolverConfigEntry, error) {
	var seen []string
	for {
		if slices.Contains(seen, t.id()) || len(seen) > maxDepth {
			return t, nil, fmt.Errorf("service-resolver redirects form a loop: %s", strings.Join(append(seen, t.id()), " -> "))
		}
		seen = append(seen, t.id())
		resolver, ok, err := entry[*api.ServiceResolverConfigEntry](c, api.ServiceResolver, t.name, t.name.Service)
		if err != nil {
			return t, nil, err
		}
		if !ok {
			resolver = nil
		}
		if resolver != nil && resolver.Redirect != nil {
			r := resolver.Redirect
			next := t.rewrite(r.Service, r.ServiceSubset, r.Namespace, r.Partition, r.Datacenter)
			if next.id() != t.id() {
				if err := c.sameProtocol(next.name, "service-resolver/"+resolver.Name+" Redirect"); err != nil {
					return t, nil, err
				}
				t = next
				continue
			}
		}
		if resolver != nil && t.subset == "" && resolver.DefaultSubset != "" {
			t.subset = resolver.DefaultSubset
			continue
		}
		if t.subset != "" {
			if resolver == nil {
				return t, nil, fmt.Errorf("service %q has no subset %q: it has no service-resolver", t.name.Service, t.subset)
			}
			if _, ok := resolver.Subsets[t.subset]; !ok {
				return t, nil, fmt.Errorf("service-resolver/%s has no subset %q", resolver.Name, t.subset)
			}
		}
		return t, resolver, nil
	}
}

func (c *compiler) addTarget(t target, resolver *api.ServiceResolverConfigEntry) (*Target, error) {
	id := t.id()
	if have, ok := c.out.Targets[id]; ok {
		return have, nil
	}
	p, err := c.protocol(t.name)
	if err != nil {
		return nil, err
	}
	out := &Target{ID: id, Service: t.name, Subset: t.subset, ConnectTimeout: DefaultConnectTimeout, Protocol: p}
	c.deps.Instances[t.name] = struct{}{}
	if resolver != nil {
		if resolver.ConnectTimeout > 0 {
			out.ConnectTimeout = resolver.ConnectTimeout
		}
		out.LoadBalancer = resolver.LoadBalancer
		if p := resolver.PrioritizeByLocality; p != nil && p.Mode != "" {
			nearest := p.Mode == ByLocality
			out.Nearest = &nearest
		}
		if t.subset != "" {
			s := resolver.Subsets[t.subset]
			out.Filter, out.OnlyPassing = s.Filter, s.OnlyPassing
		}
	}
	c.out.Targets[id] = out
	return out, nil
}
