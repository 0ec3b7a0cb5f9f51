package workloadapi

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"

	"github.com/hauberk-mesh/hauberk/identity/agent"
	"github.com/hauberk-mesh/hauberk/identity/selector"
)

func TestParseEntries(t *testing.T) {
	got, err := ParseEntries([]byte(`
workloads:
- service: web
  selectors: [uid=1001, unit=web.service]
  hint: internal
- spiffe_id: spiffe://td.test/ns/default/dc/dc1/svc/db
  selectors: ["gid=5"]
  default: true
- service: web
  namespace: other
  selectors: [uid=1001]
`))
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v %v", got, err)
	}
	if got[0].Service != "web" || got[0].Namespace != "default" || got[0].Hint != "internal" || got[0].Selectors.String() != "uid=1001,unit=web.service" ||
		got[1].ID.String() != "spiffe://td.test/ns/default/dc/dc1/svc/db" || !got[1].Default || got[2].Namespace != "other" {
		t.Errorf("%+v", got)
	}
	for _, ok := range []string{"{}", "workloads: []", `{"workloads":[{"service":"web","selectors":["uid=0"]}]}`} {
		if _, err := ParseEntries([]byte(ok)); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

func TestParseEntriesRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "want a mapping",
		"[]":                     "want a mapping",
		"workloads: 1":           "want a list",
		"workloads: [1]":         "want a list of mappings",
		"entries: []":            "entries: unknown key",
		"workloads: []\nx: 1":    "x: unknown key",
		"workloads:\nworkloads:": "already",
		"workloads: [{service: web, selectors: [uid=1], path: /bin/web}]":                        "workloads[0].path: unknown key",
		"workloads: [{Service: web, selectors: [uid=1]}]":                                        "workloads[0].Service: unknown key",
		"workloads: [{service: web}]":                                                            "workloads[0].selectors: service default/web is for nobody",
		"workloads: [{service: web, selectors: []}]":                                             "is for nobody",
		"workloads: [{service: web, selectors: null}]":                                           "selectors: want",
		"workloads: [{service: web, selectors: uid=1}]":                                          "selectors: want a list",
		"workloads: [{service: web, selectors: [exe=/bin/web]}]":                                 `kind "exe" is not known`,
		"workloads: [{service: web, selectors: [uid=1, uid=2]}]":                                 "an entry for each",
		"workloads: [{selectors: [uid=1]}]":                                                      "spiffe_id: give either",
		"workloads: [{service: a, spiffe_id: spiffe://t/a, selectors: [uid=1]}]":                 "spiffe_id: give either",
		"workloads: [{spiffe_id: spiffe://t/a, namespace: x, selectors: [uid=1]}]":               "namespace: it goes with service",
		"workloads: [{spiffe_id: https://t/a, selectors: [uid=1]}]":                              "spiffe_id: ",
		"workloads: [{spiffe_id: spiffe://t, selectors: [uid=1]}]":                               "no workload's",
		"workloads: [{spiffe_id: spiffe://t/hauberk/node/n, selectors: [uid=1]}]":                "no workload's",
		"workloads: [{service: we b, selectors: [uid=1]}]":                                       "workloads[0].service: ",
		"workloads: [{service: web, namespace: a/b, selectors: [uid=1]}]":                        "workloads[0].namespace: ",
		"workloads: [{service: web, selectors: [uid=1], default: yes please}]":                   "default: want true or false",
		"workloads: [{service: web, selectors: [uid=1], hint: [a]}]":                             "hint: want a text",
		"workloads: [{service: web, service: db, selectors: [uid=1]}]":                           "already",
		"workloads: [{service: a, selectors: [uid=1]}, {service: a, selectors: [uid=1]}]":        "workloads[1]: service default/a for uid=1 is there already",
		"workloads: [{service: a, selectors: [uid=1], hint: " + strings.Repeat("h", 1025) + "}]": "hint: it has 1025 bytes",
		"\tx": "",
	} {
		got, err := ParseEntries([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParseEntries(f *testing.F) {
	f.Add([]byte("workloads: [{service: web, selectors: [uid=1], hint: x, default: true}]"))
	f.Add([]byte(`{"workloads":[{"spiffe_id":"spiffe://t/a","selectors":["unit=a.service"]}]}`))
	f.Add([]byte("workloads: [{}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseEntries(b)
		if err != nil {
			return
		}
		for _, e := range got {
			if len(e.Selectors) == 0 {
				t.Errorf("%q: %s is for everybody", b, e)
			}
			if e.ID.IsZero() == (e.Service == "") {
				t.Errorf("%q: an entry without one name: %+v", b, e)
			}
		}
	})
}

func TestGrants(t *testing.T) {
	record := func(workloads ...agent.Workload) *agent.Record {
		return &agent.Record{Node: "n1", Workloads: workloads}
	}
	of := func(name string, selectors ...string) agent.Workload {
		return agent.Workload{ID: spiffeid.RequireFromString(id(name)), Selectors: selectors}
	}
	file := func(text string) []Entry {
		got, err := ParseEntries([]byte("workloads: [" + text + "]"))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	u1, u2 := selector.Facts{UID: 1, GID: 1}, selector.Facts{UID: 2, GID: 2}
	for name, c := range map[string]struct {
		record  *agent.Record
		file    []Entry
		u1, u2  string
		problem string
	}{
		"no record":              {nil, file("{service: web, selectors: [uid=1]}"), "", "", ""},
		"the record's":           {record(of("web", "uid=1"), of("db", "uid=2")), nil, "web", "db", ""},
		"without a selector":     {record(of("web")), nil, "", "", ""},
		"the file's":             {record(of("web")), file("{service: web, selectors: [uid=1]}"), "web", "", ""},
		"alternatives":           {record(of("web")), file("{service: web, selectors: [uid=1]}, {service: web, selectors: [gid=2]}"), "web", "web", ""},
		"not permitted":          {record(of("web", "uid=1")), file("{service: db, selectors: [uid=2]}"), "web", "", "db is served to nobody: this node is not permitted"},
		"the file narrows":       {record(of("web", "uid=1")), file("{service: web, selectors: [gid=2]}"), "", "", ""},
		"the file never widens":  {record(of("web", "uid=1")), file("{service: web, selectors: [uid=2]}"), "", "", ""},
		"both hold":              {record(of("web", "uid=1")), file("{service: web, selectors: [gid=1]}"), "web", "", ""},
		"a kind from the future": {record(of("web", "uid=1", "tpm=7"), of("db", "uid=1")), nil, "db", "", "tpm"},
		"the same, in the file":  {record(of("web", "tpm=7")), file("{service: web, selectors: [uid=1]}"), "", "", "tpm"},
		"in the file's order":    {record(of("a", "uid=1"), of("b"), of("c")), file("{service: c, selectors: [uid=1]}, {service: b, selectors: [uid=1]}"), "c b a", "", ""},
		"default first":          {record(of("a"), of("b")), file("{service: a, selectors: [uid=1]}, {service: b, selectors: [uid=1], default: true}"), "b a", "", ""},
		"another namespace":      {record(of("web")), file("{service: web, namespace: prod, selectors: [uid=1]}"), "", "", "not permitted"},
		"ambiguous": {record(of("web", "uid=1"), agent.Workload{ID: spiffeid.RequireFromString("spiffe://" + td + "/ns/default/dc/dc2/svc/web"), Selectors: []string{"uid=1"}}),
			file("{service: web, selectors: [uid=1]}"), "", "", "name one by spiffe_id"},
	} {
		g, problems := grants(c.record, c.file)
		w := &world{grants: g}
		for facts, want := range map[selector.Facts]string{u1: c.u1, u2: c.u2} {
			var got []string
			for _, x := range w.granted(facts) {
				got = append(got, x.id.Path()[strings.LastIndex(x.id.Path(), "/")+1:])
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: user %d has %v, want %q", name, facts.UID, got, want)
			}
		}
		if (c.problem == "") != (len(problems) == 0) || !strings.Contains(strings.Join(problems, ";"), c.problem) {
			t.Errorf("%s: problems %q, want %q", name, problems, c.problem)
		}
	}
	banned := record(of("web", "uid=1"))
	banned.Banned = true
	if g, _ := grants(banned, nil); len(g) != 0 {
		t.Errorf("a banned node grants %v", g)
	}
}

// A change of the file takes effect; one that cannot be used does not.
func TestFileIsReadAgain(t *testing.T) {
	src := newSource(t)
	src.permit(t, "web")
	src.issue(t, "web")
	file := entries(t, "workloads: []")
	s := serve(t, Config{Source: src, Workloads: file}, func(s *Server) { s.interval = 20 * time.Millisecond })
	_, err := s.svids(t)
	wantCode(t, "no entry", err, codes.PermissionDenied, "no entry")
	replace := func(text string, mode os.FileMode) {
		t.Helper()
		next := filepath.Join(t.TempDir(), "next")
		if err := os.WriteFile(next, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(next, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		limit := time.After(within)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !ok() {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("%s: not in time; log:\n%s", what, s.log)
			}
		}
	}
	replace("workloads: [{service: web, selectors: ["+me()+"]}]", 0o644)
	eventually("the new entry", func() bool { return len(s.world.Load().grants) == 1 })
	m, err := s.svids(t)
	if err != nil || len(m.GetSvids()) != 1 {
		t.Fatal(err)
	}
	replace("workloads: [{service: web, selector: [uid=0]}]", 0o644)
	eventually("the refusal of an unknown key", func() bool { return strings.Contains(s.log.String(), "workloads[0].selector: unknown key") })
	replace("workloads: []", 0o666)
	eventually("the refusal of a file that others may write", func() bool { return strings.Contains(s.log.String(), "others could give themselves an identity") })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually("the refusal of a file that is gone", func() bool { return strings.Contains(s.log.String(), "no such file") })
	if m, err = s.svids(t); err != nil || len(m.GetSvids()) != 1 {
		t.Errorf("the last good entries are not in force: %v", err)
	}
	replace("workloads: []", 0o644)
	eventually("an empty list", func() bool { return len(s.world.Load().grants) == 0 })
}

func TestFileMustBeUsableAtTheStart(t *testing.T) {
	open := entries(t, "workloads: []")
	if err := os.Chmod(open, 0o646); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		pipe:                                  "not a regular file",
		entries(t, "workload: []"):            "workload: unknown key",
		open:                                  "others could give themselves an identity",
		filepath.Join(t.TempDir(), "missing"): "no such file",
		t.TempDir():                           "not a regular file",
	} {
		_, err := Build(Config{Source: newSource(t), Socket: filepath.Join(socketDir(t), "s"), Workloads: file})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "host socket: ") {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}
