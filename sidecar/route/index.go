package route

import (
	"slices"
	"strings"
)

// indexFrom is the number of routes from which an index beats a scan.
const indexFrom = 12

// maxNested bounds the prefixes of one another that an index holds; a table
// that nests deeper is scanned.
const maxNested = 24

// index finds the routes whose path can match, in the order configured, without
// looking at all of them. Exact paths are in a hash table, prefixes in a trie,
// and everything else (regular expressions, templates, case-insensitive paths) in a list
// that is always looked at.
type index struct {
	exact map[string]span
	nodes []node // the root first
	other span
	order []int32 // what the spans are of: routes, each span in the order configured
}

// span is a part of index.order.
type span struct{ at, end int32 }

// node is a node of a compressed trie over the prefixes. A walk down reads little
// else than one of them a step.
type node struct {
	label    string // the bytes between the parent and this node
	keys     string // the first bytes of the children's labels
	routes   span   // those whose prefix ends here
	children int32  // where the children begin in index.nodes
}

// branch is a node while the trie is built.
type branch struct {
	label    string
	routes   []int32
	children []*branch
}

func newIndex(routes []Route) *index {
	if len(routes) < indexFrom {
		return nil
	}
	var root branch
	var other []int32
	exact := map[string][]int32{}
	for i := range routes {
		m, n := &routes[i].Match, int32(i)
		switch {
		case m.CaseInsensitive || !m.textual():
			other = append(other, n)
		case m.Path != nil:
			exact[*m.Path] = append(exact[*m.Path], n)
		case m.Prefix != nil:
			root.insert(*m.Prefix, n)
		default:
			root.insert(*m.PathSeparatedPrefix, n)
		}
	}
	if root.depth() > maxNested {
		return nil
	}
	x := &index{exact: map[string]span{}, nodes: make([]node, 1)}
	x.other = x.keep(other)
	for path, l := range exact {
		x.exact[path] = x.keep(l)
	}
	x.lay(0, &root)
	return x
}

func (x *index) keep(routes []int32) span {
	at := len(x.order)
	x.order = append(x.order, routes...)
	return span{int32(at), int32(len(x.order))}
}

// lay puts a branch where its node is, and its children next to each other.
func (x *index) lay(at int32, b *branch) {
	first := int32(len(x.nodes))
	keys := make([]byte, 0, len(b.children))
	for _, c := range b.children {
		keys = append(keys, c.label[0])
	}
	x.nodes = append(x.nodes, make([]node, len(keys))...)
	x.nodes[at] = node{label: b.label, keys: string(keys), routes: x.keep(b.routes), children: first}
	for i, c := range b.children {
		x.lay(first+int32(i), c)
	}
}

func (b *branch) insert(prefix string, route int32) {
	if prefix == "" {
		b.routes = append(b.routes, route)
		return
	}
	at := slices.IndexFunc(b.children, func(c *branch) bool { return c.label[0] == prefix[0] })
	if at < 0 {
		b.children = append(b.children, &branch{label: prefix, routes: []int32{route}})
		return
	}
	child := b.children[at]
	common := 0
	for common < len(prefix) && common < len(child.label) && prefix[common] == child.label[common] {
		common++
	}
	if common < len(child.label) {
		upper := &branch{label: child.label[:common], children: []*branch{child}}
		child.label = child.label[common:]
		b.children[at] = upper
		child = upper
	}
	child.insert(prefix[common:], route)
}

// depth is the greatest number of branches with routes on a way down.
func (b *branch) depth() int {
	d := 0
	for _, c := range b.children {
		d = max(d, c.depth())
	}
	if len(b.routes) > 0 {
		d++
	}
	return d
}

// first returns the first route that matches, or -1. The candidates come from
// at most maxNested+2 ordered lists, which are merged as they are consumed.
func (x *index) first(routes []entry, m *matcher) int {
	var lists [maxNested + 2]span
	k := 0
	if len(x.exact) > 0 {
		if l := x.exact[m.path]; l.at < l.end {
			lists[k] = l
			k++
		}
	}
	if x.other.at < x.other.end {
		lists[k] = x.other
		k++
	}
	for n, rest := &x.nodes[0], m.path; ; {
		if n.routes.at < n.routes.end {
			lists[k] = n.routes
			k++
		}
		if rest == "" || n.keys == "" {
			break
		}
		i := 0
		if n.keys[0] != rest[0] {
			if i = strings.IndexByte(n.keys, rest[0]); i < 0 {
				break
			}
		}
		n = &x.nodes[int(n.children)+i]
		if !strings.HasPrefix(rest, n.label) {
			break
		}
		rest = rest[len(n.label):]
	}
	for {
		least, at := -1, int32(0)
		for i, l := range lists[:k] {
			if l.at < l.end && (least < 0 || x.order[l.at] < at) {
				least, at = i, x.order[l.at]
			}
		}
		if least < 0 {
			return -1
		}
		lists[least].at++
		if m.matches(&routes[at]) {
			return int(at)
		}
	}
}
