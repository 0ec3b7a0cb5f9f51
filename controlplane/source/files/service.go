package files

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/validate"
	"github.com/hauberk-mesh/hauberk/controlplane/source/decode"
	"github.com/hauberk-mesh/hauberk/controlplane/source/instance"
)

// registered is one registration after expansion, as Consul's catalog has it.
type registered struct {
	from  *stanza
	what  string
	entry *api.ServiceEntry
}

// registrations turns the service stanzas into services and instances.
func (l *loader) registrations(defaultNode string) {
	var all []*registered
	byID := map[catalog.InstanceKey]*registered{}
	for _, st := range l.services {
		for _, r := range l.expand(st, defaultNode) {
			k := catalog.InstanceKey{Node: r.entry.Node.Node, ID: r.entry.Service.ID}
			if first := byID[k]; first != nil {
				l.fail(st.file, st.line, "%s: id %q on node %q is taken in %s:%d; give one of them an id of its own",
					r.what, k.ID, k.Node, first.from.file, first.from.line)
				continue
			}
			byID[k] = r
			all = append(all, r)
		}
	}
	for _, r := range all {
		l.add(r, byID)
	}
	for _, list := range l.set.Instances {
		slices.SortFunc(list, func(a, b *catalog.Instance) int {
			if c := strings.Compare(a.Node, b.Node); c != 0 {
				return c
			}
			return strings.Compare(a.ID, b.ID)
		})
	}
}

// add puts one registration into the set.
func (l *loader) add(r *registered, byID map[catalog.InstanceKey]*registered) {
	s := r.entry.Service
	service := s.Service
	var parent *api.ServiceEntry
	if s.Kind == api.ServiceKindConnectProxy {
		service = s.Proxy.DestinationServiceName
		if p := byID[catalog.InstanceKey{Node: r.entry.Node.Node, ID: s.Proxy.DestinationServiceID}]; p != nil {
			parent = p.entry
		}
	}
	name := catalog.NewName(l.set.Datacenter, service)
	if _, known := l.set.Instances[name]; !known {
		l.set.Instances[name] = []*catalog.Instance{}
	}
	if s.Kind == api.ServiceKindTypical && (s.Connect == nil || !s.Connect.Native) {
		return // an application; peers reach its sidecar
	}
	i, err := instance.FromEntry(name, r.entry, parent)
	if err != nil {
		l.fail(r.from.file, r.from.line, "%s: %s", r.what, err)
		return
	}
	l.set.Instances[name] = append(l.set.Instances[name], i)
}

// expand decodes a stanza, and the sidecar_service in it into a registration of
// its own.
func (l *loader) expand(st *stanza, defaultNode string) []*registered {
	what := "service"
	if o, ok := st.node.Value.(*decode.Object); ok {
		if n, _ := o.Get("name"); n != nil {
			if s, ok := n.Value.(string); ok {
				what = fmt.Sprintf("service %q", s)
			}
		}
	}
	reg, err := decodeRegistration(st.node, "")
	if err != nil {
		l.wrong(st.file, st.line, what, err)
		return nil
	}
	before := len(l.errs)
	l.check(st, what, reg)
	if len(l.errs) > before {
		return nil
	}
	node := reg.Meta[catalog.NodeMeta]
	if node == "" {
		node = defaultNode
	}
	out := []*registered{{st, what, l.serviceEntry(reg, node)}}
	if reg.Connect == nil || reg.Connect.SidecarService == nil {
		return out
	}
	side := sidecar(reg)
	what += " connect.sidecar_service"
	if err := checkProxy(side); err != nil {
		l.wrong(st.file, st.line, what, err)
		return nil
	}
	if n := side.Meta[catalog.NodeMeta]; n != "" {
		node = n
	}
	return append(out, &registered{st, what, l.serviceEntry(side, node)})
}

// decodeRegistration reads a service stanza. What an agent would do with it and
// files cannot is refused here, with what to do in its place.
func decodeRegistration(n *decode.Node, path string) (*api.AgentServiceRegistration, error) {
	o, ok := n.Value.(*decode.Object)
	if !ok {
		return nil, errors.New("want an object")
	}
	for _, refused := range []struct{ key, why string }{
		{"check", "files have no health checks; Consul runs them, so register the service there or remove it"},
		{"checks", "files have no health checks; Consul runs them, so register the service there or remove it"},
		{"token", "there is no Consul to send a token to; remove it, and do not keep tokens here"},
	} {
		if v, k := o.Get(refused.key); v != nil {
			return nil, decode.Errors{{Line: v.Line, Path: path + k, Reason: refused.why}}
		}
	}
	reg := &api.AgentServiceRegistration{Weights: &api.AgentWeights{Passing: 1, Warning: 1}}
	outer := o.Without("connect")
	if err := decode.Into(&decode.Node{Line: n.Line, Value: outer}, reg, decode.Strict); err != nil {
		return nil, prefix(path, err)
	}
	c, _ := o.Get("connect")
	if c == nil {
		return reg, nil
	}
	return reg, decodeConnect(c, path+"connect.", reg)
}

func decodeConnect(c *decode.Node, path string, reg *api.AgentServiceRegistration) error {
	if l := c.List(); len(l) == 1 {
		c = l[0]
	}
	o, ok := c.Value.(*decode.Object)
	if !ok {
		return decode.Errors{{Line: c.Line, Path: strings.TrimSuffix(path, "."), Reason: "want one object"}}
	}
	reg.Connect = &api.AgentServiceConnect{}
	side, _ := o.Get("sidecar_service")
	if err := decode.Into(&decode.Node{Line: c.Line, Value: o.Without("sidecar_service")}, reg.Connect, decode.Strict); err != nil {
		return prefix(path, err)
	}
	if side == nil || side.Value == nil {
		return nil
	}
	if l := side.List(); len(l) == 1 {
		side = l[0]
	}
	s, err := decodeRegistration(side, path+"sidecar_service.")
	reg.Connect.SidecarService = s
	return err
}

func prefix(path string, err error) error {
	if fields, ok := errors.AsType[decode.Errors](err); ok {
		for _, f := range fields {
			f.Path = path + f.Path
		}
	}
	return err
}

// check refuses what the control plane does not implement of a stanza.
func (l *loader) check(st *stanza, what string, reg *api.AgentServiceRegistration) {
	fail := func(format string, args ...any) { l.fail(st.file, st.line, what+": "+format, args...) }
	if err := validate.ServiceName(reg.Name); err != nil {
		fail("name: %s", err)
	}
	l.checkCommon(st, what, reg)
	switch reg.Kind {
	case api.ServiceKindTypical:
		if reg.Proxy != nil {
			fail("proxy: belongs to kind %q or into connect.sidecar_service", api.ServiceKindConnectProxy)
		}
	case api.ServiceKindConnectProxy:
		if reg.Connect != nil {
			fail("connect: a proxy has none; remove it")
		}
		if reg.Proxy == nil {
			fail("proxy: must be set")
			return
		}
		complete(reg)
		if err := checkProxy(reg); err != nil {
			l.wrong(st.file, st.line, what, err)
		}
	default:
		fail("kind: %q is not supported; use %q or leave it out", reg.Kind, api.ServiceKindConnectProxy)
	}
	if reg.Connect == nil {
		return
	}
	if reg.Connect.Native && reg.Connect.SidecarService != nil {
		fail("connect.native: excludes sidecar_service; remove one of them")
	}
	if s := reg.Connect.SidecarService; s != nil {
		l.checkSidecar(st, what+": connect.sidecar_service", s)
	}
}

func (l *loader) checkSidecar(st *stanza, what string, s *api.AgentServiceRegistration) {
	l.checkCommon(st, what, s)
	for _, f := range []struct {
		bad       bool
		name, why string
	}{
		{s.Connect != nil, "connect", "a sidecar has no sidecar; remove it"},
		{s.Kind != "" && s.Kind != api.ServiceKindConnectProxy, "kind", "a sidecar is a connect-proxy; remove it"},
		{s.ID != "", "id", "the id of a sidecar is that of its service and -sidecar-proxy; remove it"},
		{s.Port == 0, "port", "must be set: files assign no ports"},
	} {
		if f.bad {
			l.fail(st.file, st.line, "%s: %s: %s", what, f.name, f.why)
		}
	}
}

func (l *loader) checkCommon(st *stanza, what string, reg *api.AgentServiceRegistration) {
	for _, f := range []struct {
		bad       bool
		name, why string
	}{
		{len(reg.Ports) > 0, "ports", "several ports are not supported; use port"},
		{reg.SocketPath != "", "socket_path", "services on Unix sockets are not supported; use address and port"},
		{len(reg.TaggedAddresses) > 0, "tagged_addresses", "tagged addresses are not supported; use address"},
		{reg.EnableTagOverride, "enable_tag_override", "tags in files are what they are; remove it"},
		{reg.AI != nil, "ai", "not supported; remove it"},
		{reg.Locality != nil && reg.Locality.Region == "", "locality.region", "must be set"},
		{reg.Namespace != "" && reg.Namespace != catalog.DefaultNamespace, "namespace", "namespaces are not supported; remove it"},
		{reg.Partition != "" && reg.Partition != catalog.DefaultPartition, "partition", "partitions are not supported; remove it"},
		{reg.Port < 0 || reg.Port > 65535, "port", fmt.Sprintf("%d is not a port", reg.Port)},
		// Consul takes no 0 here. Files have no checks, so it is how an instance is
		// registered before it may be used.
		{reg.Weights.Passing < 0 || reg.Weights.Passing > 65535, "weights.passing", fmt.Sprintf("%d: use 0 to 65535; 0 keeps peers away", reg.Weights.Passing)},
		{reg.Weights.Warning < 0 || reg.Weights.Warning > 65535, "weights.warning", fmt.Sprintf("%d: use 0 to 65535", reg.Weights.Warning)},
	} {
		if f.bad {
			l.fail(st.file, st.line, "%s: %s: %s", what, f.name, f.why)
		}
	}
}

// checkProxy validates a connect-proxy registration.
func checkProxy(reg *api.AgentServiceRegistration) error {
	err := validate.Proxy(reg.Proxy)
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		for i := range invalid.Problems {
			invalid.Problems[i].Path = "proxy." + invalid.Problems[i].Path
		}
	}
	if err != nil {
		return err
	}
	if reg.Port == 0 {
		return errors.New("port: must be set")
	}
	if reg.Address == "" {
		return errors.New("address: must be set, here or in the service: files have no address of the node")
	}
	return nil
}

// sidecar expands sidecar_service as Consul does. The service's address stands
// in for the node's, which Consul takes and files do not have.
func sidecar(parent *api.AgentServiceRegistration) *api.AgentServiceRegistration {
	s := *parent.Connect.SidecarService
	s.Kind = api.ServiceKindConnectProxy
	s.ID = serviceID(parent) + "-sidecar-proxy"
	if s.Name == "" {
		s.Name = parent.Name + "-sidecar-proxy"
	}
	if len(s.Tags) == 0 {
		s.Tags = parent.Tags
	}
	if len(s.Meta) == 0 {
		s.Meta = parent.Meta
	}
	if s.Address == "" {
		s.Address = parent.Address
	}
	if s.Locality == nil {
		s.Locality = parent.Locality
	}
	proxy := api.AgentServiceConnectProxyConfig{}
	if s.Proxy != nil {
		proxy = *s.Proxy
	}
	proxy.DestinationServiceName = parent.Name
	proxy.DestinationServiceID = serviceID(parent)
	if proxy.LocalServicePort == 0 && proxy.LocalServiceSocketPath == "" {
		proxy.LocalServicePort = parent.Port
	}
	s.Proxy = &proxy
	complete(&s)
	return &s
}

// complete fills in what Consul fills in for a connect-proxy.
func complete(reg *api.AgentServiceRegistration) {
	if reg.Proxy.LocalServicePort > 0 && reg.Proxy.LocalServiceAddress == "" {
		reg.Proxy.LocalServiceAddress = "127.0.0.1"
	}
	for i := range reg.Proxy.Upstreams {
		if u := &reg.Proxy.Upstreams[i]; u.DestinationType == "" {
			u.DestinationType = api.UpstreamDestTypeService
		}
	}
}

func serviceID(reg *api.AgentServiceRegistration) string {
	if reg.ID != "" {
		return reg.ID
	}
	return reg.Name
}

// serviceEntry is the registration as Consul's health endpoint would answer it.
func (l *loader) serviceEntry(reg *api.AgentServiceRegistration, node string) *api.ServiceEntry {
	s := &api.AgentService{
		Kind: reg.Kind, ID: serviceID(reg), Service: reg.Name, Tags: reg.Tags, Meta: reg.Meta,
		Port: reg.Port, Address: reg.Address, Weights: *reg.Weights, Proxy: reg.Proxy,
		Datacenter: l.set.Datacenter, Locality: reg.Locality,
	}
	if reg.Connect != nil && reg.Connect.Native {
		s.Connect = &api.AgentServiceConnect{Native: true}
	}
	return &api.ServiceEntry{
		Node:    &api.Node{Node: node, Address: reg.Address, Datacenter: l.set.Datacenter},
		Service: s,
		Checks:  api.HealthChecks{},
	}
}
