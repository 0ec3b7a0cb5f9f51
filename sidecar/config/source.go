package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"path/filepath"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// configSource is where resources are to come from, with the file where they are to come from one.
func configSource(c *corev3.ConfigSource, path string) (out discovery.Source, file string, err error) {
	if err := apiVersion(c.GetResourceApiVersion(), path+".resource_api_version"); err != nil {
		return out, "", err
	}
	if out.Wait, err = optional(c.GetInitialFetchTimeout(), path+".initial_fetch_timeout"); err != nil {
		return out, "", err
	}
	switch s := c.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
	case *corev3.ConfigSource_ApiConfigSource:
		out.Stream, err = stream(s.ApiConfigSource, path+".api_config_source")
	case *corev3.ConfigSource_PathConfigSource:
		file, err = sourceFile(s.PathConfigSource.GetPath(), path+".path_config_source.path")
	case *corev3.ConfigSource_Path:
		file, err = sourceFile(s.Path, path+".path")
	default:
		err = fail(path, "needs ads, a service (api_config_source) or a file (path_config_source)")
	}
	return out, file, err
}

func sourceFile(file, path string) (string, error) {
	if file == "" || strings.ContainsAny(file, resource.Marks) {
		return "", fail(path, "is empty, or has one of %q", resource.Marks)
	}
	return filepath.Clean(file), nil
}

// discoveredName is the name by which a resource is asked for, which has a name and a source.
func discoveredName(name string, c *corev3.ConfigSource, path string) (string, discovery.Source, error) {
	from, file, err := configSource(c, path)
	switch {
	case err != nil:
		return "", from, err
	case file != "":
		return resource.InFile(file, name), from, nil
	case from.Stream != nil:
		return resource.InStream(from.Stream.Key(), name), from, nil
	case !resource.Aggregated(name):
		return "", from, fail(path, "%q reads like a file's or another service's, and is to come from the control plane", name)
	}
	return name, from, nil
}

// stream reads the gRPC service of a source.
func stream(a *corev3.ApiConfigSource, path string) (*discovery.Stream, error) {
	out := &discovery.Stream{}
	var err error
	if out.Cluster, out.Delta, err = grpcCluster(a, path); err != nil {
		return nil, err
	}
	if strings.ContainsAny(out.Cluster, resource.Marks) {
		return nil, fail(path+".grpc_services[0].envoy_grpc.cluster_name", "has one of %q", resource.Marks)
	}
	out.Metadata, err = grpcMetadata(a, path)
	return out, err
}

// apiVersion: AUTO is what nobody wrote, and means V3 since there is no other.
func apiVersion(v corev3.ApiVersion, path string) error {
	if v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		return fail(path, "is %s; only V3 is supported", v)
	}
	return nil
}

// grpcCluster returns the cluster that a gRPC configuration source names, and
// whether the incremental protocol is used.
func grpcCluster(a *corev3.ApiConfigSource, path string) (name string, delta bool, err error) {
	switch a.GetApiType() {
	case corev3.ApiConfigSource_GRPC:
	case corev3.ApiConfigSource_DELTA_GRPC:
		delta = true
	default:
		return "", false, fail(path+".api_type", "is %s; use GRPC or DELTA_GRPC", a.GetApiType())
	}
	if err := apiVersion(a.GetTransportApiVersion(), path+".transport_api_version"); err != nil {
		return "", false, err
	}
	if n := len(a.GetGrpcServices()); n != 1 {
		return "", false, fail(path+".grpc_services", "has %d elements; exactly one is needed", n)
	}
	// The timeout is of single calls: a stream of resources has none.
	service := a.GetGrpcServices()[0]
	if service.GetEnvoyGrpc().GetAuthority() != "" {
		return "", false, fail(path+".grpc_services[0].envoy_grpc.authority", "unsupported for a control plane; remove it")
	}
	name = service.GetEnvoyGrpc().GetClusterName()
	if name == "" {
		return "", false, fail(path+".grpc_services[0].envoy_grpc.cluster_name", "is empty")
	}
	return name, delta, nil
}

// grpcMetadata reads what a stream to a control plane says besides, its token for one. The
// values are shown nowhere.
func grpcMetadata(a *corev3.ApiConfigSource, path string) ([]discovery.Metadata, error) {
	var out []discovery.Metadata
	for i, h := range a.GetGrpcServices()[0].GetInitialMetadata() {
		here := at(path+".grpc_services[0].initial_metadata", i)
		if err := mutable(h.GetKey(), here+".key", ofRequest); err != nil {
			return nil, err
		}
		key := strings.ToLower(h.GetKey())
		switch {
		case strings.HasPrefix(key, "grpc-") || key == "content-type" || key == "te" || key == "user-agent":
			return nil, fail(here+".key", "%q is gRPC's own", key)
		case strings.HasSuffix(key, "-bin"):
			return nil, fail(here+".key", "%q would be binary", key)
		case strings.Contains(h.GetValue(), "%") || strings.ContainsFunc(h.GetValue(), func(r rune) bool { return r < ' ' || r > '~' }):
			return nil, fail(here+".value", "is not plain text without operators")
		}
		out = append(out, discovery.Metadata{Key: key, Value: tlscontext.Secret(h.GetValue())})
	}
	return out, nil
}
