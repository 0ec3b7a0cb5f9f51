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
	cluster := func(field string) string {
		return "static_resources: {clusters: [{name: a, " + field + "}]}"
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
		"a token for an alias":     metadata("[{key: x-token, value: *" + secret + "}]"),
		"an alias for a source":    certificate("{inline_string: *" + secret + "}"),
		"an anchor in itself":      metadata("[{key: x-token, value: &" + secret + " [*" + secret + "]}]"),
		"a token for a number":     metadata("[{key: x-token, value: !!int " + secret + "}]"),
		"a token for a null key":   metadata("[{key: x-token, ~: " + secret + "}]"),
		"a token merged":           metadata("[{key: x-token, <<: " + secret + "}]"),
		"a token for a tag":        metadata("[{key: x-token, value: !" + secret + " [a]}]"),
		"a key twice":              metadata("[{" + secret + ": x, " + secret + ": y}]"),
		"keys twice":               metadata("[{" + secret + ": x, key: a, key: b, " + secret + ": y, '" + secret + "\"a': z, '" + secret + "\"a': z}]"),
		"a token for an enum":      "dynamic_resources: {ads_config: {api_type: " + secret + "}}",
		"a number for an enum":     "dynamic_resources: {ads_config: {api_type: 1.9012345, transport_api_version: [" + secret + "]}}",
		"a token for a boolean":    "dynamic_resources: {ads_config: {set_node_on_first_message_only: " + secret + "}}",
		"a token for an integer":   cluster("per_connection_buffer_limit_bytes: " + secret),
		"a token for a double":     cluster("common_lb_config: {healthy_panic_threshold: {value: " + secret + "}}"),
		"a token for a duration":   cluster("connect_timeout: " + secret),
		"a list for a duration":    cluster("connect_timeout: [" + secret + "]"),
		"a token for a type":       cluster("transport_socket: {name: tls, typed_config: {'@type': {" + secret + ": x}}}"),
		"a token for a mapping":    cluster("metadata: {filter_metadata: {a: " + secret + "}}"),
		"a token for metadata":     cluster("metadata: " + secret),
		"an operator in a token":   metadata("[{key: x-token, value: '%" + secret + "'}]"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBootstrap([]byte(text))
			if err == nil {
				t.Fatal("it is accepted")
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "MIGH") {
				t.Errorf("quoted: %v", err)
			}
		})
	}
}

// TestReasonsHelp: what is not quoted is told by its place, and by what to do.
func TestReasonsHelp(t *testing.T) {
	for text, want := range map[string]string{
		"node: {id: *abc}":                                          "unknown anchor; quote a text that begins with *",
		"node: {id: a,\n  id: b}":                                   `line 2: key "id" already set in map`,
		"node: {metadata: {q1: 1,\n  q1: 2}}":                       "line 2: a key is already set in its map",
		"node: {id: !!int abc}":                                     "cannot decode !!str as a !!int",
		"node: {ids: a}":                                            `node.ids: unknown field "ids"; remove it`,
		"node: {connectTimeout: a,\n  connectTimeout: b}":           `line 2: key "connectTimeout" already set in map`,
		"node: [a]":                                                 "node: unexpected text, or a value of another type",
		"admin: {address: {socket_address: {port_value: abc}}}":     "admin.address.socket_address.port_value: invalid value for uint32 field portValue",
		"static_resources: {clusters: [{connect_timeout: abc}]}":    "static_resources.clusters[0].connect_timeout: invalid google.protobuf.Duration value",
		"static_resources: {clusters: [{lb_policy: ROUND_ROUNDS}]}": "static_resources.clusters[0].lb_policy: invalid value for enum field lbPolicy",
	} {
		if _, err := ParseBootstrap([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
