package config

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// MaxFile bounds a file of resources, in bytes, as it does a bootstrap.
const MaxFile = maxBootstrap

// ResourceFile reads a file of discovery, a DiscoveryResponse in YAML or JSON with resources
// of one type. They are as a control plane would have sent them: what they say is not checked.
func ResourceFile(b []byte, url string) ([]*resource.Resource, error) {
	found, err := resourcesOf(b, url)
	return found, discreet(err)
}

func resourcesOf(b []byte, url string) ([]*resource.Resource, error) {
	tree, err := readResponse(b)
	if err != nil {
		return nil, err
	}
	list, err := responseList(tree)
	if err != nil {
		return nil, err
	}
	out := make([]*resource.Resource, 0, len(list))
	seen := map[string]bool{}
	for i, element := range list {
		here := at("resources", i)
		m, name := newResource(url)
		fields, err := withoutType(element, m, here)
		if err != nil {
			return nil, err
		}
		if err := unmarshalTree(fields, m); err != nil {
			return nil, fmt.Errorf("%s: %w", here, err)
		}
		if name() == "" || seen[name()] {
			return nil, fail(here, "its name is %q, empty or that of another", name())
		}
		seen[name()] = true
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", here, err)
		}
		out = append(out, &resource.Resource{Type: url, Name: name(), Version: resource.Version(body), Body: &anypb.Any{TypeUrl: url, Value: body}})
	}
	return out, nil
}

// newResource makes a message of a type, and has its name once it is filled in.
func newResource(url string) (m proto.Message, name func() string) {
	switch url {
	case resource.ClusterType:
		m := &clusterv3.Cluster{}
		return m, m.GetName
	case resource.EndpointType:
		m := &endpointv3.ClusterLoadAssignment{}
		return m, m.GetClusterName
	case resource.RouteType:
		m := &routev3.RouteConfiguration{}
		return m, m.GetName
	}
	l := &listenerv3.Listener{}
	return l, l.GetName
}

// readResponse reads a file as a discovery response.
func readResponse(b []byte) (map[string]any, error) {
	if len(b) > MaxFile {
		return nil, fmt.Errorf("is longer than %d bytes", MaxFile)
	}
	tree, err := readTree(b)
	if err != nil {
		return nil, err
	}
	for key := range tree {
		switch key {
		case "resources", "version_info", "versionInfo", "type_url", "typeUrl", "nonce":
		default:
			return nil, fmt.Errorf("unknown field %q; the file is a discovery response, with its resources in a list", key)
		}
	}
	return tree, nil
}

// responseList returns the resources of a response as they stand in the file.
func responseList(tree map[string]any) ([]any, error) {
	list, ok := tree["resources"].([]any)
	if !ok {
		return nil, fail("resources", "is missing, or no list: the file is a discovery response with its resources in it")
	}
	return list, nil
}

// withoutType returns the fields of an element, which has to be of the type of m.
func withoutType(element any, m proto.Message, path string) (map[string]any, error) {
	fields, _ := element.(map[string]any)
	want := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	if url, _ := fields["@type"].(string); url != want {
		return nil, fail(path+".@type", "is no %s", want)
	}
	delete(fields, "@type")
	return fields, nil
}
