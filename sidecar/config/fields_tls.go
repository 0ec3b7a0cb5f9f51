package config

import (
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const watchReason = "files are always watched"

func init() {
	declare("TLS", map[protoreflect.FullName]*rules{
		"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext": {
			use: "common_tls_context require_client_certificate ocsp_staple_policy require_sni full_scan_certs_on_sni_mismatch",
			ignore: map[string]string{
				"disable_stateless_session_resumption": ticketReason,
				"disable_stateful_session_resumption":  ticketReason,
				"session_timeout":                      ticketReason,
				"prefer_client_ciphers":                "the suite is chosen by strength and by what the hardware does fast",
			},
			instead: map[string]string{
				"session_ticket_keys":                   ticketReason,
				"session_ticket_keys_sds_secret_config": ticketReason,
			},
		},
		"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": {
			use: "common_tls_context sni auto_host_sni auto_sni_san_validation allow_renegotiation",
			ignore: map[string]string{
				"max_session_keys":      ticketReason,
				"enforce_rsa_key_usage": "key usage is always enforced",
			},
		},
		"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext": {
			use: "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context " +
				"validation_context_sds_secret_config combined_validation_context alpn_protocols",
			instead: map[string]string{"key_log": "session keys are never written down"},
		},
		"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext": {
			use: "default_validation_context validation_context_sds_secret_config",
		},
		"envoy.extensions.transport_sockets.tls.v3.TlsParameters": {
			use: "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
			instead: map[string]string{
				"signature_algorithms": "they are chosen by the key",
				"compliance_policies":  "set the parameters that the policy stands for",
			},
		},
		"envoy.extensions.transport_sockets.tls.v3.TlsCertificate": {
			use: "certificate_chain private_key",
			ignore: map[string]string{
				"watched_directory": watchReason,
			},
			instead: map[string]string{
				"password":             "keys are kept unencrypted in files of mode 0600, or come from the agent",
				"pkcs12":               "convert it to PEM",
				"private_key_provider": "keys are files, or the agent's",
				"ocsp_staple":          "OCSP is not implemented; certificates are short-lived instead",
			},
		},
		"envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext": {
			use: "trusted_ca match_typed_subject_alt_names match_subject_alt_names trust_chain_verification " +
				"verify_certificate_spki verify_certificate_hash crl only_verify_leaf_cert_crl max_verify_depth " +
				"system_root_certs suppress_client_ca_list custom_validator_config",
			ignore: map[string]string{
				"watched_directory": watchReason,
			},
			instead: map[string]string{
				"allow_expired_certificate": "expired certificates are always refused",
			},
		},
		"envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.SystemRootCerts": {},
		"envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig": {
			use:     "trust_domains",
			instead: map[string]string{"trust_bundles": "write the bundles into trust_domains, in PEM"},
		},
		"envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.TrustDomain": {
			use:     "name trust_bundle",
			instead: map[string]string{"workload_trust_domain": "there is no filter state"},
		},
		"envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher": {
			use: "san_type matcher oid",
			but: map[string]string{
				"oid":     "in dotted notation, no part above 2147483647",
				"matcher": "of an OTHER_NAME, values of BIT STRING, UniversalString, SEQUENCE and SET, and texts that are not UTF-8, match nothing",
			},
		},
		"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig": {use: "name sds_config"},
		"envoy.extensions.transport_sockets.tls.v3.Secret":          {use: "name tls_certificate validation_context"},
		"envoy.config.core.v3.DataSource": {
			use:    "filename inline_string inline_bytes environment_variable",
			ignore: map[string]string{"watched_directory": watchReason},
		},
	})
	declare("Configuration sources", map[protoreflect.FullName]*rules{
		"envoy.config.core.v3.ConfigSource": {
			use: "ads api_config_source path_config_source path initial_fetch_timeout resource_api_version",
		},
		"envoy.config.core.v3.AggregatedConfigSource": {},
		"envoy.config.core.v3.PathConfigSource": {
			use:    "path",
			ignore: map[string]string{"watched_directory": watchReason},
		},
		"envoy.config.core.v3.ApiConfigSource": {
			use: "api_type transport_api_version grpc_services",
			ignore: map[string]string{
				"set_node_on_first_message_only": "the node is always sent once a stream",
			},
		},
		"envoy.config.core.v3.GrpcService":           {use: "envoy_grpc timeout initial_metadata"},
		"envoy.config.core.v3.GrpcService.EnvoyGrpc": {use: "cluster_name authority"},
	})
	extend("envoy.config.core.v3.TypedExtensionConfig.typed_config", "extension", &tlsv3.SPIFFECertValidatorConfig{})
}
