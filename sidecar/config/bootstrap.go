package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	regexenginesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/regex_engines/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Bootstrap is an Envoy bootstrap file.
type Bootstrap struct {
	Node      Node
	Listeners []*listener.Config
	Clusters  []*cluster.Config
	// ADS is where further resources come from by the aggregated stream; nil where none do.
	ADS *ADS
	// LDS and CDS are where listeners and clusters come from; nil where none are discovered.
	LDS, CDS *discovery.Source `json:",omitempty"`
	// Files have the listeners and the clusters that are discovered in files.
	Files Files
	// Carriers are the static clusters that only carry gRPC to control planes.
	Carriers []*cluster.Config
	// Agent is where the secrets of "hauberk_agent" come from, if the bootstrap
	// has a static cluster of that name: a Unix socket.
	Agent string
	// SecretSockets are the Unix sockets of the static clusters of which secrets may be
	// asked: private keys never cross the network.
	SecretSockets map[string]string `json:",omitempty"`
	// Admin is the address of the admin listener, host:port; empty for none.
	Admin string
	// AdminLog are the access logs of the admin listener.
	AdminLog []telemetry.AccessLogConfig
	// Overload is nil when nothing is limited.
	Overload *overload.Config
	// Own is the cluster that the sidecar is a host of; nil where none is named.
	Own *cluster.Own `json:",omitempty"`
	// OutlierEvents is the path of the log of what outlier detection finds, "" for none.
	OutlierEvents string `json:",omitempty"`
	// Nameservers are asked by clusters that do not say whom they ask, nil for the host's, and Bind
	// is where connections of those come from that do not say it, invalid for any address.
	Nameservers *cluster.DNS  `json:",omitempty"`
	Bind        *cluster.Bind `json:",omitempty"`
	// MostDropped bounds what assignments have dropped, in percent; nil does not.
	MostDropped *uint32 `json:",omitempty"`
	// Runtime is what listeners that are discovered may read.
	Runtime *Runtime `json:"-"`
}

// Node is who the sidecar says it is.
type Node struct {
	ID, Cluster           string
	Region, Zone, SubZone string
	Metadata              map[string]any
	Features              []string
}

// ADS is an aggregated discovery service.
type ADS struct {
	discovery.Stream
	// Listeners and Clusters say which of them are discovered. Without either it brings
	// routes and endpoints of static ones.
	Listeners, Clusters bool
}

// discoversListeners tells whether listeners are to come that are not in the bootstrap.
func (b *Bootstrap) discoversListeners() bool {
	return b.LDS != nil || b.ADS != nil && b.ADS.Listeners || b.Files.Listeners != ""
}

// discovers tells whether anything is to come that is not in the bootstrap and could name a key of the runtime.
func (b *Bootstrap) discovers() bool {
	return b.discoversListeners() || b.CDS != nil || b.ADS != nil && b.ADS.Clusters || b.Files.Clusters != "" ||
		slices.ContainsFunc(b.Listeners, func(l *listener.Config) bool { return len(ListenerRefs(l).Routes) > 0 })
}

// StreamsClusters tells whether clusters are to come from a control plane that it names.
func (b *Bootstrap) StreamsClusters() bool {
	return b.CDS != nil && (b.CDS.Stream != nil || b.ADS != nil && b.ADS.Clusters)
}

// Streams tells whether anything is to come from a control plane that it names.
func (b *Bootstrap) Streams() bool {
	return b.ADS != nil || b.CDS != nil && b.CDS.Stream != nil || b.LDS != nil && b.LDS.Stream != nil
}

// Files are the paths of files that have all discovered resources of a type, "" for none.
type Files struct{ Listeners, Clusters string }

// decodeBootstrap turns a parsed bootstrap into plain structs. What of it has been
// refused already is told with all else that is.
func decodeBootstrap(m *bootstrapv3.Bootstrap, refused []error) (*Bootstrap, error) {
	d, err := checkAll(m, refused)
	if err == nil {
		err = d.environment(m, true)
	}
	if err != nil {
		return nil, err
	}
	if e := m.GetDefaultRegexEngine(); e != nil {
		if _, ok := extension[*regexenginesv3.GoogleRE2](d, e.GetTypedConfig()); !ok {
			return nil, fail("default_regex_engine", "is no GoogleRE2; expressions have RE2's syntax only")
		}
	}
	out := &Bootstrap{Node: node(m.GetNode()), Own: own(m), OutlierEvents: m.GetClusterManager().GetOutlierDetection().GetEventLogPath()}
	if d.runtime, err = readRuntime(m.GetLayeredRuntime()); err != nil {
		return nil, err
	}
	d.runtime.own = out.Own != nil
	//lint:ignore SA1019 deprecated, and still taken by Envoy
	if err = d.bootstrapTracer(m.GetTracing()); err != nil {
		return nil, err
	}
	if out.MostDropped, err = d.mostDropped(); err != nil {
		return nil, err
	}
	if out.Nameservers, err = d.bootstrapResolver(m); err != nil {
		return nil, err
	}
	if out.Bind, err = upstreamBind(m.GetClusterManager().GetUpstreamBindConfig(), "cluster_manager.upstream_bind_config"); err != nil {
		return nil, err
	}
	if out.Overload, err = d.overload(m.GetOverloadManager()); err != nil {
		return nil, err
	}
	if d.secrets, err = d.staticSecrets(m.GetStaticResources().GetSecrets()); err != nil {
		return nil, err
	}
	if a := m.GetAdmin().GetAddress(); a != nil {
		network, addr, err := d.address(a, "admin.address")
		if err != nil {
			return nil, err
		}
		if network != "tcp" {
			return nil, fail("admin.address", "must be a TCP address; what changes anything has a Unix socket of its own")
		}
		out.Admin = addr
	}
	if out.AdminLog, err = d.adminLogs(m.GetAdmin()); err != nil {
		return nil, err
	}
	if err := d.dynamic(m.GetDynamicResources(), out); err != nil {
		return nil, err
	}
	faults := d.staticClusters(m.GetStaticResources().GetClusters(), out)
	faults = append(faults, d.staticListeners(m.GetStaticResources().GetListeners(), out)...)
	if err := together(faults); err != nil {
		return nil, err
	}
	if err := d.runtime.settle(out.discovers()); err != nil {
		return nil, err
	}
	out.Runtime = d.runtime
	return out, out.references()
}

// staticListeners reads the listeners, and tells what is wrong with each of them.
func (d *decoder) staticListeners(ms []*listenerv3.Listener, out *Bootstrap) (faults []error) {
	for i, m := range ms {
		if m.GetName() == "" {
			m.Name = nameless(i, m.GetAddress(), out.Listeners)
		}
		c, err := d.listener(m)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("static_resources.listeners[%d] (%q): %w", i, m.GetName(), err))
		case slices.ContainsFunc(out.Listeners, func(o *listener.Config) bool { return o.Name == c.Name }):
			faults = append(faults, fail(at("static_resources.listeners", i)+".name", "%q is the name of another listener", c.Name))
		default:
			out.Listeners = append(out.Listeners, c)
		}
	}
	return faults
}

// nameless makes a name for a listener of the bootstrap that has none: its address, or
// its place where that is the name of another (port 0).
func nameless(i int, a *corev3.Address, others []*listener.Config) string {
	name := a.GetPipe().GetPath()
	if s := a.GetSocketAddress(); s != nil {
		name = net.JoinHostPort(s.GetAddress(), strconv.Itoa(int(s.GetPortValue())))
	}
	if name == "" || slices.ContainsFunc(others, func(o *listener.Config) bool { return o.Name == name }) {
		return at("listeners", i)
	}
	return name
}

func node(m *corev3.Node) Node {
	return Node{
		ID: m.GetId(), Cluster: m.GetCluster(), Metadata: m.GetMetadata().AsMap(), Features: m.GetClientFeatures(),
		Region: m.GetLocality().GetRegion(), Zone: m.GetLocality().GetZone(), SubZone: m.GetLocality().GetSubZone(),
	}
}

// own is the cluster that local_cluster_name names. A node without a locality is in no zone, not
// in the one without a name.
func own(m *bootstrapv3.Bootstrap) *cluster.Own {
	name := m.GetClusterManager().GetLocalClusterName()
	if name == "" {
		return nil
	}
	out := &cluster.Own{Cluster: name}
	if l := m.GetNode().GetLocality(); l != nil {
		out.Zone = &cluster.Zone{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}
	}
	return out
}

func (d *decoder) staticSecrets(ms []*tlsv3.Secret) (map[string]*tlscontext.Discovered, error) {
	out := map[string]*tlscontext.Discovered{}
	for i, m := range ms {
		path := at("static_resources.secrets", i)
		s, err := d.readSecret(m, path)
		if err != nil {
			return nil, err
		}
		if m.GetName() == "" || out[m.GetName()] != nil {
			return nil, fail(path+".name", "%q is empty or the name of another secret", m.GetName())
		}
		out[m.GetName()] = s
	}
	return out, nil
}

func (d *decoder) dynamic(m *bootstrapv3.Bootstrap_DynamicResources, out *Bootstrap) error {
	const path = "dynamic_resources"
	if api := m.GetAdsConfig(); api != nil {
		s, err := stream(api, path+".ads_config")
		if err != nil {
			return err
		}
		out.ADS = &ADS{Stream: *s}
	}
	var streamed ADS
	for _, t := range []struct {
		source *corev3.ConfigSource
		from   **discovery.Source
		file   *string
		stream *bool
		path   string
	}{
		{m.GetLdsConfig(), &out.LDS, &out.Files.Listeners, &streamed.Listeners, path + ".lds_config"},
		{m.GetCdsConfig(), &out.CDS, &out.Files.Clusters, &streamed.Clusters, path + ".cds_config"},
	} {
		if t.source == nil {
			continue
		}
		from, file, err := configSource(t.source, t.path)
		if err != nil {
			return err
		}
		*t.from, *t.file = &from, file
		*t.stream = file == "" && from.Stream == nil
		if *t.stream && out.ADS == nil {
			return fail(path+".ads_config", "is missing, and %s is ads", t.path)
		}
	}
	if out.ADS != nil {
		out.ADS.Listeners, out.ADS.Clusters = streamed.Listeners, streamed.Clusters
	}
	return nil
}

// carriers are the names of the clusters that control planes are reached by, by the paths
// that name them.
func (b *Bootstrap) carriers() map[string]string {
	out := map[string]string{}
	add := func(s *discovery.Stream, path string) {
		out[s.Cluster] = path + ".grpc_services[0].envoy_grpc.cluster_name"
	}
	if b.LDS != nil && b.LDS.Stream != nil {
		add(b.LDS.Stream, "dynamic_resources.lds_config.api_config_source")
	}
	if b.CDS != nil && b.CDS.Stream != nil {
		add(b.CDS.Stream, "dynamic_resources.cds_config.api_config_source")
	}
	if b.ADS != nil {
		add(&b.ADS.Stream, "dynamic_resources.ads_config")
	}
	return out
}

// staticClusters reads the clusters, and tells what is wrong with each of them.
func (d *decoder) staticClusters(ms []*clusterv3.Cluster, out *Bootstrap) (faults []error) {
	seen, carriers := map[string]bool{}, out.carriers()
	for i, m := range ms {
		if err := d.staticCluster(m, i, seen, carriers[m.GetName()] != "", out); err != nil {
			faults = append(faults, err)
		}
		seen[m.GetName()] = true
	}
	for _, name := range slices.Sorted(maps.Keys(carriers)) {
		if !seen[name] {
			faults = append(faults, fail(carriers[name], "there is no static cluster %q", name))
		}
	}
	return faults
}

// staticCluster reads one cluster. Those that only carry gRPC to a control plane or to the
// host's agent are not part of the data path.
func (d *decoder) staticCluster(m *clusterv3.Cluster, i int, seen map[string]bool, carrier bool, out *Bootstrap) error {
	c, err := d.cluster(m)
	if err != nil {
		return fmt.Errorf("static_resources.clusters[%d] (%q): %w", i, m.GetName(), err)
	}
	path := at("static_resources.clusters", i)
	if c.Name == "" || seen[c.Name] {
		return fail(path+".name", "%q is empty or the name of another cluster", c.Name)
	}
	if socket, err := agentSocket(c, path); err == nil && c.TLS == nil && c.Name != names.AgentCluster {
		if out.SecretSockets == nil {
			out.SecretSockets = map[string]string{}
		}
		out.SecretSockets[c.Name] = socket
	}
	switch {
	case c.Name == names.AgentCluster:
		out.Agent, err = agentSocket(c, path)
		return err
	case carrier:
		out.Carriers = append(out.Carriers, c)
		_, err = targets(c, path)
		return err
	}
	out.Clusters = append(out.Clusters, c)
	return nil
}

// targets lists a gRPC cluster's endpoints as grpc dials them.
func targets(c *cluster.Config, path string) ([]string, error) {
	var out []string
	if c.Endpoints != nil {
		for _, l := range c.Endpoints.Localities {
			for _, e := range l.Endpoints {
				if e.Pipe != "" {
					out = append(out, "unix:"+e.Pipe)
					continue
				}
				out = append(out, net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
			}
		}
	}
	if len(out) == 0 {
		return nil, fail(path+".load_assignment", "has no endpoints")
	}
	return out, nil
}

func agentSocket(c *cluster.Config, path string) (string, error) {
	t, err := targets(c, path)
	if err != nil {
		return "", err
	}
	if len(t) != 1 || len(t[0]) < 5 || t[0][:5] != "unix:" {
		return "", fail(path+".load_assignment", "the agent is one Unix socket; use one endpoint with a pipe address")
	}
	return t[0][5:], nil
}

// Server is where a control plane is.
type Server struct {
	// Addresses are host:port, or "unix:" and a path.
	Addresses []string
	// TLS is nil for plaintext.
	TLS *cluster.TLS
}

// ErrServer is why resources cannot come from a cluster.
var ErrServer = errors.New("resources come from a static cluster of the bootstrap that has its endpoints written there")

// Server is the control plane that a static cluster is.
func (b *Bootstrap) Server(name string) (*Server, error) {
	if b != nil {
		for _, set := range [][]*cluster.Config{b.Carriers, b.Clusters} {
			for _, c := range set {
				if c.Name != name {
					continue
				}
				if t, err := targets(c, ""); err == nil && c.Type != cluster.EDS {
					return &Server{Addresses: t, TLS: c.TLS}, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("cluster %q: %w", name, ErrServer)
}

// references checks that a bootstrap names only what it has. What a control plane may
// still bring is not checked.
func (b *Bootstrap) references() error {
	if err := b.secretReferences(); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, c := range b.Clusters {
		have[c.Name] = true
	}
	if b.Own != nil && !have[b.Own.Cluster] {
		return fail("cluster_manager.local_cluster_name", "%q is no cluster of static_resources, or one that only leads to a control plane or to the agent", b.Own.Cluster)
	}
	missing := func(cluster string) bool {
		return !have[cluster] && b.Files.Clusters == "" && !b.StreamsClusters()
	}
	for _, c := range b.Clusters {
		if c.Type == cluster.EDS {
			if err := b.Comes(c.Service(), c.Discovery); err != nil {
				return fmt.Errorf("static_resources.clusters (%q): eds_cluster_config.eds_config: %w", c.Name, err)
			}
		}
		for _, n := range c.Aggregate {
			if missing(n) {
				return fmt.Errorf("static_resources.clusters (%q): cluster_type.typed_config.clusters: there is no cluster %q", c.Name, n)
			}
		}
	}
	for _, l := range b.Listeners {
		if err := b.RoutesCome(l); err != nil {
			return fmt.Errorf("static_resources.listeners (%q): %w", l.Name, err)
		}
		for _, n := range ListenerRefs(l).Wanted {
			if missing(n) {
				return fmt.Errorf("static_resources.listeners (%q): there is no cluster %q", l.Name, n)
			}
		}
	}
	return nil
}

// RoutesCome says why the routes that a listener names cannot come.
func (b *Bootstrap) RoutesCome(l *listener.Config) error {
	r := ListenerRefs(l)
	for _, n := range r.Routes {
		if err := b.Comes(n, r.Sources[n]); err != nil {
			return fmt.Errorf("rds.config_source: %w", err)
		}
	}
	return nil
}

// Comes says why what is asked for by a name cannot come from where it is said to.
func (b *Bootstrap) Comes(asked string, from discovery.Source) error {
	if from.Stream != nil {
		_, err := b.Server(from.Stream.Cluster)
		return err
	}
	if resource.Aggregated(asked) && b.ADS == nil {
		return fmt.Errorf("%q is to come by ads, but there is no dynamic_resources.ads_config", asked)
	}
	return nil
}

// secretReferences checks that each service of secrets is one of the bootstrap's.
func (b *Bootstrap) secretReferences() error {
	for _, c := range slices.Concat(b.Carriers, b.Clusters) {
		for _, r := range ClusterSecrets(c) {
			if err := b.secretService(r); err != nil {
				return fmt.Errorf("static_resources.clusters (%q): %s: %w", c.Name, r, err)
			}
		}
	}
	for _, l := range b.Listeners {
		for _, r := range ListenerRefs(l).Secrets {
			if err := b.secretService(r); err != nil {
				return fmt.Errorf("static_resources.listeners (%q): %s: %w", l.Name, r, err)
			}
		}
	}
	return nil
}

// ErrSecretService is why a secret cannot come from where it is said to be.
var ErrSecretService = errors.New("private keys never cross the network: secrets come from a file, or from a static cluster whose only endpoint is a Unix socket (pipe), without a transport_socket")

func (b *Bootstrap) secretService(r tlscontext.SecretRef) error {
	if r.File != "" || b.SecretSockets[r.Cluster] != "" {
		return nil
	}
	return ErrSecretService
}

// Sockets is SecretSockets, also of no bootstrap.
func (b *Bootstrap) Sockets() map[string]string {
	if b == nil {
		return nil
	}
	return b.SecretSockets
}

// PinnedSecrets are the discovered secrets of the connections to control planes.
func (b *Bootstrap) PinnedSecrets() []tlscontext.SecretRef {
	if b == nil {
		return nil
	}
	var out []tlscontext.SecretRef
	for _, c := range b.Carriers {
		if c.TLS != nil && c.TLS.Context != nil {
			out = append(out, c.TLS.Context.SecretRefs()...)
		}
	}
	return out
}
