package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
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

// The admin interface says of a listener why it is not there, until it is.
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
	other.Close()
	s.state.tryAgain(s.state.retries["l"])
	if shown = (*view)(s).Listeners().([]listenerView); len(shown) != 1 || shown[0].Address == "" || shown[0].Error != "" {
		t.Errorf("when it is free: %+v", shown)
	}
}

// inUse is that somebody else has an address.
func inUse(address string) error {
	return &listener.AddressInUseError{Network: "tcp", Address: address}
}

// free has nobody keep a listener from its address.
func (r *rig) free(name string) {
	r.mu.Lock() // whoever tries it again reads it so
	defer r.mu.Unlock()
	delete(r.l.fail, name)
}

// lateFailure has a listener wait, be acknowledged, and then not have its address.
func (r *rig) lateFailure(t *testing.T, name string) {
	t.Helper()
	l := &listenerv3.Listener{}
	if err := httpListener(t, name, "late").Body.UnmarshalTo(l); err != nil {
		t.Fatal(err)
	}
	l.TrafficDirection = corev3.TrafficDirection_INBOUND
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), res(t, name, l))
	r.l.fail[name] = inUse("127.0.0.1:1")
	r.put(t, routeTo(t, "late", "c"))
	if r.failures()[name] == nil || len(r.pending()) != 1 {
		t.Fatalf("told: %v, pending %v", r.failures(), r.pending())
	}
}

// A listener that was acknowledged comes up once its address is free, though nobody sends it
// again; until then it is told that it is not there, and what it names is kept.
func TestFailedListenerIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.lateFailure(t, "l")
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.failures()["l"] == nil || len(r.pending()) != 1 || r.routes.get("late") == nil {
			t.Errorf("after a minute: %v, pending %v", r.failures(), r.pending())
		}
		if got := r.metricLines(t, "hauberk_listener_failures_total"); got != "9" {
			t.Errorf("tries in the first minute: %s, want 9: after 1, 2, 4, 8 and each 10 s", got)
		}
		r.free("l")
		time.Sleep(retryMax)
		synctest.Wait()
		if r.l.inForce["l"] == nil || len(r.failures())+len(r.pending())+len(r.retries) != 0 {
			t.Errorf("when it is free: %v, pending %v", r.failures(), r.pending())
		}
	})
}

// What would be tried again is not when something else has been said of it since.
func TestFailedListenerIsTriedNoMore(t *testing.T) {
	for what, then := range map[string]func(t *testing.T, r *rig){
		"removed":  func(t *testing.T, r *rig) { r.remove(resource.ListenerType, "l") },
		"draining": func(_ *testing.T, r *rig) { r.drainInbound() },
		"another one that waits": func(t *testing.T, r *rig) {
			r.put(t, httpListener(t, "l", "later"))
		},
		"another one in force": func(t *testing.T, r *rig) {
			r.free("l")
			r.put(t, tcpListener(t, "l", "c", corev3.TrafficDirection_INBOUND))
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.lateFailure(t, "l")
				then(t, r)
				r.free("l")
				before := r.l.inForce["l"]
				time.Sleep(9 * time.Second) // the wait of a listener is 10 s
				synctest.Wait()
				if r.l.inForce["l"] != before || len(r.retries) != 0 {
					t.Errorf("in force: %v", r.l.inForce["l"])
				}
				r.remove(resource.ListenerType, "l")
			})
		})
	}
}

// What is refused changes nothing: the one that was acknowledged is still tried.
func TestRefusedListenerLeavesTheOneThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.lateFailure(t, "l")
		other := tcpListener(t, "l", "c", corev3.TrafficDirection_OUTBOUND)
		if errs := r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{other}}); errs["l"] == nil {
			t.Fatal("taken")
		}
		r.free("l")
		time.Sleep(retryMax)
		synctest.Wait()
		if l := r.l.inForce["l"]; l == nil || l.Chains[0].HTTP == nil || len(r.failures()) != 0 {
			t.Errorf("in force: %+v, %v", l, r.failures())
		}
	})
}

// Only an address may be free later: what else fails would fail again.
func TestOtherFailuresAreNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), httpListener(t, "l", "late"))
		r.l.fail["l"] = errors.New("no such certificate")
		r.put(t, routeTo(t, "late", "c"))
		r.free("l")
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.l.inForce["l"] != nil || r.failures()["l"] == nil {
			t.Errorf("in force: %v, %v", r.l.inForce["l"], r.failures())
		}
	})
}

// A listener has the address that it is to leave while it is tried at the next one, and no longer
// once it is to be at a third.
func TestAddressesOfOneThatIsTriedAgain(t *testing.T) {
	r := newRig(t)
	old, next, third := &listener.Config{Name: "l"}, &listener.Config{Name: "l"}, &listener.Config{Name: "l"}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inForce["l"], r.retries["l"] = old, &retry{cfg: next, timer: time.NewTimer(time.Hour)}
	for _, tc := range []struct {
		what   string
		wanted *listener.Config
		holds  int
	}{{"tried again", next, 2}, {"another is wanted", third, 1}} {
		r.wants["l"] = tc.wanted
		if got := r.holding("l"); len(got) != tc.holds || got[0] != tc.wanted {
			t.Errorf("%s: holds %d", tc.what, len(got))
		}
	}
}
