package files

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
	"github.com/hauberk-mesh/hauberk/controlplane/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world writes files as an editor does: into another file, then renamed.
type world struct {
	t   *testing.T
	dir string
}

func (w *world) write(name, text string) {
	w.t.Helper()
	tmp := filepath.Join(w.dir, "."+name+".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) PutService(name string, port int) {
	w.write(name+".hcl", fmt.Sprintf(`service {
  name = %q
  address = "127.0.0.1"
  port = 9000
  connect { sidecar_service { port = %d } }
}`, name, port))
}

func (w *world) RemoveService(name string) { w.remove(name + ".hcl") }

func (w *world) PutEntry(e api.ConfigEntry) {
	data, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(e.GetKind()+"-"+e.GetName()+".json", string(data))
}

func (w *world) DeleteEntry(kind, name string) { w.remove(kind + "-" + name + ".json") }
func (w *world) Break()                        { w.write("broken.hcl", "Kind = ") }
func (w *world) Mend()                         { w.remove("broken.hcl") }

func newWorld(t *testing.T) (*world, func() source.Source) {
	w := &world{t, t.TempDir()}
	return w, func() source.Source {
		return New(Config{Dir: w.dir, Poll: 200 * time.Millisecond, Quiet: 5 * time.Millisecond})
	}
}

func TestContract(t *testing.T) {
	sourcetest.Contract(t, func(t *testing.T) (sourcetest.World, func() source.Source) { return newWorld(t) })
}

// TestAllOrNothing: one wrong file keeps a right one from taking effect.
func TestAllOrNothing(t *testing.T) {
	w, make := newWorld(t)
	w.PutService("api", 21000)
	s := make()
	r := sourcetest.Start(t, s)
	r.Until("api", func(s sourcetest.State) bool { return len(s.Instances) == 1 })
	w.Break()
	w.PutService("db", 21001)
	st := sourcetest.UntilStatus(t, s, "an error", func(st source.Status) bool { return len(st.Errors) > 0 })
	if st.Errors["broken.hcl:1"] == "" {
		t.Errorf("errors %v", st.Errors)
	}
	r.Never("half a directory", 400*time.Millisecond, func(s sourcetest.State) bool { return len(s.Instances) > 1 })
	w.Mend()
	r.Until("db", func(s sourcetest.State) bool { return len(s.Instances) == 2 })
}

// TestVanished: a directory that is suddenly empty, or gone, is not believed.
func TestVanished(t *testing.T) {
	w, make := newWorld(t)
	w.PutService("api", 21000)
	s := make()
	r := sourcetest.Start(t, s)
	r.Until("api", func(s sourcetest.State) bool { return len(s.Instances) == 1 })
	hasError := func(st source.Status) bool { return len(st.Errors) > 0 }
	w.RemoveService("api")
	sourcetest.UntilStatus(t, s, "an error", hasError)
	if err := os.Remove(w.dir); err != nil {
		t.Fatal(err)
	}
	r.Never("a loss", 600*time.Millisecond, func(s sourcetest.State) bool { return len(s.Instances) != 1 })
	sourcetest.UntilStatus(t, s, "an error", hasError)
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("empty.hcl", "")
	r.Until("meant", func(s sourcetest.State) bool { return len(s.Instances) == 0 })
}

// TestLinkSwap: the way Kubernetes replaces a mounted ConfigMap.
func TestLinkSwap(t *testing.T) {
	base := t.TempDir()
	for i, v := range []string{"v1", "v2"} {
		d := &world{t, filepath.Join(base, v)}
		if err := os.Mkdir(d.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		d.PutService("api", 21000+i)
	}
	link := filepath.Join(base, "current")
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	r := sourcetest.Start(t, New(Config{Dir: link, Poll: 50 * time.Millisecond, Quiet: 5 * time.Millisecond}))
	port := func(p int) func(sourcetest.State) bool {
		return func(s sourcetest.State) bool { l, _ := s.Service("api"); return len(l) == 1 && l[0].Port == p }
	}
	r.Until("v1", port(21000))
	if err := os.Symlink("v2", link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	r.Until("v2", port(21001))
}

func TestRunRefusesABadStart(t *testing.T) {
	w, make := newWorld(t)
	w.Break()
	if err := make().Run(t.Context(), sourcetest.NewRecorder(t)); err == nil || !strings.Contains(err.Error(), "broken.hcl:1") {
		t.Errorf("Run: %v", err)
	}
	if err := New(Config{Dir: filepath.Join(w.dir, "none")}).Run(t.Context(), sourcetest.NewRecorder(t)); err == nil {
		t.Error("a missing directory was accepted")
	}
}

func TestSettingsChange(t *testing.T) {
	w, make := newWorld(t)
	w.PutService("api", 21000)
	w.write("mesh.hcl", `hauberk { datacenter = "east"  default_intention_policy = "allow" }`)
	r := sourcetest.Start(t, make())
	r.Until("east", func(s sourcetest.State) bool { return s.Datacenter == "east" && s.DefaultAllow })
	w.write("mesh.hcl", `hauberk { datacenter = "east" }`)
	r.Until("deny", func(s sourcetest.State) bool { return !s.DefaultAllow })
	w.write("mesh.hcl", `hauberk { datacenter = "west" }`)
	r.Until("west", func(s sourcetest.State) bool {
		l, _ := s.Service("api")
		return s.Datacenter == "west" && len(l) == 1 && len(s.Instances) == 1
	})
}

func load(t testing.TB, files map[string]string) (*Set, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(dir)
}

// TestFormats: the same thing in every format is the same.
func TestFormats(t *testing.T) {
	want := map[catalog.EntryKey]api.ConfigEntry{
		catalog.Entry(api.ServiceRouter, "api"): &api.ServiceRouterConfigEntry{
			Kind: api.ServiceRouter, Name: "api",
			Routes: []api.ServiceRoute{{
				Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{
					PathPrefix: "/v2", Header: []api.ServiceRouteHTTPMatchHeader{{Name: "x-canary", Exact: "1"}},
				}},
				Destination: &api.ServiceRouteDestination{
					ServiceSubset: "v2", RequestTimeout: 1500 * time.Millisecond, NumRetries: 3, RetryOnStatusCodes: []uint32{503},
				},
			}},
		},
		catalog.Entry(api.ServiceDefaults, "api"): &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "api", Protocol: "http"},
	}
	for name, text := range map[string]string{
		"blocks.hcl": `config_entries { bootstrap = [
  { kind = "service-router" name = "api" routes = [{
      match { http { path_prefix = "/v2" header = [{ name = "x-canary" exact = "1" }] } }
      destination { service_subset = "v2" request_timeout = "1.5s" num_retries = 3 retry_on_status_codes = [503] }
  }]},
  { kind = "service-defaults" name = "api" protocol = "http" }
]}`,
		"repeated.hcl": `config_entry {
  Kind = "service-router"
  Name = "api"
  Routes {
    Match { HTTP { PathPrefix = "/v2"
      Header { Name = "x-canary" Exact = "1" } } }
    Destination { ServiceSubset = "v2" RequestTimeout = "1.5s" NumRetries = 3 RetryOnStatusCodes = [503] }
  }
}
config_entry { Kind = "service-defaults" Name = "api" Protocol = "http" }`,
		"list.json": `[{"Kind":"service-router","Name":"api","Routes":[{
  "Match":{"HTTP":{"PathPrefix":"/v2","Header":[{"Name":"x-canary","Exact":"1"}]}},
  "Destination":{"ServiceSubset":"v2","RequestTimeout":1500000000,"NumRetries":3,"RetryOnStatusCodes":[503]}}]},
 {"kind":"service-defaults","name":"api","protocol":"http"}]`,
		"docs.yaml": `
kind: service-router
name: api
routes:
- match:
    http:
      path_prefix: /v2
      header: [{name: x-canary, exact: "1"}]
  destination: {service_subset: v2, request_timeout: 1.5s, num_retries: 3, retry_on_status_codes: [503]}
---
Kind: service-defaults
Name: api
Protocol: http
`,
	} {
		s, err := load(t, map[string]string{name: text})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, s.Entries); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestSidecarExpansion: what a stanza becomes.
func TestSidecarExpansion(t *testing.T) {
	s, err := load(t, map[string]string{"api.hcl": `
hauberk { node = "host1" }
service {
  id = "api-1"
  name = "api"
  address = "10.1.1.1"
  port = 9001
  tags = ["v1"]
  meta { version = "1" }
  weights { passing = 200 }
  connect {
    sidecar_service {
      port = 21001
      proxy {
        upstreams = [{ destination_name = "db" local_bind_port = 9191 }]
        config { local_request_timeout_ms = 1000 }
      }
    }
  }
}
services = [
  { name = "plain" port = 1 },
  { name = "native" port = 80 address = "10.1.1.2" connect { native = true } meta { hauberk-node = "host2" } },
  { id = "p" name = "db-proxy" kind = "connect-proxy" address = "::1" port = 21002
    proxy { destination_service_name = "db" local_service_port = 5432 } },
]`})
	if err != nil {
		t.Fatal(err)
	}
	api1 := s.Instances[catalog.NewName("dc1", "api")]
	if len(api1) != 1 {
		t.Fatalf("api: %v", api1)
	}
	i := api1[0]
	want := &api.AgentServiceConnectProxyConfig{
		DestinationServiceName: "api", DestinationServiceID: "api-1",
		LocalServiceAddress: "127.0.0.1", LocalServicePort: 9001,
		Config:    map[string]any{"local_request_timeout_ms": 1000},
		Upstreams: []api.Upstream{{DestinationType: "service", DestinationName: "db", LocalBindPort: 9191}},
	}
	if d := cmp.Diff(want, i.Proxy); d != "" {
		t.Errorf("proxy (-want +got):\n%s", d)
	}
	es := i.Entry.Service
	if i.ID != "api-1-sidecar-proxy" || i.Address != "10.1.1.1" || i.Port != 21001 || i.HauberkNode() != "host1" ||
		i.PassingWeight != 128 || i.WarningWeight != 1 || i.Health != catalog.Passing || i.Problem != "" ||
		es.Service != "api-sidecar-proxy" || es.Tags[0] != "v1" || es.Meta["version"] != "1" {
		t.Errorf("instance %+v of %+v", i, es)
	}
	if l, ok := s.Instances[catalog.NewName("dc1", "plain")]; !ok || len(l) != 0 {
		t.Errorf("plain: %v %v", l, ok)
	}
	if n := s.Instances[catalog.NewName("dc1", "native")]; len(n) != 1 || n[0].Proxy != nil || n[0].HauberkNode() != "host2" {
		t.Errorf("native: %v", n)
	}
	if db := s.Instances[catalog.NewName("dc1", "db")]; len(db) != 1 || db[0].Address != "::1" || db[0].Proxy.LocalServiceAddress != "127.0.0.1" {
		t.Errorf("db: %v", db)
	}
	if len(s.Instances) != 4 {
		t.Errorf("services %v", s.Instances)
	}
}

func TestMistakes(t *testing.T) {
	sidecar := func(in string) string {
		return `service { name = "api" address = "127.0.0.1" port = 1 connect { sidecar_service { port = 2
` + in + ` } } }`
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"unknown field": {map[string]string{"api.hcl": `Kind = "service-router"
Name = "api"
Routes = [{ Match { HTTP {
   PathPrefx = "/" } } }]`}, []string{`api.hcl:4: service-router "api": Routes[0].Match.HTTP.PathPrefx: unknown field; did you mean PathPrefix?`}},
		"two mistakes": {map[string]string{"a.yaml": "Kind: service-splitter\nName: api\nSplits:\n- Wight: 1\n- Weight: x\n"},
			[]string{`a.yaml:4: service-splitter "api": Splits[0].Wight: unknown field; did you mean Weight?`, `a.yaml:5: service-splitter "api": Splits[1].Weight: want a number, have the string "x"`}},
		"unknown kind":       {map[string]string{"a.json": `{"Kind":"service-defualts","Name":"a"}`}, []string{`a.json:1: service-defualts "a": Kind: "service-defualts" is not supported; did you mean service-defaults?`}},
		"kind we have not":   {map[string]string{"a.json": `{"Kind":"ingress-gateway","Name":"a"}`}, []string{`"ingress-gateway" is not supported; supported are`}},
		"wrong type":         {map[string]string{"a.yml": "kind: service-defaults\nname: 7\n"}, []string{`a.yml:2: service-defaults: Name: want a string, have the number 7; put it in quotes`}},
		"not supported":      {map[string]string{"a.hcl": "Kind = \"service-defaults\"\nName = \"a\"\nEnvoyExtensions = [{ Name = \"builtin/lua\" }]"}, []string{`service-defaults "a": EnvoyExtensions[0]: extension "builtin/lua"`}},
		"cut off":            {map[string]string{"a.hcl": "hauberk {}\nKind ="}, []string{"a.hcl:2: not HCL: the text ends in the middle of a value"}},
		"syntax hcl":         {map[string]string{"a.hcl": "a = {\n"}, []string{`a.hcl:`, "not HCL"}},
		"syntax json":        {map[string]string{"a.json": "{\n\"Kind\": }"}, []string{`a.json:2: not JSON`}},
		"syntax yaml":        {map[string]string{"a.yaml": "a: [\n"}, []string{`a.yaml`, "not YAML"}},
		"given twice":        {map[string]string{"a.hcl": "Kind = \"service-defaults\"\nName = \"a\"\nprotocol = \"http\"\nProtocol = \"tcp\""}, []string{`a.hcl:4: service-defaults "a": Protocol: given twice, as protocol and as Protocol`}},
		"nanoseconds":        {map[string]string{"a.hcl": "Kind = \"service-resolver\"\nName = \"a\"\nConnectTimeout = 5"}, []string{"ConnectTimeout: 5ns is too short"}},
		"duration":           {map[string]string{"a.hcl": "Kind = \"service-resolver\"\nName = \"a\"\nConnectTimeout = \"5\""}, []string{`"5" is not a duration`}},
		"entry twice":        {map[string]string{"a.hcl": "Kind = \"mesh\"", "b.hcl": "Kind = \"mesh\""}, []string{"b.hcl:1: mesh: is in a.hcl:1 already; keep one of them"}},
		"id twice":           {map[string]string{"a.hcl": `service { name = "x" }`, "b.hcl": "\n" + `service { id = "x" name = "y" }`}, []string{`b.hcl:2: service "y": id "x" on node "files" is taken in a.hcl:1`}},
		"check":              {map[string]string{"a.hcl": `service { name = "x" check { tcp = "y" } }`}, []string{`a.hcl:1: service "x": check: files have no health checks; Consul runs them`}},
		"checks of sidecar":  {map[string]string{"a.hcl": sidecar(`checks = [{ tcp = "x" }]`)}, []string{`a.hcl:2: service "api": connect.sidecar_service.checks: files have no health checks`}},
		"token":              {map[string]string{"a.hcl": `service { name = "x" token = "secret" }`}, []string{`token: there is no Consul`}},
		"unknown in service": {map[string]string{"a.hcl": `service { name = "x" prot = 1 }`}, []string{`service "x": prot: unknown field; did you mean Port?`}},
		"unknown in sidecar": {map[string]string{"a.hcl": sidecar(`proxy { upstream = [] }`)}, []string{`a.hcl:2: service "api": connect.sidecar_service.Proxy.upstream: unknown field; did you mean Upstreams?`}},
		"unknown in connect": {map[string]string{"a.hcl": `service { name = "x" connect { sidecar {} } }`}, []string{`connect.sidecar: unknown field`}},
		"transparent":        {map[string]string{"a.hcl": sidecar(`proxy { mode = "transparent" }`)}, []string{`proxy.Mode: transparent proxies are not supported`}},
		"no address":         {map[string]string{"a.hcl": `service { name = "x" port = 1 connect { sidecar_service { port = 2 } } }`}, []string{`address: must be set`}},
		"no sidecar port":    {map[string]string{"a.hcl": `service { name = "x" address = "127.0.0.1" connect { sidecar_service {} } }`}, []string{`connect.sidecar_service: port: must be set: files assign no ports`}},
		"gateway":            {map[string]string{"a.hcl": `service { name = "x" kind = "mesh-gateway" }`}, []string{`kind: "mesh-gateway" is not supported`}},
		"name":               {map[string]string{"a.hcl": `service { name = "a/b" }`}, []string{`name: "a/b": use letters`}},
		"root":               {map[string]string{"a.hcl": `servcie { name = "a" }`}, []string{`servcie: unknown at the top of a file`}},
		"setting":            {map[string]string{"a.hcl": `hauberk { default_intention_policy = "maybe" }`}, []string{`default_intention_policy: "maybe": use allow or deny`}},
		"settings twice":     {map[string]string{"a.hcl": `hauberk {}`, "b.hcl": `hauberk {}`}, []string{`b.hcl:1: hauberk: is in a.hcl:1 already`}},
		"alias":              {map[string]string{"a.yaml": "a: &x 1\nb: *x\n"}, []string{"anchors and aliases are not supported"}},
		"deep":               {map[string]string{"a.hcl": strings.Repeat("a = [", 100)}, []string{"nested more than 64 deep"}},
		"deep json":          {map[string]string{"a.json": strings.Repeat("[", 100)}, []string{"nested more than 64 deep"}},
		"upstream bind":      {map[string]string{"a.hcl": sidecar(`proxy { upstreams { destination_name = "db" } }`)}, []string{`proxy.Upstreams[0].LocalBindPort: 0 is not a port`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.files)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("have: %v\nwant: %s", err, w)
				}
			}
		})
	}
}

func TestRunEndsWithContext(t *testing.T) {
	_, make := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := make().Run(ctx, sourcetest.NewRecorder(t)); err == nil {
		t.Error("Run returned nil")
	}
}

func FuzzFile(f *testing.F) {
	f.Add("a.hcl", `service { name = "api" address = "1.1.1.1" connect { sidecar_service { port = 2 proxy { upstreams { destination_name = "x" local_bind_port = 1 } } } } }`)
	f.Add("a.hcl", "Kind = \"service-router\"\nName = \"api\"\nRoutes = [{ Match { HTTP { PathPrefix = \"/\" } } }]")
	f.Add("a.hcl", "hauberk { datacenter = <<E\ndc\nE\n}")
	f.Add("a.json", `[{"Kind":"service-intentions","Name":"*","Sources":[{"Name":"a","Permissions":[{"Action":"deny","HTTP":{"PathExact":"/"}}]}]}]`)
	f.Add("a.yaml", "kind: service-splitter\nname: a\nsplits: [{weight: 100}]\n---\nkind: mesh\n")
	f.Add("a.yaml", "kind: proxy-defaults\nname: global\nconfig: {protocol: http}\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		l := newLoader()
		l.file(name, []byte(text))
		set, err := l.finish()
		if (set == nil) == (err == nil) {
			t.Fatalf("set %v, error %v", set, err)
		}
		if err == nil {
			// Whatever is accepted can be compared and sent.
			if _, changed := set.diff(set, time.Now()); changed {
				t.Error("a set differs from itself")
			}
		}
	})
}
