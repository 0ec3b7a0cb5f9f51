package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/sockopt"
)

// upstreamBind reads where connections come from; nil leaves that to the system.
func upstreamBind(m *corev3.BindConfig, path string) (*cluster.Bind, error) {
	if m == nil {
		return nil, nil
	}
	out := &cluster.Bind{FreeBind: m.GetFreebind().GetValue()}
	var err error
	if out.Options, err = connectOptions(m.GetSocketOptions(), path+".socket_options"); err != nil {
		return nil, err
	}
	extra := m.GetExtraSourceAddresses()
	here := path + ".extra_source_addresses"
	if old := m.GetAdditionalSourceAddresses(); len(old) > 0 {
		if len(extra) > 0 {
			return nil, fail(path+".additional_source_addresses", "is beside extra_source_addresses, which replaced it; remove the field")
		}
		here = path + ".additional_source_addresses"
		for _, a := range old {
			extra = append(extra, &corev3.ExtraSourceAddress{Address: a})
		}
	}
	switch {
	case m.GetSourceAddress() == nil && len(extra) > 0:
		return nil, fail(here, "needs a source_address")
	case len(extra) > 1:
		return nil, fail(here, "has %d addresses; beside source_address there may be one, of the other family", len(extra))
	case m.GetSourceAddress() == nil:
		return out, nil
	}
	if err := bindAddress(out, m.GetSourceAddress(), out.Options, path+".source_address"); err != nil {
		return nil, err
	}
	for i, e := range extra {
		options := out.Options
		if o := e.GetSocketOptions(); o != nil {
			if options, err = connectOptions(o.GetSocketOptions(), at(here, i)+".socket_options.socket_options"); err != nil {
				return nil, err
			}
		}
		where := at(here, i)
		if len(m.GetExtraSourceAddresses()) > 0 {
			where += ".address"
		}
		if err := bindAddress(out, e.GetAddress(), options, where); err != nil {
			return nil, err
		}
	}
	if len(out.From) == 2 && out.From[0].Addr.Is4() == out.From[1].Addr.Is4() {
		return nil, fail(here, "is of the same family as source_address")
	}
	return out, nil
}

func bindAddress(out *cluster.Bind, a *corev3.SocketAddress, options []sockopt.Option, path string) error {
	switch {
	case a.GetProtocol() != corev3.SocketAddress_TCP:
		return fail(path+".protocol", "only TCP is supported")
	case a.GetPortValue() != 0:
		return fail(path+".port_value", "one port allows one connection to a host; use 0")
	case a.GetIpv4Compat():
		return fail(path+".ipv4_compat", "is for listeners; remove the field")
	}
	ip, err := ipAddress(a.GetAddress())
	if err != nil {
		return fail(path+".address", "%q is not an IP address", a.GetAddress())
	}
	out.From = append(out.From, cluster.BindAddress{Addr: ip.Unmap(), Options: options})
	return nil
}

// eyeballs reads the order in which several addresses of a host are tried.
func eyeballs(m *clusterv3.UpstreamConnectionOptions_HappyEyeballsConfig, path string) (*cluster.Eyeballs, error) {
	if m == nil {
		return nil, nil
	}
	out := &cluster.Eyeballs{First: int(m.GetFirstAddressFamilyCount().GetValue())}
	switch v := m.GetFirstAddressFamilyVersion(); v {
	case clusterv3.UpstreamConnectionOptions_DEFAULT:
	case clusterv3.UpstreamConnectionOptions_V4:
		out.Family = cluster.IPv4Only
	case clusterv3.UpstreamConnectionOptions_V6:
		out.Family = cluster.IPv6Only
	default:
		return nil, fail(path+".first_address_family_version", "is %s; a host has addresses of V4 and V6", v)
	}
	return out, nil
}

// connectOptions are those of a socket that connects.
func connectOptions(ms []*corev3.SocketOption, path string) ([]sockopt.Option, error) {
	out, err := socketOptions(ms, path)
	for i := range out {
		if out[i].State == sockopt.Listening {
			return nil, fail(at(path, i)+".state", "is STATE_LISTENING, which a socket that connects never has")
		}
	}
	return out, err
}
