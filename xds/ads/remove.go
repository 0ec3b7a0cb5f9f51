package ads

import (
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// removalOrder is the order in which references are broken.
var removalOrder = []string{resource.ListenerType, resource.RouteType, resource.ClusterType, resource.EndpointType}

// removals returns the removals of one type, the first in removal order that
// has any that may go: when all upserts are acknowledged, or when it has waited
// HoldTimeout for that, so that unrelated churn cannot keep it forever; and never
// while something the client has names the resource. The types take turns,
// because a response that awaits its answer makes the core not quiet.
func (c *core) removals(now time.Time) *response {
	quiet := c.quiet()
	var refs *references
	for _, ts := range c.removing() {
		var names []string
		for _, n := range ts.gone {
			since, ok := ts.goneSince[n]
			if !ok {
				since = now
				ts.goneSince[n] = now
			}
			if !quiet && now.Sub(since) < c.hold {
				continue
			}
			if refs == nil {
				refs = c.references()
			}
			if !refs.has(ts.url, n) {
				names = append(names, n)
			}
		}
		if len(names) == 0 || ts.outstanding() {
			continue
		}
		for _, n := range names {
			delete(ts.goneSince, n)
		}
		return c.send(ts, nil, names, false, now)
	}
	return nil
}

// removing lists the types in removal order, those we do not know last.
func (c *core) removing() []*typeState {
	out := make([]*typeState, 0, len(c.order))
	for _, url := range removalOrder {
		if ts := c.types[url]; ts != nil {
			out = append(out, ts)
		}
	}
	for _, ts := range c.order {
		if !slices.Contains(removalOrder, ts.url) {
			out = append(out, ts)
		}
	}
	return out
}

// references is what the client's resources name.
type references struct {
	names map[resource.Ref]struct{}
	// unknown are types of which the client holds a resource whose content we
	// do not know, so that it may name anything.
	unknown map[string]bool
}

func (c *core) references() *references {
	refs := &references{names: map[resource.Ref]struct{}{}, unknown: map[string]bool{}}
	add := func(r *resource.Resource) {
		for _, ref := range r.Refs {
			refs.names[ref] = struct{}{}
		}
	}
	for _, url := range []string{resource.ListenerType, resource.RouteType, resource.ClusterType} {
		ts := c.types[url]
		if ts == nil {
			continue
		}
		for n, h := range ts.held {
			_, going := slices.BinarySearch(ts.gone, n)
			switch {
			case h.res != nil && url == resource.ClusterType && going:
				// An aggregate may go together with the clusters it lists,
				// but no assignment before its cluster.
				for _, ref := range h.res.Refs {
					if ref.Type != resource.ClusterType {
						refs.names[ref] = struct{}{}
					}
				}
			case h.res != nil:
				add(h.res)
			default:
				refs.unknown[url] = true
			}
		}
		for _, may := range ts.unsure {
			for _, r := range may {
				add(r)
			}
		}
		for _, p := range ts.pending {
			for _, r := range p.upserts {
				add(r)
			}
		}
	}
	return refs
}

func (refs *references) has(url, name string) bool {
	if _, ok := refs.names[resource.Ref{Type: url, Name: name}]; ok {
		return true
	}
	switch url {
	case resource.RouteType:
		return refs.unknown[resource.ListenerType]
	case resource.ClusterType:
		return refs.unknown[resource.ListenerType] || refs.unknown[resource.RouteType]
	case resource.EndpointType:
		return refs.unknown[resource.ClusterType]
	}
	return false
}
