package compile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"pgregory.net/rapid"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

func snapshot(entries ...api.ConfigEntry) *catalog.Snapshot {
	s := &catalog.Snapshot{Datacenter: "dc1", TrustDomain: "test.mesh", Entries: map[catalog.EntryKey]api.ConfigEntry{}}
	for _, e := range entries {
		s.Entries[catalog.KeyOf(e)] = e
	}
	return s
}

func httpDefaults(names ...string) []api.ConfigEntry {
	var out []api.ConfigEntry
	for _, n := range names {
		out = append(out, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: n, Protocol: "http"})
	}
	return out
}

// sketch renders a chain as short lines, so that a table row reads like intent.
func sketch(c *Chain) []string {
	var out []string
	for _, r := range c.Routes {
		line := "*"
		if r.Match != nil {
			line = r.Match.PathPrefix + r.Match.PathExact + r.Match.PathRegex
		}
		for _, s := range r.Splits {
			res := c.Resolvers[s.Resolver]
			line += " " + strings.TrimSuffix(s.Resolver, ".default.default.dc1")
			if s.Weight != 10000 {
				line += "=" + time.Duration(s.Weight).String()
			}
			for _, f := range res.Failover {
				line += " else " + strings.TrimSuffix(f, ".default.default.dc1")
			}
		}
		out = append(out, line)
	}
	return out
}

func TestChains(t *testing.T) {
	subsets := func(name string, names ...string) *api.ServiceResolverConfigEntry {
		r := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: name, Subsets: map[string]api.ServiceResolverSubset{}}
		for _, n := range names {
			r.Subsets[n] = api.ServiceResolverSubset{Filter: "Service.Meta.version == " + n}
		}
		return r
	}
	with := func(r *api.ServiceResolverConfigEntry, f func(*api.ServiceResolverConfigEntry)) *api.ServiceResolverConfigEntry {
		f(r)
		return r
	}
	tests := []struct {
		name    string
		entries []api.ConfigEntry
		want    []string
		err     string
	}{
		{name: "nothing configured", want: []string{"* api"}},
		{
			name: "router to a subset, another service and the implied rest",
			entries: append(httpDefaults("api", "admin"), subsets("api", "v1"), &api.ServiceRouterConfigEntry{
				Kind: api.ServiceRouter, Name: "api", Routes: []api.ServiceRoute{
					{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/v1"}}, Destination: &api.ServiceRouteDestination{ServiceSubset: "v1"}},
					{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathExact: "/admin"}}, Destination: &api.ServiceRouteDestination{Service: "admin"}},
				}}),
			want: []string{"/v1 v1.api", "/admin admin", "* api"},
		},
		{
			name: "splitters nest and weights multiply",
			entries: append(httpDefaults("api", "next"), subsets("api", "v1"), subsets("next", "a", "b"),
				&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "api", Splits: []api.ServiceSplit{
					{Weight: 90, ServiceSubset: "v1"}, {Weight: 10, Service: "next"}}},
				&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "next", Splits: []api.ServiceSplit{
					{Weight: 50, ServiceSubset: "a"}, {Weight: 50, ServiceSubset: "b"}}}),
			want: []string{"* v1.api=9µs a.next=500ns b.next=500ns"},
		},
		{
			name: "a splitter's leg to its own service ends at the resolver",
			entries: append(httpDefaults("api", "next"),
				&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "api", Splits: []api.ServiceSplit{
					{Weight: 75, Service: "api"}, {Weight: 25, Service: "next"}}}),
			want: []string{"* api=7.5µs next=2.5µs"},
		},
		{
			name: "redirect, then default subset, then failover of the final target",
			entries: []api.ConfigEntry{
				&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api", Redirect: &api.ServiceResolverRedirect{Service: "next"}},
				with(subsets("next", "v2"), func(r *api.ServiceResolverConfigEntry) {
					r.DefaultSubset = "v2"
					r.Failover = map[string]api.ServiceResolverFailover{"*": {Service: "backup"}}
				}),
				&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "backup",
					Failover: map[string]api.ServiceResolverFailover{"*": {Service: "never"}}},
			},
			want: []string{"* v2.next else backup"},
		},
		{
			name: "failover over datacenters drops itself",
			entries: []api.ConfigEntry{&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api",
				Failover: map[string]api.ServiceResolverFailover{"*": {Datacenters: []string{"dc1", "dc2"}}}}},
			want: []string{"* api else api.default.default.dc2"},
		},
		{
			name: "redirect loop",
			entries: []api.ConfigEntry{
				&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api", Redirect: &api.ServiceResolverRedirect{Service: "next"}},
				&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "next", Redirect: &api.ServiceResolverRedirect{Service: "api"}}},
			err: "form a loop",
		},
		{
			name: "splitter loop",
			entries: append(httpDefaults("api", "next"),
				&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "api", Splits: []api.ServiceSplit{{Weight: 100, Service: "next"}}},
				&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "next", Splits: []api.ServiceSplit{{Weight: 100, Service: "api"}}}),
			err: "lead back to it",
		},
		{
			name:    "unknown subset",
			entries: append(httpDefaults("api"), &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "api", Splits: []api.ServiceSplit{{Weight: 100, ServiceSubset: "v9"}}}),
			err:     `has no subset "v9"`,
		},
		{
			name:    "router on a tcp service",
			entries: []api.ConfigEntry{&api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "api"}},
			err:     "needs an http protocol",
		},
		{
			name: "protocols of one chain differ",
			entries: append(httpDefaults("api"), &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "api",
				Splits: []api.ServiceSplit{{Weight: 100, Service: "db"}}}),
			err: "all services of a chain need one protocol",
		},
		{
			name:    "unknown protocol",
			entries: []api.ConfigEntry{&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api", Protocol: "bogus"}},
			err:     `protocol "bogus"`,
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			chain, deps, err := CompileChain(snapshot(tc.entries...), catalog.NewName("dc1", "api"))
			if len(deps.Entries) == 0 {
				t.Error("no dependencies recorded")
			}
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, sketch(chain)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestProtocolDoesNotFallThroughServiceDefaults(t *testing.T) {
	global := &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: api.ProxyConfigGlobal, Config: map[string]any{"protocol": "http"}}
	name := catalog.NewName("dc1", "api")
	chain, _, err := CompileChain(snapshot(global), name)
	if err != nil || chain.Protocol != "http" {
		t.Fatalf("proxy-defaults alone: %v %v", chain, err)
	}
	chain, _, err = CompileChain(snapshot(global, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api"}), name)
	if err != nil || chain.Protocol != "tcp" {
		t.Fatalf("an empty service-defaults means tcp: %v %v", chain, err)
	}
}

func TestAuthorizationPrecedence(t *testing.T) {
	intention := func(dst string, sources ...*api.SourceIntention) api.ConfigEntry {
		return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: dst, Sources: sources}
	}
	allow := func(n string) *api.SourceIntention {
		return &api.SourceIntention{Name: n, Action: api.IntentionActionAllow}
	}
	deny := func(n string) *api.SourceIntention {
		return &api.SourceIntention{Name: n, Action: api.IntentionActionDeny}
	}
	snap := snapshot(
		intention("*", deny("*"), allow("web")),
		intention("api", allow("*"), deny("web"), deny("job")),
	)
	a, deps, err := CompileAuthorization(snap, catalog.NewName("dc1", "api"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range a.Rules {
		got = append(got, string(r.Action)+" "+r.Origin)
	}
	want := []string{
		"deny service-intentions/api Sources[2] (job)",
		"deny service-intentions/api Sources[1] (web)",
		"allow service-intentions/api Sources[0] (*)",
		"allow service-intentions/* Sources[1] (web)",
		"deny service-intentions/* Sources[0] (*)",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !deps.Touches(catalog.Dirty{Entries: map[catalog.EntryKey]struct{}{catalog.Entry(api.ServiceIntentions, "*"): {}}}) {
		t.Error("a change of the wildcard entry must recompile")
	}
}

func TestUnusableIntentionIsAnErrorNeverSkipped(t *testing.T) {
	name := catalog.NewName("dc1", "api")
	broken := snapshot()
	broken.Broken = map[catalog.EntryKey]string{catalog.Entry(api.ServiceIntentions, "api"): "cannot be decoded"}
	if _, _, err := CompileAuthorization(broken, name); err == nil || !strings.Contains(err.Error(), "cannot be decoded") {
		t.Errorf("broken entry: %v", err)
	}
	for field, s := range map[string]*api.SourceIntention{
		"Peer":          {Name: "web", Peer: "east", Action: api.IntentionActionDeny},
		"SamenessGroup": {Name: "web", SamenessGroup: "g", Action: api.IntentionActionDeny},
		"Action":        {Name: "web", Action: "maybe"},
		"JWT":           {Name: "web", Permissions: []*api.IntentionPermission{{Action: "allow", JWT: &api.IntentionJWTRequirement{}}}},
		"HTTP":          {Name: "web", Permissions: []*api.IntentionPermission{{Action: "allow"}}},
	} {
		e := &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "api", Sources: []*api.SourceIntention{s}}
		if _, _, err := CompileAuthorization(snapshot(e), name); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestWeightsAlwaysSumTo10000(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "legs")
		legs := make([]leg, n)
		for i := range legs {
			legs[i].share = float64(rapid.IntRange(1, 10000).Draw(t, "share")) / 10000
		}
		sum := uint32(0)
		for _, s := range whole(legs) {
			sum += s.Weight
		}
		if sum != 10000 {
			t.Fatalf("weights sum to %d", sum)
		}
	})
}

func TestOverridesSplitClusters(t *testing.T) {
	snap := snapshot(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "web", UpstreamConfig: &api.UpstreamConfiguration{
		Defaults:  &api.UpstreamConfig{ConnectTimeoutMs: 1000},
		Overrides: []*api.UpstreamConfig{{Name: "api", ConnectTimeoutMs: 2000}},
	}})
	web := catalog.NewName("dc1", "web")
	of := func(dst string) Overrides {
		o, _, err := CompileOverrides(snap, web, catalog.NewName("dc1", dst))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if of("api").ConnectTimeout != 2*time.Second || of("db").ConnectTimeout != time.Second {
		t.Errorf("api %v, db %v", of("api"), of("db"))
	}
	plain, _, err := CompileChain(snap, catalog.NewName("dc1", "api"))
	if err != nil {
		t.Fatal(err)
	}
	if plain.Customization != "" || plain.With(of("api")).Customization == plain.With(of("db")).Customization {
		t.Error("customization must tell the clusters of different overrides apart")
	}
}

// TestSplitterHeaders: a splitter that leads into another changes requests
// before it, so the inner one has the last word, and responses after it.
func TestSplitterHeaders(t *testing.T) {
	change := func(who string) *api.HTTPHeaderModifiers {
		return &api.HTTPHeaderModifiers{Set: map[string]string{"x": who, "x-" + who: "1"}, Add: map[string]string{"y": who}, Remove: []string{"z", "z-" + who}}
	}
	split := func(name, to, who string) *api.ServiceSplitterConfigEntry {
		return &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: name, Splits: []api.ServiceSplit{
			{Weight: 100, Service: to, RequestHeaders: change(who), ResponseHeaders: change(who)}}}
	}
	snap := &catalog.Snapshot{Datacenter: "dc1", Entries: map[catalog.EntryKey]api.ConfigEntry{}}
	for _, e := range []api.ConfigEntry{split("a", "b", "outer"), split("b", "c", "inner"),
		&api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", Config: map[string]any{"protocol": "http"}}} {
		snap.Entries[catalog.KeyOf(e)] = e
	}
	chain, _, err := CompileChain(snap, catalog.NewName("dc1", "a"))
	if err != nil {
		t.Fatal(err)
	}
	leg := chain.Routes[0].Splits[0]
	for what, c := range map[string]struct {
		have *api.HTTPHeaderModifiers
		last string
	}{"request": {leg.RequestHeaders, "inner"}, "response": {leg.ResponseHeaders, "outer"}} {
		if c.have.Set["x"] != c.last || c.have.Add["y"] != c.last || c.have.Set["x-inner"] != "1" || c.have.Set["x-outer"] != "1" {
			t.Errorf("%s headers %+v, the last word is not %s's", what, c.have, c.last)
		}
		if len(c.have.Remove) != 3 {
			t.Errorf("%s headers removed %q", what, c.have.Remove)
		}
	}
}
