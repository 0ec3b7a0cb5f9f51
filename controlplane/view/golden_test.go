package view

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/validate"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A golden case is one file of sections, "-- name --" before each: what the
// case shows, the entries, the instances, the client, and what it gets.
func sections(t *testing.T, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	name := "comment"
	for line := range strings.Lines(string(data)) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(s, " --") {
			name = strings.TrimSuffix(s, " --")
			continue
		}
		out[name] += line
	}
	return out
}

type goldenClient struct {
	Node      string
	Permitted []string // service names
	Envoy     bool
	Caps      []string
	Workloads []string
}

type goldenInstance struct {
	Service, ID, Node, Address string
	Port                       int
	Weight                     int
	Health                     catalog.Health
	Meta                       map[string]string
	Problem                    string
	Locality                   *api.Locality
	Proxy                      *api.AgentServiceConnectProxyConfig
}

func (g goldenInstance) instance() *catalog.Instance {
	w := max(g.Weight, 1)
	if g.Proxy != nil && g.Proxy.DestinationServiceName == "" {
		g.Proxy.DestinationServiceName = g.Service
	}
	if g.Proxy != nil && g.Problem == "" {
		if err := validate.Proxy(g.Proxy); err != nil { // as every source does
			g.Problem = err.Error()
		}
	}
	return &catalog.Instance{
		Service: catalog.NewName("dc1", g.Service), ID: g.ID, Node: g.Node, Address: g.Address, Port: g.Port,
		PassingWeight: w, WarningWeight: w, Health: g.Health, Proxy: g.Proxy, Problem: g.Problem,
		Entry: &api.ServiceEntry{
			Node:    &api.Node{Node: g.Node},
			Service: &api.AgentService{ID: g.ID, Service: g.Service, Meta: g.Meta, Address: g.Address, Port: g.Port, Locality: g.Locality},
		},
	}
}

func decodeEntries(t *testing.T, text string) []api.ConfigEntry {
	t.Helper()
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatal(err)
	}
	var out []api.ConfigEntry
	for _, r := range raw {
		e, err := api.DecodeConfigEntryFromJSON(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			s := sections(t, file)
			snap := newSnapshot()
			if s["entries"] != "" {
				for _, e := range decodeEntries(t, s["entries"]) {
					if err := validate.Validate(e); err != nil { // as every source does
						snap.Broken[catalog.KeyOf(e)] = err.Error()
						continue
					}
					snap.Entries[catalog.KeyOf(e)] = e
				}
			}
			var instances []goldenInstance
			if err := json.Unmarshal([]byte(s["instances"]), &instances); err != nil {
				t.Fatal(err)
			}
			for _, g := range instances {
				i := g.instance()
				snap.Instances[i.Service] = append(snap.Instances[i.Service], i)
			}
			var gc goldenClient
			if err := json.Unmarshal([]byte(s["client"]), &gc); err != nil {
				t.Fatal(err)
			}
			m := NewManager(slog.New(slog.DiscardHandler))
			v := m.Open(gc.client())
			m.Apply(Published{Snapshot: snap, Dirty: catalog.Dirty{All: true}, Received: time.Unix(1, 0)})
			got := describe(t, v.Current(), m.Problems())
			if *update {
				keep := s["comment"]
				for _, name := range []string{"entries", "instances", "client"} {
					if s[name] != "" {
						keep += "-- " + name + " --\n" + s[name]
					}
				}
				if err := os.WriteFile(file, []byte(keep+"-- want --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(s["want"], got); diff != "" {
				t.Errorf("run with -update if this is meant (-want +got):\n%s", diff)
			}
		})
	}
}

func (g goldenClient) client() Client {
	c := Client{Node: g.Node, Workloads: g.Workloads}
	for _, p := range g.Permitted {
		c.Permitted = append(c.Permitted, idOf(p))
	}
	if g.Envoy {
		c.Kind.Dialect = render.Envoy
	}
	for _, k := range g.Caps {
		c.Kind.Caps = render.NewCapabilities(append(strings.Split(c.Kind.Caps.String(), ","), names.CapabilityPrefix+k)...)
	}
	return c
}

// describe writes a set as text: problems, then resources in push order.
func describe(t *testing.T, set *resource.Set, problems []render.Problem) string {
	t.Helper()
	var b bytes.Buffer
	for _, p := range problems {
		b.WriteString("problem [" + p.Node + "] [" + p.Service + "] " + p.String() + "\n")
	}
	for _, typeURL := range resource.PushOrder {
		for _, name := range slices.Sorted(maps.Keys(set.ByType[typeURL])) {
			r := set.ByType[typeURL][name]
			m, err := r.Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			raw, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString("\n" + typeURL[strings.LastIndex(typeURL, ".")+1:] + " " + name)
			if r.Urgent {
				b.WriteString(" (urgent)")
			}
			for _, ref := range r.Refs {
				b.WriteString("\n  -> " + ref.Type[strings.LastIndex(ref.Type, ".")+1:] + " " + ref.Name)
			}
			b.WriteString("\n")
			// protojson varies its spaces on purpose.
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", " ")
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.String()
}
