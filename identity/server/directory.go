package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
)

// ControlPlane is where a control plane is reached.
type ControlPlane struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
	// Revision grows with each change. Only the control plane itself changes its
	// entry, except when an operator removes it.
	Revision uint64 `json:"revision"`
	// Removed entries stay, so that no replica brings them back.
	Removed bool `json:"removed,omitempty"`
}

// directory knows the control planes of the trust domain. It is on disk, so that
// a control plane that restarts alone finds the others.
type directory struct {
	path string
	td   spiffeid.TrustDomain

	mu      sync.Mutex
	entries map[string]ControlPlane
	changed chan struct{}
	changes uint64
	// own is this control plane's ID, once it has said where it is; insisted, that it did so
	// against what others had.
	own      string
	insisted bool
}

func openDirectory(path string, td spiffeid.TrustDomain) (*directory, error) {
	d := &directory{path: path, td: td, entries: map[string]ControlPlane{}, changed: make(chan struct{})}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	var list []ControlPlane
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, entry := range list {
		if err := d.check(entry); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		d.entries[entry.ID] = entry
	}
	return d, nil
}

const maxAddresses = 32

func (d *directory) check(entry ControlPlane) error {
	id, err := spiffe.Parse(entry.ID)
	if err != nil {
		return err
	}
	if id.Kind != spiffe.ControlPlane || id.ID.TrustDomain() != d.td {
		return fmt.Errorf("%s is not a control plane of the trust domain %s", entry.ID, d.td)
	}
	if len(entry.Addresses) > maxAddresses {
		return fmt.Errorf("control plane %s has %d addresses, at most %d are accepted", entry.ID, len(entry.Addresses), maxAddresses)
	}
	for _, address := range entry.Addresses {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("control plane %s: %w", entry.ID, err)
		}
	}
	return nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: write host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || len(host) > 255 {
		return fmt.Errorf("address %q: others cannot dial it, write host:port", address)
	}
	return nil
}

// list returns the entries that are not removed, by ID.
func (d *directory) list() []ControlPlane {
	return slices.DeleteFunc(d.all(), func(c ControlPlane) bool { return c.Removed })
}

func (d *directory) all() []ControlPlane {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sorted()
}

func (d *directory) sorted() []ControlPlane {
	out := make([]ControlPlane, 0, len(d.entries))
	for _, id := range slices.Sorted(maps.Keys(d.entries)) {
		out = append(out, d.entries[id])
	}
	return out
}

func (d *directory) has(id spiffeid.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	entry, ok := d.entries[id.String()]
	return ok && !entry.Removed
}

// Changed is closed at the next change.
func (d *directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// setOwn replaces the own entry. Its revision goes beyond whatever is known of
// it, so that it wins over the entry of a former life.
func (d *directory) setOwn(id spiffeid.ID, addresses []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own = id.String()
	old, ok := d.entries[id.String()]
	if ok && !old.Removed && slices.Equal(old.Addresses, addresses) {
		return nil
	}
	return d.put(ControlPlane{ID: id.String(), Addresses: slices.Clone(addresses), Revision: old.Revision + 1})
}

// remove marks an entry removed.
func (d *directory) remove(id spiffeid.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok := d.entries[id.String()]
	if !ok || old.Removed {
		return fmt.Errorf("control plane %s is not known here", id)
	}
	return d.put(ControlPlane{ID: old.ID, Revision: old.Revision + 1, Removed: true})
}

// merge takes entries of another control plane that are later than ours. Of the own entry others
// may have a later one, of the life before a backup was restored: where this control plane is it
// knows itself.
func (d *directory) merge(list []*identityv1.ControlPlane) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, wire := range list {
		entry := ControlPlane{ID: wire.GetSpiffeId(), Addresses: wire.GetAddresses(), Revision: wire.GetRevision(), Removed: wire.GetRemoved()}
		if err := d.check(entry); err != nil {
			return err
		}
		old, ok := d.entries[entry.ID]
		switch {
		case ok && entry.Revision >= old.Revision && d.disputes(entry, old):
			// Once: with a second control plane of this ID it would never end.
			d.insisted = true
			entry = ControlPlane{ID: old.ID, Addresses: old.Addresses, Revision: entry.Revision + 1}
		case ok && !entry.later(old):
			continue
		}
		if err := d.put(entry); err != nil {
			return err
		}
	}
	return nil
}

// later says whether an entry replaces another of the same control plane; a removal does at one revision.
func (c ControlPlane) later(old ControlPlane) bool {
	return c.Revision > old.Revision || c.Revision == old.Revision && c.Removed && !old.Removed
}

// disputes says whether an entry has the own control plane elsewhere.
func (d *directory) disputes(entry, old ControlPlane) bool {
	return entry.ID == d.own && !d.insisted && !entry.Removed && !old.Removed && !slices.Equal(entry.Addresses, old.Addresses)
}

// put stores and announces an entry; mu is held.
func (d *directory) put(entry ControlPlane) error {
	if err := d.check(entry); err != nil {
		return err
	}
	old, had := d.entries[entry.ID]
	d.entries[entry.ID] = entry
	data, err := json.MarshalIndent(d.sorted(), "", "  ")
	if err == nil {
		err = writeFile(d.path, append(data, '\n'))
	}
	if err != nil {
		delete(d.entries, entry.ID)
		if had {
			d.entries[entry.ID] = old
		}
		return err
	}
	d.changes++
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

func (d *directory) wire(removed bool) []*identityv1.ControlPlane {
	entries := d.list()
	if removed {
		entries = d.all()
	}
	out := make([]*identityv1.ControlPlane, len(entries))
	for i, e := range entries {
		out[i] = &identityv1.ControlPlane{SpiffeId: e.ID, Addresses: e.Addresses, Revision: e.Revision, Removed: e.Removed}
	}
	return out
}

// writeFile replaces a file as a whole; what is read back is the old content or
// the new one, never half.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	// CreateTemp makes the file with mode 0600.
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// version grows with each change while this process runs.
func (d *directory) version() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// entry is one entry as the protocol writes it; without revision when unknown.
func (d *directory) entry(id spiffeid.ID) *identityv1.ControlPlane {
	for _, e := range d.wire(true) {
		if e.GetSpiffeId() == id.String() {
			return e
		}
	}
	return &identityv1.ControlPlane{SpiffeId: id.String()}
}
