package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// metricLines are the lines of a metric.
func (r *rig) metricLines(t *testing.T, name string) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.metrics.Registry.WriteUsed(&b); err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, name) {
			out = append(out, strings.TrimSpace(strings.TrimPrefix(line, name)))
		}
	}
	return strings.Join(out, " ")
}

// A listener that was acknowledged, and cannot have its address when its wait is over, is told
// by what people and machines look at: it is too late for its sender. What was before goes on.
func TestListenerThatFailsAfterItsWait(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"), httpListener(t, "l", "r"))
	r.put(t, httpListener(t, "l", "late"), httpListener(t, "m", "late"))
	if got := r.metricLines(t, "hauberk_listeners"); !strings.Contains(got, `{state="warming"} 2`) {
		t.Errorf("while they wait: %s", got)
	}
	r.l.fail["l"], r.l.fail["m"] = errors.New("address of l in use"), errors.New("address of m in use")
	r.put(t, routeTo(t, "late", "c"))
	if got := r.failures(); len(got) != 2 || got["l"].Error() != "address of l in use" || r.l.inForce["l"] == nil {
		t.Errorf("told: %v", got)
	}
	if got := r.metricLines(t, "hauberk_listener_failures_total"); got != "2" {
		t.Errorf("counted: %s", got)
	}
	if got := r.metricLines(t, "hauberk_listeners"); !strings.Contains(got, `{state="failed"} 2`) || !strings.Contains(got, `{state="warming"} 0`) {
		t.Errorf("states: %s", got)
	}
	// Only who serves nothing is not ready.
	if got := strings.Join(r.pending(), "; "); got != "listener m: address of m in use" {
		t.Errorf("pending: %s", got)
	}
	delete(r.l.fail, "l")
	r.put(t, httpListener(t, "l", "late"), routeTo(t, "late", "c")) // which went with the one that failed
	r.remove(resource.ListenerType, "m")
	if got, why := r.failures(), r.pending(); len(got)+len(why) != 0 {
		t.Errorf("mended and removed: %v, %v", got, why)
	}
	if got := r.metricLines(t, "hauberk_listeners"); !strings.Contains(got, `{state="failed"} 0`) {
		t.Errorf("states: %s", got)
	}
}

// A listener that was refused, and that its sender has no more, is nothing to wait for; in the
// state of the world that is told by its absence.
func TestRefusedListenerIsGone(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80))
	r.l.fail["l"] = errors.New("address in use")
	l, other := tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND), tcpListener(t, "m", "c", corev3.TrafficDirection_OUTBOUND)
	if errs := r.Apply(client.Update{Type: resource.ListenerType, Full: true, Upserts: []*resource.Resource{l}}); errs["l"] == nil || len(r.pending()) != 1 {
		t.Fatal(errs, r.pending())
	}
	r.Apply(client.Update{Type: resource.ListenerType, Full: true, Upserts: []*resource.Resource{other}})
	if got := r.pending(); len(got) != 0 {
		t.Errorf("still waited for: %v", got)
	}
}

// The admin interface says of a listener why it is not there.
func TestFailedListenerIsShown(t *testing.T) {
	s, port := idle(t), freePorts(t, 1)[0]
	s.state.follow(nobody{})
	for _, x := range []*resource.Resource{at(t, httpListener(t, "l", "r"), port), edsCluster(t, "c"), assignment(t, "c", 80)} {
		if errs := s.state.Apply(client.Update{Type: x.Type, Upserts: []*resource.Resource{x}}); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.state.Apply(client.Update{Type: resource.RouteType, Upserts: []*resource.Resource{routeTo(t, "r", "c")}})
	shown := (*view)(s).Listeners().([]listenerView)
	if len(shown) != 1 || shown[0].Name != "l" || shown[0].Address != "" || !strings.Contains(shown[0].Error, "is in use") {
		t.Errorf("%+v", shown)
	}
}
