package render

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-bexpr"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// failoverOnlyWhenEmpty is the overprovisioning factor with which a priority
// keeps all traffic while it has one healthy host, which is what a failover
// target means in a resolver. Envoy's own 140 would spill over at 71 % health.
const failoverOnlyWhenEmpty = 100000

// maxWeight is Consul's bound on an instance's weight.
const maxWeight = 128

// Endpoints renders a target's instances. The resource exists even when there
// is none, or a cluster would wait for it. Every instance is sent, with its
// health, except those a subset's filter leaves out. Where the nearest are preferred,
// from is the place of who calls: an instance of its zone is asked first, then those of its
// region, then the others, each when there is no healthy one before it.
func Endpoints(env *Environment, t *compile.Target, instances []*catalog.Instance, from api.Locality) (*resource.Resource, []Problem, error) {
	name := env.ClusterName(t.Subset, t.Service)
	cla := &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Policy: &endpointv3.ClusterLoadAssignment_Policy{
			OverprovisioningFactor: wrapperspb.UInt32(failoverOnlyWhenEmpty),
		},
	}
	chosen, problems := subset(t, instances)
	byPlace := map[api.Locality][]*endpointv3.LbEndpoint{}
	// The same address twice is one host (two registrations of it, or a
	// registration that moved nodes): the healthier one is kept.
	at := map[netip.AddrPort]*catalog.Instance{}
	for _, inst := range chosen {
		ip, err := netip.ParseAddr(inst.Address)
		if err != nil || inst.Port < 1 || inst.Port > 65535 {
			problems = append(problems, Problem{Service: t.Service.Service, Path: inst.ID + " Address",
				Reason: fmt.Sprintf("%s:%d is not an IP address and port, so nobody is sent to it; register it with one", inst.Address, inst.Port)})
			continue
		}
		where := netip.AddrPortFrom(ip, uint16(inst.Port))
		if have, ok := at[where]; !ok || inst.Health < have.Health {
			at[where] = inst
		}
	}
	for _, where := range slices.SortedFunc(maps.Keys(at), netip.AddrPort.Compare) {
		inst := at[where]
		place := Locality(inst)
		byPlace[place] = append(byPlace[place], endpoint(t, inst, where))
	}
	distance := env.distance(t, from)
	priority, last := uint32(0), -1
	for _, place := range slices.SortedFunc(maps.Keys(byPlace), func(a, b api.Locality) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Zone, b.Zone))
	}) {
		// Priorities have no gaps.
		if d := distance(place); last >= 0 && d != last {
			priority++
		}
		last = distance(place)
		var weight uint32
		for _, ep := range byPlace[place] {
			weight += ep.LoadBalancingWeight.GetValue()
		}
		cla.Endpoints = append(cla.Endpoints, &endpointv3.LocalityLbEndpoints{
			Locality:            &corev3.Locality{Region: place.Region, Zone: place.Zone},
			LbEndpoints:         byPlace[place],
			LoadBalancingWeight: wrapperspb.UInt32(weight),
			Priority:            priority,
		})
	}
	r, err := resource.New(name, cla)
	return r, problems, err
}

// subset applies the target's filter. A filter that fails leaves nothing: all
// instances would be the wrong ones.
func subset(t *compile.Target, instances []*catalog.Instance) ([]*catalog.Instance, []Problem) {
	if t.Filter == "" {
		return instances, nil
	}
	problem := func(err error) []Problem {
		return []Problem{{Service: t.Service.Service,
			Path:   fmt.Sprintf("service-resolver/%s Subsets[%q].Filter", t.Service.Service, t.Subset),
			Reason: fmt.Sprintf("%v; the subset is empty until the filter is mended", err)}}
	}
	eval, err := bexpr.CreateEvaluator(t.Filter)
	if err != nil {
		return nil, problem(err)
	}
	var out []*catalog.Instance
	for _, inst := range instances {
		if inst.Entry == nil {
			continue
		}
		ok, err := eval.Evaluate(*inst.Entry)
		if err != nil {
			return nil, problem(err)
		}
		if ok {
			out = append(out, inst)
		}
	}
	return out, nil
}

func endpoint(t *compile.Target, inst *catalog.Instance, where netip.AddrPort) *endpointv3.LbEndpoint {
	health, weight := healthOf(t, inst)
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socketAddress(where.Addr().String(), int(where.Port())),
		}},
		HealthStatus:        health,
		LoadBalancingWeight: wrapperspb.UInt32(weight),
	}
}

// healthOf is Consul's mapping, except that maintenance drains: requests in
// flight may end.
func healthOf(t *compile.Target, inst *catalog.Instance) (corev3.HealthStatus, uint32) {
	health, weight := corev3.HealthStatus_HEALTHY, inst.PassingWeight
	switch inst.Health {
	case catalog.Passing:
	case catalog.Warning:
		weight = inst.WarningWeight
		if t.OnlyPassing {
			health = corev3.HealthStatus_UNHEALTHY
		}
	case catalog.Maintenance:
		health = corev3.HealthStatus_DRAINING
	default:
		health = corev3.HealthStatus_UNHEALTHY
	}
	if weight < 1 {
		weight = 1
		if health == corev3.HealthStatus_HEALTHY {
			health = corev3.HealthStatus_UNHEALTHY
		}
	}
	return health, uint32(min(weight, maxWeight))
}

// Nearest tells whether a target's instances are preferred by how near they are.
func (e *Environment) Nearest(t *compile.Target) bool {
	if t.Nearest != nil {
		return *t.Nearest
	}
	return e.proxyDefaults != nil && e.proxyDefaults.PrioritizeByLocality != nil && e.proxyDefaults.PrioritizeByLocality.Mode == compile.ByLocality
}

// distance orders places by how far they are; all are as far where that does not matter
// or from is nowhere.
func (e *Environment) distance(t *compile.Target, from api.Locality) func(api.Locality) int {
	if from.Region == "" || !e.Nearest(t) {
		return func(api.Locality) int { return 0 }
	}
	return func(to api.Locality) int {
		switch {
		case to == from:
			return 0
		case to.Region == from.Region:
			return 1
		}
		return 2
	}
}

// Locality is where an instance runs, as its registration or else its node says.
func Locality(inst *catalog.Instance) api.Locality {
	if e := inst.Entry; e != nil {
		if e.Service != nil && e.Service.Locality != nil {
			return *e.Service.Locality
		}
		if e.Node != nil && e.Node.Locality != nil {
			return *e.Node.Locality
		}
	}
	return api.Locality{}
}
