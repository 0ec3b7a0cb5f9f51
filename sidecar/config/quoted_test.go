package config

import (
	"strings"
	"testing"
)

// TestNoKeyIsQuoted: whatever mistake brought a key or a token to a place that is not its
// own, the error does not have it.
func TestNoKeyIsQuoted(t *testing.T) {
	const secret = "MIGHAgEAMBMG-c2VjcmV0"
	const pem = `"-----BEGIN PRIVATE KEY-----\n` + secret + `\n-----END PRIVATE KEY-----\n"`
	certificate := func(key string) string {
		return "static_resources: {secrets: [{name: a, tls_certificate: {certificate_chain: {filename: /c}, private_key: " + key + "}}]}"
	}
	metadata := func(m string) string {
		return "dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: c}, initial_metadata: " + m + "}]}}"
	}
	for name, text := range map[string]string{
		"a text for a source":      certificate(pem),
		"a word for a source":      certificate(secret),
		"PEM for bytes":            certificate("{inline_bytes: " + pem + "}"),
		"a list":                   certificate("{inline_string: [" + pem + "]}"),
		"PEM for a path":           certificate("{filename: " + pem + "}"),
		"PEM for a path, in JSON":  `{"static_resources": {"secrets": [{"name": "a", "tls_certificate": {"certificate_chain": {"filename": "/c"}, "private_key": {"filename": ` + pem + `}}}]}}`,
		"PEM for a variable":       certificate("{environment_variable: " + pem + "}"),
		"PEM for a field":          certificate("{" + pem + ": x}"),
		"PEM twice":                certificate("{" + pem + ": x, " + pem + ": y}"),
		"PEM in a complex key":     certificate("{? {a: " + pem + "} : x}"),
		"a token alone":            metadata(secret),
		"a token for its metadata": metadata("[" + secret + "]"),
		"a list of tokens":         metadata("[{key: x-token, value: [" + secret + "]}]"),
		"a mapping of tokens":      metadata("[{key: x-token, value: {" + secret + ": x}}]"),
		"an operator in a token":   metadata("[{key: x-token, value: '%" + secret + "'}]"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBootstrap([]byte(text))
			if err == nil {
				t.Fatal("it is accepted")
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("quoted: %v", err)
			}
		})
	}
}
