package view

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/validate"
	"github.com/hauberk-mesh/hauberk/controlplane/render"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// TestNoFieldIsIgnored goes through every field of every entry kind and of
// registrations, as the Go types have them. Each field must act: taking it out
// of one of the examples (examples_test.go) changes what the sidecars of the mesh get,
// or is reported. Or it must be refused by name. A field that consul/api grows
// fails here until it does one of the two.
func TestNoFieldIsIgnored(t *testing.T) {
	for dialect, kind := range map[string]render.Client{
		"envoy": {Dialect: render.Envoy, Caps: render.NewCapabilities(names.CapTracing)},
		"mesh": {Caps: render.NewCapabilities(names.CapRBAC, names.CapHTTP2, names.CapRingHash, names.CapMaglev,
			names.CapOutlierDetection, names.CapConnectionLimit, names.CapListenerLog, names.CapRetries, names.CapTracing,
			names.CapRetryRateLimited, names.CapGatewayFailure, names.CapLocalRateLimit, names.CapValidateClusters)},
	} {
		t.Run(dialect, func(t *testing.T) {
			for _, s := range subjects() {
				t.Run(s.name, func(t *testing.T) { s.check(t, kind) })
			}
		})
	}
}

// subject is a type with examples of it, each made anew by its function.
type subject struct {
	name     string
	examples []func() any
	// silent are fields without a meaning of their own here, and why that is right.
	silent map[string]string
	// partly: the examples are of a special case; the fields that they lack are
	// another subject's.
	partly bool
}

func (s *subject) check(t *testing.T, kind render.Client) {
	acts := map[string]bool{}
	for n, example := range s.examples {
		whole, err := outcome(kind, example())
		if err != nil {
			t.Fatalf("example %d: %v", n, err)
		}
		for i := 0; ; i++ {
			e := example()
			path, found := alter(e, i, func(v reflect.Value) { v.SetZero() })
			if !found {
				break
			}
			without, err := outcome(kind, e)
			if err != nil || without != whole {
				acts[general(path)] = true
			} else if s.silent[general(path)] == "" && !acts[general(path)] {
				t.Errorf("example %d: %s is accepted and has no effect", n, path)
			}
		}
	}
	for _, path := range fieldsOf(reflect.TypeOf(s.examples[0]()).Elem(), "") {
		if s.partly || acts[path] || s.silent[path] != "" {
			continue
		}
		e := s.examples[0]()
		set(reflect.ValueOf(e).Elem(), path)
		if _, err := outcome(kind, e); !refuses(err, path) {
			t.Errorf("%s neither acts in an example nor is refused by name: %v", path, err)
		}
	}
}

// refuses reports whether an error names a field, or one that it is a part of.
func refuses(err error, path string) bool {
	invalid, ok := errors.AsType[*validate.Error](err)
	return ok && slices.ContainsFunc(invalid.Problems, func(p validate.Problem) bool {
		rest, found := strings.CutPrefix(path, strings.TrimSuffix(general(p.Path), "[]"))
		return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// outcome is what node n1 gets, which hosts web and api, and what is reported.
func outcome(kind render.Client, subject any) (string, error) {
	snap := newSnapshot()
	for _, e := range companions() {
		snap.Entries[catalog.KeyOf(e)] = e
	}
	web := &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web", LocalServicePort: 8080,
		Upstreams: []api.Upstream{{DestinationName: "api", LocalBindPort: 9191}, {DestinationName: "db", LocalBindPort: 9192}}}
	switch x := subject.(type) {
	case api.ConfigEntry:
		if err := validate.Validate(x); err != nil {
			return "", err
		}
		snap.Entries[catalog.KeyOf(x)] = x
	case *api.AgentServiceConnectProxyConfig:
		if err := validate.Proxy(x); err != nil {
			return "", err
		}
		web = x
	}
	for _, g := range []goldenInstance{
		{Service: "web", ID: "web-1", Node: "n1", Address: "10.0.0.1", Port: 20000, Proxy: web, Locality: &api.Locality{Region: "eu", Zone: "a"}},
		{Service: "api", ID: "api-1", Node: "n1", Address: "10.0.0.1", Port: 20001, Proxy: &api.AgentServiceConnectProxyConfig{LocalServicePort: 8081}, Meta: map[string]string{"version": "v1"}},
		{Service: "api", ID: "api-2", Node: "n2", Address: "10.0.0.2", Port: 20001, Health: catalog.Warning, Meta: map[string]string{"version": "v2"}, Locality: &api.Locality{Region: "eu", Zone: "a"}},
		{Service: "backup", ID: "backup-1", Node: "n3", Address: "10.0.0.3", Port: 20000},
		{Service: "db", ID: "db-1", Node: "n3", Address: "10.0.0.3", Port: 20001},
	} {
		i := g.instance()
		snap.Instances[i.Service] = append(snap.Instances[i.Service], i)
	}
	m := NewManager(slog.New(slog.DiscardHandler))
	v := m.Open(Client{Node: "n1", Kind: kind, Permitted: []string{idOf("web"), idOf("api")}})
	m.Apply(Published{Snapshot: snap, Dirty: catalog.Dirty{All: true}})
	return fingerprint(v.Current(), m.Problems()), nil
}

// fingerprint is describe without the contents, for which versions stand.
func fingerprint(set *resource.Set, problems []render.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p.Node, p.Service, p)
	}
	for _, typeURL := range resource.PushOrder {
		for _, name := range slices.Sorted(maps.Keys(set.ByType[typeURL])) {
			r := set.ByType[typeURL][name]
			fmt.Fprintln(&b, name, r.Version, r.Refs)
		}
	}
	return b.String()
}

var index = regexp.MustCompile(`\[[^\]]*\]|\.\*`)

// general is a path without indexes and keys.
func general(path string) string { return index.ReplaceAllString(path, "[]") }

// alter calls f with the nth field that is set, in the order of the types, and
// returns its path.
func alter(subject any, n int, f func(reflect.Value)) (path string, found bool) {
	w := &walker{n: n, f: f}
	w.walk(reflect.ValueOf(subject).Elem(), "")
	return w.path, w.n < 0
}

type walker struct {
	n    int
	f    func(reflect.Value)
	path string
}

func (w *walker) walk(v reflect.Value, path string) {
	if w.n < 0 || !v.IsValid() || v.IsZero() {
		return
	}
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			w.walk(v.Field(i), join(path, v.Type().Field(i).Name))
		}
	case v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct:
		w.visit(v, path)
		w.walk(v.Elem(), path)
	case v.Kind() == reflect.Slice && composite(v.Type().Elem()):
		w.visit(v, path)
		for i := range v.Len() {
			w.walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case v.Kind() == reflect.Map && composite(v.Type().Elem()):
		for _, k := range slices.Sorted(maps.Keys(keys(v))) {
			key := keys(v)[k]
			c := reflect.New(v.Type().Elem()).Elem()
			c.Set(v.MapIndex(key))
			w.walk(c, path+"["+k+"]")
			v.SetMapIndex(key, c)
		}
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Interface:
		for _, k := range slices.Sorted(maps.Keys(keys(v))) {
			if w.n--; w.n < 0 {
				w.path = path
				v.SetMapIndex(keys(v)[k], reflect.Value{})
				return
			}
		}
	default:
		w.visit(v, path)
	}
}

func (w *walker) visit(v reflect.Value, path string) {
	if w.n--; w.n == -1 {
		w.path = path
		w.f(v)
	}
}

func keys(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for _, k := range v.MapKeys() {
		out[k.String()] = k
	}
	return out
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

// composite reports types whose fields are looked at one by one.
func composite(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct && t.PkgPath() != "time"
}

// fieldsOf lists the paths of all fields of a type.
func fieldsOf(t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer:
		if composite(t) {
			return fieldsOf(t.Elem(), path)
		}
	case reflect.Slice, reflect.Map:
		if composite(t.Elem()) {
			return fieldsOf(t.Elem(), path+"[]")
		}
	case reflect.Struct:
		var out []string
		for i := range t.NumField() {
			out = append(out, fieldsOf(t.Field(i).Type, join(path, t.Field(i).Name))...)
		}
		return out
	}
	return []string{path}
}

// set gives the field at a path a value, making what leads there.
func set(v reflect.Value, path string) {
	name, rest, more := strings.Cut(path, ".")
	name, listed := strings.CutSuffix(name, "[]")
	f := v.FieldByName(name)
	if f.Kind() == reflect.Pointer && f.IsNil() {
		f.Set(reflect.New(f.Type().Elem()))
	}
	if f.Kind() == reflect.Pointer && f.Elem().Kind() == reflect.Struct {
		f = f.Elem()
	}
	if listed {
		element := reflect.New(f.Type().Elem()).Elem()
		target := element
		if target.Kind() == reflect.Pointer {
			target.Set(reflect.New(target.Type().Elem()))
			target = target.Elem()
		}
		set(target, rest)
		if f.Kind() == reflect.Map {
			f.Set(reflect.MakeMap(f.Type()))
			f.SetMapIndex(reflect.ValueOf("*"), element)
			return
		}
		f.Set(reflect.Append(reflect.MakeSlice(f.Type(), 0, 1), element))
		return
	}
	if more {
		set(f, rest)
		return
	}
	fill(f)
}

func fill(f reflect.Value) {
	switch f.Kind() {
	case reflect.String:
		f.SetString("x")
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Int, reflect.Int64:
		f.SetInt(-7)
	case reflect.Uint32, reflect.Uint64:
		f.SetUint(1 << 30)
	case reflect.Float32, reflect.Float64:
		f.SetFloat(-7)
	case reflect.Pointer:
		fill(f.Elem())
	case reflect.Slice:
		e := reflect.New(f.Type().Elem()).Elem()
		fill(e)
		f.Set(reflect.Append(f, e))
	case reflect.Map:
		f.Set(reflect.MakeMap(f.Type()))
		e := reflect.New(f.Type().Elem()).Elem()
		fill(e)
		f.SetMapIndex(reflect.ValueOf("x"), e)
	case reflect.Interface:
		f.Set(reflect.ValueOf("x"))
	}
}
