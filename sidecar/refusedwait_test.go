package sidecar

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func (r *rig) refused(t *testing.T, l *resource.Resource, why string) {
	t.Helper()
	errs := r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{l}})
	if errs[l.Name] == nil || !strings.Contains(errs[l.Name].Error(), why) {
		t.Errorf("taken: %v", errs)
	}
}

func (r *rig) routesInForce(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.l.inForce[name]; l != nil && l.Chains[0].HTTP != nil {
		return l.Chains[0].HTTP.RouteName
	}
	return "none"
}

// A listener that is refused takes nothing from the accepted one that waits, which may carry a
// deny: its sender does not send that again. Nor does it lengthen its wait.
func TestRefusedListenerLeavesTheOneThatWaits(t *testing.T) {
	for name, before := range map[string]string{"in the place of another": "r", "in nobody's": ""} {
		for _, waits := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					r.put(t, edsCluster(t, "c"), assignment(t, "c", 80))
					if before != "" {
						r.put(t, routeTo(t, "r", "c"), httpListener(t, "l", before))
					}
					r.put(t, httpListener(t, "l", "late"), httpListener(t, "n", "never"))
					time.Sleep(r.warmUp - time.Second)
					next := tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND)
					if waits {
						next = httpListener(t, "l", "later")
						r.l.unfit = map[string]error{"l": errors.New("no such file")}
					}
					r.l.fail["l"] = errors.New("no such file")
					r.refused(t, next, "no such file")
					r.mu.Lock()
					delete(r.l.fail, "l")
					if len(r.warming) != 2 || !r.sub.names["routes late"] || r.sub.names["routes later"] {
						t.Errorf("warming %v, asked for %v", r.warming, r.sub.names)
					}
					r.mu.Unlock()
					if waits {
						time.Sleep(2 * time.Second)
						synctest.Wait()
					} else {
						r.put(t, routeTo(t, "late", "c"))
					}
					if got := r.routesInForce("l"); got != "late" {
						t.Errorf("in force is the listener with routes %s", got)
					}
				})
			})
		}
	}
}

// One that waits to move, and is refused what it is to be instead, has both addresses until it does;
// what moves at once instead of waiting has only the one.
func TestAddressesOfOneThatWaitsNoMore(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"), at(t, httpListener(t, "l", "r"), 80), at(t, httpListener(t, "l", "late"), 81))
	r.l.fail["l"] = errors.New("no such file")
	r.refused(t, at(t, httpListener(t, "l", "r"), 82), "no such file")
	delete(r.l.fail, "l")
	for _, port := range []uint32{80, 81} {
		r.refused(t, at(t, httpListener(t, "m", "r"), port), `listener "l"'s`)
	}
	errs := r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{at(t, httpListener(t, "l", "r"), 82), at(t, httpListener(t, "m", "r"), 80)}})
	if len(errs) > 0 || len(r.warming) > 0 {
		t.Errorf("%v, warming %v", errs, r.warming)
	}
}
