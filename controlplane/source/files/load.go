package files

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/catalog/validate"
	"github.com/hauberk-mesh/hauberk/controlplane/source/decode"
)

// Set is everything a directory holds.
type Set struct {
	Datacenter   string
	DefaultAllow bool
	Instances    map[catalog.Name][]*catalog.Instance
	Entries      map[catalog.EntryKey]api.ConfigEntry
	Origins      map[catalog.EntryKey]string

	files int
}

// Error is one mistake in a file.
type Error struct {
	File   string
	Line   int // 0 when unknown
	Reason string
}

func (e *Error) where() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	return e.File
}

func (e *Error) Error() string { return e.where() + ": " + e.Reason }

// Errors are all mistakes of a directory, by file and line.
type Errors []*Error

func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i := range e {
		parts[i] = e[i].Error()
	}
	return strings.Join(parts, "\n")
}

func isMistake(err error) bool {
	var e Errors
	return errors.As(err, &e)
}

// Load reads a directory once. The error is an Errors when it is about the
// files' text.
func Load(dir string) (*Set, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	l := newLoader()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		l.file(name, data)
	}
	l.set.files = len(names)
	return l.finish()
}

// list returns the names of the files that are read. Hidden ones are editors'
// and, in a mounted Kubernetes ConfigMap, the directories behind the links.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("directory %s does not exist; make it, or name another with --files-dir", dir)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains(decode.Extensions, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// loader collects files, mistakes included.
type loader struct {
	set      *Set
	errs     Errors
	services []*stanza
	settings *settings
	where    map[catalog.EntryKey]string
}

// settings is the stanza `hauberk { … }`.
type settings struct {
	Datacenter             string
	DefaultIntentionPolicy string `alias:"default_intention_policy"`
	Node                   string

	origin string
}

// stanza is one service stanza and where it is.
type stanza struct {
	file string
	line int
	node *decode.Node
}

func newLoader() *loader {
	return &loader{
		set: &Set{
			Instances: map[catalog.Name][]*catalog.Instance{},
			Entries:   map[catalog.EntryKey]api.ConfigEntry{},
			Origins:   map[catalog.EntryKey]string{},
		},
		where: map[catalog.EntryKey]string{},
	}
}

func (l *loader) fail(file string, line int, format string, args ...any) {
	l.errs = append(l.errs, &Error{file, line, fmt.Sprintf(format, args...)})
}

// wrong adds the mistakes in one thing of a file, prefixed with its name.
func (l *loader) wrong(file string, line int, what string, err error) {
	if fields, ok := errors.AsType[decode.Errors](err); ok {
		for _, f := range fields {
			at := f.Line
			if at == 0 {
				at = line
			}
			l.fail(file, at, "%s: %s", what, f)
		}
		return
	}
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		for _, p := range invalid.Problems {
			l.fail(file, line, "%s: %s", what, p)
		}
		return
	}
	l.fail(file, line, "%s: %s", what, err)
}

// roots are the keys a document may have at its top, if it is not itself a
// config entry.
var roots = []string{"service", "services", "config_entry", "config_entries", "hauberk"}

func (l *loader) file(name string, data []byte) {
	docs, err := decode.Parse(name, data)
	if err != nil {
		line := 0
		if syntax, ok := errors.AsType[*decode.SyntaxError](err); ok {
			line, err = syntax.Line, errors.New(syntax.Reason)
		}
		l.fail(name, line, "%s", err)
		return
	}
	for _, doc := range docs {
		l.document(name, doc)
	}
}

func (l *loader) document(file string, doc *decode.Node) {
	o, ok := doc.Value.(*decode.Object)
	if !ok {
		l.fail(file, doc.Line, "want a config entry, or one of %s", strings.Join(roots, ", "))
		return
	}
	if kind, _ := o.Get("Kind"); kind != nil {
		l.entry(file, doc)
		return
	}
	for i, k := range o.Keys {
		v := o.Values[i]
		switch k {
		case "service", "services":
			for _, s := range v.List() {
				l.services = append(l.services, &stanza{file, lineOf(s, v), s})
			}
		case "config_entry", "config_entries":
			l.entries(file, v)
		case "hauberk":
			for _, s := range v.List() {
				l.setting(file, s)
			}
		default:
			l.fail(file, v.Line, "%s: unknown at the top of a file; use %s, or a config entry with Kind", k, strings.Join(roots, ", "))
		}
	}
}

func lineOf(n, parent *decode.Node) int {
	if n.Line > 0 {
		return n.Line
	}
	return parent.Line
}

// entries takes a list of config entries, also as agents take it, in
// `config_entries { bootstrap = […] }`.
func (l *loader) entries(file string, v *decode.Node) {
	for _, e := range v.List() {
		o, ok := e.Value.(*decode.Object)
		if ok && len(o.Keys) == 1 && o.Keys[0] == "bootstrap" {
			for _, b := range o.Values[0].List() {
				l.entry(file, b)
			}
			continue
		}
		l.entry(file, e)
	}
}

func (l *loader) entry(file string, n *decode.Node) {
	e, key, err := decode.Entry(n, decode.Strict)
	what := key.Kind
	if key.Name != "" && key.Kind != api.MeshConfig {
		what = fmt.Sprintf("%s %q", key.Kind, key.Name)
	}
	if what == "" {
		what = "config entry"
	}
	if err == nil {
		err = validate.Validate(e)
	}
	if err != nil {
		l.wrong(file, n.Line, what, err)
		return
	}
	here := fmt.Sprintf("%s:%d", file, n.Line)
	if first, dup := l.where[key]; dup {
		l.fail(file, n.Line, "%s: is in %s already; keep one of them", what, first)
		return
	}
	l.where[key] = here
	l.set.Entries[key] = e
	l.set.Origins[key] = here
}

func (l *loader) setting(file string, n *decode.Node) {
	s := &settings{origin: fmt.Sprintf("%s:%d", file, n.Line)}
	if err := decode.Into(n, s, decode.Strict); err != nil {
		l.wrong(file, n.Line, "hauberk", err)
		return
	}
	if l.settings != nil {
		l.fail(file, n.Line, "hauberk: is in %s already; keep one of them", l.settings.origin)
		return
	}
	switch s.DefaultIntentionPolicy {
	case "", "deny", "allow":
	default:
		l.fail(file, n.Line, "hauberk: default_intention_policy: %q: use allow or deny", s.DefaultIntentionPolicy)
	}
	for _, f := range []struct{ name, value string }{{"datacenter", s.Datacenter}, {"node", s.Node}} {
		if f.value != "" {
			if err := validate.ServiceName(f.value); err != nil {
				l.fail(file, n.Line, "hauberk: %s: %s", f.name, err)
			}
		}
	}
	l.settings = s
}

// finish makes the set once every file was read: services depend on settings.
func (l *loader) finish() (*Set, error) {
	node := DefaultNode
	l.set.Datacenter = DefaultDatacenter
	if s := l.settings; s != nil {
		l.set.DefaultAllow = s.DefaultIntentionPolicy == "allow"
		l.set.Datacenter = cmp.Or(s.Datacenter, DefaultDatacenter)
		node = cmp.Or(s.Node, DefaultNode)
	}
	l.registrations(node)
	if len(l.errs) > 0 {
		slices.SortStableFunc(l.errs, func(a, b *Error) int {
			return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		return nil, l.errs
	}
	return l.set, nil
}

func sortKeys(keys []catalog.EntryKey) {
	slices.SortFunc(keys, func(a, b catalog.EntryKey) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
}
