package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

// secretSource is where a secret comes from: the bootstrap itself, the host's agent
// under a name, or a discovery of its own.
type secretSource struct {
	static     *tlscontext.Discovered
	agent      string
	discovered *tlscontext.SecretRef
}

// sds reads a reference to a secret.
func (d *decoder) sds(m *tlsv3.SdsSecretConfig, path string) (secretSource, error) {
	if m.GetSdsConfig() == nil {
		s := d.secrets[m.GetName()]
		if s == nil {
			return secretSource{}, fail(path+".name", "there is no static secret %q; name one, or add an sds_config", m.GetName())
		}
		return secretSource{static: s}, nil
	}
	if m.GetName() == "" {
		return secretSource{}, fail(path+".name", "is empty")
	}
	here := path + ".sds_config"
	if err := apiVersion(m.GetSdsConfig().GetResourceApiVersion(), here+".resource_api_version"); err != nil {
		return secretSource{}, err
	}
	switch s := m.GetSdsConfig().GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_PathConfigSource:
		return secretFile(m.GetName(), s.PathConfigSource.GetPath(), here+".path_config_source.path")
	case *corev3.ConfigSource_Path:
		return secretFile(m.GetName(), s.Path, here+".path")
	case *corev3.ConfigSource_ApiConfigSource:
		return secretService(m.GetName(), s.ApiConfigSource, here+".api_config_source")
	}
	return secretSource{}, fail(here, "private keys never cross the network: use path_config_source, or api_config_source with a cluster that is a Unix socket")
}

func secretFile(name, file, path string) (secretSource, error) {
	if file == "" {
		return secretSource{}, fail(path, "is empty")
	}
	return secretSource{discovered: &tlscontext.SecretRef{Name: name, File: filepath.Clean(file)}}, nil
}

func secretService(name string, m *corev3.ApiConfigSource, path string) (secretSource, error) {
	from, delta, err := grpcCluster(m, path)
	switch {
	case err != nil:
		return secretSource{}, err
	case len(m.GetGrpcServices()[0].GetInitialMetadata()) > 0:
		return secretSource{}, fail(path+".grpc_services[0].initial_metadata", "is for control planes; the kernel tells a service on this host who asks")
	case from == names.AgentCluster:
		return secretSource{agent: name}, nil
	case delta:
		return secretSource{}, fail(path+".api_type", "is DELTA_GRPC; use GRPC, as a secret is one resource")
	}
	return secretSource{discovered: &tlscontext.SecretRef{Name: name, Cluster: from}}, nil
}

// readSecret reads what a secret holds.
func (d *decoder) readSecret(m *tlsv3.Secret, path string) (*tlscontext.Discovered, error) {
	out := &tlscontext.Discovered{}
	var err error
	switch {
	case m.GetTlsCertificate() != nil:
		out.Certificate, err = certificate(m.GetTlsCertificate(), under(path, "tls_certificate"))
	case m.GetValidationContext() != nil:
		out.Validation, err = d.certificateValidation(m.GetValidationContext(), under(path, "validation_context"))
	default:
		err = fail(path, "needs tls_certificate or validation_context")
	}
	return out, err
}

// Secret decodes a marshalled envoy.extensions.transport_sockets.tls.v3.Secret that was
// discovered by its name.
func Secret(b []byte, name string) (*tlscontext.Discovered, error) {
	m := &tlsv3.Secret{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, errors.New("secret: is damaged") // the cause could quote it
	}
	if m.GetName() != name { // which is not quoted: it may be anything, a key too
		return nil, fmt.Errorf("is another secret, and %q was asked for", name)
	}
	return discovered(m)
}

// discovered reads a secret that came by discovery. That nobody is verified is for the
// configuration to say, which knows what else depends on it.
func discovered(m *tlsv3.Secret) (*tlscontext.Discovered, error) {
	d, err := check(m)
	if err == nil {
		err = d.environment(m, false)
	}
	var out *tlscontext.Discovered
	if err == nil {
		out, err = d.readSecret(m, "")
	}
	if err == nil && out.Validation != nil && out.Validation.AcceptUntrusted {
		err = fail("validation_context.trust_chain_verification", "is ACCEPT_UNTRUSTED; write that into the TLS context, beside the secret")
	}
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", m.GetName(), err)
	}
	return out, nil
}

// SecretFile reads the secret of a file of discovery, a DiscoveryResponse in YAML or JSON
// that has this one and, as Envoy has it, no other.
func SecretFile(b []byte, name string) (*tlscontext.Discovered, error) {
	tree, err := readResponse(b)
	if err != nil {
		return nil, unquoted(err)
	}
	list, err := responseList(tree)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fail("resources", "has %d elements; a file of discovery has one secret", len(list))
	}
	m := &tlsv3.Secret{}
	fields, err := withoutType(list[0], m, "resources[0]")
	if err != nil {
		return nil, err
	}
	if err := unmarshalTree(fields, m); err != nil {
		return nil, fmt.Errorf("resources[0]: %w", unquoted(err))
	}
	if m.GetName() != name {
		return nil, fail("resources[0].name", "is another, and %q was asked for", name)
	}
	return discovered(m)
}

var harmless = regexp.MustCompile(`unknown field "[a-z_A-Z0-9]{1,40}"|unsupported extension type "[\w.]{1,100}"|line \d+`)

// unquoted keeps of a parser's error what cannot be a part of a key.
func unquoted(err error) error {
	if what := harmless.FindString(err.Error()); what != "" {
		return errors.New("cannot be read: " + what)
	}
	return errors.New("cannot be read as YAML or JSON of a discovery response")
}
