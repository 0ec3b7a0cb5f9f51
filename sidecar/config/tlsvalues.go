package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"crypto/tls"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"os"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

func certificate(m *tlsv3.TlsCertificate, path string) (*tlscontext.Certificate, error) {
	chain, err := tlsSource(m.GetCertificateChain(), path+".certificate_chain")
	if err != nil {
		return nil, err
	}
	key, err := tlsSource(m.GetPrivateKey(), path+".private_key")
	if err != nil {
		return nil, err
	}
	return &tlscontext.Certificate{Chain: chain, Key: key}, nil
}

// source reads where material is. An environment variable is read now, as Envoy
// does; only a file can change.
func tlsSource(m *corev3.DataSource, path string) (tlscontext.Source, error) {
	switch s := m.GetSpecifier().(type) {
	case *corev3.DataSource_Filename:
		if pasted(s.Filename) {
			return tlscontext.Source{}, fail(path+".filename", "is PEM, or has several lines; write that into inline_string")
		}
		return tlscontext.Source{File: s.Filename}, nil
	case *corev3.DataSource_InlineBytes:
		return tlscontext.Source{Inline: tlscontext.Secret(s.InlineBytes)}, nil
	case *corev3.DataSource_InlineString:
		return tlscontext.Source{Inline: tlscontext.Secret(s.InlineString)}, nil
	case *corev3.DataSource_EnvironmentVariable:
		if pasted(s.EnvironmentVariable) {
			return tlscontext.Source{}, fail(path+".environment_variable", "is PEM, or has several lines; write that into inline_string")
		}
		v := os.Getenv(s.EnvironmentVariable)
		if v == "" {
			return tlscontext.Source{}, fail(path+".environment_variable", "%s is not set", s.EnvironmentVariable)
		}
		return tlscontext.Source{Inline: tlscontext.Secret(v)}, nil
	}
	return tlscontext.Source{}, fail(path, "is missing")
}

func (d *decoder) certificateValidation(m *tlsv3.CertificateValidationContext, path string) (*tlscontext.Validation, error) {
	out := &tlscontext.Validation{
		SystemRoots: m.GetSystemRootCerts() != nil, LeafCRLOnly: m.GetOnlyVerifyLeafCertCrl(), HideCA: m.GetSuppressClientCaList(),
		AcceptUntrusted: m.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		MaxDepth:        tlscontext.DefaultDepth,
	}
	if d := m.GetMaxVerifyDepth(); d != nil {
		out.MaxDepth = int(d.GetValue())
	}
	var err error
	if m.GetTrustedCa() != nil {
		if out.CA, err = tlsSource(m.GetTrustedCa(), path+".trusted_ca"); err != nil {
			return nil, err
		}
	}
	if m.GetCrl() != nil {
		if out.CRL, err = tlsSource(m.GetCrl(), path+".crl"); err != nil {
			return nil, err
		}
	}
	if out.SPKI, err = pins(m.GetVerifyCertificateSpki(), base64.StdEncoding.DecodeString, path+".verify_certificate_spki"); err != nil {
		return nil, err
	}
	// OpenSSL prints a fingerprint with colons.
	colons := func(s string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(s, ":", "")) }
	if out.Hash, err = pins(m.GetVerifyCertificateHash(), colons, path+".verify_certificate_hash"); err != nil {
		return nil, err
	}
	if out.TrustDomains, err = d.trustDomains(m.GetCustomValidatorConfig(), path+".custom_validator_config"); err != nil {
		return nil, err
	}
	return out, altNames(m, out, path)
}

// trustDomains reads Envoy's SPIFFE validator, which is the one there is.
func (d *decoder) trustDomains(m *corev3.TypedExtensionConfig, path string) ([]tlscontext.TrustDomain, error) {
	if m == nil {
		return nil, nil
	}
	c, ok := d.unpacked[m.GetTypedConfig()].(*tlsv3.SPIFFECertValidatorConfig)
	if !ok {
		return nil, fail(path, "has no SPIFFE validator, and there is no other")
	}
	path += ".typed_config.trust_domains"
	var out []tlscontext.TrustDomain
	for i, td := range c.GetTrustDomains() {
		here := at(path, i)
		name, err := spiffe.TrustDomain(td.GetName())
		if err != nil {
			return nil, fail(here+".name", "%v", err)
		}
		if slices.ContainsFunc(out, func(o tlscontext.TrustDomain) bool { return o.Name == name.Name() }) {
			return nil, fail(here+".name", "%q is there twice", td.GetName())
		}
		bundle, err := tlsSource(td.GetTrustBundle(), here+".trust_bundle")
		if err != nil {
			return nil, err
		}
		out = append(out, tlscontext.TrustDomain{Name: name.Name(), Bundle: bundle})
	}
	return out, nil
}

func pins(texts []string, decode func(string) ([]byte, error), path string) ([][32]byte, error) {
	var out [][32]byte
	for i, t := range texts {
		b, err := decode(t)
		if err != nil || len(b) != 32 {
			return nil, fail(at(path, i), "is not the text of a SHA-256 hash")
		}
		out = append(out, [32]byte(b))
	}
	return out, nil
}

// altNames reads the names of which a peer must have one. The older field, which
// names no type, means a name of any type.
func altNames(m *tlsv3.CertificateValidationContext, out *tlscontext.Validation, path string) error {
	types := map[tlsv3.SubjectAltNameMatcher_SanType]tlscontext.NameType{
		tlsv3.SubjectAltNameMatcher_URI: tlscontext.URI, tlsv3.SubjectAltNameMatcher_DNS: tlscontext.DNS,
		tlsv3.SubjectAltNameMatcher_IP_ADDRESS: tlscontext.IP, tlsv3.SubjectAltNameMatcher_EMAIL: tlscontext.Email,
		tlsv3.SubjectAltNameMatcher_OTHER_NAME: tlscontext.OtherName,
	}
	for i, s := range m.GetMatchTypedSubjectAltNames() {
		here := at(path+".match_typed_subject_alt_names", i)
		t, ok := types[s.GetSanType()]
		if !ok {
			return fail(here+".san_type", "is %s; use URI, DNS, IP_ADDRESS, EMAIL or OTHER_NAME", s.GetSanType())
		}
		match, err := stringMatch(s.GetMatcher(), here+".matcher")
		if err != nil {
			return err
		}
		name := tlscontext.NameMatch{Type: t, Match: match}
		if t == tlscontext.OtherName { // as in Envoy it says nothing of others
			if name.OID, err = objectID(s.GetOid(), here+".oid"); err != nil {
				return err
			}
		}
		out.Names = append(out.Names, name)
	}
	for i, s := range m.GetMatchSubjectAltNames() {
		match, err := stringMatch(s, at(path+".match_subject_alt_names", i))
		if err != nil {
			return err
		}
		for _, t := range []tlscontext.NameType{tlscontext.URI, tlscontext.DNS, tlscontext.IP, tlscontext.Email} {
			out.Names = append(out.Names, tlscontext.NameMatch{Type: t, Match: match})
		}
	}
	return nil
}

// objectID reads an object identifier in dotted notation.
func objectID(text, path string) (asn1.ObjectIdentifier, error) {
	var out asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != part {
			return nil, fail(path, "%q is no object identifier, such as 1.3.6.1.4.1.311.20.2.3", text)
		}
		out = append(out, int(n))
	}
	if len(out) < 2 || out[0] > 2 || out[0] < 2 && out[1] >= 40 {
		return nil, fail(path, "%q is no object identifier, such as 1.3.6.1.4.1.311.20.2.3", text)
	}
	return out, nil
}

// verifiable refuses a context that says less than it seems to.
func verifiable(v *tlscontext.Validation, path string) error {
	if field, reason := v.Unverified(); reason != "" {
		if field != "" {
			path = under(path, field)
		}
		return &FieldError{Path: path, Reason: reason}
	}
	return nil
}

// tlsParams reads versions, suites and curves. Envoy's defaults are 1.2 to 1.3 for
// a listener and 1.2 alone for a client. The mesh's own client also offers 1.3,
// which no server that Envoy could reach refuses.
func tlsParams(m *tlsv3.TlsParameters, s side, out *tlsMaterial, path string) error {
	c := &out.context
	most := uint16(tls.VersionTLS13)
	if s == clientSide && !out.ofMesh() {
		most = tls.VersionTLS12
	}
	var err error
	if c.MinVersion, err = tlsVersion(m.GetTlsMinimumProtocolVersion(), tls.VersionTLS12, path+".tls_minimum_protocol_version"); err != nil {
		return err
	}
	if c.MaxVersion, err = tlsVersion(m.GetTlsMaximumProtocolVersion(), most, path+".tls_maximum_protocol_version"); err != nil {
		return err
	}
	if c.MinVersion > c.MaxVersion {
		return fail(path, "the minimum version is above the maximum")
	}
	for i, group := range m.GetCipherSuites() {
		// Suites in brackets are equal to each other; the order is ours anyway.
		for name := range strings.SplitSeq(strings.Trim(group, "[]"), "|") {
			id, ok := cipherSuites[name]
			if !ok {
				return fail(at(path+".cipher_suites", i), "%q is not supported; use ECDHE with AES-GCM or CHACHA20-POLY1305", name)
			}
			c.CipherSuites = append(c.CipherSuites, id)
		}
	}
	for i, name := range m.GetEcdhCurves() {
		id, ok := curves[name]
		if !ok {
			return fail(at(path+".ecdh_curves", i), "%q is not supported; use X25519MLKEM768, X25519, P-256, P-384 or P-521", name)
		}
		c.Curves = append(c.Curves, id)
	}
	if out.ofMesh() && len(c.Curves) > 0 {
		return fail(path+".ecdh_curves", "is not for the mesh, which offers post-quantum hybrids first; remove the field")
	}
	return nil
}

func tlsVersion(v tlsv3.TlsParameters_TlsProtocol, auto uint16, path string) (uint16, error) {
	switch v {
	case tlsv3.TlsParameters_TLS_AUTO:
		return auto, nil
	case tlsv3.TlsParameters_TLSv1_2:
		return tls.VersionTLS12, nil
	case tlsv3.TlsParameters_TLSv1_3:
		return tls.VersionTLS13, nil
	}
	return 0, fail(path, "is %s; use TLSv1_2 or TLSv1_3", v)
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

var curves = map[string]tls.CurveID{
	"X25519MLKEM768": tls.X25519MLKEM768, "X25519": tls.X25519,
	"P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521,
}
