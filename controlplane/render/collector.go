package render

import (
	"net/netip"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/opaque"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Collector renders the cluster of a collector at an address outside the mesh.
func Collector(client Client, t *opaque.Tracing) (*resource.Resource, error) {
	to := t.Collector()
	name, protocol, kind := collectorName(t), "http", clusterv3.Cluster_STRICT_DNS
	if t.GRPC("") {
		protocol = "grpc"
	}
	if _, err := netip.ParseAddr(to.Host); err == nil {
		kind = clusterv3.Cluster_STATIC
	}
	options, err := protocolOptions(protocol, client)
	if err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: kind},
		ConnectTimeout:       duration(defaultConnectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(to.Host, to.Port)}},
			}}}},
		},
		CircuitBreakers:               breakers(client, nil),
		CommonLbConfig:                noPanic(),
		UpstreamConnectionOptions:     probed(client),
		TypedExtensionProtocolOptions: options,
	}
	if !to.Insecure {
		if c.TransportSocket, err = collectorTLS(to, protocol); err != nil {
			return nil, err
		}
	}
	return resource.New(name, c)
}

// collectorTLS verifies a server of the web's PKI, to which the mesh proves nothing.
func collectorTLS(to *opaque.Collector, protocol string) (*corev3.TransportSocket, error) {
	name, san := to.ServerName, tlsv3.SubjectAltNameMatcher_DNS
	if name == "" {
		name = to.Host
	}
	sni := name
	if _, err := netip.ParseAddr(name); err == nil {
		san, sni = tlsv3.SubjectAltNameMatcher_IP_ADDRESS, "" // RFC 6066, 3: SNI is no address
	}
	validation := &tlsv3.CertificateValidationContext{
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{SanType: san, Matcher: exactly(name)}},
	}
	if to.CAFile != "" {
		validation.TrustedCa = &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: to.CAFile}}
	} else {
		validation.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
	}
	alpn := []string{"http/1.1"}
	if protocol == "grpc" {
		alpn = []string{"h2"}
	}
	return transportSocket(&tlsv3.UpstreamTlsContext{
		Sni: sni,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
			AlpnProtocols:         alpn,
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
		},
	})
}
