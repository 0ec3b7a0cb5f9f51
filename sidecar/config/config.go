package config

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// Listener decodes a marshalled envoy.config.listener.v3.Listener, without a runtime.
func Listener(b []byte) (*listener.Config, error) { return (*Runtime)(nil).Listener(b) }

// Listener is the function Listener where r has values that a listener may read.
func (r *Runtime) Listener(b []byte) (*listener.Config, error) {
	m := &listenerv3.Listener{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	return r.listener(m, nil)
}

// Cluster decodes a marshalled envoy.config.cluster.v3.Cluster, without a runtime.
func Cluster(b []byte) (*cluster.Config, error) { return (*Runtime)(nil).Cluster(b) }

// Cluster is the function Cluster where r has values that a cluster may read.
func (r *Runtime) Cluster(b []byte) (*cluster.Config, error) {
	m := &clusterv3.Cluster{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return r.cluster(m)
}

// Route decodes a marshalled envoy.config.route.v3.RouteConfiguration, without a runtime.
func Route(b []byte) (*route.Config, error) { return (*Runtime)(nil).Route(b) }

// Route is the function Route where r has values that a route may read.
func (r *Runtime) Route(b []byte) (*route.Config, error) {
	m := &routev3.RouteConfiguration{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("route configuration: %w", err)
	}
	d, err := check(m)
	if err == nil {
		err = d.environment(m, false)
	}
	if err == nil {
		d.runtime = r
		var c *route.Config
		if c, err = d.routeConfig(m, ""); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("route configuration %q: %w", m.GetName(), err)
}

// Assignment decodes a marshalled
// envoy.config.endpoint.v3.ClusterLoadAssignment of an EDS cluster.
func Assignment(b []byte) (*cluster.Assignment, error) {
	m := &endpointv3.ClusterLoadAssignment{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("cluster load assignment: %w", err)
	}
	d, err := check(m)
	if err == nil {
		var a *cluster.Assignment
		if a, err = d.assignment(m, "", false); err == nil {
			return a, nil
		}
	}
	return nil, fmt.Errorf("cluster load assignment %q: %w", m.GetClusterName(), err)
}

func (r *Runtime) listener(m *listenerv3.Listener, secrets map[string]*tlscontext.Discovered) (*listener.Config, error) {
	d, err := check(m)
	if err == nil {
		err = d.environment(m, secrets != nil)
	}
	if err == nil {
		d.secrets, d.runtime = secrets, r
		var c *listener.Config
		if c, err = d.listener(m); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("listener %q: %w", m.GetName(), err)
}

func (r *Runtime) cluster(m *clusterv3.Cluster) (*cluster.Config, error) {
	d, err := check(m)
	if err == nil {
		err = d.environment(m, false)
	}
	if err == nil {
		d.runtime = r
		var c *cluster.Config
		if c, err = d.cluster(m); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("cluster %q: %w", m.GetName(), err)
}
