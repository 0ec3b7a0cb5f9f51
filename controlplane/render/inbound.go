package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// denyEveryone is an identity nobody is ever issued: /hauberk/ is reserved. A
// client that cannot evaluate RBAC demands it of its peers, so that every
// handshake fails.
const denyEveryone = "/hauberk/none/deny-all"

// Inbound is one workload's part of an inbound listener.
type Inbound struct {
	Host string
	Port int
	// ID is the workload's SPIFFE ID, Registration that of its proxy.
	ID, Registration, Service string
	// Protocol is what the filter chain speaks. A chain that denies everyone
	// before the first byte speaks tcp.
	Protocol string
	Chain    *listenerv3.FilterChain
	// Plain is the chain without what says where to log and to trace, which a host may not be
	// able to do; nil where Chain says nothing of it.
	Plain *listenerv3.FilterChain
	// Cluster is the workload's own application.
	Cluster *resource.Resource
	// Rules are the authorization that the chain carries; nil where the client
	// cannot evaluate any.
	Rules *Rules
	logs  accessLogs
	refs  []resource.Ref
	// balance has the listener's connections spread evenly over Envoy's threads. Our
	// sidecar has none that they would stay on.
	balance  bool
	Problems []Problem
}

// Workload is what an inbound filter chain is made of.
type Workload struct {
	Instance *catalog.Instance
	// Authorization is nil when it could not be compiled and never was; then
	// Denied says why, and the chain denies everyone.
	Authorization *compile.Authorization
	Denied        string
	// Defaults is the service's own service-defaults entry, or nil.
	Defaults *api.ServiceConfigEntry
	Tracing  Tracing
}

type inboundBuilder struct {
	env    *Environment
	client Client
	w      Workload
	config opaque.Proxy
	out    *Inbound
}

// NewInbound renders a workload's inbound filter chain and the cluster of its
// application. Without a Chain in the result the client gets none, and Problems
// say why; peers' connections are then refused for want of a matching chain.
func NewInbound(env *Environment, client Client, w Workload) (*Inbound, error) {
	inst := w.Instance
	id, err := env.ServiceID(inst.Service)
	if err != nil {
		return nil, err
	}
	b := &inboundBuilder{env: env, client: client, w: w, out: &Inbound{
		ID: id, Registration: inst.ID, Service: inst.Service.Service,
	}}
	protocol := "tcp"
	if w.Authorization != nil {
		protocol = w.Authorization.Protocol
	}
	var problems []Problem
	b.config, problems = readWorkloadConfig(env, inst, w.Defaults, protocol)
	b.out.Host, b.out.Port = b.config.BindAddress, b.config.BindPort
	b.out.balance = b.config.ExactBalance
	b.out.Problems = append(b.out.Problems, problems...)
	b.out.logs, problems = accessLogging(env, client, inst.ID, inst.Proxy.AccessLogs)
	b.out.Problems = append(b.out.Problems, problems...)
	if err := b.build(); err != nil {
		return nil, fmt.Errorf("render inbound of %s: %w", inst.ID, err)
	}
	for i := range b.out.Problems {
		b.out.Problems[i].Service = inst.Service.Service
	}
	return b.out, nil
}

func (b *inboundBuilder) problem(path, format string, args ...any) {
	b.out.Problems = append(b.out.Problems, Problem{Path: b.w.Instance.ID + " " + path, Reason: fmt.Sprintf(format, args...)})
}

func (b *inboundBuilder) build() error {
	if err := bindable(b.out.Host, b.out.Port); err != nil {
		b.problem("Proxy.Config.bind_address", "the address cannot be listened on: %v; nothing is accepted for the workload; set bind_address and bind_port", err)
		return nil
	}
	address, ok := b.application()
	if !ok {
		b.problem("Proxy.LocalServicePort", "%d is not a port; nothing is accepted for the workload; set it, or LocalServiceSocketPath", b.w.Instance.Proxy.LocalServicePort)
		return nil
	}
	rules, deny, err := b.authorization()
	if err != nil {
		return err
	}
	if deny {
		// Denied before the first byte: that is the same for every protocol.
		b.config.Protocol = "tcp"
	} else if p := b.config.Protocol; (p == "http2" || p == "grpc") && !b.client.Can(names.CapHTTP2) {
		b.problem("protocol", "%s needs HTTP/2, which this sidecar does not speak; nothing is accepted for the workload; upgrade the sidecar or use http", p)
		return nil
	}
	b.out.Protocol, b.out.Rules = b.config.Protocol, rules
	if b.out.Cluster, err = localApp(b.client, names.LocalApp(b.w.Instance.Service.Service, b.w.Instance.Service.Namespace, b.w.Instance.ID), address, b.config); err != nil {
		return err
	}
	if b.out.Chain, err = b.chain(rules); err != nil {
		return err
	}
	logs, refs, tracing := b.out.logs, b.out.refs, b.w.Tracing
	if len(logs.filter) == 0 && tracing == (Tracing{}) {
		return nil
	}
	b.out.logs, b.w.Tracing = accessLogs{}, Tracing{}
	b.out.Plain, err = b.chain(rules)
	b.out.logs, b.out.refs, b.w.Tracing = logs, refs, tracing
	return err
}

// application is where the workload listens on its own host.
func (b *inboundBuilder) application() (address *corev3.Address, ok bool) {
	p := b.w.Instance.Proxy
	if path := p.LocalServiceSocketPath; path != "" {
		return pipeAddress(path, 0), strings.HasPrefix(path, "/")
	}
	host := p.LocalServiceAddress
	if host == "" {
		host = "127.0.0.1"
	}
	return socketAddress(host, p.LocalServicePort), bindable(host, p.LocalServicePort) == nil
}

// authorization gives the rules to render, and whether they deny everyone. A
// client without RBAC gets nil rules and a denying TLS context.
func (b *inboundBuilder) authorization() (*Rules, bool, error) {
	if !b.client.Can(names.CapRBAC) {
		b.problem("authorization", "this sidecar does not announce %s, so it accepts nobody for the workload; upgrade it", names.CapRBAC)
		return nil, true, nil
	}
	if b.w.Authorization == nil {
		b.problem("authorization", "everyone is denied: %s", b.w.Denied)
		return denyAll("denied: " + b.w.Denied), true, nil
	}
	rules, err := NewRules(b.env.TrustDomain, b.config.Protocol, b.w.Authorization)
	if err != nil {
		b.problem("authorization", "everyone is denied: %v", err)
		return denyAll("denied: " + err.Error()), true, nil
	}
	return rules, false, nil
}

func (b *inboundBuilder) chain(rules *Rules) (*listenerv3.FilterChain, error) {
	inst := b.w.Instance
	filters, err := b.filters(rules)
	if err != nil {
		return nil, err
	}
	var peers []string
	if rules == nil {
		peers = []string{"spiffe://" + b.env.TrustDomain + denyEveryone}
	}
	socket, err := b.env.downstreamTLS(b.out.ID, meshProtocol(b.config.Protocol, b.client), peers...)
	if err != nil {
		return nil, err
	}
	return &listenerv3.FilterChain{
		Name: inst.ID,
		FilterChainMatch: &listenerv3.FilterChainMatch{
			ServerNames:       serverNames(b.env.ClusterName("", inst.Service)),
			TransportProtocol: "tls",
		},
		Filters:         filters,
		TransportSocket: socket,
		Metadata: hauberkMetadata(map[string]string{
			"workload": b.out.ID, "service": inst.Service.Service, "direction": "inbound",
		}),
	}, nil
}

func (b *inboundBuilder) filters(rules *Rules) ([]*listenerv3.Filter, error) {
	var out []*listenerv3.Filter
	if n := b.config.MaxConnections; n > 0 {
		if b.client.Can(names.CapConnectionLimit) {
			f, err := connectionLimit(b.stat(), n)
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		} else {
			b.problem("max_inbound_connections", "this sidecar limits the connections to the application, not those from peers; upgrade it")
		}
	}
	if compile.IsHTTP(b.config.Protocol) {
		f, err := b.http(rules)
		if err != nil {
			return nil, err
		}
		return append(out, f), nil
	}
	rbac, err := networkRBAC(rules)
	if err != nil {
		return nil, err
	}
	out = append(out, rbac...)
	idle := idleConnection
	if b.config.IdleTimeout > 0 {
		idle = b.config.IdleTimeout
	}
	f, err := tcpProxy(relay{stat: b.stat(), legs: []Leg{{Cluster: b.out.Cluster.Name, Weight: 10000}}, logs: b.out.logs.filter, tries: 1, idle: idle})
	if err != nil {
		return nil, err
	}
	return append(out, f), nil
}

func (b *inboundBuilder) stat() string { return "inbound." + b.out.Service }

// http has inline routes to the application: one, and those that limit its rate.
// Without a configured timeout they have none: the caller's route bounds a request,
// and must be able to allow it more than a default would here.
func (b *inboundBuilder) http(rules *Rules) (*listenerv3.Filter, error) {
	rbac, err := httpRBAC(rules)
	if err != nil {
		return nil, err
	}
	tracing, err := b.w.Tracing.inbound(b.out.Service, b.out.ID)
	if err != nil {
		return nil, err
	}
	b.out.refs = b.w.Tracing.refs()
	limits, routes, err := b.rateLimits()
	if err != nil {
		return nil, err
	}
	rest := b.route("inbound of "+b.out.Service, &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}})
	m := manager{
		stat:         b.stat(),
		tracing:      tracing,
		filters:      append(rbac, limits...),
		logs:         b.out.logs.filter,
		maxHeadersKB: b.config.MaxHeadersKB,
		forward:      hcmv3.HttpConnectionManager_APPEND_FORWARD,
		forwardURI:   true,
		http2:        managerHTTP2(b.client),
		routes: &routev3.RouteConfiguration{
			Name:         "inbound/" + b.out.Registration,
			VirtualHosts: []*routev3.VirtualHost{{Name: b.out.Service, Domains: []string{"*"}, Routes: append(routes, rest)}},
		},
	}
	if b.env.http.sanitizeXFCC {
		m.forward, m.forwardURI = hcmv3.HttpConnectionManager_SANITIZE, false
	}
	return b.env.httpManager(m)
}

// route leads to the application.
func (b *inboundBuilder) route(origin string, match *routev3.RouteMatch) *routev3.Route {
	idle := max(streamIdleTimeout, b.config.RequestTimeout)
	if b.config.IdleTimeout > 0 {
		idle = b.config.IdleTimeout
	}
	return &routev3.Route{
		Name:  origin,
		Match: match,
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: b.out.Cluster.Name},
			Timeout:          duration(b.config.RequestTimeout),
			IdleTimeout:      duration(idle),
			RetryPolicy:      localRetries(),
		}},
		Metadata: hauberkMetadata(map[string]string{"origin": origin}),
	}
}

var exactBalance = &listenerv3.Listener_ConnectionBalanceConfig{
	BalanceType: &listenerv3.Listener_ConnectionBalanceConfig_ExactBalance_{ExactBalance: &listenerv3.Listener_ConnectionBalanceConfig_ExactBalance{}},
}

// InboundListener puts the chains of workloads that share a host address into
// its one mTLS listener. Two instances of one service cannot be told apart by
// SNI, nor services whose names differ by case alone: the first by registration id is
// served and the other is reported. A client would refuse the listener with both, and
// with it the next deny of everyone in it.
//
// What one workload's logs and traces need may not be there on its host, and the client
// refuses the listener then. So that this keeps no deny from the others, there is a fallback
// without them.
func InboundListener(chains []*Inbound) (*resource.Resource, []Problem, error) {
	r, problems, err := inboundListener(chains, false)
	if err != nil {
		return nil, problems, err
	}
	plain, _, err := inboundListener(chains, true)
	if err == nil && plain.Version != r.Version {
		r.Fallback = plain
	}
	return r, problems, err
}

func inboundListener(chains []*Inbound, plain bool) (*resource.Resource, []Problem, error) {
	chains = slices.SortedFunc(slices.Values(chains), func(a, b *Inbound) int { return cmp.Compare(a.Registration, b.Registration) })
	name := names.Inbound(chains[0].Host, chains[0].Port)
	facts := map[string]string{"direction": "inbound"}
	l := &listenerv3.Listener{
		Name:                   name,
		Address:                socketAddress(chains[0].Host, chains[0].Port),
		TrafficDirection:       corev3.TrafficDirection_INBOUND,
		ListenerFilters:        []*listenerv3.ListenerFilter{tlsInspector},
		ListenerFiltersTimeout: duration(inspectTimeout),
	}
	if !plain {
		l.AccessLog = chains[0].logs.listener
	}
	var problems []Problem
	var refs []resource.Ref
	first := map[string]string{}
	for _, c := range chains {
		sni := c.Chain.FilterChainMatch.ServerNames[0]
		if other, dup := first[sni]; dup {
			problems = append(problems, Problem{Service: c.Service, Path: c.Registration + " Proxy.Config.bind_port",
				Reason: fmt.Sprintf("%s is another instance of the service on %s:%d; this one accepts nothing; give it another port", other, c.Host, c.Port)})
			continue
		}
		first[sni] = c.Registration
		chain, own := c.Chain, c.refs
		if plain && c.Plain != nil {
			chain, own = c.Plain, nil
		}
		l.FilterChains = append(l.FilterChains, chain)
		if c.balance {
			l.ConnectionBalanceConfig = exactBalance
		}
		refs = append(append(refs, resource.Ref{Type: resource.ClusterType, Name: c.Cluster.Name}), own...)
	}
	if len(l.FilterChains) == 1 {
		// A listener of one workload carries its facts itself; of several, each
		// filter chain does.
		facts["workload"], facts["service"] = chains[0].ID, chains[0].Service
	}
	l.Metadata = hauberkMetadata(facts)
	r, err := resource.New(name, l, refs...)
	if err != nil {
		return nil, problems, err
	}
	r.Urgent = true
	return r, problems, nil
}
