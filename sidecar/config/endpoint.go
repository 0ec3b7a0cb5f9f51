package config

import (
	"math"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// assignment reads endpoints; names says whether host names are allowed.
func (d *decoder) assignment(m *endpointv3.ClusterLoadAssignment, path string, names bool) (*cluster.Assignment, error) {
	out := &cluster.Assignment{
		Cluster: m.GetClusterName(), Overprovisioning: int(m.GetPolicy().GetOverprovisioningFactor().GetValue()),
		WeightedHealth: m.GetPolicy().GetWeightedPriorityHealth(),
	}
	stale, err := duration(m.GetPolicy().GetEndpointStaleAfter(), under(path, "policy")+".endpoint_stale_after")
	if err != nil {
		return nil, err
	}
	out.StaleAfter = stale.Truncate(time.Millisecond) // as in Envoy
	if out.DropPerMillion, err = dropShare(m.GetPolicy().GetDropOverloads(), path); err != nil {
		return nil, err
	}
	for i, l := range m.GetEndpoints() {
		here := at(under(path, "endpoints"), i)
		loc := cluster.Locality{
			Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: l.GetLocality().GetSubZone(),
			Priority: int(l.GetPriority()), Weight: l.GetLoadBalancingWeight().GetValue(),
		}
		ofLocality := d.metadata.of(l.GetMetadata())[cluster.SocketNamespace]
		for j, e := range l.GetLbEndpoints() {
			ep, err := d.endpoint(e, at(here+".lb_endpoints", j), names)
			if err != nil {
				return nil, err
			}
			ep.OfLocality = ofLocality
			loc.Endpoints = append(loc.Endpoints, *ep)
		}
		out.Localities = append(out.Localities, loc)
	}
	return out, nil
}

// dropShare reads what is dropped of a million requests.
func dropShare(ms []*endpointv3.ClusterLoadAssignment_Policy_DropOverload, path string) (uint32, error) {
	here := under(under(path, "policy"), "drop_overloads")
	switch len(ms) {
	case 0:
		return 0, nil
	case 1:
	default:
		return 0, fail(here, "has %d categories; one is supported, as in Envoy", len(ms))
	}
	here = at(here, 0) + ".drop_percentage"
	p := ms[0].GetDropPercentage()
	unit, ok := map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 10_000, typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 1,
	}[p.GetDenominator()]
	switch {
	case !ok:
		return 0, fail(here+".denominator", "unknown value %d", p.GetDenominator())
	case p.GetNumerator() > 1_000_000/unit:
		return 0, fail(here+".numerator", "%d is more than the denominator, %d", p.GetNumerator(), 1_000_000/unit)
	}
	return p.GetNumerator() * unit, nil
}

// dropLimitKey bounds what is dropped of every cluster's requests, in percent.
const dropLimitKey = "load_balancing_policy.drop_overload_limit"

// mostDropped reads the bound, nil for none.
func (d *decoder) mostDropped() (*uint32, error) {
	n, ok, err := d.runtime.number(dropLimitKey)
	switch {
	case err != nil || !ok:
		return nil, err
	case n < 0 || n > 100 || n != math.Trunc(n):
		return nil, fail(d.runtime.paths[dropLimitKey], "is no whole percentage from 0 to 100")
	}
	return new(uint32(n)), nil
}

func (d *decoder) endpoint(m *endpointv3.LbEndpoint, path string, names bool) (*cluster.Endpoint, error) {
	out := &cluster.Endpoint{
		Hostname: m.GetEndpoint().GetHostname(),
		Weight:   m.GetLoadBalancingWeight().GetValue(),
		Metadata: d.metadata.of(m.GetMetadata()),
	}
	var err error
	if out.Check, err = d.endpointCheck(m.GetEndpoint().GetHealthCheckConfig(), path+".endpoint.health_check_config"); err != nil {
		return nil, err
	}
	switch m.GetHealthStatus() {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY:
		out.Health = cluster.Healthy
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		out.Health = cluster.Unhealthy
	case corev3.HealthStatus_DRAINING:
		out.Health = cluster.Draining
	case corev3.HealthStatus_DEGRADED:
		out.Health = cluster.Degraded
	default:
		return nil, fail(path+".health_status", "unknown value %d", m.GetHealthStatus())
	}
	if out.Extensions, err = extensionsOfHost(m.GetMetadata(), path+".metadata"); err != nil {
		return nil, err
	}
	if m.GetEndpoint() == nil {
		return nil, fail(path+".endpoint", "is missing")
	}
	if out.Also, err = d.furtherAddresses(m.GetEndpoint(), path+".endpoint.additional_addresses", names); err != nil {
		return nil, err
	}
	a := m.GetEndpoint().GetAddress()
	here := path + ".endpoint.address"
	if p := a.GetPipe(); p != nil {
		_, out.Pipe, err = d.address(a, here)
		return out, err
	}
	if out.Host, out.Port, err = d.hostPort(a, here); err != nil {
		return nil, err
	}
	if out.Port == 0 {
		return nil, fail(here+".socket_address.port_value", "0 cannot be connected to")
	}
	if _, err := ipAddress(out.Host); err != nil && !names {
		return nil, fail(here+".socket_address.address", "%q is not an IP address; names need type STRICT_DNS or LOGICAL_DNS", out.Host)
	}
	return out, nil
}

// furtherAddresses reads where else a host is to be connected to.
func (d *decoder) furtherAddresses(m *endpointv3.Endpoint, path string, names bool) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for i, a := range m.GetAdditionalAddresses() {
		here := at(path, i) + ".address"
		switch {
		case names:
			return nil, fail(path, "are for types STATIC and EDS, and Envoy does not heed them elsewhere; a name has addresses by itself")
		case m.GetAddress().GetPipe() != nil:
			return nil, fail(path, "are for hosts with an IP address")
		case a.GetAddress().GetPipe() != nil:
			return nil, fail(here+".pipe", "use an IP address")
		}
		host, port, err := d.hostPort(a.GetAddress(), here)
		if err != nil {
			return nil, err
		}
		ip, err := ipAddress(host)
		if err != nil {
			return nil, fail(here+".socket_address.address", "%q is not an IP address", host)
		}
		if port < 1 || port > 65535 {
			return nil, fail(here+".socket_address.port_value", "%d cannot be connected to", port)
		}
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return out, nil
}

// endpointCheck reads how one endpoint is health-checked.
func (d *decoder) endpointCheck(m *endpointv3.Endpoint_HealthCheckConfig, path string) (*cluster.EndpointCheck, error) {
	if m == nil {
		return nil, nil
	}
	out := &cluster.EndpointCheck{
		Disabled: m.GetDisableActiveHealthCheck(), Hostname: m.GetHostname(), Port: int(m.GetPortValue()),
	}
	if a := m.GetAddress(); a != nil {
		host, port, err := d.hostPort(a, path+".address")
		if err != nil {
			return nil, err
		}
		if _, err := ipAddress(host); err != nil {
			return nil, fail(path+".address.socket_address.address", "%q is not an IP address", host)
		}
		out.Address = host
		if port != 0 {
			if out.Port != 0 {
				return nil, fail(path+".port_value", "the address has a port too; use one of them")
			}
			out.Port = port
		}
	}
	if out.Port > 65535 {
		return nil, fail(path+".port_value", "%d is not a port", out.Port)
	}
	return out, nil
}
