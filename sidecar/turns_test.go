package sidecar

import (
	"fmt"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/fair/fairtest"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// TestUpdatesTakeTurns: an update of many clusters, or endpoints, or routes of one table,
// lets requests run.
func TestUpdatesTakeTurns(t *testing.T) {
	r := newRig(t)
	clusters, endpoints := client.Update{Type: resource.ClusterType}, client.Update{Type: resource.EndpointType}
	vh := &routev3.VirtualHost{Name: "v", Domains: []string{"*"}}
	for i := range 12 {
		name := fmt.Sprintf("c%d", i%6)
		if i < 6 { // few enough for their messages alone to be no share
			clusters.Upserts = append(clusters.Upserts, edsCluster(t, name))
			endpoints.Upserts = append(endpoints.Upserts, assignment(t, name, 1))
		}
		vh.Routes = append(vh.Routes, &routev3.Route{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + name}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name}}},
		})
	}
	routes := client.Update{Type: resource.RouteType, Upserts: []*resource.Resource{
		res(t, "r", &routev3.RouteConfiguration{Name: "r", VirtualHosts: []*routev3.VirtualHost{vh}}),
	}}
	for _, u := range []client.Update{clusters, endpoints, routes} {
		if !fairtest.Runs(t, func() {
			if errs := r.state.Apply(u); len(errs) > 0 {
				t.Fatal(errs)
			}
		}) {
			t.Errorf("nobody else runs during an update of %s", u.Type)
		}
	}
}
