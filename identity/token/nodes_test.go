package token

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func nodes(t *testing.T) (*Nodes, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "nodes")
	n, err := OpenNodes(dir, td)
	if err != nil {
		t.Fatal(err)
	}
	return n, dir
}

func node(name string) Node {
	return Node{Role: RoleNode, Name: name, Permitted: []Permit{{ID: web, Selectors: []string{"uid=1"}}}, Key: pin, Joined: time.Unix(1e9, 0).UTC(), JoinedAt: "cp1"}
}

func put(t *testing.T, n *Nodes, rec Node) Node {
	t.Helper()
	out, err := n.Put(rec)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func diff(a, b any) string { return cmp.Diff(a, b, cmpopts.EquateComparable(spiffeid.ID{})) }

func TestNodesSurviveRestart(t *testing.T) {
	n, dir := nodes(t)
	changed := n.Changed()
	a := put(t, n, node("a"))
	select {
	case <-changed:
	default:
		t.Error("the change was not announced")
	}
	op := node("a")
	op.Role, op.Permitted = RoleOperator, nil
	put(t, n, op)
	put(t, n, node("b.json"))
	if _, err := n.Update(RoleNode, "a", func(rec *Node) error { rec.Banned, rec.BanReason = true, "lost"; return nil }); err != nil {
		t.Fatal(err)
	}
	again, err := OpenNodes(dir, td)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(n.List(), again.List()); d != "" || len(again.List()) != 3 {
		t.Error(d)
	}
	got, ok := again.Get(RoleNode, "a")
	if !ok || !got.Banned || got.BanReason != "lost" || got.Revision <= a.Revision {
		t.Errorf("got %+v", got)
	}
	if _, ok := got.Permit(web); ok {
		t.Error("a banned node is permitted something")
	}
	if p, ok := a.Permit(web); !ok || p.Selectors[0] != "uid=1" {
		t.Error("a node is not permitted what its record says")
	}
	if _, ok := a.Permit(spiffeid.RequireFromString("spiffe://mesh.test/x")); ok {
		t.Error("a node is permitted what its record does not say")
	}
	// What is handed out is a copy.
	got.Permitted[0].Selectors[0] = "uid=0"
	if fresh, _ := again.Get(RoleNode, "a"); fresh.Permitted[0].Selectors[0] != "uid=1" {
		t.Error("a reader changed the store")
	}
}

func TestNodesRefusals(t *testing.T) {
	n, dir := nodes(t)
	put(t, n, node("a"))
	if _, err := n.Update(RoleNode, "x", nil); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v", err)
	}
	stop := errors.New("stop")
	if _, err := n.Update(RoleNode, "a", func(*Node) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	for want, change := range map[string]func(*Node){
		"no key":             func(r *Node) { r.Key = [32]byte{} },
		"'/' is not allowed": func(r *Node) { r.Name = "../a" },
		"role":               func(r *Node) { r.Role = "x" },
		"reserved":           func(r *Node) { r.Permitted[0].ID = spiffeid.RequireFromString("spiffe://mesh.test/hauberk/node/a") },
	} {
		rec := node("a")
		change(&rec)
		if _, err := n.Put(rec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		rec.Revision = 99
		if _, err := n.Merge(rec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("merge: got %v, want %q", err, want)
		}
	}
	path := filepath.Join(dir, "node.a.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(string) string{
		"unknown field": func(s string) string { return strings.Replace(s, "{", `{"x":1,`, 1) },
		"twice":         func(s string) string { return strings.Replace(s, "{", `{"banned":false,"Banned":true,`, 1) },
		"format 7":      func(s string) string { return strings.Replace(s, `"format": 1`, `"format": 7`, 1) },
		"whose file":    func(s string) string { return strings.Replace(s, `"name": "a"`, `"name": "b"`, 1) },
		"revision is 0": func(s string) string { return strings.Replace(s, `"revision": 1`, `"revision": 0`, 1) },
		"EOF":           func(s string) string { return s[:20] },
	} {
		bad := change(string(good))
		if bad == string(good) {
			t.Fatalf("%s: nothing was changed", want)
		}
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenNodes(dir, td); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestBan(t *testing.T) {
	n, _ := nodes(t)
	put(t, n, node("a"))
	ban := func(banned bool) {
		t.Helper()
		if _, err := n.Update(RoleNode, "a", func(r *Node) error { r.Banned, r.BanReason = banned, "lost"; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	ban(true)
	if _, err := n.Put(node("a")); err == nil || !strings.Contains(err.Error(), "lift the ban first") {
		t.Errorf("a banned node joined again: %v", err)
	}
	ban(false)
	put(t, n, node("a"))
}

// Two control planes that change one record apart agree, and a ban is never
// lost to changes made without knowing of it.
func TestNodesMerge(t *testing.T) {
	a, _ := nodes(t)
	b, _ := nodes(t)
	rec := put(t, a, node("x"))
	if took, err := b.Merge(rec); err != nil || !took {
		t.Fatalf("%v %v", took, err)
	}
	if took, err := b.Merge(rec); err != nil || took {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := a.Update(RoleNode, "x", func(r *Node) error { r.Banned, r.BanReason = true, "stolen"; return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := b.Update(RoleNode, "x", func(r *Node) error { r.Key[0] = byte(i); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	exchange := func() (Node, Node) {
		t.Helper()
		x, _ := a.Get(RoleNode, "x")
		y, _ := b.Get(RoleNode, "x")
		if _, err := b.Merge(x); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Merge(y); err != nil {
			t.Fatal(err)
		}
		x, _ = a.Get(RoleNode, "x")
		y, _ = b.Get(RoleNode, "x")
		if d := diff(x, y); d != "" {
			t.Errorf("they do not agree: %s", d)
		}
		return x, y
	}
	if x, _ := exchange(); !x.Banned {
		t.Error("renewals elsewhere undid a ban")
	}
	// The same revision with different content is settled alike on both sides.
	for i, n := range []*Nodes{a, b} {
		if _, err := n.Update(RoleNode, "x", func(r *Node) error { r.BanReason = string(rune('p' + i)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	if _, err := b.Update(RoleNode, "x", func(r *Node) error { r.Banned, r.BanReason = false, ""; return nil }); err != nil {
		t.Fatal(err)
	}
	if x, _ := exchange(); x.Banned {
		t.Error("the ban cannot be lifted")
	}
	zero := node("z")
	if _, err := a.Merge(zero); err == nil {
		t.Error("revision 0 was accepted")
	}
}

func TestNodesConcurrency(t *testing.T) {
	n, _ := nodes(t)
	put(t, n, node("a"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if _, err := n.Update(RoleNode, "a", func(r *Node) error { r.JoinedAt += "x"; return nil }); err != nil {
					t.Error(err)
				}
				n.List()
			}
		})
	}
	wg.Wait()
	if got, _ := n.Get(RoleNode, "a"); got.Revision != 41 || len(got.JoinedAt) != len("cp1")+40 {
		t.Errorf("an update was lost: %+v", got)
	}
}
