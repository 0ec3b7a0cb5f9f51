package sidecar

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func serviceCluster(t *testing.T, name, service string) *resource.Resource {
	return res(t, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}, LbPolicy: clusterv3.Cluster_RANDOM,
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource(), ServiceName: service},
	})
}

func staticCluster(t *testing.T, name string, port uint32) *resource.Resource {
	endpoints := &endpointv3.ClusterLoadAssignment{}
	if err := assignment(t, name, port).Body.UnmarshalTo(endpoints); err != nil {
		t.Fatal(err)
	}
	return res(t, name, &clusterv3.Cluster{Name: name, LoadAssignment: endpoints})
}

// hostsOf are a cluster's policy and the addresses of its hosts.
func (r *rig) hostsOf(name string) string {
	c := r.clusters.Get(name)
	if c == nil {
		return "none"
	}
	out := "rr"
	if c.Config().LB == cluster.Random {
		out = "random"
	}
	for _, h := range c.Stats() {
		out += " " + h.Address
	}
	return out
}

// A cluster that now has its endpoints under another name, or only now by discovery, goes
// on as it was until they have come: the new terms are none for the old hosts.
func TestClusterWaitsForItsEndpoints(t *testing.T) {
	for what, before := range map[string]func(*testing.T) []*resource.Resource{
		"of another service": func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{edsCluster(t, "c"), assignment(t, "c", 80)}
		},
		"static before": func(t *testing.T) []*resource.Resource { return []*resource.Resource{staticCluster(t, "c", 80)} },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			r.put(t, before(t)...)
			r.put(t, serviceCluster(t, "c", "s"))
			if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" || !r.sub.names["endpoints s"] || len(r.pending()) != 1 {
				t.Errorf("while it waits: %s, asked for %v, pending %v", got, r.sub.names, r.pending())
			}
			r.put(t, assignment(t, "c", 81))
			if got := r.hostsOf("c"); what == "of another service" && got != "rr 127.0.0.1:81" {
				t.Errorf("the one before does not get its endpoints: %s", got)
			}
			r.put(t, assignment(t, "s", 82))
			if got := r.hostsOf("c"); got != "random 127.0.0.1:82" || len(r.pending()) != 0 || r.sub.names["endpoints c"] {
				t.Errorf("after they came: %s, asked for %v, pending %v", got, r.sub.names, r.pending())
			}
		})
	}
}

// Waiting has an end, as in Envoy: then the cluster is what it is said to be, and has no
// endpoints. Those of another service are not its.
func TestClusterWaitsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), serviceCluster(t, "c", "s"))
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := r.hostsOf("c"); got != "random" || r.sub.names["endpoints c"] || len(r.pending()) != 0 {
			t.Errorf("after the wait: %s, asked for %v", got, r.sub.names)
		}
		r.put(t, assignment(t, "s", 82))
		if got := r.hostsOf("c"); got != "random 127.0.0.1:82" {
			t.Errorf("after they came: %s", got)
		}
		r.remove(resource.ClusterType, "c")
	})
}

// What a cluster waited for is asked for no longer when it is another one, or gone.
func TestClusterWaitsNoMore(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), serviceCluster(t, "c", "s"), serviceCluster(t, "c", "u"))
	if r.sub.names["endpoints s"] || !r.sub.names["endpoints u"] || !r.sub.names["endpoints c"] {
		t.Errorf("for another: %v", r.sub.names)
	}
	r.put(t, edsCluster(t, "c"))
	if r.sub.names["endpoints u"] || !r.sub.names["endpoints c"] || r.hostsOf("c") != "rr 127.0.0.1:80" {
		t.Errorf("back: %v %s", r.sub.names, r.hostsOf("c"))
	}
	r.put(t, serviceCluster(t, "c", "s"))
	r.remove(resource.ClusterType, "c")
	if len(r.sub.names) != 0 || r.hostsOf("c") != "none" {
		t.Errorf("gone: %v %s", r.sub.names, r.hostsOf("c"))
	}
}

// A cluster that was removed, and is there again as another before what names it has gone, is
// none that leaves: the one in force goes on until it comes.
func TestClusterThatWaitsIsNotLeaving(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND))
	r.remove(resource.ClusterType, "c")
	r.put(t, serviceCluster(t, "c", "s"))
	r.remove(resource.ListenerType, "l")
	if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" {
		t.Errorf("while it waits: %s", got)
	}
	r.put(t, assignment(t, "s", 82))
	if got := r.hostsOf("c"); got != "random 127.0.0.1:82" {
		t.Errorf("after they came: %s", got)
	}
	r.put(t, serviceCluster(t, "c", "u"))
	r.remove(resource.ClusterType, "c")
	if got := r.hostsOf("c"); got != "none" {
		t.Errorf("gone while another waits: %s", got)
	}
}

// Endpoints that the cluster which waits for them cannot have are refused, and the one
// before goes on.
func TestEndpointsUnfitForTheClusterThatWaits(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), unfitCluster(t, "c", "s"))
	many := manyStages(t, "s")
	if errs := r.Apply(client.Update{Type: resource.EndpointType, Upserts: []*resource.Resource{many}}); errs["s"] == nil {
		t.Errorf("taken: %s", r.hostsOf("c"))
	}
	if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" || len(r.pending()) != 1 {
		t.Errorf("in force: %s, pending %v", got, r.pending())
	}
	r.put(t, assignment(t, "s", 82))
	if got := r.hostsOf("c"); got != "rr 127.0.0.1:82" {
		t.Errorf("in force: %s", got)
	}
}

// A listener that is new is in force once the hosts of its clusters were checked, so that
// its requests are not refused for want of a verdict. One that is in force waits for none.
func TestListenerAwaitsFirstChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		r := newDialingRig(t, func(context.Context, string, string) (net.Conn, error) {
			<-answer
			return nil, errors.New("nobody is there")
		})
		put := func(name string) {
			c := &clusterv3.Cluster{}
			if err := edsCluster(t, name).Body.UnmarshalTo(c); err != nil {
				t.Fatal(err)
			}
			c.HealthChecks = []*corev3.HealthCheck{{
				Timeout: durationpb.New(5 * time.Second), Interval: durationpb.New(time.Second),
				UnhealthyThreshold: wrapperspb.UInt32(1), HealthyThreshold: wrapperspb.UInt32(1),
				HealthChecker: &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}},
			}}
			r.put(t, res(t, name, c), assignment(t, name, 80))
		}
		put("c")
		all := &clusterv3.Cluster{Name: "all", LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED, ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{
			ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "envoy.clusters.aggregate", TypedConfig: anyOf(t, &aggregatev3.ClusterConfig{Clusters: []string{"c"}})}}}
		r.put(t, res(t, "all", all), routeTo(t, "r", "c"), routeTo(t, "s", "all"), httpListener(t, "in", "r"), httpListener(t, "in2", "s"))
		if synctest.Wait(); r.active() != "" || len(r.pending()) != 2 {
			t.Errorf("while hosts are checked: in force %q, pending %v", r.active(), r.pending())
		}
		close(answer)
		if synctest.Wait(); r.active() != "in in2" {
			t.Errorf("after their checks: in force %q", r.active())
		}
		answer = make(chan struct{})
		put("d")
		r.put(t, routeTo(t, "r", "d"), httpListener(t, "in", "r"))
		if synctest.Wait(); len(r.pending()) != 0 {
			t.Errorf("pending %v", r.pending())
		}
		close(answer)
	})
}
