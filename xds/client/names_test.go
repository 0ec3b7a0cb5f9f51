package client

import (
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// What comes under a name is of that name: it would be in the place of another, of the
// bootstrap's too, and could not be removed.
func TestMisnamedResourcesAreRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			if m.ResponseNonce != "" {
				return nil, nil
			}
			under := func(name string, r *resource.Resource) *discoveryv3.Resource {
				return &discoveryv3.Resource{Name: name, Version: "1", Resource: r.Body}
			}
			r := deltaResponse("1", cl("a", "1"), ls("l", "1", "r"))
			r.TypeUrl, r.Nonce = m.TypeUrl, m.TypeUrl
			switch m.TypeUrl {
			case cds:
				r.Resources = append(r.Resources[:1], under("b", cl("a", "2")))
			case eds:
				r.Resources = []*discoveryv3.Resource{under("a", ep("b", "1"))}
			case lds:
				r.Resources = append(r.Resources[1:], under("m", ls("l", "2", "")))
			case rds:
				r.Resources = []*discoveryv3.Resource{under("r", rt("s", "1", "a"))}
			}
			return r, nil
		}
		m := newMirror()
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		nacks := map[string]string{}
		eventually(t, func() string {
			for _, r := range srv.requests(0) {
				if r.ResponseNonce != "" {
					nacks[r.TypeUrl] = r.ErrorDetail.GetMessage()
				}
			}
			if len(nacks) < 4 {
				return "not all are answered"
			}
			return ""
		})
		want := map[string]string{
			cds: `b: resource: its own name is "a"`, eds: `a: resource: its own name is "b"`,
			lds: `m: resource: its own name is "l"`, rds: `r: resource: its own name is "s"`,
		}
		if d := cmp.Diff(want, nacks); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
		if d := m.differs([]*resource.Resource{cl("a", "1"), ls("l", "1", "r")}); d != "" {
			t.Error(d)
		}
		refused := map[string][]string{}
		for _, u := range m.seen() {
			refused[u.Type] = append(refused[u.Type], u.Refused...)
		}
		if d := cmp.Diff(map[string][]string{cds: {"b"}, eds: {"a"}, lds: {"m"}, rds: {"r"}}, refused); d != "" {
			t.Errorf("the handler hears of -want +got\n%s", d)
		}
	})
}

// A response that says of a name that it is there and that it is gone says nothing of it:
// the last good one stays.
func TestRemovedAndThereIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			switch {
			case m.TypeUrl == cds && m.ResponseNonce == "":
				return deltaResponse("1", cl("a", "1"), cl("b", "1"), cl("c", "1"), cl("d", "1"), cl("e", "1")), nil
			case m.TypeUrl == cds && m.ResponseNonce == "1":
				r := deltaResponse("2", cl("a", "2"), cl("c", "2"))
				r.Resources = append(r.Resources, &discoveryv3.Resource{Name: "d", Version: "2", Resource: ls("d", "2", "").Body},
					&discoveryv3.Resource{Name: "e", Version: cl("e", "1").Version})
				r.RemovedResources = []string{"a", "b", "d", "e"}
				return r, nil
			}
			return nil, nil
		}
		m := newMirror()
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		nack := ""
		eventually(t, func() string {
			for _, r := range srv.requests(0) {
				if r.ResponseNonce == "2" {
					nack = r.ErrorDetail.GetMessage()
					return ""
				}
			}
			return "no answer"
		})
		const both = ": resource: is removed and there in one response"
		if nack != "a"+both+"; d"+both+"; e"+both {
			t.Errorf("NACK %q", nack)
		}
		if d := m.differs([]*resource.Resource{cl("a", "1"), cl("c", "2"), cl("d", "1"), cl("e", "1")}); d != "" {
			t.Error(d)
		}
	})
}
