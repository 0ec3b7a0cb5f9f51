package route

import "sort"

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
	exact map[string][]int32
	root  node
	other []int32
}

// node is a node of a compressed trie over the prefixes.
type node struct {
	// label is the bytes between the parent and this node.
	label string
	// routes are those whose prefix ends here.
	routes   []int32
	children []*node // by first byte of the label
}

func newIndex(routes []Route) *index {
	if len(routes) < indexFrom {
		return nil
	}
	x := &index{exact: map[string][]int32{}}
	for i := range routes {
		m, n := &routes[i].Match, int32(i)
		switch {
		case m.CaseInsensitive || !m.textual():
			x.other = append(x.other, n)
		case m.Path != nil:
			x.exact[*m.Path] = append(x.exact[*m.Path], n)
		case m.Prefix != nil:
			x.root.insert(*m.Prefix, n)
		default:
			x.root.insert(*m.PathSeparatedPrefix, n)
		}
	}
	if x.root.depth() > maxNested {
		return nil
	}
	return x
}

func (n *node) insert(prefix string, route int32) {
	if prefix == "" {
		n.routes = append(n.routes, route)
		return
	}
	at := sort.Search(len(n.children), func(i int) bool { return n.children[i].label[0] >= prefix[0] })
	if at == len(n.children) || n.children[at].label[0] != prefix[0] {
		n.children = append(n.children, nil)
		copy(n.children[at+1:], n.children[at:])
		n.children[at] = &node{label: prefix, routes: []int32{route}}
		return
	}
	child := n.children[at]
	common := 0
	for common < len(prefix) && common < len(child.label) && prefix[common] == child.label[common] {
		common++
	}
	if common < len(child.label) {
		upper := &node{label: child.label[:common], children: []*node{child}}
		child.label = child.label[common:]
		n.children[at] = upper
		child = upper
	}
	child.insert(prefix[common:], route)
}

// depth is the greatest number of nodes with routes on a way down.
func (n *node) depth() int {
	d := 0
	for _, c := range n.children {
		d = max(d, c.depth())
	}
	if len(n.routes) > 0 {
		d++
	}
	return d
}

func (n *node) child(b byte) *node {
	lo, hi := 0, len(n.children)
	for lo < hi {
		mid := (lo + hi) / 2
		if n.children[mid].label[0] < b {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(n.children) && n.children[lo].label[0] == b {
		return n.children[lo]
	}
	return nil
}

// first returns the first route that matches, or -1. The candidates come from
// at most maxNested+2 ordered lists, which are merged as they are consumed.
func (x *index) first(routes []entry, m *matcher) int {
	var lists [maxNested + 2][]int32
	k := 0
	if len(x.exact) > 0 {
		if l := x.exact[m.path]; len(l) > 0 {
			lists[k] = l
			k++
		}
	}
	if len(x.other) > 0 {
		lists[k] = x.other
		k++
	}
	for n, rest := &x.root, m.path; ; {
		if len(n.routes) > 0 {
			lists[k] = n.routes
			k++
		}
		if rest == "" {
			break
		}
		c := n.child(rest[0])
		if c == nil || len(rest) < len(c.label) || rest[:len(c.label)] != c.label {
			break
		}
		n, rest = c, rest[len(c.label):]
	}
	for {
		least := -1
		for i := range k {
			if len(lists[i]) > 0 && (least < 0 || lists[i][0] < lists[least][0]) {
				least = i
			}
		}
		if least < 0 {
			return -1
		}
		at := lists[least][0]
		lists[least] = lists[least][1:]
		if m.matches(&routes[at]) {
			return int(at)
		}
	}
}
