package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// side is the end of a connection that a TLS context is of.
type side bool

const (
	serverSide side = false
	clientSide side = true
)

// tlsMaterial is what both directions of TLS have in common. Either names of the
// agent's secrets are set, which are the mesh's own terms, or a context is: one
// handshake has one source.
type tlsMaterial struct {
	certificate, validation string
	peers                   []string // SPIFFE IDs, with the agent's secrets
	context                 tlscontext.Common
}

// ofMesh tells whether the host's agent gives identity and trust.
func (t *tlsMaterial) ofMesh() bool { return t.certificate != "" || t.validation != "" }

func (d *decoder) downstreamTLS(m *tlsv3.DownstreamTlsContext, path string) (*listener.TLS, error) {
	t, err := d.commonTLS(m.GetCommonTlsContext(), serverSide, path+".common_tls_context")
	if err != nil {
		return nil, err
	}
	if m.GetOcspStaplePolicy() != tlsv3.DownstreamTlsContext_LENIENT_STAPLING {
		return nil, fail(path+".ocsp_staple_policy", "OCSP stapling is not implemented; SVIDs are short-lived instead")
	}
	require := m.GetRequireClientCertificate().GetValue()
	if t.ofMesh() {
		return meshServer(t, m, path)
	}
	if len(t.context.Certificates) == 0 {
		return nil, fail(path+".common_tls_context", "names no certificate; a listener needs one")
	}
	if require && t.context.Validation == nil {
		return nil, fail(path+".common_tls_context", "requires a client certificate but has no validation context to verify it with")
	}
	require = require || t.context.Validation.Demands()
	out := &tlscontext.Server{
		Common: t.context, RequireClientCertificate: require,
		RequireSNI: m.GetRequireSni().GetValue(), FullScan: m.GetFullScanCertsOnSniMismatch().GetValue(),
	}
	return &listener.TLS{Context: out, RequireClientCertificate: require, ALPN: out.ALPN}, nil
}

// meshServer is a listener's side of the mesh's TLS.
func meshServer(t *tlsMaterial, m *tlsv3.DownstreamTlsContext, path string) (*listener.TLS, error) {
	out := &listener.TLS{
		Certificate: t.certificate, Validation: t.validation, PeerIDs: t.peers,
		RequireClientCertificate: m.GetRequireClientCertificate().GetValue(),
		ALPN:                     t.context.ALPN, MinVersion: t.context.MinVersion, MaxVersion: t.context.MaxVersion, CipherSuites: t.context.CipherSuites,
	}
	switch {
	case out.Certificate == "":
		return nil, fail(path+".common_tls_context", "names no certificate; a listener needs one")
	case out.RequireClientCertificate && out.Validation == "":
		return nil, fail(path+".common_tls_context", "requires a client certificate but has no validation context to verify it with")
	case len(out.PeerIDs) > 0 && !out.RequireClientCertificate:
		return nil, fail(path+".require_client_certificate", "must be true where the client's names are checked")
	case m.GetRequireSni().GetValue():
		return nil, fail(path+".require_sni", "is not for certificates of the agent; match server_names in the filter chain instead")
	case m.GetFullScanCertsOnSniMismatch().GetValue():
		return nil, fail(path+".full_scan_certs_on_sni_mismatch", "is not for certificates of the agent, of which a chain has one")
	}
	return out, nil
}

func (d *decoder) upstreamTLS(m *tlsv3.UpstreamTlsContext, path string) (*cluster.TLS, error) {
	here := path + ".common_tls_context"
	t, err := d.commonTLS(m.GetCommonTlsContext(), clientSide, here)
	if err != nil {
		return nil, err
	}
	if m.GetAllowRenegotiation() {
		return nil, fail(path+".allow_renegotiation", "renegotiation is never done; remove the field")
	}
	if t.ofMesh() {
		return meshClient(t, m, path)
	}
	if t.context.Validation == nil {
		return nil, fail(here, "has no validation context: the server would not be verified. If that is meant, say so: validation_context: {trust_chain_verification: ACCEPT_UNTRUSTED}")
	}
	if m.GetAutoSniSanValidation() && t.context.Validation.PinsAlone() {
		return nil, fail(path+".auto_sni_san_validation", "was configured without configuring a trusted CA: pins say whom a certificate is from, whatever its names")
	}
	if m.GetAutoSniSanValidation() && len(t.context.Validation.TrustDomains) > 0 {
		// Envoy takes it and does not check the name. An SVID seldom has one.
		return nil, fail(path+".auto_sni_san_validation", "a name in DNS is no identity of a trust domain: use match_typed_subject_alt_names")
	}
	return &cluster.TLS{
		SNI: m.GetSni(), AutoHostSNI: m.GetAutoHostSni(), ALPN: t.context.ALPN,
		Context: &tlscontext.Client{Common: t.context, SNI: m.GetSni(), VerifySNI: m.GetAutoSniSanValidation()},
	}, nil
}

// meshClient is a cluster's side of the mesh's TLS.
func meshClient(t *tlsMaterial, m *tlsv3.UpstreamTlsContext, path string) (*cluster.TLS, error) {
	here := path + ".common_tls_context"
	switch {
	case t.validation == "":
		return nil, fail(here, "has no validation context: the server would not be verified")
	case len(t.context.CipherSuites) > 0:
		return nil, fail(here+".tls_params.cipher_suites", "is for listeners only; clients of the mesh offer ECDHE with AEAD")
	case m.GetAutoHostSni():
		return nil, fail(path+".auto_host_sni", "is not for the mesh, where the server name is the cluster's: use sni")
	case m.GetAutoSniSanValidation():
		return nil, fail(path+".auto_sni_san_validation", "a name in DNS is no identity of the mesh: use match_typed_subject_alt_names")
	}
	return &cluster.TLS{
		SNI: m.GetSni(), Certificate: t.certificate, Validation: t.validation, PeerIDs: t.peers, AnyPeer: len(t.peers) == 0,
		ALPN: t.context.ALPN, MinVersion: t.context.MinVersion, MaxVersion: t.context.MaxVersion,
	}, nil
}

func (d *decoder) commonTLS(m *tlsv3.CommonTlsContext, s side, path string) (*tlsMaterial, error) {
	out := &tlsMaterial{}
	var err error
	if out.context.ALPN, err = alpnProtocols(m.GetAlpnProtocols(), path+".alpn_protocols"); err != nil {
		return nil, err
	}
	if err := d.ownCertificates(m, out, path); err != nil {
		return nil, err
	}
	if err := d.validation(m, out, path); err != nil {
		return nil, err
	}
	if err := tlsParams(m.GetTlsParams(), s, out, path+".tls_params"); err != nil {
		return nil, err
	}
	if out.ofMesh() && (len(out.context.Certificates) > 0 || out.context.Validation != nil) {
		return nil, fail(path, "takes a part from the agent and a part from the configuration; use one of them for both")
	}
	if s == clientSide && len(out.context.Certificates) > 1 {
		return nil, fail(path+".tls_certificates", "a client has one certificate; remove the others")
	}
	return out, nil
}

// alpnProtocols reads names of protocols, of which one text may hold several with commas
// between: Envoy joins them so.
func alpnProtocols(texts []string, path string) ([]string, error) {
	var out []string
	for i, text := range texts {
		for p := range strings.SplitSeq(text, ",") {
			if p == "" || len(p) > 255 {
				return nil, fail(at(path, i), "%q names an empty protocol, or one of more than 255 bytes", text)
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func (d *decoder) ownCertificates(m *tlsv3.CommonTlsContext, out *tlsMaterial, path string) error {
	for i, c := range m.GetTlsCertificates() {
		cert, err := certificate(c, at(path+".tls_certificates", i))
		if err != nil {
			return err
		}
		out.context.Certificates = append(out.context.Certificates, *cert)
	}
	for i, c := range m.GetTlsCertificateSdsSecretConfigs() {
		here := at(path+".tls_certificate_sds_secret_configs", i)
		s, err := d.sds(c, here)
		switch {
		case err != nil:
			return err
		case s.agent != "" && out.certificate != "":
			return fail(here, "is a second certificate of the agent; one is presented")
		case s.agent != "":
			out.certificate = s.agent
		case s.discovered != nil:
			out.context.Certificates = append(out.context.Certificates, tlscontext.Certificate{Secret: s.discovered})
		case s.static.Certificate == nil:
			return fail(here+".name", "secret %q is no tls_certificate", c.GetName())
		default:
			out.context.Certificates = append(out.context.Certificates, *s.static.Certificate)
		}
	}
	return nil
}

func (d *decoder) validation(m *tlsv3.CommonTlsContext, out *tlsMaterial, path string) error {
	switch v := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		c, err := d.certificateValidation(v.ValidationContext, path+".validation_context")
		if err != nil {
			return err
		}
		out.context.Validation = c
		return verifiable(c, path+".validation_context")
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		return d.sdsValidation(v.ValidationContextSdsSecretConfig, nil, out, path+".validation_context_sds_secret_config", "")
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		path += ".combined_validation_context"
		here := path + ".default_validation_context"
		own, err := d.certificateValidation(v.CombinedValidationContext.GetDefaultValidationContext(), here)
		if err != nil {
			return err
		}
		return d.sdsValidation(v.CombinedValidationContext.GetValidationContextSdsSecretConfig(), own, out, path+".validation_context_sds_secret_config", here)
	}
	return nil
}

// sdsValidation takes a validation context from a secret, and adds what is
// written beside it.
func (d *decoder) sdsValidation(m *tlsv3.SdsSecretConfig, own *tlscontext.Validation, out *tlsMaterial, path, ownPath string) error {
	s, err := d.sds(m, path)
	switch {
	case err != nil:
		return err
	case s.discovered != nil:
		s.discovered.Validation = true
		out.context.Validation = own.Merge(&tlscontext.Validation{Secret: s.discovered, MaxDepth: tlscontext.DefaultDepth})
		return nil
	case s.static != nil && s.static.Validation == nil:
		return fail(path+".name", "secret %q is no validation_context", m.GetName())
	case s.static != nil:
		out.context.Validation = own.Merge(s.static.Validation)
		return verifiable(out.context.Validation, path)
	}
	out.validation = s.agent
	if own == nil {
		return nil
	}
	if !own.CA.Empty() || own.SystemRoots {
		return fail(ownPath+".trusted_ca", "the secret provides it; remove the field")
	}
	return out.peersOfMesh(own, ownPath)
}

// peersOfMesh reads the SPIFFE IDs that a peer may have. Nothing else says
// anything about a peer whose identity is a SPIFFE ID.
func (t *tlsMaterial) peersOfMesh(v *tlscontext.Validation, path string) error {
	names := v.Names
	rest := *v
	rest.Names, rest.MaxDepth = nil, 0
	if len(rest.SPKI)+len(rest.Hash) > 0 || !rest.CRL.Empty() || rest.AcceptUntrusted || len(rest.TrustDomains) > 0 || v.MaxDepth != tlscontext.DefaultDepth {
		return fail(path, "has more than names: peers of the mesh are verified by the trust bundle alone")
	}
	for i, n := range names {
		here := at(path+".match_typed_subject_alt_names", i)
		if n.Type != tlscontext.URI {
			return fail(here+".san_type", "is not URI; peers of the mesh are known by their SPIFFE ID")
		}
		if n.Match.Exact == nil || n.Match.IgnoreCase || !isSPIFFE(*n.Match.Exact) {
			return fail(here+".matcher", "is not the exact SPIFFE ID of a peer")
		}
		t.peers = append(t.peers, *n.Match.Exact)
	}
	return nil
}

func isSPIFFE(id string) bool {
	return len(id) > len("spiffe://") && id[:len("spiffe://")] == "spiffe://"
}
