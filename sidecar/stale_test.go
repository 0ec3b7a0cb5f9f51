package sidecar

import (
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestEndpointsStayFresh: the same resource again is an update, of which endpoints do not go
// stale; an update of the cluster is none.
func TestEndpointsStayFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		a := &endpointv3.ClusterLoadAssignment{}
		if err := assignment(t, "c", 80).Body.UnmarshalTo(a); err != nil {
			t.Fatal(err)
		}
		a.Policy = &endpointv3.ClusterLoadAssignment_Policy{EndpointStaleAfter: durationpb.New(10 * time.Second)}
		fresh := res(t, "c", a)
		r.put(t, edsCluster(t, "c"), fresh)
		hosts := func() int { synctest.Wait(); return len(r.clusters.Get("c").Stats()) }
		for range 3 {
			time.Sleep(9 * time.Second)
			if hosts() != 1 {
				t.Fatal("stale too soon")
			}
			r.put(t, fresh)
		}
		time.Sleep(9 * time.Second)
		r.put(t, edsCluster(t, "c"))
		time.Sleep(2 * time.Second)
		if hosts() != 0 {
			t.Error("not stale")
		}
		r.put(t, edsCluster(t, "c"), serviceCluster(t, "late", "c"))
		if hosts() != 0 || len(r.clusters.Get("late").Stats()) != 0 {
			t.Error("stale endpoints serve again")
		}
		r.put(t, fresh)
		if hosts() != 1 || len(r.clusters.Get("late").Stats()) != 1 {
			t.Error("no endpoints after an update")
		}
		_ = r.clusters.Close()
	})
}
