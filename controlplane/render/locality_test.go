package render

import (
	"fmt"
	"strings"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/compile"
)

// TestNearest: priorities by zone and region, without gaps, where they are asked for.
func TestNearest(t *testing.T) {
	at := func(addr, region, zone string) *catalog.Instance {
		i := &catalog.Instance{ID: addr, Address: addr, Port: 1, PassingWeight: 1, Entry: &api.ServiceEntry{
			Node: &api.Node{}, Service: &api.AgentService{}}}
		if region != "" {
			i.Entry.Node.Locality = &api.Locality{Region: region, Zone: zone}
		}
		return i
	}
	everywhere := []*catalog.Instance{at("10.0.0.1", "", ""), at("10.0.0.2", "us", "a"), at("10.0.0.3", "eu", "b"), at("10.0.0.4", "eu", "a"), at("10.0.0.5", "eu", "c")}
	on := &api.ServiceResolverPrioritizeByLocality{Mode: "failover"}
	defaults := &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: "global", PrioritizeByLocality: on}
	resolver := func(p *api.ServiceResolverPrioritizeByLocality) api.ConfigEntry {
		return &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "api", PrioritizeByLocality: p}
	}
	home := api.Locality{Region: "eu", Zone: "a"}
	const near = "eu/a 0, eu/b 1, eu/c 1, / 2, us/a 2"
	const flat = "/ 0, eu/a 0, eu/b 0, eu/c 0, us/a 0"
	for name, tc := range map[string]struct {
		entries   []api.ConfigEntry
		from      api.Locality
		instances []*catalog.Instance
		want      string
	}{
		"not asked for":            {nil, home, everywhere, flat},
		"the resolver asks":        {[]api.ConfigEntry{resolver(on)}, home, everywhere, near},
		"proxy-defaults ask":       {[]api.ConfigEntry{defaults}, home, everywhere, near},
		"the resolver says none":   {[]api.ConfigEntry{defaults, resolver(&api.ServiceResolverPrioritizeByLocality{Mode: "none"})}, home, everywhere, flat},
		"the resolver says nought": {[]api.ConfigEntry{defaults, resolver(&api.ServiceResolverPrioritizeByLocality{})}, home, everywhere, near},
		"the caller is nowhere":    {[]api.ConfigEntry{defaults}, api.Locality{}, everywhere, flat},
		"nobody in the zone":       {[]api.ConfigEntry{defaults}, api.Locality{Region: "eu", Zone: "z"}, everywhere, "eu/a 0, eu/b 0, eu/c 0, / 1, us/a 1"},
		"nobody in the region":     {[]api.ConfigEntry{defaults}, home, everywhere[:2], "/ 0, us/a 0"},
		"a gap":                    {[]api.ConfigEntry{defaults}, home, []*catalog.Instance{everywhere[3], everywhere[1]}, "eu/a 0, us/a 1"},
	} {
		t.Run(name, func(t *testing.T) {
			env := environment(t, tc.entries...)
			chain, _, err := compile.CompileChain(snapshot(tc.entries...), catalog.NewName("dc1", "api"))
			if err != nil {
				t.Fatal(err)
			}
			r, problems, err := NewCache().Endpoints(env, chain.Targets["api.default.default.dc1"], tc.instances, tc.from)
			if err != nil || len(problems) > 0 {
				t.Fatal(err, problems)
			}
			var have []string
			for _, l := range body[*endpointv3.ClusterLoadAssignment](t, r).Endpoints {
				have = append(have, fmt.Sprintf("%s/%s %d", l.Locality.Region, l.Locality.Zone, l.Priority))
			}
			if s := strings.Join(have, ", "); s != tc.want {
				t.Errorf("have %s, want %s", s, tc.want)
			}
		})
	}
}
