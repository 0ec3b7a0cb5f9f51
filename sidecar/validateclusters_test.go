package sidecar

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// A discovered table that is to be validated is refused for a cluster that there is not,
// by the names of both; the last good one stays. Without validate_clusters it is taken.
func TestValidateClusters(t *testing.T) {
	forward := func(name, cluster string) *routev3.Route {
		return &routev3.Route{Name: name, Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/" + name}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}}}
	}
	weighted := forward("split", "")
	weighted.GetRoute().ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: []*routev3.WeightedCluster_ClusterWeight{
		{Name: "c", Weight: wrapperspb.UInt32(1)}, {Name: "absent", Weight: wrapperspb.UInt32(1)}}}}
	mirrored := forward("mirror", "c")
	mirrored.GetRoute().RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: "absent"}}
	leaving := forward("late", "old")
	byHeader := forward("header", "")
	byHeader.GetRoute().ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: "x-cluster"}
	for name, c := range map[string]struct {
		validate *wrapperspb.BoolValue
		second   *routev3.Route
		want     string // in the error; empty for none
	}{
		"all known":           {wrapperspb.Bool(true), forward("more", "c"), ""},
		"by a header":         {wrapperspb.Bool(true), byHeader, ""},
		"unknown":             {wrapperspb.Bool(true), forward("more", "absent"), `route configuration "r": virtual_hosts[0].routes[1] ("more"): there is no cluster "absent"`},
		"unknown of several":  {wrapperspb.Bool(true), weighted, `routes[1] ("split"): there is no cluster "absent"`},
		"unknown of mirrors":  {wrapperspb.Bool(true), mirrored, `routes[1] ("mirror"): there is no cluster "absent"`},
		"a cluster that left": {wrapperspb.Bool(true), leaving, `routes[1] ("late"): there is no cluster "old"`},
		"not asked":           {nil, forward("more", "absent"), ""},
		"asked not to":        {wrapperspb.Bool(false), forward("more", "absent"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.put(t, edsCluster(t, "c"), edsCluster(t, "old"), assignment(t, "c", 80), assignment(t, "old", 81), routeTo(t, "r", "old"), httpListener(t, "l", "r"))
			good := r.routes.get("r")
			r.remove(resource.ClusterType, "old")
			table := res(t, "r", &routev3.RouteConfiguration{Name: "r", ValidateClusters: c.validate, VirtualHosts: []*routev3.VirtualHost{{
				Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{forward("first", "c"), c.second}}}})
			errs := r.Apply(client.Update{Type: resource.RouteType, Upserts: []*resource.Resource{table}})
			switch err := errs["r"]; {
			case c.want == "" && (err != nil || r.routes.get("r") == good):
				t.Errorf("%v; in force is the table before: %v", err, r.routes.get("r") == good)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %s", err, c.want)
			case c.want != "" && r.routes.get("r") != good:
				t.Error("the last good table is not in force")
			}
		})
	}
}

// The same of the routes that a listener has itself. Only where they ask for it: the listener
// may say something else that must not wait for a cluster.
func TestValidateClustersOfAListener(t *testing.T) {
	own := func(validate *wrapperspb.BoolValue, cluster string) *resource.Resource {
		routes := &routev3.RouteConfiguration{Name: "own", ValidateClusters: validate, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"},
			Routes: []*routev3.Route{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}}}}}}}
		return ownRoutes(t, "l", routes)
	}
	for name, c := range map[string]struct {
		validate *wrapperspb.BoolValue
		cluster  string
		want     string
	}{
		"known":        {wrapperspb.Bool(true), "c", ""},
		"unknown":      {wrapperspb.Bool(true), "absent", `listener "l": route configuration "own": virtual_hosts[0].routes[0]: there is no cluster "absent"`},
		"not asked":    {nil, "absent", ""},
		"asked not to": {wrapperspb.Bool(false), "absent", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), own(nil, "c"))
			before := r.l.inForce["l"]
			err := r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{own(c.validate, c.cluster)}})["l"]
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if same := r.l.inForce["l"] == before; same != (c.want != "") {
				t.Errorf("the listener before is in force: %v", same)
			}
		})
	}
}

// What is in force and is said again was validated when it came: its cluster may have left since.
func TestValidatedAlready(t *testing.T) {
	validated := func(cluster string) *routev3.RouteConfiguration {
		return &routev3.RouteConfiguration{Name: "r", ValidateClusters: wrapperspb.Bool(true), VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"},
			Routes: []*routev3.Route{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}}}}}}}
	}
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), ownRoutes(t, "own", validated("c")), httpListener(t, "l", "r"), res(t, "r", validated("c")))
	r.remove(resource.ClusterType, "c")
	for name, u := range map[string]client.Update{
		"own": {Type: resource.ListenerType, Upserts: []*resource.Resource{ownRoutes(t, "own", validated("c"))}},
		"r":   {Type: resource.RouteType, Upserts: []*resource.Resource{res(t, "r", validated("c"))}},
	} {
		if err := r.Apply(u)[name]; err != nil {
			t.Errorf("unchanged: %v", err)
		}
	}
	changed := validated("c")
	changed.VirtualHosts[0].Name = "other"
	if err := r.Apply(client.Update{Type: resource.RouteType, Upserts: []*resource.Resource{res(t, "r", changed)}})["r"]; err == nil {
		t.Error("changed, it is in force without its cluster")
	}
}
