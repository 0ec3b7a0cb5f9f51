package config

import (
	"crypto/tls"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// secret is a static secret of a bootstrap, or a secret written in place.
type secret struct {
	chain, key, ca string // files
	sans           []string
}

// tlsMaterial is what both directions of TLS have in common. Either the secret
// names are set or the files are, never both: one handshake has one source.
type tlsMaterial struct {
	certificate, validation string
	files                   *secret
	peers                   []string
	alpn                    []string
	min, max                uint16
	ciphers                 []uint16
}

func (d *decoder) downstreamTLS(m *tlsv3.DownstreamTlsContext, path string) (*listener.TLS, error) {
	t, err := d.commonTLS(m.GetCommonTlsContext(), path+".common_tls_context")
	if err != nil {
		return nil, err
	}
	if m.GetOcspStaplePolicy() != tlsv3.DownstreamTlsContext_LENIENT_STAPLING {
		return nil, fail(path+".ocsp_staple_policy", "OCSP stapling is not implemented; SVIDs are short-lived instead")
	}
	out := &listener.TLS{
		Certificate: t.certificate, Validation: t.validation,
		RequireClientCertificate: m.GetRequireClientCertificate().GetValue(),
		PeerIDs:                  t.peers, ALPN: t.alpn, MinVersion: t.min, MaxVersion: t.max, CipherSuites: t.ciphers,
	}
	if t.files != nil {
		out.Files = &listener.FileTLS{CertificateChain: t.files.chain, PrivateKey: t.files.key, TrustedCA: t.files.ca}
	}
	if out.Certificate == "" && (out.Files == nil || out.Files.CertificateChain == "") {
		return nil, fail(path+".common_tls_context", "names no certificate; a listener needs one")
	}
	if out.RequireClientCertificate && out.Validation == "" && (out.Files == nil || out.Files.TrustedCA == "") {
		return nil, fail(path+".common_tls_context", "requires a client certificate but has no validation context to verify it with")
	}
	if len(out.PeerIDs) > 0 && !out.RequireClientCertificate {
		return nil, fail(path+".require_client_certificate", "must be true where the client's names are checked")
	}
	return out, nil
}

func (d *decoder) upstreamTLS(m *tlsv3.UpstreamTlsContext, path string) (*cluster.TLS, error) {
	here := path + ".common_tls_context"
	t, err := d.commonTLS(m.GetCommonTlsContext(), here)
	if err != nil {
		return nil, err
	}
	if len(t.ciphers) > 0 {
		return nil, fail(here+".tls_params.cipher_suites", "is for listeners only; clients offer ECDHE with AEAD")
	}
	out := &cluster.TLS{
		SNI: m.GetSni(), Certificate: t.certificate, Validation: t.validation,
		PeerIDs: t.peers, AnyPeer: len(t.peers) == 0, ALPN: t.alpn, MinVersion: t.min, MaxVersion: t.max,
	}
	if t.files != nil {
		out.Files = &cluster.FileTLS{CertificateChain: t.files.chain, PrivateKey: t.files.key, TrustedCA: t.files.ca}
	}
	if out.Validation == "" && (out.Files == nil || out.Files.TrustedCA == "") {
		return nil, fail(here, "has no validation context: the server would not be verified")
	}
	return out, nil
}

func (d *decoder) commonTLS(m *tlsv3.CommonTlsContext, path string) (*tlsMaterial, error) {
	out := &tlsMaterial{alpn: m.GetAlpnProtocols()}
	if err := tlsVersions(m.GetTlsParams(), out, path+".tls_params"); err != nil {
		return nil, err
	}
	if err := d.ownCertificate(m, out, path); err != nil {
		return nil, err
	}
	if err := d.validation(m, out, path); err != nil {
		return nil, err
	}
	if out.files != nil && (out.certificate != "" || out.validation != "") {
		return nil, fail(path, "takes a part from SDS and a part from files; use one of them for both")
	}
	return out, nil
}

func (d *decoder) ownCertificate(m *tlsv3.CommonTlsContext, out *tlsMaterial, path string) error {
	certs, sds := m.GetTlsCertificates(), m.GetTlsCertificateSdsSecretConfigs()
	switch {
	case len(certs)+len(sds) > 1:
		return fail(path, "names more than one certificate; exactly one is supported")
	case len(certs) == 1:
		s, err := certificateFiles(certs[0], path+".tls_certificates[0]")
		if err != nil {
			return err
		}
		out.add(s)
	case len(sds) == 1:
		return d.sds(sds[0], &out.certificate, out, path+".tls_certificate_sds_secret_configs[0]")
	}
	return nil
}

func (t *tlsMaterial) add(s *secret) {
	if t.files == nil {
		t.files = &secret{}
	}
	if s.chain != "" {
		t.files.chain, t.files.key = s.chain, s.key
	}
	if s.ca != "" {
		t.files.ca = s.ca
	}
	t.peers = append(t.peers, s.sans...)
}

func (d *decoder) validation(m *tlsv3.CommonTlsContext, out *tlsMaterial, path string) error {
	switch v := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		s, err := validationFiles(v.ValidationContext, true, path+".validation_context")
		if err != nil {
			return err
		}
		out.add(s)
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		return d.sds(v.ValidationContextSdsSecretConfig, &out.validation, out, path+".validation_context_sds_secret_config")
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		path += ".combined_validation_context"
		s, err := validationFiles(v.CombinedValidationContext.GetDefaultValidationContext(), false, path+".default_validation_context")
		if err != nil {
			return err
		}
		if s.ca != "" {
			return fail(path+".default_validation_context.trusted_ca", "the secret provides it; remove the field")
		}
		out.peers = append(out.peers, s.sans...)
		return d.sds(v.CombinedValidationContext.GetValidationContextSdsSecretConfig(), &out.validation, out, path+".validation_context_sds_secret_config")
	}
	return nil
}

// sds reads a reference to a secret: one of the host's agent, or a static one.
func (d *decoder) sds(m *tlsv3.SdsSecretConfig, name *string, out *tlsMaterial, path string) error {
	if m.GetSdsConfig() == nil {
		s := d.secrets[m.GetName()]
		if s == nil {
			return fail(path+".name", "there is no static secret %q; name one, or add an sds_config", m.GetName())
		}
		out.add(s)
		return nil
	}
	if err := apiVersion(m.GetSdsConfig(), path+".sds_config"); err != nil {
		return err
	}
	api := m.GetSdsConfig().GetApiConfigSource()
	if api == nil {
		return fail(path+".sds_config", "secrets come from the host's agent; use api_config_source with cluster %q", names.AgentCluster)
	}
	from, _, err := grpcCluster(api, path+".sds_config.api_config_source")
	if err != nil {
		return err
	}
	if from != names.AgentCluster {
		return fail(path+".sds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name",
			"is %q; secrets come from the host's agent, cluster %q", from, names.AgentCluster)
	}
	if m.GetName() == "" {
		return fail(path+".name", "is empty")
	}
	*name = m.GetName()
	return nil
}

func certificateFiles(m *tlsv3.TlsCertificate, path string) (*secret, error) {
	out := &secret{}
	var err error
	if out.chain, err = file(m.GetCertificateChain(), path+".certificate_chain"); err != nil {
		return nil, err
	}
	out.key, err = file(m.GetPrivateKey(), path+".private_key")
	return out, err
}

// file returns the name of a file. Material written into the configuration is
// refused: a private key does not belong where /config_dump and logs read.
func file(s *corev3.DataSource, path string) (string, error) {
	if s == nil {
		return "", fail(path, "is missing")
	}
	if s.GetFilename() == "" {
		return "", fail(path, "only filename is supported for certificates and keys")
	}
	return s.GetFilename(), nil
}

func validationFiles(m *tlsv3.CertificateValidationContext, needCA bool, path string) (*secret, error) {
	out := &secret{}
	if m.GetTrustedCa() != nil || needCA {
		var err error
		if out.ca, err = file(m.GetTrustedCa(), path+".trusted_ca"); err != nil {
			return nil, err
		}
	}
	if m.GetTrustChainVerification() != tlsv3.CertificateValidationContext_VERIFY_TRUST_CHAIN {
		return nil, fail(path+".trust_chain_verification", "is %s; peers are always verified", m.GetTrustChainVerification())
	}
	for i, s := range m.GetMatchTypedSubjectAltNames() {
		here := at(path+".match_typed_subject_alt_names", i)
		if s.GetSanType() != tlsv3.SubjectAltNameMatcher_URI {
			return nil, fail(here+".san_type", "is %s; peers are known by their SPIFFE ID, use URI", s.GetSanType())
		}
		id := s.GetMatcher().GetExact()
		if id == "" || s.GetMatcher().GetIgnoreCase() {
			return nil, fail(here+".matcher", "only exact is supported")
		}
		if !strings.HasPrefix(id, "spiffe://") {
			return nil, fail(here+".matcher.exact", "%q is not a SPIFFE ID", id)
		}
		out.sans = append(out.sans, id)
	}
	return out, nil
}

// tlsVersions reads the range of versions. Envoy's defaults are 1.2 to 1.3 for a
// listener and 1.2 alone for a client; ours also offers 1.3 as a client, which
// no server that Envoy could reach refuses.
func tlsVersions(m *tlsv3.TlsParameters, out *tlsMaterial, path string) error {
	version := func(v tlsv3.TlsParameters_TlsProtocol, auto uint16, field string) (uint16, error) {
		switch v {
		case tlsv3.TlsParameters_TLS_AUTO:
			return auto, nil
		case tlsv3.TlsParameters_TLSv1_2:
			return tls.VersionTLS12, nil
		case tlsv3.TlsParameters_TLSv1_3:
			return tls.VersionTLS13, nil
		}
		return 0, fail(path+field, "is %s; use TLSv1_2 or TLSv1_3", v)
	}
	var err error
	if out.min, err = version(m.GetTlsMinimumProtocolVersion(), tls.VersionTLS12, ".tls_minimum_protocol_version"); err != nil {
		return err
	}
	if out.max, err = version(m.GetTlsMaximumProtocolVersion(), tls.VersionTLS13, ".tls_maximum_protocol_version"); err != nil {
		return err
	}
	if out.min > out.max {
		return fail(path, "the minimum version is above the maximum")
	}
	for i, name := range m.GetCipherSuites() {
		id, ok := cipherSuites[name]
		if !ok {
			return fail(at(path+".cipher_suites", i), "%q is not supported; use ECDHE with AES-GCM or CHACHA20-POLY1305", name)
		}
		out.ciphers = append(out.ciphers, id)
	}
	return nil
}

// cipherSuites are the TLS 1.2 suites with forward secrecy and AEAD, by OpenSSL
// name.
var cipherSuites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}
