package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"strings"

	"google.golang.org/protobuf/proto"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
)

func (d *decoder) listener(m *listenerv3.Listener) (*listener.Config, error) {
	out := &listener.Config{
		Name:              m.GetName(),
		Unbound:           m.GetBindToPort() != nil && !m.GetBindToPort().GetValue() || m.GetDeprecatedV1().GetBindToPort() != nil && !m.GetDeprecatedV1().GetBindToPort().GetValue(),
		HandOff:           m.GetUseOriginalDst().GetValue(),
		DrainOnChange:     m.GetDrainType() == listenerv3.Listener_MODIFY_ONLY,
		ContinueOnTimeout: m.GetContinueOnListenerFiltersTimeout(),
		IgnoreGlobalLimit: m.GetIgnoreGlobalConnLimit(),
		IgnoreOverload:    m.GetBypassOverloadManager(),
	}
	if out.Name == "" {
		return nil, fail("name", "is empty; a listener is updated by its name")
	}
	if err := addresses(m, out); err != nil {
		return nil, err
	}
	if err := listenerFacts(out, m); err != nil {
		return nil, err
	}
	if err := d.listenerFilters(out, m); err != nil {
		return nil, err
	}
	var err error
	if out.FilterTimeout, err = timeout(m.GetListenerFiltersTimeout(), "listener_filters_timeout"); err != nil {
		return nil, err
	}
	if out.AccessLog, err = d.connectionLogs(m.GetAccessLog(), "access_log"); err != nil {
		return nil, err
	}
	for i, fc := range m.GetFilterChains() {
		chain, err := d.filterChain(fc, at("filter_chains", i))
		if err != nil {
			return nil, err
		}
		out.Chains = append(out.Chains, *chain)
	}
	if fc := m.GetDefaultFilterChain(); fc != nil {
		if match := fc.GetFilterChainMatch(); match != nil && proto.Size(match) > 0 {
			return nil, fail("default_filter_chain.filter_chain_match", "the default chain takes what no other matches; remove the field")
		}
		if out.Default, err = d.filterChain(fc, "default_filter_chain"); err != nil {
			return nil, err
		}
	}
	if len(out.Chains) == 0 && out.Default == nil {
		return nil, fail("filter_chains", "is empty; a listener needs at least one")
	}
	if l := m.GetPerConnectionBufferLimitBytes(); l != nil {
		limitBuffers(out, l.GetValue())
	}
	return out, nil
}

// limitBuffers tells the terminal filters what the listener allows a connection.
func limitBuffers(out *listener.Config, limit uint32) {
	set := func(c *listener.FilterChain) {
		if c.HTTP != nil {
			c.HTTP.BufferLimit = &limit
		} else {
			c.TCP.BufferLimit = &limit
		}
	}
	for i := range out.Chains {
		set(&out.Chains[i])
	}
	if out.Default != nil {
		set(out.Default)
	}
}

// listenerFacts reads what Hauberk's control plane says about the listener. The
// direction also comes from Envoy's own field; the two must not differ, because
// the workload's identity depends on it.
func listenerFacts(out *listener.Config, m *listenerv3.Listener) error {
	path := "metadata"
	f, err := facts(m.GetMetadata(), path)
	if err != nil {
		return err
	}
	out.Metadata = metadataOf(m.GetMetadata())
	switch m.GetTrafficDirection() {
	case corev3.TrafficDirection_INBOUND:
		out.Direction = listener.Inbound
	case corev3.TrafficDirection_OUTBOUND:
		out.Direction = listener.Outbound
	}
	for k, v := range f {
		here := path + `.filter_metadata["hauberk"].` + k
		switch k {
		case "workload":
			out.Workload = v
		case "service":
			out.Service = v
		case "upstream":
			out.Upstream = v
		case "direction":
			dir := map[string]listener.Direction{"inbound": listener.Inbound, "outbound": listener.Outbound}[v]
			if dir == listener.Unspecified {
				return fail(here, "is %q; use inbound or outbound", v)
			}
			if out.Direction != listener.Unspecified && out.Direction != dir {
				return fail(here, "is %q, but traffic_direction is %s", v, m.GetTrafficDirection())
			}
			out.Direction = dir
		default:
			return fail(here, "unsupported; remove the field")
		}
	}
	return nil
}

func (d *decoder) filterChain(m *listenerv3.FilterChain, path string) (*listener.FilterChain, error) {
	out := &listener.FilterChain{Name: m.GetName(), Metadata: metadataOf(m.GetMetadata())}
	match, err := d.chainMatch(m.GetFilterChainMatch(), path+".filter_chain_match")
	if err != nil {
		return nil, err
	}
	out.Match = *match
	if ts := m.GetTransportSocket(); ts != nil {
		ctx, ok := extension[*tlsv3.DownstreamTlsContext](d, ts.GetTypedConfig())
		if !ok {
			return nil, fail(path+".transport_socket", "a listener takes a DownstreamTlsContext")
		}
		if out.TLS, err = d.downstreamTLS(ctx, path+".transport_socket.typed_config"); err != nil {
			return nil, err
		}
	}
	if out.HandshakeTimeout, err = duration(m.GetTransportSocketConnectTimeout(), path+".transport_socket_connect_timeout"); err != nil {
		return nil, err
	}
	if err := d.networkFilters(out, m.GetFilters(), path+".filters"); err != nil {
		return nil, err
	}
	if err := chainFacts(out, m.GetMetadata(), path+".metadata"); err != nil {
		return nil, err
	}
	return out, nil
}

// chainFacts checks what Hauberk's control plane says about a chain. A chain's
// workload is the one that its certificate names; another one beside it would
// be a lie to whoever reads it.
func chainFacts(c *listener.FilterChain, m *corev3.Metadata, path string) error {
	f, err := facts(m, path)
	if err != nil {
		return err
	}
	for k, v := range f {
		here := path + `.filter_metadata["hauberk"].` + k
		switch k {
		case "workload":
			if c.TLS == nil || c.TLS.Certificate != v {
				return fail(here, "is %q, which is not the certificate that the chain presents", v)
			}
		case "service", "direction":
		default:
			return fail(here, "unsupported; remove the field")
		}
	}
	return nil
}

func (d *decoder) chainMatch(m *listenerv3.FilterChainMatch, path string) (*listener.Match, error) {
	out := &listener.Match{
		DestinationPort:      uint16(m.GetDestinationPort().GetValue()),
		TransportProtocol:    m.GetTransportProtocol(),
		ApplicationProtocols: m.GetApplicationProtocols(),
	}
	switch out.TransportProtocol {
	case "", "tls", "raw_buffer":
	default:
		return nil, fail(path+".transport_protocol", "is %q; use tls or raw_buffer", out.TransportProtocol)
	}
	switch m.GetSourceType() {
	case listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		out.SourceType = listener.SameIPOrLoopback
	case listenerv3.FilterChainMatch_EXTERNAL:
		out.SourceType = listener.External
	}
	var err error
	if out.Destination, err = prefixes(m.GetPrefixRanges(), path+".prefix_ranges"); err != nil {
		return nil, err
	}
	if out.DirectSource, err = prefixes(m.GetDirectSourcePrefixRanges(), path+".direct_source_prefix_ranges"); err != nil {
		return nil, err
	}
	if out.Source, err = prefixes(m.GetSourcePrefixRanges(), path+".source_prefix_ranges"); err != nil {
		return nil, err
	}
	for _, p := range m.GetSourcePorts() {
		out.SourcePorts = append(out.SourcePorts, uint16(p))
	}
	for i, n := range m.GetServerNames() {
		// A wildcard is "*." and a suffix of whole labels; "*" alone is not one.
		rest := strings.TrimPrefix(n, "*.")
		if rest == "" || strings.Contains(rest, "*") {
			return nil, fail(at(path+".server_names", i), "%q: use a name or *. and a suffix", n)
		}
		out.ServerNames = append(out.ServerNames, strings.ToLower(n))
	}
	return out, nil
}
