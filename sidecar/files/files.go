// Package files discovers resources in files: listeners and clusters in those that the
// bootstrap names, routes and endpoints in those that listeners and clusters name
// (path_config_source). A file is a discovery response in YAML or JSON. It is looked at again
// and again; what cannot be used is refused, as a control plane's would be, and changes
// nothing.
package files

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/hauberk-mesh/hauberk/internal/glance"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Options configure a Source.
type Options struct {
	// All are the files that have all there is of their type, which is listeners or clusters.
	All config.Files
	// Handler takes what is found. It may call Subscribe and Unsubscribe meanwhile.
	Handler client.Handler
	Log     *slog.Logger
}

// Source follows files. Subscribe, Unsubscribe and Status are safe for concurrent use.
type Source struct {
	handler client.Handler
	log     *slog.Logger
	wake    chan struct{} // holds a token when there is another file to be read

	retry   atomic.Bool // what was refused is to be tried again
	looking sync.Mutex  // held while files are looked at, one after the other

	mu    sync.Mutex
	files map[key]*file
}

// ErrEarly is in a Handler's refusal of what is right, and may be taken once more is there.
var ErrEarly = errors.New("the control plane has sent none yet")

// key is what is asked for: a name of resource.InFile, or the path of a file that has all.
type key struct{ url, name string }

// file is one that is followed. All but complaint is looking's.
type file struct {
	key
	path string
	rank int    // of its type in resource.PushOrder
	only string // the name of the one resource in it, "" for all

	glance   glance.File
	again    bool              // it is to be taken again, though it has not changed
	sum      [sha256.Size]byte // of what was read last
	read     bool
	refused  bool // not all of that was accepted
	accepted map[string]*resource.Resource

	complaint string // why it cannot be used as it is now; Source.mu guards it
}

// New returns a source that has read nothing yet.
func New(o Options) *Source {
	s := &Source{handler: o.Handler, log: o.Log.With("component", "files"), wake: make(chan struct{}, 1), files: map[key]*file{}}
	for url, path := range map[string]string{resource.ListenerType: o.All.Listeners, resource.ClusterType: o.All.Clusters} {
		if path != "" {
			s.follow(key{url, path}, path, "")
		}
	}
	return s
}

func (s *Source) follow(k key, path, only string) {
	if s.files[k] == nil {
		s.files[k] = &file{key: k, path: path, rank: slices.Index(resource.PushOrder, k.url), only: only, accepted: map[string]*resource.Resource{}}
	}
}

// Subscribe asks for resources by names of resource.InFile, and leaves all others alone.
func (s *Source) Subscribe(url string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		if path, only, ok := resource.SplitFile(n); ok {
			s.follow(key{url, n}, path, only)
		}
	}
	s.poke()
}

// Unsubscribe ends that. What was found is forgotten, and the handler not told.
func (s *Source) Unsubscribe(url string, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		delete(s.files, key{url, n})
	}
}

// Retry has what was refused tried again, because something else has changed than a file.
func (s *Source) Retry() {
	s.retry.Store(true)
	s.poke()
}

func (s *Source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Load reads all files for the first time, also those that the first ones name. Its error
// says all that is wrong with any of them; what has only come too early is tried again.
func (s *Source) Load() error {
	s.looking.Lock()
	defer s.looking.Unlock()
	var errs []error
	for {
		unread := slices.DeleteFunc(s.all(), func(f *file) bool { return f.read })
		if len(unread) == 0 {
			return errors.Join(errs...)
		}
		for _, f := range unread {
			if f.rank != unread[0].rank {
				break // what the first ones name, which is of another type, comes before it
			}
			if _, err := s.look(f); err != nil && !errors.Is(err, ErrEarly) {
				errs = append(errs, err)
			}
			f.read = true
			f.glance.Settle() // it has been read as it is
		}
	}
}

// Run looks at files until the context ends.
func (s *Source) Run(ctx context.Context) { glance.Watch(ctx, s.wake, s.glance, s.Refresh) }

// glance tells whether a file has changed.
func (s *Source) glance() (changed bool) {
	s.looking.Lock()
	defer s.looking.Unlock()
	for _, f := range s.all() {
		if f.glance.Changed(f.path) || f.again && f.glance.Still(f.path) {
			changed = true
		}
	}
	return changed
}

// written tells whether nobody writes to a file any more: half a file may be right, and say
// something else. One that is asked for now has no glances; its age says as much, where the
// clock that dates files can be believed, and where not it waits for two of them.
func (f *file) written() bool {
	return f.glance.Still(f.path) || !f.read && glance.Old(f.path)
}

// Refresh looks at all files that nobody is writing to. What was refused has another chance
// when anything else has changed, such as the clusters that routes name.
func (s *Source) Refresh() {
	s.looking.Lock()
	defer s.looking.Unlock()
	retry := s.retry.Swap(false)
	changed := map[*file]bool{}
	for _, f := range s.all() {
		if !f.written() {
			continue
		}
		if c, _ := s.look(f); c {
			changed[f] = true
		}
	}
	if len(changed) == 0 && !retry {
		return
	}
	for _, f := range s.all() {
		if f.refused && !changed[f] {
			f.again = true
			if f.written() {
				_, _ = s.look(f)
			}
		}
	}
}

// all are the files, in the order in which what they have can be put in force.
func (s *Source) all() []*file {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.files), func(a, b *file) int {
		return cmp.Or(a.rank-b.rank, strings.Compare(a.name, b.name))
	})
}

// look reads a file, and hands on what is in it if that is not what it was. By its bytes, not
// by its times: a file may be replaced within the clock's resolution.
func (s *Source) look(f *file) (changed bool, err error) {
	if f.again {
		f.again, f.sum = false, [sha256.Size]byte{}
	}
	f.glance.Reading(f.path)
	b, err := readFile(f.path)
	if err != nil {
		if f.refused { // what is wrong with it is not known for when it is back
			f.sum = [sha256.Size]byte{}
		}
		return false, s.complain(f, err)
	}
	if f.read && !f.glance.AsRead(f.path) {
		return false, nil // written to meanwhile: the next glances see that
	}
	sum := sha256.Sum256(b)
	if f.read && sum == f.sum {
		if !f.refused {
			_ = s.complain(f, nil) // it could not be read for a while
		}
		return false, nil
	}
	f.read, f.sum, f.refused = true, sum, true
	found, err := f.parse(b)
	if err != nil {
		if f.only != "" && s.follows(f) { // nobody is to wait for it
			s.handler.Apply(client.Update{Type: f.url, Refused: []string{f.name}})
		}
		return false, s.complain(f, err)
	}
	u := f.update(found)
	var errs map[string]error
	if len(u.Upserts)+len(u.Removed) > 0 && s.follows(f) {
		errs = s.handler.Apply(u)
	}
	for _, r := range u.Upserts {
		if errs[r.Name] == nil {
			f.accepted[r.Name] = r
		}
	}
	for _, name := range u.Removed {
		delete(f.accepted, name)
	}
	f.refused = len(errs) > 0
	s.log.Info("file read", "file", f.path, "resources", len(found), "rejected", len(errs))
	return true, s.complain(f, together(errs))
}

// parse reads the resources of the file.
func (f *file) parse(b []byte) ([]*resource.Resource, error) {
	found, err := config.ResourceFile(b, f.url)
	if err != nil || f.only == "" {
		return found, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("resources: has %d elements; a file that one resource is asked of has that one", len(found))
	}
	if found[0].Name != f.only {
		return nil, fmt.Errorf("resources[0]: its name is %q, and %q was asked for", found[0].Name, f.only)
	}
	found[0].Name = f.name
	return found, nil
}

// update is what the handler is to be told: what is not as it was accepted last.
func (f *file) update(found []*resource.Resource) client.Update {
	u := client.Update{Type: f.url}
	present := map[string]bool{}
	for _, r := range found {
		present[r.Name] = true
		if old := f.accepted[r.Name]; old == nil || old.Version != r.Version {
			u.Upserts = append(u.Upserts, r)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.accepted)) {
		if !present[name] {
			u.Removed = append(u.Removed, name)
		}
	}
	return u
}

// follows tells whether somebody still asks for what a file has.
func (s *Source) follows(f *file) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[f.key] == f
}

// complain notes why a file cannot be used, nil if it can, and says so once.
func (s *Source) complain(f *file, err error) error {
	said := ""
	if err != nil {
		err = fmt.Errorf("%s: %w", f.path, err)
		said = err.Error()
	}
	s.mu.Lock()
	before := f.complaint
	f.complaint = said
	s.mu.Unlock()
	switch {
	case said == before:
	case errors.Is(err, ErrEarly):
		s.log.Info("file of resources waits", "reason", err)
	case err != nil:
		s.log.Error("file of resources cannot be used, what was in force stays", "err", err)
	default:
		s.log.Info("file of resources can be used again", "file", f.path)
	}
	return err
}

// together is one error of those of resources, nil for none.
func together(errs map[string]error) error {
	var out []error
	for _, name := range slices.Sorted(maps.Keys(errs)) {
		err := errs[name]
		if _, only, ok := resource.SplitFile(name); ok {
			name = only
		}
		if !strings.Contains(err.Error(), strconv.Quote(name)) {
			err = fmt.Errorf("%q: %w", name, err)
		}
		out = append(out, err)
	}
	return errors.Join(out...)
}

// Status is a file as the operator sees it.
type Status struct {
	Path string `json:"path"`
	Type string `json:"type"`
	// Name is that of the resource that is asked for, empty for all.
	Name string `json:"name,omitempty"`
	// Error is why the file cannot be used as it is now; what was in force stays.
	Error string `json:"error,omitempty"`
}

// Status lists the files that are followed.
func (s *Source) Status() []Status {
	out := []Status{}
	for _, f := range s.all() {
		s.mu.Lock()
		out = append(out, Status{f.path, f.url, f.only, f.complaint})
		s.mu.Unlock()
	}
	return out
}

// readFile reads a file, and nothing else that a path may name: a pipe would be waited for.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, errors.New("is no regular file"))
	}
	return io.ReadAll(io.LimitReader(f, config.MaxFile+1))
}
