package sidecar

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// What comes under a name is of that name: it could not be removed otherwise, and would be
// in the place of another, of the bootstrap's too.
func TestMisnamedResources(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), httpListener(t, "l", "r"), routeTo(t, "r", "c"))
	r.static["c"], r.static["l"] = true, true
	for _, x := range []*resource.Resource{
		staticCluster(t, "c", 81), staticCluster(t, "d", 81), assignment(t, "d", 81), routeTo(t, "s", "c"),
		tcpListener(t, "l", "c", corev3.TrafficDirection_INBOUND), tcpListener(t, "m", "c", corev3.TrafficDirection_INBOUND),
	} {
		wrong := *x
		wrong.Name = "other"
		if x.Type == resource.EndpointType {
			wrong.Name = "c"
		}
		if x.Type == resource.RouteType {
			wrong.Name = "r"
		}
		errs := r.Apply(client.Update{Type: x.Type, Upserts: []*resource.Resource{&wrong}})
		if err := errs[wrong.Name]; err == nil || !strings.Contains(err.Error(), `"`+x.Name+`"`) {
			t.Errorf("%s %s as %s: %v", shortType(x.Type), x.Name, wrong.Name, errs)
		}
	}
	if got := r.hostsOf("c"); got != "rr 127.0.0.1:80" || r.hostsOf("d") != "none" || r.active() != "l" || r.l.inForce["l"].Chains[0].HTTP == nil {
		t.Errorf("in force: %s, %s", got, r.active())
	}
	if cfg := r.routes.get("r").Config(); cfg.Name != "r" {
		t.Errorf("in force are the routes %q", cfg.Name)
	}
}
