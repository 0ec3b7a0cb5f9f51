package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/identity/internal/statedir"
	"github.com/hauberk-mesh/hauberk/identity/internal/strictjson"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// Node is what a joined holder of a role is allowed. It is a value; its slices
// are not shared with the store.
type Node struct {
	Role      Role
	Name      string
	Permitted []Permit
	// Key is the pin of the holder's key, which authorises its renewals.
	Key trust.Pin
	// Joined is when, JoinedAt at which control plane.
	Joined   time.Time
	JoinedAt string
	// Revision grows with each change, whichever control plane makes it. Its
	// upper half counts bans and their liftings, its lower half everything else.
	Revision  uint64
	Banned    bool
	BanReason string
}

// Permit finds an identity among those permitted. A banned node has none.
func (n Node) Permit(id spiffeid.ID) (Permit, bool) {
	if n.Banned {
		return Permit{}, false
	}
	for _, p := range n.Permitted {
		if p.ID == id {
			return p, true
		}
	}
	return Permit{}, false
}

// ErrNoNode: there is no record of this role and name.
var ErrNoNode = errors.New("no such node: it has not joined")

type nodeKey struct {
	role Role
	name string
}

// Nodes keeps the node records: in memory for readers, each in a file of its own
// that is on disk before a change is visible.
type Nodes struct {
	dir string
	td  spiffeid.TrustDomain

	mu      sync.RWMutex
	records map[nodeKey]Node
	changed chan struct{}
}

type nodeJSON struct {
	Format    int          `json:"format"`
	Role      Role         `json:"role"`
	Name      string       `json:"name"`
	Permitted []permitJSON `json:"permitted,omitempty"`
	Key       trust.Pin    `json:"key"`
	Joined    time.Time    `json:"joined"`
	JoinedAt  string       `json:"joined_at,omitempty"`
	Revision  uint64       `json:"revision"`
	Banned    bool         `json:"banned,omitempty"`
	BanReason string       `json:"ban_reason,omitempty"`
}

// OpenNodes opens the folder, which it creates 0700. A record that cannot be
// read fails it: leaving the record out could undo a ban.
func OpenNodes(dir string, td spiffeid.TrustDomain) (*Nodes, error) {
	n := &Nodes{dir: dir, td: td, records: map[nodeKey]Node{}, changed: make(chan struct{})}
	if err := n.load(); err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	return n, nil
}

func (n *Nodes) load() error {
	if err := statedir.Open(n.dir); err != nil {
		return err
	}
	if err := statedir.Clean(n.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordExt) {
			continue
		}
		data, err := statedir.ReadFile(filepath.Join(n.dir, e.Name()))
		if err != nil {
			return err
		}
		rec, err := n.decode(data)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		if e.Name() != fileName(rec) {
			return fmt.Errorf("%s: it is the record of %s %q, whose file is %s", e.Name(), rec.Role, rec.Name, fileName(rec))
		}
		n.records[nodeKey{rec.Role, rec.Name}] = rec
	}
	return nil
}

// Get returns a record.
func (n *Nodes) Get(role Role, name string) (Node, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	rec, ok := n.records[nodeKey{role, name}]
	return clone(rec), ok
}

// List returns all records in the order of role and name.
func (n *Nodes) List() []Node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := slices.Collect(maps.Values(n.records))
	for i := range out {
		out[i] = clone(out[i])
	}
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(fileName(a), fileName(b)) })
	return out
}

// Changed returns a channel closed at the next change. Take it before reading:
// then no change falls between.
func (n *Nodes) Changed() <-chan struct{} {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.changed
}

// Put stores a record with the next revision, and returns it. A ban is not
// lifted by it: a banned name does not come back by joining again.
func (n *Nodes) Put(rec Node) (Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.records[nodeKey{rec.Role, rec.Name}]
	if old.Banned && !rec.Banned {
		return Node{}, fmt.Errorf("nodes: %s %q is banned: %s: lift the ban first", rec.Role, rec.Name, old.BanReason)
	}
	rec.Revision = nextRevision(old, rec)
	return n.store(rec)
}

// Update changes a record under the store's lock: no other change falls between
// what the function reads and what it writes. Role, name and revision stay.
func (n *Nodes) Update(role Role, name string, change func(*Node) error) (Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, ok := n.records[nodeKey{role, name}]
	if !ok {
		return Node{}, fmt.Errorf("nodes: %s %q: %w", role, name, ErrNoNode)
	}
	rec := clone(old)
	if err := change(&rec); err != nil {
		return Node{}, err
	}
	rec.Role, rec.Name, rec.Revision = role, name, nextRevision(old, rec)
	return n.store(rec)
}

// Merge takes another control plane's record if its revision is later, and says
// whether it did. Two that changed apart to one revision are settled the same
// way on both sides: a ban wins, then the larger encoding.
func (n *Nodes) Merge(rec Node) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, ok := n.records[nodeKey{rec.Role, rec.Name}]; ok {
		later, err := Supersedes(rec, old)
		if err != nil || !later {
			return false, err
		}
	}
	if rec.Revision == 0 {
		return false, fmt.Errorf("nodes: merge %s %q: the revision is 0, the first is 1", rec.Role, rec.Name)
	}
	_, err := n.store(clone(rec))
	return err == nil, err
}

// nextRevision puts a ban above any number of other changes that a control plane
// makes meanwhile without knowing of it, such as renewals of the node's key.
func nextRevision(old, next Node) uint64 {
	if old.Banned != next.Banned {
		return (old.Revision>>32 + 1) << 32
	}
	return old.Revision + 1
}

// Supersedes says whether rec replaces old, another record of the same node: the later
// revision does, at one revision a ban, then the larger encoding. Whoever holds a record
// and is offered another decides so.
func Supersedes(rec, old Node) (bool, error) {
	if rec.Revision != old.Revision {
		return rec.Revision > old.Revision, nil
	}
	if rec.Banned != old.Banned {
		return rec.Banned, nil
	}
	a, err := encode(rec)
	if err != nil {
		return false, err
	}
	b, err := encode(old)
	return bytes.Compare(a, b) > 0, err
}

// store writes and publishes. The caller holds mu.
func (n *Nodes) store(rec Node) (Node, error) {
	if err := n.check(rec); err != nil {
		return Node{}, fmt.Errorf("nodes: %s %q: %w", rec.Role, rec.Name, err)
	}
	data, err := encode(rec)
	if err != nil {
		return Node{}, fmt.Errorf("nodes: %s %q: %w", rec.Role, rec.Name, err)
	}
	if err := statedir.WriteFile(filepath.Join(n.dir, fileName(rec)), data); err != nil {
		return Node{}, fmt.Errorf("nodes: %s %q: %w", rec.Role, rec.Name, err)
	}
	n.records[nodeKey{rec.Role, rec.Name}] = clone(rec)
	close(n.changed)
	n.changed = make(chan struct{})
	return clone(rec), nil
}

func (n *Nodes) check(rec Node) error {
	if rec.Key.IsZero() {
		return errors.New("the record has no key")
	}
	return checkHolder(n.td, rec.Role, rec.Name, rec.Permitted)
}

func (n *Nodes) decode(data []byte) (Node, error) {
	var in nodeJSON
	if err := strictjson.Unmarshal(data, &in); err != nil {
		return Node{}, err
	}
	if in.Format != format {
		return Node{}, fmt.Errorf("format %d is unknown, this version reads %d", in.Format, format)
	}
	permitted, err := permitsFromJSON(in.Permitted)
	if err != nil {
		return Node{}, err
	}
	rec := Node{
		Role: in.Role, Name: in.Name, Permitted: permitted, Key: in.Key, Joined: in.Joined, JoinedAt: in.JoinedAt,
		Revision: in.Revision, Banned: in.Banned, BanReason: in.BanReason,
	}
	if rec.Revision == 0 {
		return Node{}, errors.New("the revision is 0, the first is 1")
	}
	return rec, n.check(rec)
}

func encode(rec Node) ([]byte, error) {
	return json.MarshalIndent(nodeJSON{
		Format: format, Role: rec.Role, Name: rec.Name, Permitted: permitsToJSON(rec.Permitted), Key: rec.Key,
		Joined: rec.Joined.UTC(), JoinedAt: rec.JoinedAt, Revision: rec.Revision, Banned: rec.Banned, BanReason: rec.BanReason,
	}, "", "  ")
}

// fileName is unambiguous: a role has no dot.
func fileName(rec Node) string { return string(rec.Role) + "." + rec.Name + recordExt }

func clone(rec Node) Node {
	rec.Permitted = clonePermits(rec.Permitted)
	return rec
}
