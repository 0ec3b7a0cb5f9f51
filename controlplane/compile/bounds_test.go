package compile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// TestSplitsThatMultiply: splitters that lead to one another describe as many legs as there are
// ways through them, which is more than anybody has time for.
func TestSplitsThatMultiply(t *testing.T) {
	const layers = 40
	var names []string
	var entries []api.ConfigEntry
	for i := range layers {
		for _, side := range []string{"a", "b"} {
			name := fmt.Sprint(side, i)
			names = append(names, name)
			if i == layers-1 {
				continue
			}
			entries = append(entries, &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: name, Splits: []api.ServiceSplit{
				{Weight: 50, Service: fmt.Sprint("a", i+1)}, {Weight: 50, Service: fmt.Sprint("b", i+1)},
			}})
		}
	}
	s := snapshot(append(entries, httpDefaults(names...)...)...)
	began := time.Now()
	_, deps, err := CompileChain(s, catalog.NewName("dc1", "a0"))
	if err == nil || !strings.Contains(err.Error(), "legs") {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if _, ok := deps.Entries[catalog.Entry(api.ServiceSplitter, "a0")]; !ok {
		t.Error("to mend the entry would not compile the chain again")
	}
	if _, _, err := CompileChain(s, catalog.NewName("dc1", fmt.Sprint("a", layers-10))); err != nil {
		t.Errorf("512 legs: %v", err)
	}
}

// TestNamesOfEntriesHaveNoCase: intentions for Web are those of web, as Consul has it.
func TestNamesOfEntriesHaveNoCase(t *testing.T) {
	s := snapshot(
		&api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "Web", Sources: []*api.SourceIntention{{Name: "api", Action: api.IntentionActionDeny}}},
		&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "WEB", Protocol: "http"},
	)
	s.DefaultAllow = true
	for _, name := range []string{"web", "Web", "wEb"} {
		a, deps, err := CompileAuthorization(s, catalog.NewName("dc1", name))
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Rules) != 1 || a.Protocol != "http" {
			t.Errorf("%s: %d rules, protocol %s", name, len(a.Rules), a.Protocol)
		}
		var dirty catalog.Dirty
		dirty.Entries = map[catalog.EntryKey]struct{}{catalog.KeyOf(s.Entries[catalog.Entry(api.ServiceIntentions, "web")]): {}}
		if !deps.Touches(dirty) {
			t.Errorf("%s: a change of the entry would go unnoticed", name)
		}
	}
}
