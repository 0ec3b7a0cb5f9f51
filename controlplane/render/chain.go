package render

import (
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Chain is a rendered discovery chain: what an outbound listener leads to,
// except the endpoints, which change more often and are rendered apart.
type Chain struct {
	Service  catalog.Name
	Protocol string
	// Resources are its clusters.
	Resources []*resource.Resource
	// routes are those of an HTTP protocol, without a name; nil for tcp.
	routes *routev3.RouteConfiguration
	// Legs are where connections of a tcp chain go; empty for HTTP.
	Legs []Leg
	// Only is the cluster of an HTTP chain without a choice; empty where there is one.
	Only string
	// HashSource: connections of a tcp chain are balanced by their source address.
	HashSource bool
	// Targets are those whose endpoints the clusters need.
	Targets []*compile.Target
	// Withheld is why the client gets nothing of the chain; empty when it does.
	Withheld string
	Problems []Problem
}

// Leg is a weighted cluster of a tcp chain.
type Leg struct {
	Cluster string
	Weight  uint32 // of 10000
}

type chainBuilder struct {
	env    *Environment
	client Client
	caller caller
	// certificate is the SDS name of the caller's certificate.
	certificate string
	chain       *compile.Chain
	out         *Chain
}

// caller is the workload that a chain's clusters dial as. It is zero for our
// own sidecar, which proves the identity of the listener that a connection came
// through and keys its pools by it, so that all callers share a cluster. An
// Envoy has one certificate a cluster, hence one cluster a caller.
type caller struct{ service, namespace string }

func callerOf(client Client, source catalog.Name) caller {
	if client.Dialect != Envoy {
		return caller{}
	}
	return callerItself(source)
}

// callerItself is for requests that the client makes by itself for a workload: no
// listener tells whose they are.
func callerItself(source catalog.Name) caller { return caller{source.Service, source.Namespace} }

// NewChain renders a chain for a kind of client and the workload that calls.
// The error is a match or value that no client would take; a caller keeps the
// last good chain then, for a route that is left out lets its requests fall
// through to the next one.
func NewChain(env *Environment, client Client, source catalog.Name, chain *compile.Chain) (*Chain, error) {
	return newChain(env, client, callerOf(client, source), source, chain)
}

func newChain(env *Environment, client Client, as caller, source catalog.Name, chain *compile.Chain) (*Chain, error) {
	b := &chainBuilder{env: env, client: client, caller: as, chain: chain,
		out: &Chain{Service: chain.Service, Protocol: chain.Protocol}}
	var err error
	if b.certificate, err = b.secretName(source); err != nil {
		return nil, fmt.Errorf("render %s: %w", chain.Service, err)
	}
	if chain.Protocol == "http2" || chain.Protocol == "grpc" {
		where := fmt.Sprintf("service-defaults/%s Protocol", chain.Service.Service)
		if b.lacks(names.CapHTTP2, where, chain.Protocol+" needs HTTP/2, which this sidecar does not speak: callers get no listener for it; upgrade the sidecar or use http") {
			b.out.Withheld = b.out.Problems[0].Reason
			return b.out, nil
		}
	}
	if err := b.clusters(); err != nil {
		return nil, fmt.Errorf("render %s: %w", chain.Service, err)
	}
	if compile.IsHTTP(chain.Protocol) {
		if err := b.routes(); err != nil {
			return nil, fmt.Errorf("render %s: %w", chain.Service, err)
		}
		if routes := chain.Routes; len(routes) == 1 && len(routes[0].Splits) == 1 {
			b.out.Only = b.splitCluster(routes[0].Splits[0])
		}
	} else {
		b.legs()
	}
	b.out.Problems = SortProblems(b.out.Problems)
	return b.out, nil
}

func (b *chainBuilder) clusters() error {
	for _, id := range sortedKeys(b.chain.Targets) {
		t := b.chain.Targets[id]
		if dc := t.Service.Datacenter; dc != b.env.Datacenter {
			b.problem("target "+id, "services of datacenter %q are not known here, only those of %q, so it has no instances; let the entry lead elsewhere", dc, b.env.Datacenter)
		}
		c, err := b.targetCluster(t)
		if err != nil {
			return err
		}
		b.out.Resources = append(b.out.Resources, c)
		b.out.Targets = append(b.out.Targets, t)
	}
	for _, id := range sortedKeys(b.chain.Resolvers) {
		r := b.chain.Resolvers[id]
		if len(r.Failover) == 0 {
			continue
		}
		c, err := b.failoverCluster(r)
		if err != nil {
			return err
		}
		b.out.Resources = append(b.out.Resources, c)
	}
	return nil
}

// legs are those of a tcp chain's only route.
func (b *chainBuilder) legs() {
	r := &b.chain.Routes[len(b.chain.Routes)-1]
	for _, s := range r.Splits {
		if s.Weight > 0 {
			b.out.Legs = append(b.out.Legs, Leg{Cluster: b.splitCluster(s), Weight: s.Weight})
		}
	}
	resolver := "service-resolver/" + b.chain.Targets[r.Splits[0].Resolver].Service.Service
	if r.RequestTimeout > 0 {
		b.problem(resolver+" RequestTimeout", "a tcp service has no requests, so it has no effect; remove it, or set the service's Protocol")
	}
	b.hashConnections(resolver+" LoadBalancer.", r.LoadBalancer)
}

// hashConnections keeps what a hash policy can mean for a connection: its
// source address.
func (b *chainBuilder) hashConnections(path string, lb *api.LoadBalancer) {
	if lb == nil || lb.Policy == "ring_hash" && !b.client.Can(names.CapRingHash) || lb.Policy == "maglev" && !b.client.Can(names.CapMaglev) {
		return // reported with the cluster
	}
	for i, p := range lb.HashPolicies {
		where := fmt.Sprintf("%sHashPolicies[%d]", path, i)
		switch {
		case !p.SourceIP:
			b.problem(where+".Field", "connections of a tcp service have no %s, so it has no effect; use SourceIP, or set the service's Protocol", p.Field)
		case !b.lacks(names.CapConnectionHash, where+".SourceIP", "this sidecar cannot hash the connections of a tcp service, so nothing is sticky; upgrade it"):
			b.out.HashSource = true
		}
	}
}

// secretName is the SDS name of the certificate that the chain's clusters show.
func (b *chainBuilder) secretName(source catalog.Name) (string, error) {
	if b.caller == (caller{}) {
		return names.DefaultSecret, nil
	}
	return b.env.ServiceID(source)
}

// clusterName is the SNI, with the caller's customization in front: clusters of
// callers that ask for nothing of their own are shared, where the client can.
func (b *chainBuilder) clusterName(t *compile.Target) string {
	return b.customized(b.env.ClusterName(t.Subset, t.Service))
}

func (b *chainBuilder) customized(name string) string {
	if b.chain.Customization != "" {
		name = b.chain.Customization + "~" + name
	}
	if b.caller != (caller{}) {
		name = names.CalledBy(name, b.caller.service, b.caller.namespace)
	}
	return name
}

// splitCluster is what a leg ends in: the target's cluster, or the aggregate
// that knows what to try after it.
func (b *chainBuilder) splitCluster(s compile.Split) string {
	r := b.chain.Resolvers[s.Resolver]
	name := b.clusterName(b.chain.Targets[r.Target])
	if len(r.Failover) > 0 {
		return names.Failover(name)
	}
	return name
}

func (b *chainBuilder) problem(path, format string, args ...any) {
	b.out.Problems = append(b.out.Problems, Problem{
		Service: b.chain.Service.Service, Path: path, Reason: fmt.Sprintf(format, args...),
	})
}

// lacks reports a feature the client cannot honour, and that it is so.
func (b *chainBuilder) lacks(capability, path, reason string) bool {
	if b.client.Can(capability) {
		return false
	}
	b.problem(path, "%s", reason)
	return true
}

// CheckChain says what of a chain no client of any kind would take, so that a
// caller can treat it like a chain that does not compile.
func CheckChain(chain *compile.Chain) error {
	if !compile.IsHTTP(chain.Protocol) {
		return nil
	}
	b := &chainBuilder{env: &Environment{}, client: Client{Dialect: Envoy}, chain: chain, out: &Chain{}}
	for i := range chain.Routes {
		if _, err := b.route(&chain.Routes[i]); err != nil {
			return fmt.Errorf("%s: %w", chain.Routes[i].Origin, err)
		}
	}
	return nil
}
