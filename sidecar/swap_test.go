package sidecar

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// hasty fails a test that asks for a name again which it dropped in the same step: a server
// that is told of neither does not answer.
type hasty struct {
	*fakeSubscriber
	t       *testing.T
	dropped map[string]bool
}

func (h *hasty) Subscribe(url string, names ...string) {
	for _, n := range names {
		if h.dropped[n] {
			h.t.Errorf("%s is asked for after it was dropped in one response", n)
		}
	}
	h.fakeSubscriber.Subscribe(url, names...)
}

func (h *hasty) Unsubscribe(url string, names ...string) {
	for _, n := range names {
		h.dropped[n] = true
	}
	h.fakeSubscriber.Unsubscribe(url, names...)
}

// asked are the names that are asked for, sorted.
func (r *rig) asked() string {
	return strings.Join(slices.Sorted(maps.Keys(r.sub.names)), " ")
}

// Endpoints that go from one cluster to another in one response are there all the time.
func TestServicesSwapped(t *testing.T) {
	for what, tc := range map[string]struct {
		after            func(*testing.T) []*resource.Resource
		removed          []string
		a, b, subscribed string
	}{
		"between two": {func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{serviceCluster(t, "a", "y"), serviceCluster(t, "b", "x")}
		}, nil, "random 127.0.0.1:82", "random 127.0.0.1:81", "endpoints x endpoints y"},
		"to one that is new": {func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{serviceCluster(t, "a", "y"), serviceCluster(t, "n", "x")}
		}, nil, "random 127.0.0.1:82", "random 127.0.0.1:82", "endpoints x endpoints y"},
		"of one that is removed": {func(t *testing.T) []*resource.Resource {
			return []*resource.Resource{serviceCluster(t, "b", "x")}
		}, []string{"a"}, "none", "random 127.0.0.1:81", "endpoints x"},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			r.put(t, serviceCluster(t, "a", "x"), serviceCluster(t, "b", "y"), assignment(t, "x", 81), assignment(t, "y", 82))
			r.follow(&hasty{r.sub, t, map[string]bool{}})
			if errs := r.Apply(client.Update{Type: resource.ClusterType, Upserts: tc.after(t), Removed: tc.removed}); len(errs) > 0 {
				t.Fatal(errs)
			}
			if a, b := r.hostsOf("a"), r.hostsOf("b"); a != tc.a || b != tc.b || len(r.pending()) > 0 {
				t.Errorf("a: %s, b: %s, pending %v", a, b, r.pending())
			}
			if got := r.asked(); got != tc.subscribed {
				t.Errorf("asked for %s", got)
			}
			if n := r.hostsOf("n"); what == "to one that is new" && n != "random 127.0.0.1:81" {
				t.Errorf("n: %s", n)
			}
		})
	}
}

// A cluster that is refused takes nothing from the accepted one that waits: its sender does
// not send that again.
func TestRefusedClusterLeavesTheOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, edsCluster(t, "c"), manyStages(t, "c"), serviceCluster(t, "c", "s"))
		if errs := r.Apply(client.Update{Type: resource.ClusterType, Upserts: []*resource.Resource{unfitCluster(t, "c", "c")}}); errs["c"] == nil {
			t.Fatalf("taken: %s", r.hostsOf("c"))
		}
		if len(r.pending()) != 1 || r.asked() != "endpoints c endpoints s" {
			t.Errorf("pending %v, asked for %s", r.pending(), r.asked())
		}
		time.Sleep(r.warmUp - time.Second)
		r.put(t, assignment(t, "s", 82))
		if got := r.hostsOf("c"); got != "random 127.0.0.1:82" || r.asked() != "endpoints s" {
			t.Errorf("in force: %s, asked for %s", got, r.asked())
		}
	})
}

// The endpoints that a cluster leaves when its wait is over are asked for no longer.
func TestEndpointsLeftWhenTheWaitIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), serviceCluster(t, "c", "s"))
		time.Sleep(r.warmUp + time.Second)
		synctest.Wait()
		if r.asked() != "endpoints s" || len(r.assignments) > 0 {
			t.Errorf("asked for %s, has %v", r.asked(), r.assignments)
		}
	})
}
