package compile

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// DefaultConnectTimeout applies where no resolver sets one, as in Consul.
const DefaultConnectTimeout = 5 * time.Second

// maxDepth bounds redirects and splitter-to-splitter hops. Loops are found
// exactly; the bound keeps an absurd but acyclic graph from growing without end.
const maxDepth = 64

// maxLegs bounds the legs of a chain's routes together. Splitters that lead to one another
// multiply: a few dozen of them can describe more legs than there is memory for. A weight is a
// whole number of 1/10000, so that what is above this would have none.
const maxLegs = 10_000

// CompileChain compiles the discovery chain of a service: router, then
// splitter, then resolver. name must carry a datacenter. The error, when there
// is one, names the entry and field that cannot be used; the dependencies are
// valid even then, so that mending the entry recompiles the chain.
func CompileChain(snap *catalog.Snapshot, name catalog.Name) (*Chain, Deps, error) {
	c := newCompiler(snap)
	chain, err := c.chain(name)
	if err != nil {
		return nil, c.deps, fmt.Errorf("discovery chain of %s: %w", name, err)
	}
	chain.Deps = c.deps
	return chain, c.deps, nil
}

type compiler struct {
	snap *catalog.Snapshot
	deps Deps
	out  *Chain
	legs int
}

func newCompiler(snap *catalog.Snapshot) *compiler {
	return &compiler{snap: snap, deps: Deps{
		Entries:   map[catalog.EntryKey]struct{}{},
		Instances: map[catalog.Name]struct{}{},
	}}
}

// entry looks an entry up and records the dependency, whether it exists or not.
// A broken entry that never was valid is an error: nothing may be guessed.
func entry[T api.ConfigEntry](c *compiler, kind string, of catalog.Name, name string) (T, bool, error) {
	key := catalog.EntryKey{Kind: kind, Partition: of.Partition, Namespace: of.Namespace, Name: catalog.FoldName(name)}
	c.deps.Entries[key] = struct{}{}
	var none T
	if reason, broken := c.snap.Broken[key]; broken {
		return none, false, fmt.Errorf("%s: %s", key, reason)
	}
	e, ok := c.snap.Entries[key]
	if !ok {
		return none, false, nil
	}
	t, ok := e.(T)
	if !ok {
		return none, false, fmt.Errorf("%s: entry has type %T", key, e)
	}
	return t, true, nil
}

// protocol of a service, by Consul's rule: a service-defaults entry decides
// even when its protocol is empty (then tcp); it does not fall through to
// proxy-defaults.
func (c *compiler) protocol(of catalog.Name) (string, error) {
	p := "tcp"
	if sd, ok, err := entry[*api.ServiceConfigEntry](c, api.ServiceDefaults, of, of.Service); err != nil {
		return "", err
	} else if ok {
		if sd.Protocol != "" {
			p = strings.ToLower(sd.Protocol)
		}
	} else if pd, ok, err := entry[*api.ProxyConfigEntry](c, api.ProxyDefaults, of, api.ProxyConfigGlobal); err != nil {
		return "", err
	} else if ok {
		if v, ok := pd.Config["protocol"]; ok {
			s, isString := v.(string)
			if !isString {
				return "", fmt.Errorf("proxy-defaults/global Config.protocol: want a string, have %T", v)
			}
			if s != "" {
				p = strings.ToLower(s)
			}
		}
	}
	switch p {
	case "tcp", "http", "http2", "grpc":
		return p, nil
	}
	return "", fmt.Errorf("protocol %q of service %q: want tcp, http, http2 or grpc", p, of.Service)
}

// IsHTTP reports whether a protocol has requests, rather than only bytes.
func IsHTTP(protocol string) bool { return protocol != "tcp" }

func (c *compiler) chain(name catalog.Name) (*Chain, error) {
	protocol, err := c.protocol(name)
	if err != nil {
		return nil, err
	}
	c.out = &Chain{
		Service:   name,
		Protocol:  protocol,
		Targets:   map[string]*Target{},
		Resolvers: map[string]*Resolver{},
	}
	router, ok, err := entry[*api.ServiceRouterConfigEntry](c, api.ServiceRouter, name, name.Service)
	if err != nil {
		return nil, err
	}
	if ok {
		if !IsHTTP(protocol) {
			return nil, fmt.Errorf("service-router/%s: needs an http protocol, service %q is %s: set Protocol in service-defaults/%s",
				router.Name, name.Service, protocol, name.Service)
		}
		for i := range router.Routes {
			r, err := c.route(name, &router.Routes[i], fmt.Sprintf("service-router/%s Routes[%d]", router.Name, i))
			if err != nil {
				return nil, err
			}
			c.out.Routes = append(c.out.Routes, r)
		}
	}
	last, err := c.catchAll(name, ok)
	if err != nil {
		return nil, err
	}
	c.out.Routes = append(c.out.Routes, last)
	return c.out, nil
}

func (c *compiler) route(self catalog.Name, r *api.ServiceRoute, origin string) (Route, error) {
	out := Route{Destination: r.Destination, Origin: origin}
	if r.Match != nil {
		out.Match = r.Match.HTTP
	}
	dest, subset := self, ""
	if d := r.Destination; d != nil {
		dest = inScope(self, d.Service, d.Namespace, d.Partition)
		subset = d.ServiceSubset
		out.RequestTimeout = d.RequestTimeout
	}
	if err := c.sameProtocol(dest, origin+" Destination.Service"); err != nil {
		return Route{}, err
	}
	var err error
	if subset != "" {
		out.Splits, err = c.leaf(target{name: dest, subset: subset}, nil, nil)
	} else {
		out.Splits, err = c.splits(dest)
	}
	if err != nil {
		return Route{}, fmt.Errorf("%s: %w", origin, err)
	}
	out.LoadBalancer = c.firstLoadBalancer(out.Splits)
	return out, nil
}

// catchAll is the implied last route: everything else goes to the service. The
// resolver's RequestTimeout applies only where the chain starts with it.
func (c *compiler) catchAll(name catalog.Name, routed bool) (Route, error) {
	out := Route{Origin: "default route of " + name.Service}
	splits, err := c.splits(name)
	if err != nil {
		return Route{}, err
	}
	out.Splits = splits
	out.LoadBalancer = c.firstLoadBalancer(splits)
	_, split, err := entry[*api.ServiceSplitterConfigEntry](c, api.ServiceSplitter, name, name.Service)
	if err != nil {
		return Route{}, err
	}
	if !split {
		t := c.out.Targets[splits[0].Resolver]
		resolver, ok, err := entry[*api.ServiceResolverConfigEntry](c, api.ServiceResolver, t.Service, t.Service.Service)
		if err != nil {
			return Route{}, err
		}
		if ok && !routed {
			out.RequestTimeout = resolver.RequestTimeout
		}
	}
	return out, nil
}

func (c *compiler) sameProtocol(of catalog.Name, where string) error {
	p, err := c.protocol(of)
	if err != nil {
		return err
	}
	if p != c.out.Protocol {
		return fmt.Errorf("%s: service %q is %s, but the chain is %s; all services of a chain need one protocol",
			where, of.Service, p, c.out.Protocol)
	}
	return nil
}

func inScope(self catalog.Name, service, namespace, partition string) catalog.Name {
	n := self
	if service != "" {
		n.Service = service
	}
	if namespace != "" {
		n.Namespace = namespace
	}
	if partition != "" {
		n.Partition = partition
	}
	return n
}

// leg is a split before weights are made whole.
type leg struct {
	share    float64 // of 1
	resolver string
	request  *api.HTTPHeaderModifiers
	response *api.HTTPHeaderModifiers
}

// splits gives the weighted legs of a service's splitter, or one leg to it.
func (c *compiler) splits(name catalog.Name) ([]Split, error) {
	var legs []leg
	if err := c.collect(name, 1, nil, nil, []catalog.Name{}, &legs); err != nil {
		return nil, err
	}
	return whole(legs), nil
}

// end resolves what a leg leads to.
func (c *compiler) end(t target) (string, error) {
	if c.legs++; c.legs > maxLegs {
		return "", fmt.Errorf("the routes and splits of the chain have more than %d legs; use fewer", maxLegs)
	}
	return c.resolve(t)
}

func (c *compiler) leaf(t target, request, response *api.HTTPHeaderModifiers) ([]Split, error) {
	id, err := c.end(t)
	if err != nil {
		return nil, err
	}
	return []Split{{Weight: 10000, Resolver: id, RequestHeaders: request, ResponseHeaders: response}}, nil
}

// collect walks splitters depth first: a leg to another service without a
// subset may lead into that service's splitter; weights multiply and header
// changes merge, as if each splitter made its own in turn.
func (c *compiler) collect(name catalog.Name, share float64, request, response *api.HTTPHeaderModifiers, path []catalog.Name, legs *[]leg) error {
	splitter, ok, err := entry[*api.ServiceSplitterConfigEntry](c, api.ServiceSplitter, name, name.Service)
	if err != nil {
		return err
	}
	if !ok {
		id, err := c.end(target{name: name})
		if err != nil {
			return err
		}
		*legs = append(*legs, leg{share, id, request, response})
		return nil
	}
	if slices.Contains(path, name) || len(path) > maxDepth {
		return fmt.Errorf("service-splitter/%s: splits lead back to it through %s", name.Service, joinNames(path))
	}
	if !IsHTTP(c.out.Protocol) {
		return fmt.Errorf("service-splitter/%s: needs an http protocol, service %q is %s: set Protocol in service-defaults/%s",
			splitter.Name, name.Service, c.out.Protocol, name.Service)
	}
	path = append(slices.Clone(path), name)
	for i := range splitter.Splits {
		s := &splitter.Splits[i]
		where := fmt.Sprintf("service-splitter/%s Splits[%d]", splitter.Name, i)
		dest := inScope(name, s.Service, s.Namespace, s.Partition)
		if err := c.sameProtocol(dest, where+".Service"); err != nil {
			return err
		}
		legShare := share * float64(s.Weight) / 100
		// A response comes to the outer splitter last.
		req, resp := mergeModifiers(request, s.RequestHeaders), mergeModifiers(s.ResponseHeaders, response)
		if s.ServiceSubset != "" || dest == name {
			id, err := c.end(target{name: dest, subset: s.ServiceSubset})
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			*legs = append(*legs, leg{legShare, id, req, resp})
			continue
		}
		if err := c.collect(dest, legShare, req, resp, path, legs); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	return nil
}

// whole turns shares into weights of exactly 10000 by largest remainder. A leg
// whose share is zero keeps weight zero; one above zero never becomes zero by
// rounding alone unless it is below 1/20000.
func whole(legs []leg) []Split {
	type rest struct {
		i int
		r float64
	}
	out := make([]Split, len(legs))
	rests := make([]rest, len(legs))
	var total float64
	for _, l := range legs {
		total += l.share
	}
	sum := 0
	for i, l := range legs {
		exact := 0.0
		if total > 0 {
			exact = l.share / total * 10000
		}
		floor := math.Floor(exact + 1e-6)
		out[i] = Split{Weight: uint32(floor), Resolver: l.resolver, RequestHeaders: l.request, ResponseHeaders: l.response}
		rests[i] = rest{i, exact - floor}
		sum += int(floor)
	}
	slices.SortStableFunc(rests, func(a, b rest) int {
		switch {
		case a.r > b.r:
			return -1
		case a.r < b.r:
			return 1
		}
		return 0
	})
	for k := 0; sum < 10000 && len(rests) > 0; k = (k + 1) % len(rests) {
		out[rests[k].i].Weight++
		sum++
	}
	return out
}

// mergeModifiers has the effect of both, with the last word to the later one.
func mergeModifiers(earlier, later *api.HTTPHeaderModifiers) *api.HTTPHeaderModifiers {
	if earlier == nil {
		return later
	}
	if later == nil {
		return earlier
	}
	m := &api.HTTPHeaderModifiers{Add: maps.Clone(earlier.Add), Set: maps.Clone(earlier.Set), Remove: slices.Clone(earlier.Remove)}
	for _, name := range later.Remove {
		if !slices.Contains(m.Remove, name) {
			m.Remove = append(m.Remove, name)
		}
	}
	if m.Add == nil {
		m.Add = map[string]string{}
	}
	if m.Set == nil {
		m.Set = map[string]string{}
	}
	maps.Copy(m.Add, later.Add)
	maps.Copy(m.Set, later.Set)
	return m
}

func (c *compiler) firstLoadBalancer(splits []Split) *api.LoadBalancer {
	for _, s := range splits {
		if lb := c.out.Resolvers[s.Resolver].LoadBalancer; lb != nil {
			return lb
		}
	}
	return nil
}

func joinNames(names []catalog.Name) string {
	var s []string
	for _, n := range names {
		s = append(s, n.String())
	}
	return strings.Join(s, " -> ")
}
