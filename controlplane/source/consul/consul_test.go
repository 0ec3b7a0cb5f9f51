package consul

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bad entry keeps the last good one; one that never was good is broken, never
// absent.
func TestBadEntriesAreNeverAbsent(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	const good = `{"Kind":"service-intentions","Name":"api","Sources":[{"Name":"web","Action":"deny","Precedence":9,"Type":"consul"}],"CreateIndex":1,"ModifyIndex":1}`
	const bad = `{"Kind":"service-intentions","Name":"api","Sources":[{"Name":"web","Action":"maybe","Precedence":9,"Type":"consul"}],"CreateIndex":1,"ModifyIndex":2}`
	key := catalog.Entry(api.ServiceIntentions, "api")
	raws := func(list ...string) (out []json.RawMessage) {
		for _, x := range list {
			out = append(out, json.RawMessage(x))
		}
		return out
	}
	st := &kindState{}
	u := s.changes(api.ServiceIntentions, raws(bad), st, 1)
	if len(u.Entries) != 0 || u.Broken[key] == "" || s.Status().Errors["entry service-intentions/api"] == "" {
		t.Fatalf("an entry that never was good: %+v, status %v", u, s.Status().Errors)
	}
	u = s.changes(api.ServiceIntentions, raws(good), st, 2)
	if len(u.Entries) != 1 || len(s.Status().Errors) != 0 {
		t.Fatalf("mended: %+v, status %v", u, s.Status().Errors)
	}
	u = s.changes(api.ServiceIntentions, raws(bad), st, 3)
	if len(u.Entries)+len(u.Broken)+len(u.DeletedEntries) != 0 || len(s.Status().Errors) != 1 {
		t.Fatalf("the last good one must stand: %+v", u)
	}
	u = s.changes(api.ServiceIntentions, nil, st, 4)
	if len(u.DeletedEntries) != 1 || u.DeletedEntries[0] != key || len(s.Status().Errors) != 0 {
		t.Fatalf("deleted: %+v", u)
	}
}

func TestFilteredAnswersAreErrors(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if s.check("services", catalogRule, &api.QueryMeta{ResultsFilteredByACLs: true}) == nil {
		t.Error("a filtered answer was taken for a fact")
	}
	if s.check("services", catalogRule, &api.QueryMeta{DefaultACLPolicy: "deny"}) == nil {
		t.Error("an answer without a token under default deny was taken for a fact")
	}
	if err := s.check("services", catalogRule, &api.QueryMeta{}); err != nil {
		t.Error(err)
	}
}
