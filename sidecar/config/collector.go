package config

import (
	"net/url"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/otlp"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

const collectorAbsent = "is missing"

// grpcCollector reads the service of a collector, whose method is called.
func grpcCollector(m *corev3.GrpcService, method, path string) (*otlp.Collector, error) {
	out := &otlp.Collector{GRPC: true, Cluster: m.GetEnvoyGrpc().GetClusterName(), Authority: m.GetEnvoyGrpc().GetAuthority(), Path: method}
	if out.Cluster == "" {
		return nil, fail(path+".envoy_grpc.cluster_name", collectorAbsent)
	}
	var err error
	if out.Timeout, err = duration(m.GetTimeout(), path+".timeout"); err != nil {
		return nil, err
	}
	for i, h := range m.GetInitialMetadata() {
		here := at(path+".initial_metadata", i)
		if err := mutable(h.GetKey(), here+".key", ofRequest); err != nil {
			return nil, err
		}
		if err := checkValue(h.GetValue(), here+".value"); err != nil {
			return nil, err
		}
		out.Headers = append(out.Headers, route.HeaderAdd{Name: h.GetKey(), Value: h.GetValue(), Action: route.AppendIfExistsOrAdd})
	}
	return out, nil
}

// httpCollector reads the service of a collector, to which bodies are posted.
func httpCollector(m *corev3.HttpService, path string) (*otlp.Collector, error) {
	uri := m.GetHttpUri()
	out := &otlp.Collector{Cluster: uri.GetCluster()}
	if out.Cluster == "" {
		return nil, fail(path+".http_uri.cluster", collectorAbsent)
	}
	var err error
	if out.Authority, out.Path, err = hostAndPath(uri.GetUri(), path+".http_uri.uri"); err != nil {
		return nil, err
	}
	if out.Timeout, err = duration(uri.GetTimeout(), path+".http_uri.timeout"); err != nil {
		return nil, err
	}
	out.Headers, err = headerAdds(m.GetRequestHeadersToAdd(), path+".request_headers_to_add", ofRequest)
	return out, err
}

// hostAndPath reads a URI with its host, or only a path. What may hold a password is
// not shown.
func hostAndPath(uri, path string) (host, target string, err error) {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Fragment != "" || uri == "":
		return "", "", fail(path, "is no URI with a host and a path")
	case u.Opaque != "": // host:port/path, of which the host reads as a scheme
		return "", "", fail(path, "has no scheme")
	case u.User != nil:
		return "", "", fail(path, "names a user; use request_headers_to_add")
	case u.Path == "":
		return u.Host, "/", nil
	case u.Path[0] != '/':
		return "", "", fail(path, "has no scheme")
	}
	return u.Host, u.RequestURI(), nil
}
