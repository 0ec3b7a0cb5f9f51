package files

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/internal/glance"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// recorder is a Handler that notes what it is told, and refuses what is named so.
type recorder struct {
	source *Source

	mu      sync.Mutex
	told    []string
	refuses map[string]bool
	names   map[string]string // what a resource names, to be subscribed
}

func (r *recorder) Apply(u client.Update) map[string]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := map[string]error{}
	kind := u.Type[strings.LastIndex(u.Type, ".")+1:]
	for _, x := range u.Upserts {
		r.told = append(r.told, kind+" "+x.Name)
		if r.refuses[x.Name] {
			errs[x.Name] = errors.New("no")
		}
		if n := r.names[x.Name]; n != "" {
			r.source.Subscribe(resource.RouteType, n)
		}
	}
	for _, n := range u.Removed {
		r.told = append(r.told, kind+" -"+n)
	}
	for _, n := range u.Refused {
		r.told = append(r.told, "refused "+kind+" "+n)
	}
	return errs
}

// heard is what was told since it was asked last.
func (r *recorder) heard() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := strings.Join(r.told, ", ")
	r.told = nil
	return out
}

type bed struct {
	t   *testing.T
	dir string
	*recorder
}

func newBed(t *testing.T) *bed {
	b := &bed{t, t.TempDir(), &recorder{refuses: map[string]bool{}, names: map[string]string{}}}
	b.source = New(Options{All: config.Files{Listeners: b.path("lds"), Clusters: b.path("cds")}, Handler: b.recorder, Log: slog.New(slog.DiscardHandler)})
	b.clusters("a", "b")
	b.write("lds", "resources: []")
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

// write replaces a file as one step.
func (b *bed) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.path("new"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(b.path("new"), b.path(name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) clusters(names ...string) {
	b.t.Helper()
	text := "version_info: x\nresources:\n"
	for _, n := range names {
		text += `- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: ` + n + "}\n"
	}
	b.write("cds", text)
}

func routes(name, domain string) string {
	return `resources: [{"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: ` + name + `, virtual_hosts: [{name: v, domains: ["` + domain + `"]}]}]`
}

// refresh looks at files that nobody is writing to.
func (b *bed) refresh() {
	b.source.glance()
	b.source.glance()
	b.source.Refresh()
}

// grow writes more into a file, where it stands.
func (b *bed) grow(name, text string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(name), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) wants(what, heard string) {
	b.t.Helper()
	if got := b.heard(); got != heard {
		b.t.Errorf("%s: told %q, want %q", what, got, heard)
	}
}

func (b *bed) complaint(what string, want map[string]string) {
	b.t.Helper()
	got := map[string]string{}
	for _, f := range b.source.Status() {
		if f.Error != "" {
			got[filepath.Base(f.Path)] = f.Error
		}
	}
	if len(got) != len(want) || !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		b.t.Errorf("%s: complaints %q, want %q", what, got, want)
		return
	}
	for f, text := range want {
		if !strings.Contains(got[f], text) {
			b.t.Errorf("%s: complaints %q, want %q", what, got, want)
		}
	}
}

// TestChanges: what changed is told, and nothing else; what is refused stays refused until it
// changes, or anything else does.
func TestChanges(t *testing.T) {
	b := newBed(t)
	if err := b.source.Load(); err != nil {
		t.Fatal(err)
	}
	b.wants("first", "Cluster a, Cluster b")
	b.refresh()
	b.wants("nothing", "")
	b.clusters("b", "c")
	b.refresh()
	b.wants("one goes, one comes", "Cluster c, Cluster -a")
	b.refuses["d"] = true
	b.clusters("b", "c", "d")
	b.refresh()
	b.wants("one is refused", "Cluster d")
	b.complaint("one is refused", map[string]string{"cds": `"d": no`})
	b.refresh()
	b.wants("refused, and the same", "")
	delete(b.refuses, "d")
	b.write("lds", "resources: []\n")
	b.refresh()
	b.wants("something else has changed", "Cluster d")
	b.complaint("something else has changed", nil)
	b.write("cds", "resources: [{}]")
	b.refresh()
	b.wants("unreadable", "")
	b.complaint("unreadable", map[string]string{"cds": `resources[0].@type: is no type`})
	b.clusters("b", "c", "d")
	b.refresh()
	b.wants("as before", "")
	b.complaint("as before", nil)
	if err := os.Remove(b.path("cds")); err != nil {
		t.Fatal(err)
	}
	b.refresh()
	b.wants("gone", "")
	b.complaint("gone", map[string]string{"cds": "no such file"})
	b.clusters("b", "c", "d")
	b.refresh()
	b.wants("back", "")
	b.complaint("back", nil)
}

// TestRefusedFileIsBack: what is wrong with a file is told again once it is there again, with
// the same in it; it is no longer what was wrong while it was away.
func TestRefusedFileIsBack(t *testing.T) {
	b := newBed(t)
	if err := b.source.Load(); err != nil {
		t.Fatal(err)
	}
	b.heard()
	b.refuses["d"] = true
	for what, c := range map[string]struct {
		put        func()
		heard, why string
	}{
		"refused":  {func() { b.clusters("a", "b", "d") }, "Cluster d", `"d": no`},
		"no files": {func() { b.write("cds", "resources: [{}]") }, "", "resources[0].@type: is no type"},
	} {
		c.put()
		b.refresh()
		b.wants(what, c.heard)
		if err := os.Remove(b.path("cds")); err != nil {
			t.Fatal(err)
		}
		b.refresh()
		b.complaint(what+", away", map[string]string{"cds": "no such file"})
		c.put()
		b.refresh()
		b.wants(what+", back", c.heard)
		b.complaint(what+", back", map[string]string{"cds": c.why})
	}
}

// TestNamedFiles: a resource that names a file has it read; it has the one that is asked for.
func TestNamedFiles(t *testing.T) {
	b := newBed(t)
	asked := resource.InFile(b.path("rds"), "r")
	b.names["a"] = asked
	b.write("rds", routes("r", "x"))
	if err := b.source.Load(); err != nil {
		t.Fatal(err)
	}
	b.wants("first", "Cluster a, Cluster b, RouteConfiguration "+asked)
	for what, c := range map[string]struct{ text, complaint string }{
		"another's":   {routes("q", "x"), `its name is "q", and "r" was asked for`},
		"none":        {"resources: []", "has 0 elements"},
		"no response": {"- 1", "is not a mapping"},
		"another key": {"resource: []", `unknown field "resource"`},
		"two": {strings.TrimSuffix(routes("r", "x"), "]") + ", " + strings.TrimPrefix(routes("q", "y"), "resources: ["),
			"has 2 elements; a file that one resource is asked of has that one"},
		"twice": {strings.TrimSuffix(routes("r", "x"), "]") + ", " + strings.TrimPrefix(routes("r", "y"), "resources: ["),
			`its name is "r", empty or that of another`},
		"a cluster":     {`resources: [{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: r}]`, "resources[0].@type: is no type"},
		"an odd field":  {strings.Replace(routes("r", "x"), "domains", "domain", 1), `unknown field "domain"`},
		"endless":       {strings.Repeat("# a comment\n", config.MaxFile/10), "is longer than"},
		"not even YAML": {"\x00", "rds: "},
	} {
		b.write("rds", c.text)
		b.refresh()
		b.wants(what, "refused RouteConfiguration "+asked)
		b.complaint(what, map[string]string{"rds": c.complaint})
	}
	b.write("rds", routes("r", "y"))
	b.refresh()
	b.wants("changed", "RouteConfiguration "+asked)
	b.source.Unsubscribe(resource.RouteType, asked)
	b.write("rds", routes("r", "z"))
	b.refresh()
	b.wants("not asked for any more", "")
	b.source.Subscribe(resource.RouteType, "r", asked)
	b.refresh()
	b.wants("asked for again", "RouteConfiguration "+asked)
}

// TestLoad: whatever is wrong with any file at the start is told.
func TestLoad(t *testing.T) {
	b := newBed(t)
	b.names["a"] = resource.InFile(b.path("rds"), "r")
	b.refuses["b"] = true
	if err := unix.Mkfifo(b.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.source.Subscribe(resource.EndpointType, resource.InFile(b.path("pipe"), "e"), resource.InFile(b.dir, "e"))
	err := b.source.Load()
	for _, want := range []string{b.path("rds") + ": no such file or directory", b.path("cds") + `: "b": no`, b.path("pipe") + ": is no regular file", b.dir + ": is no regular file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// following runs the source for a test, in a bubble.
func (b *bed) following(test func()) {
	if err := b.source.Load(); err != nil {
		b.t.Fatal(err)
	}
	b.heard()
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.source.Run(ctx) }()
	time.Sleep(time.Millisecond)
	test()
	cancel()
	<-ended
}

// pass has the source glance so often.
func pass(glances int) {
	time.Sleep(time.Duration(glances) * glance.Every)
	synctest.Wait()
}

// TestLoadOfMany: each file costs the same, however many there are.
func TestLoadOfMany(t *testing.T) {
	cost := func(files int) uint64 {
		b := newBed(t)
		for i := range files {
			b.source.Subscribe(resource.EndpointType, resource.InFile(b.path(fmt.Sprint("away", i)), "e"))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := b.source.Load(); strings.Count(err.Error(), "no such file") != files {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / uint64(files)
	}
	if few, many := cost(100), cost(3000); many > 2*few {
		t.Errorf("a file costs %d bytes among 100, and %d among 3000", few, many)
	}
}

// TestLoadsInOrder: clusters come first, then the endpoints that they name, then listeners and
// their routes.
func TestLoadsInOrder(t *testing.T) {
	b := newBed(t)
	b.write("lds", `resources: [{"@type": type.googleapis.com/envoy.config.listener.v3.Listener, name: l}]`)
	names := []string{}
	for _, n := range []string{"r2", "r1", "r3"} {
		b.write(n, routes(n, "x"))
		names = append(names, resource.InFile(b.path(n), n))
	}
	b.names["l"] = names[0]
	b.source.Subscribe(resource.RouteType, names[1:]...)
	for _, n := range []string{"f", "e"} {
		b.write(n, `resources: [{"@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: `+n+`}]`)
		b.source.Subscribe(resource.EndpointType, resource.InFile(b.path(n), n))
	}
	if err := b.source.Load(); err != nil {
		t.Fatal(err)
	}
	kind := func(kind string, names ...string) (out string) {
		for _, n := range names {
			out += ", " + kind + " " + resource.InFile(b.path(n), n)
		}
		return out
	}
	b.wants("first", "Cluster a, Cluster b"+kind("ClusterLoadAssignment", "e", "f")+", Listener l"+kind("RouteConfiguration", "r1", "r2", "r3"))
}

// TestRun: a change is seen soon.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.following(func() {
			b.clusters("a", "b", "c")
			pass(1)
			b.wants("perhaps still written to", "")
			pass(1)
			b.wants("written", "Cluster c")
			if err := os.Remove(b.path("cds")); err != nil {
				t.Fatal(err)
			}
			pass(2)
			b.complaint("gone", map[string]string{"cds": "no such file"})
		})
	})
}

// TestHalfWritten: a file is not read while it is written to, whatever else has files looked
// at: the time for a pass over all of them, another file, or one that is asked for.
func TestHalfWritten(t *testing.T) {
	one := func(name string) string {
		return `- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: ` + name + "}\n"
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.following(func() {
			if err := os.Truncate(b.path("cds"), 0); err != nil {
				t.Fatal(err)
			}
			b.grow("cds", "resources:\n"+one("a"))
			for i := range glance.Read + 1 {
				pass(1)
				b.grow("cds", one(fmt.Sprint("c", i)))
			}
			b.wants("a pass over all", "")
			b.write("lds", "resources: []\n")
			for i := range 3 {
				pass(1)
				b.grow("cds", one(fmt.Sprint("d", i)))
			}
			b.wants("another file", "")
			b.source.Subscribe(resource.EndpointType, resource.InFile(b.path("eds"), "e"))
			synctest.Wait()
			b.wants("one is asked for", "")
			b.grow("cds", one("b"))
			pass(2)
			if got := b.heard(); !strings.HasSuffix(got, "Cluster d2") || strings.Contains(got, "-") {
				t.Errorf("written: told %q", got)
			}
		})
	})
}

// TestAskedFor: a file that is asked for is read at once, unless it is so young that it may
// still be written to.
func TestAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		old := resource.InFile(b.path("old"), "r")
		b.write("old", routes("r", "x"))
		info, err := os.Stat(b.path("old"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(info.ModTime().Add(time.Minute))) // files have the time of day
		b.following(func() {
			b.source.Subscribe(resource.RouteType, old)
			synctest.Wait()
			b.wants("an old one", "RouteConfiguration "+old)
		})
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		young := resource.InFile(b.path("young"), "r")
		b.following(func() {
			b.grow("young", "resources:\n")
			b.source.Subscribe(resource.RouteType, young)
			synctest.Wait()
			pass(1)
			b.grow("young", "- "+strings.TrimPrefix(strings.TrimSuffix(routes("r", "x"), "]"), "resources: [")+"\n")
			b.complaint("a young one", nil)
			pass(2)
			b.wants("it has grown up", "RouteConfiguration "+young)
		})
	})
}
