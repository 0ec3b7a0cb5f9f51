package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
)

// Table is a Config compiled for matching. It is immutable and may be used by
// any number of goroutines; a stream pins what it selected.
type Table struct {
	config   *Config
	exact    map[string]*host
	suffixes []wildcard // longest first
	prefixes []wildcard // longest first
	any      *host
}

// wildcard holds the wildcard domains of one length, without the asterisk.
type wildcard struct {
	length int
	hosts  map[string]*host
}

// host is a compiled virtual host.
type host struct {
	config *VirtualHost
	routes []entry
	index  *index // nil where a scan is as quick
}

// entry is a compiled route. What decides about most requests is next to each
// other, so that a scan reads one cache line a route.
type entry struct {
	text     string // of the path part, except a regular expression
	kind     pathKind
	fold     bool // without regard to case
	pathOnly bool // the path part is the whole match
	route    *Route
	weight   uint64 // sum of the legs
}

type pathKind uint8

const (
	isPrefix pathKind = iota
	isPath
	isSeparatedPrefix
	isRegex
)

func newEntry(r *Route) entry {
	m := &r.Match
	e := entry{
		route: r, fold: m.CaseInsensitive,
		pathOnly: len(m.Headers) == 0 && len(m.Query) == 0 && m.RuntimeFraction == 0,
	}
	switch {
	case m.Prefix != nil:
		e.text = *m.Prefix
	case m.Path != nil:
		e.kind, e.text = isPath, *m.Path
	case m.PathSeparatedPrefix != nil:
		e.kind, e.text = isSeparatedPrefix, *m.PathSeparatedPrefix
	default:
		e.kind = isRegex
	}
	return e
}

// Selected is what a request is to do. Route is nil when nothing matched. It
// points into the table, which stays as it is.
type Selected struct {
	VirtualHost *VirtualHost
	Route       *Route
	// Cluster is the one to forward to; empty for a redirect or direct response.
	Cluster string
	// Leg is the leg of a split that was chosen; nil without one. Its header
	// mutations come before the route's, the route's before the virtual host's.
	Leg *WeightedCluster
	// Retry is the route's policy, or else the virtual host's; nil for none.
	Retry *RetryPolicy
}

// Compile checks a configuration and prepares it for matching. The Config must
// not be changed afterwards.
func Compile(c *Config) (*Table, error) {
	t := &Table{config: c, exact: map[string]*host{}}
	suffixes, prefixes := map[int]map[string]*host{}, map[int]map[string]*host{}
	for i := range c.VirtualHosts {
		vh := &c.VirtualHosts[i]
		h, err := compileHost(vh)
		if err != nil {
			return nil, fmt.Errorf("route configuration %q: virtual_hosts[%d]: %w", c.Name, i, err)
		}
		for j, d := range vh.Domains {
			if err := t.addDomain(d, h, suffixes, prefixes); err != nil {
				return nil, fmt.Errorf("route configuration %q: virtual_hosts[%d].domains[%d]: %w", c.Name, i, j, err)
			}
		}
	}
	t.suffixes, t.prefixes = byLength(suffixes), byLength(prefixes)
	return t, nil
}

// Config returns what the table was made from. Read only.
func (t *Table) Config() *Config { return t.config }

func (t *Table) addDomain(domain string, h *host, suffixes, prefixes map[int]map[string]*host) error {
	d := strings.ToLower(domain)
	put := func(m map[string]*host, key string) error {
		if _, ok := m[key]; ok {
			return fmt.Errorf("domain %q is in more than one place", domain)
		}
		m[key] = h
		return nil
	}
	in := func(m map[int]map[string]*host, key string) error {
		if strings.Contains(key, "*") {
			return fmt.Errorf("domain %q: one asterisk, first or last, is allowed", domain)
		}
		if m[len(key)] == nil {
			m[len(key)] = map[string]*host{}
		}
		return put(m[len(key)], key)
	}
	switch {
	case d == "":
		return errors.New("a domain is empty")
	case d == "*":
		if t.any != nil {
			return errors.New(`domain "*" is in more than one place`)
		}
		t.any = h
		return nil
	case d[0] == '*':
		return in(suffixes, d[1:])
	case d[len(d)-1] == '*':
		return in(prefixes, d[:len(d)-1])
	case strings.Contains(d, "*"):
		return fmt.Errorf("domain %q: one asterisk, first or last, is allowed", domain)
	}
	return put(t.exact, d)
}

func byLength(m map[int]map[string]*host) []wildcard {
	var out []wildcard
	for n, hosts := range m {
		out = append(out, wildcard{n, hosts})
	}
	slices.SortFunc(out, func(a, b wildcard) int { return b.length - a.length })
	return out
}

func compileHost(vh *VirtualHost) (*host, error) {
	if len(vh.Domains) == 0 {
		return nil, fmt.Errorf("virtual host %q has no domains", vh.Name)
	}
	h := &host{config: vh, routes: make([]entry, len(vh.Routes))}
	for i := range vh.Routes {
		r := &vh.Routes[i]
		if err := checkRoute(r); err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
		e := newEntry(r)
		if r.Forward != nil && r.Forward.Cluster == "" {
			for _, leg := range r.Forward.Weighted {
				e.weight += uint64(leg.Weight)
			}
			if e.weight == 0 || e.weight > 1<<32-1 {
				return nil, fmt.Errorf("routes[%d]: the weights of a split must add up to 1 to 4294967295, not %d", i, e.weight)
			}
		}
		h.routes[i] = e
	}
	h.index = newIndex(vh.Routes)
	return h, nil
}

func checkRoute(r *Route) error {
	paths := 0
	for _, set := range []bool{
		r.Match.Prefix != nil, r.Match.Path != nil, r.Match.PathSeparatedPrefix != nil, r.Match.Regex != nil,
	} {
		if set {
			paths++
		}
	}
	if paths != 1 {
		return errors.New("a match needs exactly one of prefix, path, path_separated_prefix and safe_regex")
	}
	actions := 0
	for _, set := range []bool{r.Forward != nil, r.Redirect != nil, r.Direct != nil} {
		if set {
			actions++
		}
	}
	if actions != 1 {
		return errors.New("a route needs exactly one of route, redirect and direct_response")
	}
	return nil
}

// Select finds the route of a request. random must be uniformly distributed
// over all 64-bit numbers; one draw per request is enough. It does not allocate.
func (t *Table) Select(req *message.Request, random uint64) Selected {
	h := t.find(req.Authority)
	if h == nil {
		return Selected{}
	}
	path, query := cut(req.Path)
	m := matcher{req: req, path: path, query: query, fraction: uint32(random >> 32)}
	i := -1
	if h.index != nil {
		i = h.index.first(h.routes, &m)
	} else {
		for j := range h.routes {
			if m.matches(&h.routes[j]) {
				i = j
				break
			}
		}
	}
	if i < 0 {
		return Selected{VirtualHost: h.config}
	}
	return h.routes[i].selected(h.config, uint32(random))
}

func (e *entry) selected(vh *VirtualHost, random uint32) Selected {
	s := Selected{VirtualHost: vh, Route: e.route, Retry: vh.Retry}
	f := e.route.Forward
	if f == nil {
		return s
	}
	if f.Retry != nil {
		s.Retry = f.Retry
	}
	s.Cluster = f.Cluster
	if s.Cluster != "" {
		return s
	}
	// The high part of the product is uniform in [0, weight) without a division.
	at := uint64(random) * e.weight >> 32
	for i := range f.Weighted {
		leg := &f.Weighted[i]
		if at < uint64(leg.Weight) {
			s.Leg, s.Cluster = leg, leg.Cluster
			break
		}
		at -= uint64(leg.Weight)
	}
	return s
}

// find returns the virtual host in Envoy's order: exact, longest suffix
// wildcard, longest prefix wildcard, "*".
func (t *Table) find(authority string) *host {
	if len(t.exact) == 0 && len(t.suffixes) == 0 && len(t.prefixes) == 0 {
		return t.any
	}
	var buf [256]byte
	name := authority
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			name = message.View(appendLower(buf[:0], authority))
			break
		}
	}
	if h := t.exact[name]; h != nil {
		return h
	}
	// A wildcard stands for at least one byte.
	for _, w := range t.suffixes {
		if len(name) > w.length {
			if h := w.hosts[name[len(name)-w.length:]]; h != nil {
				return h
			}
		}
	}
	for _, w := range t.prefixes {
		if len(name) > w.length {
			if h := w.hosts[name[:w.length]]; h != nil {
				return h
			}
		}
	}
	return t.any
}

func appendLower(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = append(dst, lower(s[i]))
	}
	return dst
}
