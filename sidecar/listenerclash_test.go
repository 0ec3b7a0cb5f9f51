package sidecar

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// at has a listener at a port.
func at(t *testing.T, l *resource.Resource, port uint32, more ...uint32) *resource.Resource {
	m := &listenerv3.Listener{}
	if err := l.Body.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	m.Address = address(port)
	for _, p := range more {
		m.AdditionalAddresses = append(m.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: address(p)})
	}
	return res(t, l.Name, m)
}

// Two listeners cannot have an address, also where the first of them still waits for what
// it names: the second is refused while its sender listens, as in Envoy.
func TestAddressOfAListenerThatWaits(t *testing.T) {
	r := newRig(t)
	refused := func(l *resource.Resource, by string) {
		t.Helper()
		errs := r.Apply(client.Update{Type: l.Type, Upserts: []*resource.Resource{l}})
		if errs[l.Name] == nil || !strings.Contains(errs[l.Name].Error(), by) {
			t.Errorf("%s: %v", l.Name, errs)
		}
	}
	r.put(t, at(t, httpListener(t, "a", "r"), 80, 81))
	refused(at(t, httpListener(t, "b", "r"), 80), `127.0.0.1:80 is listener "a"'s`)
	refused(at(t, httpListener(t, "b", "r"), 82, 81), `127.0.0.1:81 is listener "a"'s`)
	r.put(t, at(t, httpListener(t, "b", "r"), 82))
	refused(at(t, httpListener(t, "b", "r"), 81), `127.0.0.1:81 is listener "a"'s`)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"))
	if r.active() != "a b" || r.l.inForce["b"].Address != "127.0.0.1:82" {
		t.Errorf("in force: %s", r.active())
	}
	// What goes in the same update is in nobody's way, nor is what moved away.
	if errs := r.Apply(client.Update{Type: resource.ListenerType, Removed: []string{"a"}, Upserts: []*resource.Resource{
		at(t, httpListener(t, "b", "r"), 83), at(t, httpListener(t, "d", "r"), 80), at(t, httpListener(t, "e", "r"), 82),
	}}); len(errs) > 0 {
		t.Error(errs)
	}
	r.put(t, at(t, httpListener(t, "f", "r"), 0), at(t, httpListener(t, "g", "r"), 0))
}

// One that cannot be made has no address: another of the same update may have it, unless what
// was before of it goes on there.
func TestAddressOfAListenerThatIsRefused(t *testing.T) {
	r := newRig(t)
	r.put(t, edsCluster(t, "c"), assignment(t, "c", 80), routeTo(t, "r", "c"))
	r.put(t, at(t, httpListener(t, "z", "r"), 90))
	err := errors.New("no such secret")
	r.l.unfit = map[string]error{"a": err, "z": err}
	r.l.fail = r.l.unfit
	errs := r.Apply(client.Update{Type: resource.ListenerType, Upserts: []*resource.Resource{
		at(t, httpListener(t, "a", "r"), 80), at(t, httpListener(t, "b", "r"), 80),
		at(t, httpListener(t, "z", "r"), 90), at(t, httpListener(t, "y", "r"), 90),
	}})
	if len(errs) != 3 || errs["b"] != nil || r.active() != "b z" {
		t.Errorf("%v; in force: %s", errs, r.active())
	}
}

// freePorts are ports that nobody listens on.
func freePorts(t *testing.T, n int) []uint32 {
	t.Helper()
	var out []uint32
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, uint32(l.Addr().(*net.TCPAddr).Port))
	}
	return out
}

// A listener that waits to move has its address until it does. Who asks for that is refused
// while its sender listens, as in Envoy: where the wait is over would be too late.
func TestAddressOfAListenerThatWaitsToMove(t *testing.T) {
	for name, withRoutes := range map[string]string{"for the same": "r", "for others": "other"} {
		t.Run(name, func(t *testing.T) {
			s, ports := idle(t), freePorts(t, 3)
			s.state.follow(nobody{})
			apply := func(rs ...*resource.Resource) map[string]error {
				return s.state.Apply(client.Update{Type: rs[0].Type, Upserts: rs})
			}
			where := func(name string) string { return fmt.Sprint(s.listeners.Addrs()[name]) }
			addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
			if errs := apply(edsCluster(t, "c")); len(errs) > 0 {
				t.Fatal(errs)
			}
			_, _ = apply(assignment(t, "c", 9)), apply(routeTo(t, "there", "c"))
			if errs := apply(at(t, httpListener(t, "z", "there"), ports[0])); len(errs) > 0 || where("z") != addr(0) {
				t.Fatal(errs, where("z"))
			}
			b := at(t, httpListener(t, "b", withRoutes), ports[0])
			errs := apply(at(t, httpListener(t, "z", "r"), ports[1]), b)
			if len(errs) != 1 || errs["b"] == nil || !strings.Contains(errs["b"].Error(), addr(0)+` is listener "z"'s`) {
				t.Errorf("%v", errs)
			}
			_, _ = apply(routeTo(t, "other", "c")), apply(routeTo(t, "r", "c"))
			if where("z") != addr(1) {
				t.Errorf("z is at %s", where("z"))
			}
			if errs := apply(b); len(errs) > 0 || where("b") != addr(0) {
				t.Errorf("%v, b is at %s", errs, where("b"))
			}
			// What moves at once leaves its place to the next of the same response.
			errs = apply(at(t, httpListener(t, "z", "r"), ports[2]), at(t, httpListener(t, "b", "r"), ports[1]), at(t, httpListener(t, "d", "r"), ports[0]))
			if len(errs) > 0 || where("z") != addr(2) || where("b") != addr(1) || where("d") != addr(0) {
				t.Errorf("%v, at %v", errs, s.listeners.Addrs())
			}
		})
	}
}
