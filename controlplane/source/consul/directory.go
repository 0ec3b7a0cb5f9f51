package consul

import (
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source/instance"
)

// directory is what Consul holds under each service name, put together to mesh
// endpoints. An endpoint of api is the registration of its sidecar, which Consul
// lists under a name of its own, with the weights and the maintenance mode of
// the application, which it lists under api: whichever changes, the other is at
// hand. Run's goroutine owns it.
type directory struct {
	dc string
	// entries by the name they are registered under.
	entries map[string][]*api.ServiceEntry
	// fronts are the names under which sidecars of a service are registered.
	fronts map[string]map[string]struct{}
	// reported is what was delivered last of each service.
	reported map[string][]*catalog.Instance
	// unusable says of each service which instances cannot be endpoints, and why.
	unusable map[string]map[string]string
}

func newDirectory(dc string) *directory {
	return &directory{
		dc: dc, unusable: map[string]map[string]string{},
		entries: map[string][]*api.ServiceEntry{}, fronts: map[string]map[string]struct{}{},
		reported: map[string][]*catalog.Instance{},
	}
}

// put replaces what a name holds, and returns the services concerned: the name
// itself, and those whose sidecars are or were registered under it.
func (d *directory) put(name string, entries []*api.ServiceEntry) []string {
	concerned := append([]string{name}, d.unlink(name)...)
	d.entries[name] = entries
	for _, service := range served(entries) {
		if d.fronts[service] == nil {
			d.fronts[service] = map[string]struct{}{}
		}
		d.fronts[service][name] = struct{}{}
		concerned = append(concerned, service)
	}
	slices.Sort(concerned)
	return slices.Compact(concerned)
}

// drop forgets a name and returns the services concerned.
func (d *directory) drop(name string) []string {
	concerned := append([]string{name}, d.unlink(name)...)
	delete(d.entries, name)
	slices.Sort(concerned)
	return slices.Compact(concerned)
}

func (d *directory) unlink(name string) []string {
	services := served(d.entries[name])
	for _, service := range services {
		delete(d.fronts[service], name)
		if len(d.fronts[service]) == 0 {
			delete(d.fronts, service)
		}
	}
	return services
}

// served lists the services that sidecars among the entries stand for.
func served(entries []*api.ServiceEntry) (services []string) {
	for _, e := range entries {
		if s := frontOf(e); s != "" && !slices.Contains(services, s) {
			services = append(services, s)
		}
	}
	return services
}

// frontOf is the service that a sidecar stands for, or "".
func frontOf(e *api.ServiceEntry) string {
	if e.Service == nil || e.Service.Kind != api.ServiceKindConnectProxy || e.Service.Proxy == nil {
		return ""
	}
	return e.Service.Proxy.DestinationServiceName
}

// names are all services of the directory, sidecars' own names included.
func (d *directory) names() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for n := range d.entries {
			if !yield(n) {
				return
			}
		}
		for n := range d.fronts {
			if _, listed := d.entries[n]; !listed && !yield(n) {
				return
			}
		}
	})
}

// exists reports whether Consul knows anything of a service.
func (d *directory) exists(service string) bool {
	_, listed := d.entries[service]
	return listed || len(d.fronts[service]) > 0
}

// meshed reports whether a service has, or may have, endpoints of its own: the
// names of sidecars are no services.
func (d *directory) meshed(service string) bool {
	return len(d.fronts[service]) > 0 || slices.ContainsFunc(d.entries[service], func(e *api.ServiceEntry) bool {
		return e.Service != nil && e.Service.Kind == api.ServiceKindTypical
	})
}

// instances puts together the mesh endpoints of a service.
func (d *directory) instances(service string) []*catalog.Instance {
	var sidecars []*api.ServiceEntry
	for name := range d.fronts[service] {
		for _, e := range d.entries[name] {
			if frontOf(e) == service {
				sidecars = append(sidecars, e)
			}
		}
	}
	for _, e := range d.entries[service] {
		if e.Service != nil && e.Service.Connect != nil && e.Service.Connect.Native {
			sidecars = append(sidecars, e)
		}
	}
	list, unusable := assemble(catalog.NewName(d.dc, service), sidecars, d.entries[service])
	d.unusable[service] = unusable
	return list
}

// update returns what is to be delivered of the services concerned: what differs
// from the last report, or everything when it is to be sent anyway.
func (d *directory) update(concerned []string, always bool) (instances map[catalog.Name][]*catalog.Instance, deleted []catalog.Name) {
	instances = map[catalog.Name][]*catalog.Instance{}
	for _, service := range concerned {
		last, known := d.reported[service]
		delete(d.unusable, service)
		switch {
		case !d.exists(service):
			if known {
				delete(d.reported, service)
				deleted = append(deleted, catalog.NewName(d.dc, service))
			}
			continue
		case !known && !d.meshed(service):
			continue
		}
		list := d.instances(service)
		// An index that moved is no proof of a change, nor one that did not of
		// none: the answers are compared.
		if known && !always && sameReport(last, list) {
			continue
		}
		d.reported[service] = list
		instances[catalog.NewName(d.dc, service)] = list
	}
	return instances, deleted
}

// sameReport is equality that includes how far a report can be believed: the
// store's guards wait for that to change.
func sameReport(a, b []*catalog.Instance) bool {
	return catalog.EqualInstances(a, b) && slices.EqualFunc(a, b, func(x, y *catalog.Instance) bool {
		return x.Evidence == y.Evidence
	})
}

type nodeService struct{ node, id string }

// assemble makes instances of sidecars and native services, each with the
// application that it stands for. One that cannot be an endpoint is none, and is
// named; the others are.
func assemble(service catalog.Name, endpoints, applications []*api.ServiceEntry) (out []*catalog.Instance, unusable map[string]string) {
	parents := make(map[nodeService]*api.ServiceEntry, len(applications))
	for _, e := range applications {
		if e.Node != nil && e.Service != nil {
			parents[nodeService{e.Node.Node, e.Service.ID}] = e
		}
	}
	out, unusable = []*catalog.Instance{}, map[string]string{}
	for _, e := range endpoints {
		var parent *api.ServiceEntry
		if e.Node != nil && e.Service != nil && e.Service.Proxy != nil {
			parent = parents[nodeService{e.Node.Node, e.Service.Proxy.DestinationServiceID}]
		}
		i, err := instance.FromEntry(service, e, parent)
		if err != nil {
			unusable[instanceKey(e)] = err.Error() + "; nobody is sent to it"
			continue
		}
		out = append(out, i)
	}
	catalog.SortInstances(out)
	return out, unusable
}

// instanceKey names an instance in the status.
func instanceKey(e *api.ServiceEntry) string {
	id, node := "?", "?"
	if e.Service != nil {
		id = e.Service.ID
	}
	if e.Node != nil {
		node = e.Node.Node
	}
	return "instance " + id + " on " + node
}
