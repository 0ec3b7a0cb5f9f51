package render

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/xds/names"
)

const tlsSocket = "envoy.transport_sockets.tls"

// tlsSettings are one direction's parameters. The maximum is always TLS 1.3,
// and always written: Envoy's upstream default is 1.2.
type tlsSettings struct {
	tls12   bool
	ciphers []string // TLS 1.2 only, OpenSSL names
}

// aeadSuites are the TLS 1.2 suites that are accepted, IANA to OpenSSL.
var aeadSuites = map[string]string{
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256":       "ECDHE-ECDSA-AES128-GCM-SHA256",
	"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384":       "ECDHE-ECDSA-AES256-GCM-SHA384",
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
	"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256":         "ECDHE-RSA-AES128-GCM-SHA256",
	"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384":         "ECDHE-RSA-AES256-GCM-SHA384",
	"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256":   "ECDHE-RSA-CHACHA20-POLY1305",
}

func (e *Environment) readTLS(path string, c *api.MeshDirectionalTLSConfig) tlsSettings {
	var s tlsSettings
	if c == nil {
		return s
	}
	switch c.TLSMinVersion {
	case "", "TLS_AUTO", "TLSv1_3":
	case "TLSv1_2":
		s.tls12 = true
	case "TLSv1_0", "TLSv1_1":
		s.tls12 = true
		e.problem(path+".TLSMinVersion", "%s is refused, TLSv1_2 is the oldest that is accepted", c.TLSMinVersion)
	default:
		e.problem(path+".TLSMinVersion", "%q is not a version; TLSv1_3 applies; use TLSv1_2 or TLSv1_3", c.TLSMinVersion)
	}
	switch c.TLSMaxVersion {
	case "", "TLS_AUTO", "TLSv1_3":
	default:
		e.problem(path+".TLSMaxVersion", "%q is refused: the mesh always offers TLSv1_3; remove the setting", c.TLSMaxVersion)
	}
	if !s.tls12 {
		if len(c.CipherSuites) > 0 {
			e.problem(path+".CipherSuites", "the suites of TLS 1.3 are not configurable; the list matters only with TLSMinVersion TLSv1_2")
		}
		return s
	}
	for _, suite := range c.CipherSuites {
		name, ok := aeadSuites[suite]
		if !ok {
			e.problem(path+".CipherSuites", "%q is refused: only ECDHE suites with AES-GCM or ChaCha20-Poly1305 are accepted", suite)
			continue
		}
		s.ciphers = append(s.ciphers, name)
	}
	switch {
	case len(s.ciphers) > 0:
	case len(c.CipherSuites) > 0:
		s.tls12 = false
		e.problem(path+".CipherSuites", "none of the list is accepted, so TLSv1_3 is the oldest that is; add a suite that is")
	default:
		for _, k := range sortedKeys(aeadSuites) {
			s.ciphers = append(s.ciphers, aeadSuites[k])
		}
	}
	return s
}

func (s tlsSettings) params() *tlsv3.TlsParameters {
	p := &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
	if s.tls12 {
		p.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_2
		p.CipherSuites = slices.Clone(s.ciphers)
	}
	return p
}

// secret names an SDS secret of the host's agent. It goes by a static cluster
// and never over ADS: no ADS response holds a private key.
func secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: names.AgentCluster},
			}}},
		}},
	}}
}

// commonTLS proves the identity named by certificate, and trusts the own trust
// domain's bundle for a peer with one of the SPIFFE IDs; for any peer of the
// trust domain when there are none.
func commonTLS(s tlsSettings, certificate string, peers []string, alpn []string) *tlsv3.CommonTlsContext {
	validation := &tlsv3.CertificateValidationContext{}
	for _, id := range peers {
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: tlsv3.SubjectAltNameMatcher_URI,
			Matcher: exactly(id),
		})
	}
	return &tlsv3.CommonTlsContext{
		TlsParams:                      s.params(),
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret(certificate)},
		AlpnProtocols:                  alpn,
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         validation,
				ValidationContextSdsSecretConfig: secret(names.RootSecret),
			},
		},
	}
}

// upstreamTLS proves the identity named by certificate to a peer with one exact
// SPIFFE ID.
func (e *Environment) upstreamTLS(sni, certificate, peer, protocol string) (*corev3.TransportSocket, error) {
	var alpn []string
	switch protocol {
	case "http":
		alpn = []string{"http/1.1"}
	case "http2", "grpc":
		alpn = []string{"h2"}
	case negotiated:
		alpn = []string{"h2", "http/1.1"}
	case tunnelled:
		alpn = []string{names.TunnelALPN}
	}
	return transportSocket(&tlsv3.UpstreamTlsContext{
		CommonTlsContext: commonTLS(e.outgoing, certificate, []string{peer}, alpn),
		Sni:              sni,
		MaxSessionKeys:   u32(0),
	})
}

func (e *Environment) downstreamTLS(workload, protocol string, peers ...string) (*corev3.TransportSocket, error) {
	var alpn []string
	switch protocol {
	case "http":
		alpn = []string{"http/1.1"}
	case "http2", "grpc", negotiated:
		alpn = []string{"h2", "http/1.1"}
	case tunnelled:
		alpn = []string{names.TunnelALPN}
	}
	return transportSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext:         commonTLS(e.incoming, workload, peers, alpn),
		RequireClientCertificate: wrapperspb.Bool(true),
		// A resumed session would outlive the checks of a full handshake.
		SessionTicketKeysType:            &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true},
		DisableStatefulSessionResumption: true,
	})
}

func transportSocket(m proto.Message) (*corev3.TransportSocket, error) {
	any, err := toAny(m)
	if err != nil {
		return nil, err
	}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: any}}, nil
}

// serverNames are the SNIs by which a workload is called: its cluster name, and
// those of its subsets. SNI is compared in lower case.
func serverNames(cluster string) []string {
	cluster = strings.ToLower(cluster)
	return []string{cluster, "*." + cluster}
}
