package sidecar

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// What came while it was still asked for, and has its turn when nobody asks any more, is not kept:
// nobody would follow it, and whoever names it later would begin with what is old by then.
func TestNoLongerAskedFor(t *testing.T) {
	s := idle(t)
	s.state.follow(nobody{})
	apply := func(u client.Update) {
		t.Helper()
		if errs := s.applyStreamed(u); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	put := func(rs ...*resource.Resource) {
		t.Helper()
		for _, r := range rs {
			apply(client.Update{Type: r.Type, Upserts: []*resource.Resource{r}})
		}
	}
	old, routes, endpoints := serviceCluster(t, "c", "s"), routeTo(t, "r", "c"), assignment(t, "s", 9)
	put(old, httpListener(t, "l", "r"), routes, endpoints)
	if s.listeners.Addrs()["l"] == nil {
		t.Fatal("not in force")
	}
	apply(client.Update{Type: resource.ListenerType, Removed: []string{"l"}})
	apply(client.Update{Type: resource.ClusterType, Removed: []string{"c"}})
	eventually(t, "nobody asks", func() bool {
		s.state.mu.Lock()
		defer s.state.mu.Unlock()
		return len(s.state.routeNames)+len(s.state.clusterConfigs) == 0
	})
	for _, r := range []*resource.Resource{routes, endpoints} {
		u := client.Update{Type: r.Type, Upserts: []*resource.Resource{r}}
		if apply(u); u.Upserts[0] != r {
			t.Error("the client's own list has changed")
		}
	}
	if kept := s.state.routes.all(); len(kept) != 0 {
		t.Errorf("kept: %v", kept)
	}
	if kept := s.state.assignments; len(kept) != 0 {
		t.Errorf("kept: %v", kept)
	}
	put(old, httpListener(t, "l", "r"))
	if s.listeners.Addrs()["l"] != nil {
		t.Error("in force before what it names has come")
	}
	// A cluster that waits asks as one in force does.
	put(endpoints, routes, serviceCluster(t, "c", "u"), assignment(t, "u", 9))
	if s.listeners.Addrs()["l"] == nil || len(s.state.held) != 0 {
		t.Errorf("what is asked for is not taken: held %v", s.state.held)
	}
}
