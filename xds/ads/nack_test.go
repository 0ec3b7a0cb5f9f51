package ads

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// judge answers everything until nothing is sent any more: a response is
// rejected when it carries a resource in a version that is bad. It returns what
// was sent.
func (p *driver) judge(bad ...*resource.Resource) (all []*response) {
	p.t.Helper()
	isBad := func(r *resource.Resource) bool {
		return slices.ContainsFunc(bad, func(b *resource.Resource) bool {
			return b.Type == r.Type && b.Name == r.Name && b.Version == r.Version
		})
	}
	for range 500 {
		all = append(all, p.next()...)
		if len(p.open) == 0 {
			return all
		}
		for _, r := range slices.Clone(p.open) {
			if slices.ContainsFunc(r.upserts, isBad) {
				p.answer(r, "something is wrong")
			} else {
				p.ack(r)
			}
		}
	}
	p.t.Fatalf("does not settle: %v", lines(all[len(all)-5:]))
	return nil
}

func TestRejectedBatchIsRetriedOneResourceAResponse(t *testing.T) {
	p := newDriver(t, true, set(cl("a", "1"), cl("b", "1"), cl("c", "1")))
	p.subscribe(cds)
	// The last, empty response says that nothing more follows.
	expect(t, p.judge(cl("b", "1")), "CDS +a +b +c", "CDS +a", "CDS +b", "CDS +c")
	ts := p.c.types[cds]
	if len(ts.held) != 2 || ts.nacked["b"].version != cl("b", "1").Version {
		t.Fatalf("held %v, nacked %v", ts.held, ts.nacked)
	}
}

func TestNamesTheClientBlamesAreRetriedLast(t *testing.T) {
	p := newDriver(t, true, set(cl("a", "1"), cl("b", "1"), cl("c", "1")))
	p.subscribe(cds)
	p.answer(p.next()[0], "a: no")
	expect(t, p.settle(), "CDS +b", "CDS +c", "CDS +a")
}

func TestRejectedResourceIsQuarantinedUntilItsContentChanges(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		bad := ep("a", "bad")
		p.view(with(mesh(), bad)...)
		expect(t, p.judge(bad), "EDS +a")
		// Neither other changes nor the same content again bring it back.
		p.view(with(mesh(), ep("a", "bad"), ep("b", "2"))...)
		expect(t, p.judge(bad), "EDS +b")
		p.view(with(mesh(), ep("a", "2"), ep("b", "2"))...)
		expect(t, p.judge(bad), "EDS +a")
		if len(p.c.types[eds].nacked) > 0 || p.c.types[eds].lastError != "" {
			t.Fatal("the rejection outlives its reason")
		}
	})
}

func TestRejectedResourceBlocksNoOther(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := synced(t, delta, mesh())
		bad := cl("b", "bad")
		p.view(with(mesh(), bad, cl("a", "2"), cl("c", "1"), ep("a", "2"), ls("in", "2"), rt("r", "2", "a"))...)
		p.judge(bad)
		for _, r := range []*resource.Resource{cl("a", "2"), cl("c", "1"), cl("b", "1"), ep("a", "2"), ls("in", "2"), rt("r", "2", "a")} {
			if got := p.c.types[r.Type].held[r.Name].version; got != r.Version {
				t.Errorf("%s %s did not arrive", short[r.Type], r.Name)
			}
		}
	})
}

func TestSameResourceIsNeverRejectedTwiceAlone(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		var rs, bad []*resource.Resource
		for i := range 16 {
			rs = append(rs, cl(fmt.Sprint(i), "1"))
			if i%5 == 0 {
				bad = append(bad, rs[i])
			}
		}
		p := newDriver(t, delta, set(rs...))
		p.subscribe(cds)
		all := p.judge(bad...)
		if max := 40; len(all) > max {
			t.Errorf("%d responses, want at most %d", len(all), max)
		}
		if n := len(p.c.types[cds].held); n != 12 {
			t.Errorf("%d good resources arrived, want 12", n)
		}
		if n := len(p.c.types[cds].nacked); n != 4 {
			t.Errorf("%d quarantined, want 4", n)
		}
		expect(t, p.judge(bad...))
	})
}

func TestClientThatRejectsEverythingIsNotSpunOn(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(mesh()...))
		p.wildcards()
		p.also(eds, "a")
		p.also(rds, "r")
		n := 0
		for range 200 {
			for _, r := range p.next() {
				n++
				p.answer(r, "no")
			}
			p.now = p.now.Add(1e9)
		}
		if n > 20 {
			t.Fatalf("%d responses", n)
		}
		expect(t, p.next())
	})
}

func TestFullListStandsAtTheLastGoodVersion(t *testing.T) {
	p := synced(t, false, mesh())
	p.view(with(mesh(), cl("a", "bad"), cl("c", "bad"))...)
	all := p.judge(cl("a", "bad"), cl("c", "bad"))
	last := all[len(all)-1]
	for _, r := range all {
		if r.url == cds {
			last = r
		}
	}
	// The new bad one is absent, the changed one as it was: a list without it
	// would remove it.
	expect(t, []*response{last}, "CDS +a +b")
	carries(t, last, cl("a", "1"))
	p.view(with(mesh(), cl("a", "bad"), cl("c", "bad"), cl("b", "2"))...)
	got := p.next()
	expect(t, got[:1], "CDS +a +b")
	carries(t, got[0], cl("a", "1"))
	carries(t, got[0], cl("b", "2"))
}

func TestFullListsAreBisected(t *testing.T) {
	var rs []*resource.Resource
	for i := range 1000 {
		rs = append(rs, cl(fmt.Sprintf("%04d", i), "1"))
	}
	p := newDriver(t, false, set(rs...))
	p.subscribe(cds)
	all := p.judge(rs[333])
	if len(all) > 25 {
		t.Fatalf("%d full lists of 1,000", len(all))
	}
	if len(p.c.types[cds].held) != 999 {
		t.Fatal("a good resource is missing")
	}
}

func TestListThatIsRejectedAtItsLastGoodVersionIsNotRepeated(t *testing.T) {
	p := synced(t, false, mesh())
	p.view(with(mesh(), cl("a", "2"))...)
	n := 0
	for range 20 {
		for _, r := range p.next() {
			if n++; r.url == cds {
				p.answer(r, "I like none of it")
			} else {
				p.ack(r)
			}
		}
	}
	if n > 4 {
		t.Fatalf("%d responses", n)
	}
}

func TestResubscribeToAQuarantinedNameGetsTheLastGoodOrNothing(t *testing.T) {
	p := synced(t, true, mesh())
	bad := rt("r", "bad", "a")
	p.view(with(mesh(), bad, rt("s", "bad"))...)
	p.also(rds, "s")
	p.judge(bad, rt("s", "bad"))
	p.subscribe(rds, "r")
	got := p.settle()
	expect(t, got, "RDS +r")
	carries(t, got[0], rt("r", "1", "a"))
	p.subscribe(rds, "s")
	expect(t, p.settle(), "RDS -s")
	if len(p.c.types[rds].nacked) != 2 {
		t.Fatal("the answer lifted the quarantine")
	}
}

func TestQuarantinedEndpointsAreNotSentAgainWithTheirCluster(t *testing.T) {
	p := synced(t, true, mesh())
	bad := ep("a", "bad")
	p.view(with(mesh(), bad)...)
	p.judge(bad)
	p.view(with(mesh(), bad, cl("a", "2"))...)
	got := p.settle()
	expect(t, got, "CDS +a", "EDS +a")
	carries(t, got[1], ep("a", "1"))
}

func TestListenerIsTriedOnceMoreWhenAnotherIsGone(t *testing.T) {
	both(t, func(t *testing.T, delta bool) {
		rs := with(mesh(), ls("old:9191", "1"))
		p := synced(t, delta, rs)
		// The new listener takes the address of the one that goes.
		taken := ls("new:9191", "1")
		p.view(with(mesh(), taken)...)
		for range 20 {
			for _, r := range p.next() {
				_, old := p.c.types[lds].held["old:9191"]
				has := slices.ContainsFunc(r.upserts, func(u *resource.Resource) bool { return u.Name == taken.Name })
				if r.url == lds && has && old {
					p.answer(r, "address in use")
				} else {
					p.ack(r)
				}
			}
		}
		if _, ok := p.c.types[lds].held[taken.Name]; !ok || len(p.c.types[lds].nacked) > 0 {
			t.Fatal("the listener never came")
		}
	})
}

func TestNewContentDoesNotWaitForRetries(t *testing.T) {
	var rs []*resource.Resource
	for i := range 50 {
		rs = append(rs, ep(fmt.Sprintf("%02d", i), "1"))
	}
	p := newDriver(t, true, set(rs...))
	p.subscribe(eds, "*")
	p.answer(p.next()[0], "no")
	fresh := ep("fresh", "1")
	p.view(append(rs, fresh)...)
	p.ack(p.next()...) // one retry or the new content
	p.next()
	for _, r := range []int{0, 1} {
		_ = r
		if _, ok := p.c.types[eds].held["fresh"]; ok {
			break
		}
		p.ack(p.open...)
		p.next()
	}
	if _, ok := p.c.types[eds].held["fresh"]; !ok {
		t.Fatal("new content waits behind retries")
	}
	p.settle()
	if len(p.c.types[eds].held) != 51 {
		t.Fatal("new content starved the retries")
	}
}

func TestUrgentSuspectsAreRetriedAtOnceAndAlone(t *testing.T) {
	rs := with(mesh(), urgent("in", "1"), urgent("in2", "1"))
	p := synced(t, true, rs)
	bad := urgent("in", "bad")
	p.view(with(rs, bad, urgent("in2", "2"))...)
	first := p.next()
	expect(t, first, "LDS +in +in2")
	p.answer(first[0], "no")
	expect(t, p.next(), "LDS +in", "LDS +in2")
	for _, r := range slices.Clone(p.open) {
		if r.upserts[0].Name == "in" {
			p.answer(r, "no")
		} else {
			p.ack(r)
		}
	}
	p.settle()
	if p.c.types[lds].held["in2"].version != urgent("in2", "2").Version {
		t.Fatal("the good deny did not arrive")
	}
}

func TestInnocentUrgentListenerIsNotConvictedWithAFullList(t *testing.T) {
	rs := with(mesh(), urgent("in", "1"))
	p := synced(t, false, rs)
	bad := ls("out", "bad", toRoute("r"))
	p.view(with(rs, bad)...)
	first := p.next()
	p.view(with(rs, bad, urgent("in", "2"))...)
	second := p.next()
	p.answer(first[0], "no")
	p.answer(second[0], "no") // it carries the bad one too
	p.judge(bad)
	ts := p.c.types[lds]
	if ts.held["in"].version != urgent("in", "2").Version {
		t.Fatal("the deny was convicted with the bad listener")
	}
	if ts.nacked["out"].version != bad.Version || len(ts.nacked) != 1 {
		t.Fatalf("nacked %v", ts.nacked)
	}
}

func TestStatusTellsWhereEachResourceStands(t *testing.T) {
	p := synced(t, true, mesh())
	bad := cl("b", "bad")
	p.view(with(without(mesh(), lds, "in"), bad, cl("c", "1"), rt("r", "2", "c"), ep("a", "2"))...)
	p.also(rds, "none")
	for _, r := range p.next() {
		if r.url == cds {
			p.answer(r, "b: bad")
		}
	}
	p.ack(p.next()...) // c
	p.answer(p.next()[0], "b: bad")
	p.next()
	states := map[string]ResourceState{}
	for _, st := range p.c.status(true, p.now) {
		for _, r := range st.Resources {
			states[short[st.Type]+" "+r.Name] = r.State
			if r.State == StateNacked && r.Error != "b: bad" {
				t.Errorf("error %q", r.Error)
			}
		}
		if st.Type == cds && (st.Subscribed != 3 || st.Acked != 2 || st.Nacked != 1 || st.LastError != "b: bad" || !st.Wildcard) {
			t.Errorf("CDS %+v", st)
		}
	}
	for name, want := range map[string]ResourceState{
		"CDS a": StateAcked, "CDS b": StateNacked, "CDS c": StateAcked, "EDS a": StateSent, "EDS b": StateAcked,
		"LDS in": StateRemoving, "LDS out": StateAcked, "RDS r": StateHeld, "RDS none": StateAbsent,
	} {
		if states[name] != want {
			t.Errorf("%s is %q, want %q", name, states[name], want)
		}
	}
}

func TestWhatTheClientMayHaveKeptOfARejectedBatchIsNotForgotten(t *testing.T) {
	t.Run("removed", func(t *testing.T) {
		p := synced(t, true, mesh())
		p.view(with(mesh(), ls("x", "1"), ls("y", "bad"))...)
		p.answer(p.next()[0], "y: bad") // x was kept
		p.view(mesh()...)
		expect(t, p.settle(), "LDS -x -y")
	})
	t.Run("reverted", func(t *testing.T) {
		p := synced(t, true, mesh())
		p.view(with(mesh(), ep("a", "2"), ep("b", "bad"))...)
		p.answer(p.next()[0], "b: bad") // a was kept
		p.view(mesh()...)
		expect(t, p.settle(), "EDS +a +b")
		expect(t, p.settle())
	})
	t.Run("named", func(t *testing.T) {
		p := synced(t, true, mesh())
		p.view(with(mesh(), rt("r", "2", "b"), rt("s", "1", "b"))...)
		p.also(rds, "s")
		first := p.next()
		expect(t, first, "RDS +r +s")
		p.answer(first[0], "s: bad") // r was kept: the client routes to b
		bad := rt("r", "bad", "a")
		p.view(with(without(mesh(), cds, "b"), bad, rt("s", "2", "a"))...)
		for _, r := range p.judge(bad) {
			if r.url == cds && len(r.removed) > 0 {
				t.Fatal("removed a cluster that the client may still route to")
			}
		}
	})
	t.Run("rejected alone", func(t *testing.T) {
		p := synced(t, true, mesh())
		p.view(with(mesh(), ls("x", "1"), ls("y", "bad"))...)
		p.judge(ls("y", "bad"))
		p.view(with(mesh(), ls("x", "1"))...)
		expect(t, p.settle())
	})
}

// A client chooses the reason it gives: of a long one, which may have megabytes,
// the beginning is kept and logged.
func TestReasonsOfRejectionAreClipped(t *testing.T) {
	p := newDriver(t, true, set(cl("a", "1")))
	p.subscribe(cds)
	long := strings.Repeat("ü", 100_000)
	ts := p.c.types[cds]
	r := p.next()[0]
	ev := p.c.answered(ts, r.nonce, true, long, p.now)
	for what, kept := range map[string]string{"the last error": ts.lastError, "the resource's": ts.nacked["a"].detail, "the event's": ev.detail} {
		if kept == "" || len(kept) > maxDetail+len(" …") || !utf8.ValidString(kept) {
			t.Errorf("%s has %d bytes", what, len(kept))
		}
	}
}
