package config

import (
	"os"
	"strings"
	"testing"
)

const secretType = "envoy.extensions.transport_sockets.tls.v3.Secret"

const secretURL = `"@type": type.googleapis.com/` + secretType

func TestSecretFile(t *testing.T) {
	certificate := func(more string) string {
		return "{" + secretURL + ", name: web, tls_certificate: {certificate_chain: {inline_string: chain}, private_key: {inline_string: the-key}" + more + "}}"
	}
	trust := func(more string) string {
		return "{" + secretURL + ", name: web, validation_context: {trusted_ca: {filename: /ca}" + more + "}}"
	}
	for _, c := range []struct{ name, text, want string }{
		{"a certificate", "resources: [" + certificate("") + "]", ""},
		{"with a version", `{version_info: "1", type_url: x, nonce: n, resources: [` + trust("") + "]}", ""},
		{"among others", `{resources: [{` + secretURL + `, name: other, generic_secret: {}}, ` + trust("") + "]}", "has 2 elements; a file of discovery has one secret"},
		{"JSON names", `{"versionInfo": "1", "resources": [{` + strings.ReplaceAll(secretURL, "@type\": type.googleapis.com/"+secretType, "@type\": \"type.googleapis.com/"+secretType+"\"") + `, "name": "web", "tlsCertificate": {"certificateChain": {"inlineString": "chain"}, "privateKey": {"inlineString": "key"}}}]}`, ""},
		{"nothing", "", "cannot be read as YAML or JSON"},
		{"no list", "resources: {}", "resources: is missing, or no list"},
		{"not there", "resources: []", "resources: has 0 elements"},
		{"another's", "resources: [" + strings.Replace(trust(""), "name: web", "name: api", 1) + "]", `resources[0].name: is another, and "web" was asked for`},
		{"a key in the place of the name", "resources: [" + strings.Replace(trust(""), "name: web", "name: the-key", 1) + "]", "resources[0].name: is another"},
		{"a key in the place of the type", "resources: [{'@type': the-key, name: web}]", "resources[0].@type: is no type"},
		{"a key in the place of its file", "resources: [{" + secretURL + ", name: web, tls_certificate: {certificate_chain: {filename: /c}, private_key: {filename: \"-----BEGIN PRIVATE KEY-----\\nthe-key\"}}}]", "private_key.filename: is PEM"},
		{"a key in the place of a variable", "resources: [{" + secretURL + ", name: web, tls_certificate: {certificate_chain: {filename: /c}, private_key: {environment_variable: \"-----BEGIN the-key\"}}}]", "private_key.environment_variable"},
		{"something else", "resources: [{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: web}]", `resources[0].@type: is no type.googleapis.com/` + secretType},
		{"no kind", "resources: [{" + secretURL + ", name: web}]", `secret "web": needs tls_certificate or validation_context`},
		{"another kind", "resources: [{" + secretURL + ", name: web, generic_secret: {secret: {inline_string: x}}}]", `generic_secret: unsupported`},
		{"an unknown field", "resources: [" + certificate(", privat_key: {}") + "]", `resources[0]: cannot be read: unknown field "privat_key"`},
		{"no bytes", "resources: [{" + secretURL + ", name: web, tls_certificate: {private_key: {inline_bytes: the-key!}}}]", "resources[0]: cannot be read"},
		{"a field of ours", "resourcs: []", `cannot be read: unknown field "resourcs"`},
		{"a key in the place of a field", strings.Repeat("the-key", 9) + ": []", "cannot be read as YAML or JSON"},
		{"refused field", "resources: [" + certificate(", password: {inline_string: hunter2}") + "]", "tls_certificate.password: unsupported"},
		{"nobody is verified", "resources: [" + trust(", trust_chain_verification: ACCEPT_UNTRUSTED") + "]", "trust_chain_verification: is ACCEPT_UNTRUSTED; write that into the TLS context"},
	} {
		s, err := SecretFile([]byte(c.text), "web")
		switch {
		case c.want == "" && (err != nil || s == nil || s.Certificate == nil && s.Validation == nil):
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", c.name, err)
		case err != nil && (strings.Contains(err.Error(), "the-key") || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: the error quotes the secret: %v", c.name, err)
		}
	}
}

// TestDocumentedSecrets reads the example of docs/bootstrap.md.
func TestDocumentedSecrets(t *testing.T) {
	b, err := os.ReadFile("../../docs/bootstrap.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "## Discovered secrets\n")
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	got, err := ParseBootstrap([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	refs := ListenerRefs(got.Listeners[0]).Secrets
	if len(refs) != 2 || refs[0].Cluster != "spire_agent" || got.SecretSockets["spire_agent"] == "" {
		t.Errorf("%v, sockets %v", refs, got.SecretSockets)
	}
}

// Whatever is wrong with a file, its key is in no error.
func FuzzSecretFile(f *testing.F) {
	const key = "c2VjcmV0LWtleQ"
	f.Add("resources: [{" + secretURL + ", name: web, tls_certificate: {private_key: {inline_bytes: " + key + "}}}]")
	f.Add("resources: [{" + secretURL + ", name: web, tls_certificate: {private_key: " + key + "}}]")
	f.Add("resources:\n- " + key + ": [\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := SecretFile([]byte(text), "web"); err != nil && strings.Contains(err.Error(), key) {
			// Names of fields and types are told.
			if !strings.Contains(text, key+":") && !strings.Contains(text, "@type") {
				t.Errorf("%q: %v", text, err)
			}
		}
		_, _ = Secret([]byte(text), "web")
	})
}
