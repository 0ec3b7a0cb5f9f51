package ads

import (
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func TestUpsertsTravelClustersEndpointsListenersRoutes(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), rt("r", "2", "a"), ls("in", "2"), ep("b", "2"), cl("b", "2"))...)
		got := lines(p.next())
		want := []string{"CDS", "EDS", "LDS", "RDS"}
		if len(got) != 4 {
			t.Fatalf("sent %v", got)
		}
		for i := range want {
			if got[i][:3] != want[i] {
				t.Fatalf("order %v", got)
			}
		}
	})
}

func TestOnlyChangedResourcesAreSent(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), ep("a", "2"))...)
	expect(t, p.settle(), "EDS +a")
	p = synced(t, false, mesh())
	p.view(with(mesh(), ep("a", "2"))...)
	expect(t, p.settle(), "EDS +a")
	p.view(with(mesh(), ep("a", "2"), cl("b", "2"))...)
	expect(t, p.settle(), "CDS +a +b", "EDS +b") // the list is full, the endpoints are not
}

func TestListenerAndRouteWaitForANewClusterAndItsEndpoints(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), cl("c", "1"), ep("c", "1"), rt("r", "2", "c"), ls("in", "2", toCluster("c")))...)
		got := p.next()
		if len(got) != 1 || got[0].url != cds {
			t.Fatalf("before the cluster is acknowledged: %v", lines(got))
		}
		p.ack(got...)
		if got = p.next(); len(got) != 0 {
			t.Fatalf("before the endpoints are acknowledged: %v", lines(got))
		}
		p.also(eds, "c")
		got = p.next()
		expect(t, got, "EDS +c")
		p.ack(got...)
		got = p.next()
		if len(got) != 2 || got[0].url != lds || got[1].url != rds {
			t.Fatalf("after: %v", lines(got))
		}
	})
}

func TestHoldEndsAfterItsTimeout(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), cl("c", "1"), rt("r", "2", "c"))...)
		p.next()
		_, wake := p.c.next(p.now)
		if want := p.now.Add(5 * time.Second); !wake.Equal(want) {
			t.Fatalf("wakes at %v, want %v", wake, want)
		}
		p.now = p.now.Add(4 * time.Second)
		// A change of the held route does not wind its clock back.
		p.view(with(mesh(), cl("c", "1"), rt("r", "3", "c"))...)
		expect(t, p.next())
		p.now = p.now.Add(time.Second)
		expect(t, p.next(), "RDS +r")
	})
}

func TestNoHoldForClustersTheClientDoesNotAskFor(t *testing.T) {
	// A gRPC client asks for a listener, then its route, then the clusters.
	p := newDriver(t, false, set(mesh()...))
	p.subscribe(lds, "out")
	expect(t, p.settle(), "LDS +out")
	p.subscribe(rds, "r")
	expect(t, p.settle(), "RDS +r")
	p.subscribe(cds, "a")
	expect(t, p.settle(), "CDS +a")
	p.subscribe(eds, "a")
	expect(t, p.settle(), "EDS +a")
}

func TestNoHoldForAClusterThatDoesNotExist(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), rt("r", "2", "nowhere"))...)
	expect(t, p.next(), "RDS +r")
}

func TestAggregateClusterIsAsReadyAsWhatItLists(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), aggregate("f", "1", "c"), cl("c", "1"), rt("r", "2", "f"))...)
	got := p.next()
	expect(t, got, "CDS +c +f")
	p.ack(got...)
	expect(t, p.next())
	p.subscribe(eds, "c")
	p.ack(p.next()...)
	expect(t, p.next(), "RDS +r")
}

func TestAggregatesThatNameEachOtherEnd(t *testing.T) {
	p := newDriver(t, true, set(aggregate("f", "1", "g"), aggregate("g", "1", "f"), rt("r", "1", "f")))
	p.subscribe(cds)
	p.settle()
	p.subscribe(rds, "r")
	expect(t, p.next(), "RDS +r")
}

func TestClusterSentMakesItsEndpointsBeSentAgain(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), cl("a", "2"))...)
		got := p.next()
		if len(got) != 2 || got[0].url != cds || line(got[1]) != "EDS +a" {
			t.Fatalf("sent %v", lines(got))
		}
	})
}

func TestEndpointsOwedToAClusterAreSentAfterAnOutstandingResponse(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), ep("a", "2"))...)
	first := p.next()
	expect(t, first, "EDS +a")
	p.view(with(mesh(), ep("a", "2"), cl("a", "2"))...)
	expect(t, p.next(), "CDS +a")
	// What is on its way was sent before the cluster and does not count.
	p.ack(first...)
	expect(t, p.next(), "EDS +a")
}

func TestListenerSentMakesItsRoutesBeSentAgain(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), ls("out", "2", toRoute("r")))...)
		got := p.next()
		if len(got) != 2 || got[0].url != lds || line(got[1]) != "RDS +r" {
			t.Fatalf("sent %v", lines(got))
		}
	})
}

func TestRemovalsFollowAllAcknowledgedUpserts(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		// The route moves from a to c; a goes.
		p.view(with(without(without(mesh(), cds, "a"), eds, "a"), cl("c", "1"), ep("c", "1"), rt("r", "2", "c"))...)
		has := func(r *response, name string) bool {
			for _, u := range r.upserts {
				if u.Name == name {
					return true
				}
			}
			return false
		}
		var routeAcked, removed bool
		p.also(eds, "c")
		for range 20 {
			out := p.next()
			for _, r := range out {
				gone := r.url == cds && ((delta && len(r.removed) > 0) || (!delta && !has(r, "a")))
				if gone && !routeAcked {
					t.Fatalf("%s before the route had moved", line(r))
				}
				removed = removed || gone
			}
			for _, r := range out {
				p.ack(r)
				routeAcked = routeAcked || r.url == rds
			}
		}
		if !removed {
			t.Fatal("never removed")
		}
	})
}

func TestRemovalOrder(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(without(without(without(without(mesh(), lds, "out"), rds, "r"), cds, "a"), eds, "a")...)
	expect(t, p.settle(), "LDS -out", "RDS -r", "CDS -a", "EDS -a")
	// In state of the world a list without it is the removal, and only
	// listeners and clusters have lists.
	p = synced(t, false, mesh())
	p.view(without(without(without(without(mesh(), lds, "out"), rds, "r"), cds, "a"), eds, "a")...)
	expect(t, p.settle(), "LDS +in -out")
	p.subscribe(rds)
	expect(t, p.settle(), "CDS +b -a")
}

func TestNothingTheClientStillNamesIsRemoved(t *testing.T) {
	p := synced(t, true, mesh())
	// The route's new version is rejected, so the client still routes to a.
	p.view(with(without(mesh(), cds, "a"), rt("r", "2", "b"))...)
	got := p.next()
	expect(t, got, "RDS +r")
	p.answer(got[0], "r: no")
	p.now = p.now.Add(time.Hour)
	expect(t, p.settle())
	p.view(with(without(mesh(), cds, "a"), rt("r", "3", "b"))...)
	expect(t, p.settle(), "RDS +r", "CDS -a")
}

func TestAggregateAndItsClustersGoTogether(t *testing.T) {
	rs := with(mesh(), aggregate("f", "1", "b"))
	p := synced(t, true, rs)
	p.view(without(without(rs, cds, "f", "b"), eds, "b")...)
	expect(t, p.settle(), "CDS -b -f", "EDS -b")
}

func TestChurnDoesNotKeepRemovalsForever(t *testing.T) {
	p := synced(t, true, mesh())
	rs := without(without(mesh(), lds, "out"), rds, "r")
	gone := false
	for i := range 100 {
		// Something is always outstanding.
		p.view(with(rs, ep("b", time.Duration(i).String()))...)
		out := p.next()
		for _, r := range out {
			gone = gone || (r.url == lds && len(r.removed) > 0)
		}
		p.now = p.now.Add(100 * time.Millisecond)
		for _, r := range out {
			if i%2 == 0 || r.url != eds {
				p.ack(r)
			}
		}
	}
	if !gone {
		t.Fatal("the listener was never removed")
	}
}

func TestResourceThatReturnsBeforeItsRemovalIsSentStays(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(without(mesh(), lds, "in")...)
	got := p.next()
	expect(t, got, "LDS -in")
	p.view(mesh()...)
	expect(t, p.next())
	p.ack(got...)
	expect(t, p.settle(), "LDS +in")
}

func TestChangeTakenBackWhileOnItsWayIsSentAgain(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), ep("a", "2"))...)
	got := p.next()
	p.view(mesh()...)
	expect(t, p.next())
	p.ack(got...)
	last := p.settle()
	expect(t, last, "EDS +a")
	carries(t, last[0], ep("a", "1"))
}

func TestNewResourceThatVanishesOnItsWayIsRemoved(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), ls("x", "1"))...)
	got := p.next()
	expect(t, got, "LDS +x")
	p.view(mesh()...)
	p.ack(got...)
	expect(t, p.settle(), "LDS -x")
}

func TestOneResponseOutstandingPerType(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), ep("a", "2"))...)
		first := p.next()
		for i := range 10 {
			p.view(with(mesh(), ep("a", time.Duration(i).String()))...)
			expect(t, p.next())
		}
		p.ack(first...)
		last := p.next()
		expect(t, last, "EDS +a")
		carries(t, last[0], ep("a", "9ns"))
	})
}

func TestLargeResponsesAreSplitAndSaySo(t *testing.T) {
	var rs []*resource.Resource
	big := make([]byte, 1<<20)
	for i := range big {
		big[i] = 'x'
	}
	for _, n := range []string{"a", "b", "c", "d"} {
		rs = append(rs, cl(n, string(big)))
	}
	p := newDriver(t, true, set(rs...))
	p.subscribe(cds)
	got := p.settle()
	expect(t, got, "CDS +a +b", "CDS +c +d")
	if !got[0].partial || got[1].partial {
		t.Fatal("only the first is partial")
	}
	if m := deltaMessage(got[0], ""); m.SystemVersionInfo != got[0].nonce+resource.PartialSuffix {
		t.Fatalf("system_version_info %q", m.SystemVersionInfo)
	}
}

func TestPartialAnswerIsAlwaysCompleted(t *testing.T) {
	p := synced(t, true, mesh())
	// The held listener vanishes: nothing follows, and the client must know.
	p.view(with(mesh(), cl("c", "1"), ls("x", "1"), ls("y", "1", toCluster("c")))...)
	for _, r := range p.next() {
		if r.url == lds && !r.partial {
			t.Fatalf("%s does not say that more follows", line(r))
		}
	}
	p.view(with(mesh(), ls("x", "1"))...)
	p.ack(p.open...)
	for _, r := range p.settle() {
		if r.url == lds && len(r.upserts) == 0 && !r.partial {
			return
		}
	}
	t.Fatal("the client still waits")
}

func TestFirstListWaitsRatherThanBeEmpty(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(cl("a", "1"), ep("a", "1"), ls("l", "1", toCluster("a"))))
		p.wildcards()
		got := p.next()
		expect(t, got, "CDS +a")
		p.ack(got...)
		p.subscribe(eds, "a")
		p.ack(p.next()...)
		expect(t, p.next(), "LDS +l")
	})
}

func TestUrgentListenerWaitsForNothing(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		rs := with(mesh(), urgent("in", "1"))
		p := synced(t, delta, rs)
		// A rejected cluster, a listener that waits for a new cluster, and an
		// unanswered listener response.
		next := with(rs, cl("b", "bad"), cl("c", "1"), ep("a", "2"), ls("x", "1", toCluster("c")), ls("out", "2", toRoute("r")))
		p.view(next...)
		for _, r := range p.next() {
			if r.url == cds {
				p.answer(r, "b: bad")
			}
		}
		p.next()
		deny := urgent("in", "2", toCluster("c"))
		p.view(with(next, deny)...)
		var sent *response
		for _, r := range p.next() {
			if r.url == lds {
				sent = r
			}
		}
		if sent == nil {
			t.Fatal("the deny waits")
		}
		carries(t, sent, deny)
		if delta && line(sent) != "LDS +in" {
			t.Fatalf("the deny travels with others: %s", line(sent))
		}
		// And the next one does not wait for this one's answer.
		p.view(with(next, urgent("in", "3"))...)
		var again *response
		for _, r := range p.next() {
			if r.url == lds {
				again = r
			}
		}
		if again == nil {
			t.Fatal("the second deny waits")
		}
		carries(t, again, urgent("in", "3"))
		if !delta {
			carries(t, again, ls("out", "2", toRoute("r")))
		}
		p.ack(sent)
		p.ack(again)
		if got := p.c.types[lds].held["in"].version; got != urgent("in", "3").Version {
			t.Fatal("the client's version is not recorded")
		}
	})
}

func TestUrgentResponsesAreBounded(t *testing.T) {
	p := synced(t, true, with(mesh(), urgent("in", "1")))
	n := 0
	for i := range 50 {
		p.view(with(mesh(), urgent("in", time.Duration(i).String()))...)
		n += len(p.next())
	}
	if n > maxUrgent+1 {
		t.Fatalf("%d responses to a client that does not answer", n)
	}
	p.settle()
	if p.c.types[lds].held["in"].version != urgent("in", "49ns").Version {
		t.Fatal("the last change did not arrive")
	}
}

func TestNewUrgentListenerWaitsLikeAnyOther(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), cl("c", "1"), urgent("new", "1", toCluster("c")))...)
	expect(t, p.next(), "CDS +c")
}

func TestSkippedAnswersDoNotLoseChanges(t *testing.T) {
	p := synced(t, true, with(mesh(), urgent("in", "1")))
	p.view(with(mesh(), urgent("in", "1"), ls("out", "2", toRoute("r")))...)
	p.next()
	p.view(with(mesh(), urgent("in", "2"), ls("out", "2", toRoute("r")))...)
	second := p.next()
	expect(t, second, "LDS +in")
	p.request(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: lds, ResponseNonce: second[0].nonce})
	expect(t, p.next(), "LDS +out")
}

func TestClusterOnItsWayOutIsNotReady(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(without(mesh(), cds, "b")...)
		removal := p.next()
		// It returns, and a route names it, before the client has answered.
		p.view(with(mesh(), rt("r", "2", "b"))...)
		for _, r := range p.next() {
			if r.url == rds {
				t.Fatal("the route names a cluster that is about to go")
			}
		}
		p.ack(removal...)
		p.settle()
		if p.c.types[rds].held["r"].version != rt("r", "2", "b").Version {
			t.Fatal("the route never came")
		}
	})
}

// A cluster whose change is on its way goes from the view and comes back: the
// client, which warms the changed cluster, still gets its endpoints.
func TestClusterThatReturnsWhileItsChangeIsOnItsWayGetsItsEndpoints(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		p.view(with(mesh(), ep("b", "2"))...)
		endpoints := p.next()
		changed := with(mesh(), ep("b", "2"), cl("a", "2"))
		p.view(changed...)
		clusters := p.next()
		p.view(without(without(changed, cds, "a"), eds, "a")...)
		p.next()
		p.ack(endpoints...)
		after := p.next()
		p.view(changed...)
		p.ack(clusters...)
		after = append(after, p.settle()...)
		for _, r := range after {
			for _, u := range r.upserts {
				if r.url == eds && u.Name == "a" {
					return
				}
			}
		}
		t.Fatal("no endpoints of a were sent after its change")
	})
}

func TestRetriedListenersAreNotHeldAgain(t *testing.T) {
	p := synced(t, true, mesh())
	p.view(with(mesh(), cl("c", "1"), ls("x", "1", toCluster("c")), ls("y", "1", toCluster("c")))...)
	p.next()
	p.now = p.now.Add(5 * time.Second)
	got := p.next()
	expect(t, got, "LDS +x +y")
	p.answer(got[0], "x: no")
	for _, r := range p.settle() {
		if line(r) == "LDS +y" {
			return
		}
	}
	t.Fatal("the good listener was lost")
}
