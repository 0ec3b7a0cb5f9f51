package sidecar

import (
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
