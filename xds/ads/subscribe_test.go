package ads

import (
	"fmt"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func TestLegacyWildcardIsForListenersAndClustersOnly(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(mesh()...))
		p.subscribe(cds)
		expect(t, p.next(), "CDS +a +b")
		p.subscribe(eds)
		p.subscribe(rds)
		expect(t, p.next())
	})
}

func TestExplicitWildcard(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(mesh()...))
		p.subscribe(eds, "*")
		expect(t, p.next(), "EDS +a +b")
	})
}

func TestNamesEndTheLegacyWildcard(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(mesh()...))
		p.subscribe(cds, "a")
		expect(t, p.next(), "CDS +a")
	})
	t.Run("an empty list after names is no wildcard", func(t *testing.T) {
		p := newDriver(t, false, set(mesh()...))
		p.subscribe(cds, "a")
		p.settle()
		p.subscribe(cds)
		expect(t, p.next())
	})
}

func TestEmptyWildcardIsAnswered(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set())
		p.wildcards()
		expect(t, p.settle(), "CDS", "LDS")
	})
}

func TestNothingIsAnsweredBeforeTheFirstSet(t *testing.T) {
	p := newDriver(t, true, nil)
	p.wildcards()
	p.subscribe(eds, "a")
	expect(t, p.next())
	p.view(cl("a", "1"), ep("a", "1"))
	expect(t, p.next(), "CDS +a", "EDS +a", "LDS")
}

func TestEverySubscribedNameIsAnsweredEvenIfAbsent(t *testing.T) {
	p := newDriver(t, true, set(mesh()...))
	p.subscribe(rds, "r", "none")
	expect(t, p.settle(), "RDS +r -none")
	p.subscribe(rds, "none2")
	expect(t, p.settle(), "RDS -none2")

	p = newDriver(t, false, set(mesh()...))
	p.subscribe(rds, "none")
	expect(t, p.settle(), "RDS")
}

func TestAbsentNameIsSentWhenItAppears(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(mesh()...))
		p.subscribe(rds, "later")
		p.settle()
		p.view(with(mesh(), rt("later", "1"))...)
		expect(t, p.settle(), "RDS +later")
	})
}

func TestEndpointsAlwaysExist(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(cl("a", "1")))
		p.subscribe(eds, "a")
		got := p.settle()
		expect(t, got, "EDS +a")
		var m endpointv3.ClusterLoadAssignment
		if err := got[0].upserts[0].Body.UnmarshalTo(&m); err != nil || m.ClusterName != "a" || len(m.Endpoints) > 0 {
			t.Fatalf("assignment %v, %v", &m, err)
		}
		p.view(cl("a", "1"), ep("a", "1"))
		expect(t, p.settle(), "EDS +a")
		// A cluster that stays without its assignment is emptied.
		p.view(cl("a", "1"))
		expect(t, p.settle(), "EDS +a")
	})
}

func TestResubscribeIsAnsweredThoughTheClientHasIt(t *testing.T) {
	p := synced(t, true, mesh())
	p.subscribe(rds, "r")
	expect(t, p.settle(), "RDS +r")

	// State of the world has no other way to ask again than to say the same.
	p = synced(t, false, mesh())
	p.subscribe(rds, "r")
	expect(t, p.settle(), "RDS +r")
}

func TestUnsubscribedNameIsForgotten(t *testing.T) {
	p := synced(t, true, mesh())
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: rds, ResourceNamesUnsubscribe: []string{"r"}})
	p.view(with(mesh(), rt("r", "2", "a"))...)
	expect(t, p.settle())
	p.subscribe(rds, "r")
	expect(t, p.settle(), "RDS +r")
}

func TestNameUnsubscribedUnderAWildcardIsAnsweredOnceMore(t *testing.T) {
	p := newDriver(t, true, set(mesh()...))
	p.subscribe(cds, "*", "a", "none")
	p.settle()
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesUnsubscribe: []string{"a", "none"}})
	expect(t, p.settle(), "CDS +a -none")
}

func TestWildcardCanBeUnsubscribed(t *testing.T) {
	p := newDriver(t, true, set(mesh()...))
	p.subscribe(cds, "*", "a")
	p.settle()
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesUnsubscribe: []string{"*"}})
	p.view(with(mesh(), cl("a", "2"), cl("b", "2"))...)
	expect(t, p.settle(), "CDS +a")
}

func TestInitialVersionsSkipTheUnchangedAndSendRemovals(t *testing.T) {
	a, b := cl("a", "1"), cl("b", "2")
	p := newDriver(t, true, set(a, b, ep("a", "1"), ep("b", "1")))
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, InitialResourceVersions: map[string]string{
		"a": a.Version, "b": "old", "gone": "x",
	}})
	expect(t, p.next(), "CDS +b")
	p.ack(p.open...)
	expect(t, p.settle(), "CDS -gone")

	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"a", "b"},
		InitialResourceVersions: map[string]string{"a": ep("a", "1").Version, "unasked": "x"}})
	expect(t, p.settle(), "EDS +b")
	// Only the first request of a type tells what the client has.
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, InitialResourceVersions: map[string]string{"c": "x"}})
	expect(t, p.settle())
}

func TestEverythingUnchangedIsAnsweredEmpty(t *testing.T) {
	a := cl("a", "1")
	p := newDriver(t, true, set(a))
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, InitialResourceVersions: map[string]string{"a": a.Version}})
	expect(t, p.settle(), "CDS")
}

func TestResumedEnvoyGetsItsEndpointsInFull(t *testing.T) {
	e := ep("a", "1")
	p := newDriver(t, true, set(cl("a", "1"), e))
	p.c.forceEndpoints = true
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"a"},
		InitialResourceVersions: map[string]string{"a": e.Version}})
	expect(t, p.settle(), "EDS +a")
}

func TestStaleNonceIsIgnored(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), cl("a", "2"))...)
		p.next()
		old := &response{url: cds, nonce: "nonce of another time"}
		p.answer(old, "")
		p.answer(old, "nonsense")
		ts := p.c.types[cds]
		if len(ts.pending) != 1 || len(ts.nacked)+len(ts.suspects) > 0 {
			t.Fatal("a stale nonce was taken for an answer")
		}
		if ts.held["a"].version != cl("a", "1").Version {
			t.Fatal("a stale nonce acknowledged a version")
		}
	})
	t.Run("state of the world keeps its subscription", func(t *testing.T) {
		p := synced(t, false, mesh())
		p.request(&discoveryv3.DiscoveryRequest{TypeUrl: eds, ResponseNonce: "0"})
		if len(p.c.types[eds].names) != 2 {
			t.Fatal("a stale request changed the subscription")
		}
	})
	t.Run("increments of a stale delta request count", func(t *testing.T) {
		p := synced(t, true, mesh())
		p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: rds, ResponseNonce: "0", ResourceNamesSubscribe: []string{"x"}})
		expect(t, p.settle(), "RDS -x")
	})
}

func TestVersionsAreContentHashesSoNothingIsSentForTheSameContent(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(mesh()...)
		expect(t, p.next())
		m1, m2 := sotwMessage(&response{upserts: mesh()}, ""), sotwMessage(&response{upserts: mesh()}, "other")
		if m1.VersionInfo != m2.VersionInfo || m1.VersionInfo == sotwMessage(&response{}, "").VersionInfo {
			t.Fatal("version_info is not the content's")
		}
	})
}

func TestSecretsNeverTravel(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		secret := mk("default", &tlsv3.Secret{Name: "default"})
		p := newDriver(t, delta, set(secret))
		p.subscribe(resource.SecretType, "default", "*")
		for _, r := range p.settle() {
			if len(r.upserts) > 0 {
				t.Fatalf("sent %s", line(r))
			}
		}
	})
}

func TestStreamIsBounded(t *testing.T) {
	p := newDriver(t, true, set())
	for i := range maxTypes {
		p.subscribe(fmt.Sprintf("type.googleapis.com/t%d", i), "x")
	}
	_, err := p.c.apply(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "one more"}, p.now)
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("one type too many: %v", err)
	}
	names := make([]string, maxNamesPerType+1)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	for _, m := range []request{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: names},
		&discoveryv3.DiscoveryRequest{TypeUrl: eds, ResourceNames: names},
	} {
		p = newDriver(t, true, set())
		if _, err := p.c.apply(m, p.now); status.Code(err) != codes.ResourceExhausted {
			t.Fatalf("%T, too many names: %v", m, err)
		}
	}
	if _, err := p.c.apply(&discoveryv3.DeltaDiscoveryRequest{}, p.now); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("no type: %v", err)
	}
}
