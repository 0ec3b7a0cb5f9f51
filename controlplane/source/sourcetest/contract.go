package sourcetest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// World is what a source reads, in a test's hands.
type World interface {
	// PutService adds or replaces a service and a sidecar of it, on a port.
	PutService(name string, port int)
	// RemoveService removes both.
	RemoveService(name string)
	PutEntry(e api.ConfigEntry)
	DeleteEntry(kind, name string)
	// Break makes the world unreadable, in the manner typical of it; Mend ends
	// that.
	Break()
	Mend()
}

// Setup returns an empty world and a source that reads it.
type Setup func(t *testing.T) (World, func() source.Source)

// Contract checks the rules of source.Source.
func Contract(t *testing.T, setup Setup) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, World, func() source.Source)
	}{
		{"full set first", fullFirst},
		{"changes", changes},
		{"explicit deletion", deletion},
		{"no false empty", noFalseEmpty},
		{"nothing sent for nothing", quiet},
		{"started again", again},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := setup(t)
			c.run(t, w, s)
		})
	}
}

func defaults(name, protocol string) api.ConfigEntry {
	return &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: name, Protocol: protocol}
}

func intentions(name string, action api.IntentionAction) api.ConfigEntry {
	return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: name,
		Sources: []*api.SourceIntention{{Name: "web", Action: action}}}
}

func populate(w World) {
	w.PutService("api", 21001)
	w.PutService("db", 21002)
	w.PutEntry(defaults("api", "http"))
	w.PutEntry(intentions("api", api.IntentionActionAllow))
}

func whole(s State) bool {
	a, _ := s.Service("api")
	d, _ := s.Service("db")
	return len(a) == 1 && len(d) == 1 && len(s.Entries) == 2
}

func protocolOf(s State, name string) string {
	if e, ok := s.Entries[catalog.Entry(api.ServiceDefaults, name)].(*api.ServiceConfigEntry); ok {
		return e.Protocol
	}
	return ""
}

func fullFirst(t *testing.T, w World, make func() source.Source) {
	populate(w)
	s := make()
	if s.Status().Synced {
		t.Error("synced before Run")
	}
	r := Start(t, s)
	r.Until("everything", whole)
	first := r.Updates()[0]
	if !first.Full || len(first.Entries) != 2 {
		t.Errorf("the first update does not hold everything: %+v", first)
	}
	st := UntilStatus(t, s, "synced", func(st source.Status) bool { return st.Synced })
	if st.Kind == "" || st.Where == "" || st.LastSuccess.IsZero() || len(st.Errors) > 0 {
		t.Errorf("status %+v", st)
	}
	l, _ := r.State().Service("api")
	i := l[0]
	if i.Port != 21001 || i.Address == "" || i.Proxy == nil || i.Proxy.DestinationServiceName != "api" ||
		i.Entry == nil || i.Entry.Service.Kind != api.ServiceKindConnectProxy || i.PassingWeight != 1 {
		t.Errorf("instance %+v", i)
	}
}

func changes(t *testing.T, w World, make func() source.Source) {
	populate(w)
	r := Start(t, make())
	r.Until("everything", whole)
	w.PutService("web", 21003)
	r.Until("a new service", func(s State) bool { l, _ := s.Service("web"); return len(l) == 1 })
	w.PutService("api", 21009)
	r.Until("a moved service", func(s State) bool {
		l, _ := s.Service("api")
		return len(l) == 1 && l[0].Port == 21009
	})
	w.PutEntry(defaults("api", "grpc"))
	r.Until("a changed entry", func(s State) bool { return protocolOf(s, "api") == "grpc" })
	w.PutEntry(intentions("db", api.IntentionActionDeny))
	r.Until("a new entry", func(s State) bool {
		_, ok := s.Entries[catalog.Entry(api.ServiceIntentions, "db")]
		return ok
	})
	for _, u := range r.Updates()[1:] {
		if u.Full {
			t.Error("a change was sent as a full set")
		}
		if n := len(u.Instances); n > 1 {
			t.Errorf("an update has %d services, the change was of one", n)
		}
	}
}

func deletion(t *testing.T, w World, make func() source.Source) {
	populate(w)
	r := Start(t, make())
	r.Until("everything", whole)
	w.DeleteEntry(api.ServiceIntentions, "api")
	r.Until("an entry deleted", func(s State) bool { return len(s.Entries) == 1 })
	w.RemoveService("db")
	r.Until("a service deleted", func(s State) bool { l, _ := s.Service("db"); return len(l) == 0 })
	s := r.Until("the name deleted", func(s State) bool { _, known := s.Service("db"); return !known })
	if l, _ := s.Service("api"); len(l) != 1 {
		t.Error("another service was deleted too")
	}
}

func noFalseEmpty(t *testing.T, w World, make func() source.Source) {
	populate(w)
	src := make()
	r := Start(t, src)
	r.Until("everything", whole)
	w.Break()
	st := UntilStatus(t, src, "an error", func(st source.Status) bool { return len(st.Errors) > 0 })
	for k, v := range st.Errors {
		if k == "" || len(strings.Fields(v)) < 3 {
			t.Errorf("error %q: %q says nothing", k, v)
		}
	}
	if !st.Synced {
		t.Error("not synced any more: the last state still stands")
	}
	r.Never("a loss", 500*time.Millisecond, func(s State) bool { return !whole(s) })
	w.Mend()
	w.PutEntry(defaults("api", "http2"))
	r.Until("a change after mending", func(s State) bool { return protocolOf(s, "api") == "http2" })
	if !whole(r.State()) {
		t.Errorf("lost: %s", r.State())
	}
	UntilStatus(t, src, "no error", func(st source.Status) bool { return len(st.Errors) == 0 })
}

func quiet(t *testing.T, w World, make func() source.Source) {
	populate(w)
	r := Start(t, make())
	r.Until("everything", whole)
	w.PutEntry(defaults("api", "http"))
	w.PutService("api", 21001)
	r.Never("an update", time.Second, func(s State) bool { return s.Updates > 1 && !lastIsEmptyForContent(r) })
}

// lastIsEmptyForContent allows updates that repeat what was said; the store
// ignores them.
func lastIsEmptyForContent(r *Recorder) bool {
	all := r.Updates()
	first := NewRecorder(r.t)
	first.apply(all[0])
	for _, u := range all[1:] {
		for n, l := range u.Instances {
			// Checks may still be settling; what peers see must not move.
			if !slices.EqualFunc(l, first.state.Instances[n], func(a, b *catalog.Instance) bool {
				return a.Key() == b.Key() && a.Address == b.Address && a.Port == b.Port && a.PassingWeight == b.PassingWeight
			}) {
				return false
			}
		}
		for _, e := range u.Entries {
			if !catalog.EqualEntries(e, first.state.Entries[catalog.KeyOf(e)]) {
				return false
			}
		}
		if len(u.DeletedServices)+len(u.DeletedEntries)+len(u.Broken) > 0 {
			return false
		}
	}
	return true
}

func again(t *testing.T, w World, make func() source.Source) {
	populate(w)
	Start(t, make()).Until("everything", whole)
	w.DeleteEntry(api.ServiceIntentions, "api")
	r := Start(t, make())
	r.Until("what is left", func(s State) bool { return len(s.Entries) == 1 && len(s.Instances) >= 2 })
}
