package ads

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// TestFallback: a change of a listener that its client rejects comes without what the client may
// have no use for, each time anew, and what is left of it is not sent without end.
func TestFallback(t *testing.T) {
	of := func(v string) *resource.Resource {
		r := urgent("in", "all of "+v)
		r.Fallback = urgent("in", "the rules of "+v)
		return r
	}
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(of("1")))
		p.subscribe(lds)
		check := func(want *resource.Resource, lacks bool, bad ...*resource.Resource) {
			t.Helper()
			p.judge(bad...)
			if out := p.next(); len(out) > 0 {
				t.Errorf("sent again: %v", lines(out))
			}
			if got := p.c.types[lds].held["in"].version; got != want.Version {
				t.Errorf("the client has %s, want %s", got, want.Version)
			}
			st := p.c.status(true, p.now)[0]
			if (st.Nacked > 0) != lacks || (st.LastError != "") != lacks || (st.Resources[0].State != StateAcked) != lacks {
				t.Errorf("%+v", st)
			}
		}
		check(of("1"), false)
		p.view(of("2"))
		check(of("2").Fallback, true, of("2"))
		p.view(of("3"))
		check(of("3").Fallback, true, of("2"), of("3"))
		p.view(of("4"))
		check(of("4"), false)
		p.view(of("5"))
		check(of("4"), true, of("5"), of("5").Fallback)
		p.view(of("6"))
		check(of("6"), false)
	})
	// What the client never had stays away as a whole: nobody asked for a part of it.
	both(t, func(t *testing.T, delta bool) {
		p := newDriver(t, delta, set(of("1")))
		p.subscribe(lds)
		p.judge(of("1"))
		if len(p.c.types[lds].held) > 0 {
			t.Errorf("the client has %v", p.c.types[lds].held)
		}
	})
}
