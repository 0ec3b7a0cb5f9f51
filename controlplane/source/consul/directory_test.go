package consul

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

func app(id string, weight int, checks ...*api.HealthCheck) *api.ServiceEntry {
	return &api.ServiceEntry{Node: &api.Node{Node: "n1", Address: "10.0.0.1"}, Checks: checks, Service: &api.AgentService{
		ID: id, Service: "api", Port: 9000, Weights: api.AgentWeights{Passing: weight, Warning: 1},
	}}
}

func front(id, service string) *api.ServiceEntry {
	return &api.ServiceEntry{Node: &api.Node{Node: "n1", Address: "10.0.0.1"}, Service: &api.AgentService{
		Kind: api.ServiceKindConnectProxy, ID: id + "-sidecar-proxy", Service: service + "-sidecar-proxy", Port: 21000,
		Weights: api.AgentWeights{Passing: 1, Warning: 1},
		Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: service, DestinationServiceID: id, LocalServicePort: 9000,
			Upstreams: []api.Upstream{{DestinationName: "db", LocalBindPort: 9191, Config: map[string]any{"protocol": "tcp"}}}},
	}}
}

// line is what an update says, for comparison.
func line(instances map[catalog.Name][]*catalog.Instance, deleted []catalog.Name) string {
	var out []string
	for _, n := range slices.SortedFunc(maps.Keys(instances), func(a, b catalog.Name) int { return strings.Compare(a.Service, b.Service) }) {
		s := n.Service + ":"
		for _, i := range instances[n] {
			s += fmt.Sprintf(" %s/%v/%d", i.ID, i.Health, i.PassingWeight)
		}
		out = append(out, s)
	}
	for _, n := range deleted {
		out = append(out, "-"+n.Service)
	}
	return strings.Join(out, ", ")
}

// An endpoint is put together from two registrations under two names, read at
// two times, whichever comes or goes first.
func TestDirectory(t *testing.T) {
	d := newDirectory("dc1")
	maintenance := &api.HealthCheck{CheckID: api.ServiceMaintPrefix + "api-1", Status: api.HealthCritical}
	put := func(name string, entries ...*api.ServiceEntry) func() []string {
		return func() []string { return d.put(name, entries) }
	}
	drop := func(name string) func() []string { return func() []string { return d.drop(name) } }
	for i, step := range []struct {
		do   func() []string
		want string
	}{
		{put("api", app("api-1", 5)), "api:"},
		{put("api-sidecar-proxy", front("api-1", "api")), "api: api-1-sidecar-proxy/passing/5"},
		{put("api", app("api-1", 5)), ""},
		{put("api", app("api-1", 7)), "api: api-1-sidecar-proxy/passing/7"},
		{put("api", app("api-1", 7, maintenance)), "api: api-1-sidecar-proxy/maintenance/7"},
		{put("api", app("api-1", 7)), "api: api-1-sidecar-proxy/passing/7"},
		{put("api-sidecar-proxy", front("api-1", "api"), front("api-2", "api")), "api: api-1-sidecar-proxy/passing/7 api-2-sidecar-proxy/passing/1"},
		// A name may hold sidecars of several services, and one may move.
		{put("api-sidecar-proxy", front("api-1", "api"), front("web-1", "web")), "api: api-1-sidecar-proxy/passing/7, web: web-1-sidecar-proxy/passing/1"},
		{put("api-sidecar-proxy", front("api-1", "api")), "api:x"},
		{drop("api"), "api: api-1-sidecar-proxy/passing/1"},
		{drop("api-sidecar-proxy"), "-api"},
		{drop("api-sidecar-proxy"), ""},
	} {
		have := line(d.update(step.do(), false))
		if step.want == "api:x" {
			step.want = "-web"
		}
		if have != step.want {
			t.Errorf("step %d: %q, want %q", i, have, step.want)
		}
	}
	d.put("api", []*api.ServiceEntry{app("api-1", 1)})
	d.put("api-sidecar-proxy", []*api.ServiceEntry{front("api-1", "api")})
	instances, _ := d.update(d.names(), true)
	if have := line(instances, nil); have != "api: api-1-sidecar-proxy/passing/1" {
		t.Errorf("in full: %s", have)
	}
	if list := instances[catalog.NewName("dc1", "api")]; len(list) != 1 || list[0].Problem != "" || len(list[0].Proxy.Upstreams[0].Config) != 1 {
		t.Errorf("what an agent merges into a registration is refused, or lost: %+v", list)
	}
}

// A sidecar that cannot be an endpoint is left out and named, until it is mended
// or gone.
func TestLeftOutInstancesAreNamed(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	d := newDirectory("dc1")
	w := &serviceWatch{name: "api-sidecar-proxy"}
	s.services[w.name] = w
	bad := front("api-1", "api")
	bad.Service.SocketPath = "/api.sock"
	take := func(entries ...*api.ServiceEntry) { s.take(d, report{watch: w, entries: entries}) }
	take(bad, front("api-2", "api"))
	if st := s.Status(); !strings.Contains(st.Errors["instance api-1-sidecar-proxy on n1"], "Unix sockets") || st.Concerns()["instance"] != 1 {
		t.Errorf("status %v", st.Errors)
	}
	take(bad, front("api-2", "api"))
	take(front("api-1", "api"))
	if st := s.Status(); len(st.Errors) != 0 {
		t.Errorf("mended, status %v", st.Errors)
	}
	take(bad)
	s.take(d, report{gone: []string{w.name}})
	if st := s.Status(); len(st.Errors) != 0 {
		t.Errorf("gone, status %v", st.Errors)
	}
}

// What a watch reads that was stopped meanwhile must not bring back its name.
func TestStoppedWatchIsNotHeard(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	d := newDirectory("dc1")
	old, next := &serviceWatch{name: "api"}, &serviceWatch{name: "api"}
	s.services["api"] = old
	if _, news := s.take(d, report{watch: old, entries: []*api.ServiceEntry{app("api-1", 1)}}); !news {
		t.Error("a report of the current watch was dropped")
	}
	delete(s.services, "api")
	if u, _ := s.take(d, report{gone: []string{"api"}}); len(u.DeletedServices) != 1 {
		t.Errorf("%+v", u)
	}
	for _, current := range []*serviceWatch{nil, next} {
		if current != nil {
			s.services["api"] = current
		}
		if u, news := s.take(d, report{watch: old, entries: []*api.ServiceEntry{app("api-1", 1)}}); news {
			t.Errorf("an old report was believed: %+v", u)
		}
	}
}
