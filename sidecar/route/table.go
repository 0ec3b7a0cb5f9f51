package route

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Table is a Config compiled for matching. It is immutable, but for what is shared, and may be used by
// any number of goroutines; a stream pins what it selected.
type Table struct {
	config   *Config
	exact    map[string]*host
	suffixes []wildcard // longest first
	prefixes []wildcard // longest first
	any      *host
	// InternalOnly is Config's. Read only.
	InternalOnly []string
	headers      *levelMutations // nil for none, as in host and entry
	mirrors      []mirror
	made         shared
}

// wildcard holds the wildcard domains of one length, without the asterisk.
type wildcard struct {
	length int
	hosts  map[string]*host
}

// host is a compiled virtual host.
type host struct {
	config  *VirtualHost
	routes  []entry
	index   *index // nil where a scan is as quick
	headers *levelMutations
	mirrors []mirror
}

// entry is a compiled route. What decides about most requests is next to each
// other, so that a scan reads one cache line a route.
type entry struct {
	text     string // of the path part, where it is a text
	kind     pathKind
	fold     bool // without regard to case
	pathOnly bool // the path part is the whole match
	route    *Route
	headers  *levelMutations
	forward  *forward // nil where nothing of the action needs compiling
}

// forward is what is compiled of a Forward.
type forward struct {
	weight     uint64            // sum of the legs
	legs       []*levelMutations // of each leg, nil for none
	path, host Value             // path is that of a redirect too
	mirrors    []mirror
	body       *telemetry.Body // of a direct response, nil for none
}

type pathKind uint8

const (
	isPrefix pathKind = iota
	isPath
	isSeparatedPrefix
	isRegex
	isTemplate
	isConnect
)

func newEntry(r *Route) entry {
	m := &r.Match
	e := entry{
		route: r, fold: m.CaseInsensitive,
		pathOnly: len(m.Headers) == 0 && len(m.Query) == 0 && len(m.Cookies) == 0 && m.Share == nil && !m.GRPC && m.TLS == nil,
	}
	switch {
	case m.Prefix != nil:
		e.text = *m.Prefix
	case m.Path != nil:
		e.kind, e.text = isPath, *m.Path
	case m.PathSeparatedPrefix != nil:
		e.kind, e.text = isSeparatedPrefix, *m.PathSeparatedPrefix
	case m.Regex != nil:
		e.kind = isRegex
	case m.Template != nil:
		e.kind = isTemplate
	default:
		e.kind = isConnect
	}
	return e
}

// textual tells whether a path part is compared as a text.
func (m *Match) textual() bool {
	return m.Prefix != nil || m.Path != nil || m.PathSeparatedPrefix != nil
}

// Selected is what a request is to do. Route is nil when nothing matched. It
// points into the table, which stays as it is.
type Selected struct {
	VirtualHost *VirtualHost
	Route       *Route
	// HTTPS: the virtual host wants this request on https (a 301); no route was
	// looked for.
	HTTPS bool
	// Cluster is the one to forward to; empty for a redirect or direct response,
	// and where the header that is to name it is missing. It may alias the request.
	Cluster string
	// Leg is the leg of a split that was chosen; nil without one.
	Leg *WeightedCluster
	// Retry and Hedge are the route's policies, or else the virtual host's; nil for
	// none.
	Retry *RetryPolicy
	Hedge *HedgePolicy

	table *Table
	host  *host
	entry *entry
	leg   *levelMutations
}

// Compile checks a configuration and prepares it for matching. The Config must
// not be changed afterwards.
func Compile(c *Config) (*Table, error) {
	t, err := newTable(c)
	if err != nil {
		return nil, fmt.Errorf("route configuration %q: %w", c.Name, err)
	}
	return t, nil
}

// Check says why a configuration does not compile, by the path in it.
func Check(c *Config) error {
	_, err := newTable(c)
	return err
}

func newTable(c *Config) (*Table, error) {
	t := &Table{config: c, exact: map[string]*host{}, InternalOnly: c.InternalOnly}
	suffixes, prefixes := map[int]map[string]*host{}, map[int]map[string]*host{}
	for i := range c.VirtualHosts {
		vh := &c.VirtualHosts[i]
		h, err := compileHost(vh)
		if err != nil {
			return nil, fmt.Errorf("virtual_hosts[%d]: %w", i, err)
		}
		for j, d := range vh.Domains {
			if err := t.addDomain(d, h, suffixes, prefixes); err != nil {
				return nil, fmt.Errorf("virtual_hosts[%d].domains[%d]: %w", i, j, err)
			}
		}
	}
	t.suffixes, t.prefixes = byLength(suffixes), byLength(prefixes)
	var err error
	if t.headers, err = compileLevel(c.Headers); err == nil {
		t.mirrors, err = compileMirrors(c.Mirrors)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Config returns what the table was made from. Read only.
func (t *Table) Config() *Config { return t.config }

// addDomain takes an asterisk that is first, or else one that is last, for a wildcard.
// Anywhere else it is a character like others, as in Envoy: Consul's gateways send
// "db.ingress.*:8080" beside "db.ingress.*".
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

func compileHost(vh *VirtualHost) (_ *host, err error) {
	if len(vh.Domains) == 0 {
		return nil, fmt.Errorf("virtual host %q has no domains", vh.Name)
	}
	h := &host{config: vh, routes: make([]entry, len(vh.Routes))}
	if h.headers, err = compileLevel(vh.Headers); err != nil {
		return nil, err
	}
	if h.mirrors, err = compileMirrors(vh.Mirrors); err != nil {
		return nil, err
	}
	for i := range vh.Routes {
		if err := h.routes[i].compile(&vh.Routes[i]); err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
	}
	h.index = newIndex(vh.Routes)
	return h, nil
}

func (e *entry) compile(r *Route) (err error) {
	fair.Background(fair.Route)
	if err := checkRoute(r); err != nil {
		return err
	}
	*e = newEntry(r)
	if e.headers, err = compileLevel(r.Headers); err != nil {
		return err
	}
	switch {
	case r.Forward != nil:
		e.forward, err = compileForward(r.Forward)
	case r.Redirect != nil && r.Redirect.PathRewrite != "":
		e.forward = &forward{}
		if e.forward.path, err = NewValue(r.Redirect.PathRewrite); err != nil {
			err = fmt.Errorf("path_rewrite: %w", err)
		}
	case r.Direct != nil && r.Direct.Format != nil:
		e.forward = &forward{}
		if e.forward.body, err = telemetry.NewBody(r.Direct.Format); err != nil {
			err = fmt.Errorf("body_format: %w", err)
		}
	}
	return err
}

func compileForward(f *Forward) (*forward, error) {
	if len(f.Weighted) == 0 && f.Rewrite == nil && len(f.Mirrors) == 0 {
		return nil, nil
	}
	out := &forward{}
	var err error
	if w := f.Rewrite; w != nil {
		if out.path, err = NewValue(w.Path); err != nil {
			return nil, fmt.Errorf("path_rewrite: %w", err)
		}
		if out.host, err = NewValue(w.HostFormat); err != nil {
			return nil, fmt.Errorf("host_rewrite: %w", err)
		}
	}
	if out.mirrors, err = compileMirrors(f.Mirrors); err != nil {
		return nil, err
	}
	for i := range f.Weighted {
		leg, err := compileLevel(f.Weighted[i].Headers)
		if err != nil {
			return nil, fmt.Errorf("clusters[%d]: %w", i, err)
		}
		out.legs = append(out.legs, leg)
		out.weight += uint64(f.Weighted[i].Weight)
	}
	if len(f.Weighted) > 0 && (out.weight == 0 || out.weight > 1<<32-1) {
		return nil, fmt.Errorf("the weights of a split must add up to 1 to 4294967295, not %d", out.weight)
	}
	return out, nil
}

func one(set ...bool) bool {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n == 1
}

func checkRoute(r *Route) error {
	m := &r.Match
	if !one(m.Prefix != nil, m.Path != nil, m.PathSeparatedPrefix != nil, m.Regex != nil, m.Template != nil, m.Connect) {
		return errors.New("a match needs exactly one of prefix, path, path_separated_prefix, safe_regex, uri_template and connect_matcher")
	}
	if !one(r.Forward != nil, r.Redirect != nil, r.Direct != nil) {
		return errors.New("a route needs exactly one of route, redirect and direct_response")
	}
	f := r.Forward
	if f != nil && !one(f.Cluster != "", f.ClusterHeader != "", len(f.Weighted) > 0) {
		return errors.New("a route needs exactly one of cluster, cluster_header and weighted_clusters")
	}
	return nil
}

// Select finds the route of a request. random must be uniformly distributed over
// all 64-bit numbers; one draw per request is enough. It does not allocate.
func (t *Table) Select(req *message.Request, client *Client, random uint64) Selected {
	h := t.hostOf(req)
	if h == nil {
		return Selected{}
	}
	s := Selected{VirtualHost: h.config, table: t, host: h}
	if h.config.RequireTLS != TLSOptional && needsTLS(h.config.RequireTLS, req) {
		s.HTTPS = true
		return s
	}
	path, query := cut(req.Path)
	if t.config.IgnorePathParameters {
		path = WithoutParameters(path)
	}
	m := matcher{req: req, client: client, path: path, query: query, share: uint32(random >> 32)}
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
	if i >= 0 {
		h.routes[i].selectInto(&s, req, client, random)
	}
	return s
}

// needsTLS looks at what the connection manager made of the request, not at the
// connection: a proxy in front may have taken TLS off.
func needsTLS(r TLSRequirement, req *message.Request) bool {
	if proto, _ := req.Fields.ByID(message.XForwardedProto); proto == "https" {
		return false
	}
	internal, _ := req.Fields.ByID(message.XEnvoyInternal)
	return r == TLSForAll || internal != "true"
}

func (e *entry) selectInto(s *Selected, req *message.Request, client *Client, random uint64) {
	s.Route, s.entry = e.route, e
	s.Retry, s.Hedge = s.VirtualHost.Retry, s.VirtualHost.Hedge
	f := e.route.Forward
	if f == nil {
		return
	}
	if f.Retry != nil {
		s.Retry = f.Retry
	}
	if f.Hedge != nil {
		s.Hedge = f.Hedge
	}
	switch {
	case f.Cluster != "":
		s.Cluster = f.Cluster
	case f.ClusterHeader != "":
		s.Cluster, _ = req.HeaderValue(f.ClusterHeader, 0)
	default:
		s.split(req, client, random)
	}
}

// split chooses a leg.
func (s *Selected) split(req *message.Request, client *Client, random uint64) {
	f, c := s.Route.Forward, s.entry.forward
	// The high part of the product is uniform in [0, weight) without a division.
	at := uint64(uint32(random)) * c.weight >> 32
	if n, ok := f.given(req, client); ok {
		at = n % c.weight
	}
	for i := range f.Weighted {
		leg := &f.Weighted[i]
		if at < uint64(leg.Weight) {
			s.Leg, s.leg, s.Cluster = leg, c.legs[i], leg.Cluster
			if leg.ClusterHeader != "" {
				s.Cluster, _ = req.HeaderValue(leg.ClusterHeader, 0)
			}
			return
		}
		at -= uint64(leg.Weight)
	}
}

// given is the number that the request itself chooses a leg by: proxies one after
// the other then choose the same.
func (f *Forward) given(req *message.Request, client *Client) (uint64, bool) {
	switch {
	case f.WeightHeader != "":
		v, ok := req.HeaderValue(f.WeightHeader, 0)
		if _, more := req.HeaderValue(f.WeightHeader, 1); !ok || more {
			return 0, false
		}
		n, err := strconv.ParseUint(v, 10, 64)
		return n, err == nil
	case f.WeightByHash:
		n, ok, _ := hashBy(f.Hash, req, client, false, nil)
		return n, ok
	}
	return 0, false
}

// Request and Response mutations in the order in which they apply: the leg, then
// route, virtual host and route configuration, or these three the other way round.
// A later one wins.
func (s *Selected) levels() (out [4]*levelMutations) {
	if s.host == nil {
		return out
	}
	out = [4]*levelMutations{s.leg, nil, s.host.headers, s.table.headers}
	if s.entry != nil {
		out[1] = s.entry.headers
	}
	if s.table.config.MostSpecificHeadersWin {
		out[1], out[3] = out[3], out[1]
	}
	return out
}

// MutateRequest changes a request's headers as leg, route, virtual host and route
// configuration have it. The leg's host is the request's from then on: what the other
// levels and the route make of the authority, they make of that one, as in Envoy.
func (s *Selected) MutateRequest(req *message.Request, facts Facts, scratch *[]byte) {
	for i, l := range s.levels() {
		if l != nil {
			l.request.Apply(&req.Fields, facts, scratch)
		}
		if i == 0 && s.Leg != nil && s.Leg.HostRewrite != "" {
			req.SetAuthority(s.Leg.HostRewrite)
		}
	}
}

// MutateResponse changes a response's headers in the same order.
func (s *Selected) MutateResponse(f *message.Fields, facts Facts, scratch *[]byte) {
	for _, l := range s.levels() {
		if l != nil {
			l.response.Apply(f, facts, scratch)
		}
	}
}

// Overrides are the configurations of HTTP filters that apply, the most specific
// level first; any is false when there are none. Where no route matches, what its
// virtual host has is of no request's, as in Envoy: the filters are as the chain has them.
func (s *Selected) Overrides() (levels [4][]FilterOverride, any bool) {
	if s.Route == nil {
		return levels, false
	}
	if s.Leg != nil {
		levels[0] = s.Leg.Filters
	}
	levels[1] = s.Route.Filters
	levels[2], levels[3] = s.VirtualHost.Filters, s.table.config.Filters
	return levels, len(levels[0])+len(levels[1])+len(levels[2])+len(levels[3]) > 0
}

// EachOverride visits every configuration of an HTTP filter in the table.
func (t *Table) EachOverride(visit func(where string, o *FilterOverride)) {
	each := func(where string, list []FilterOverride) {
		for i := range list {
			visit(where, &list[i])
		}
	}
	each("typed_per_filter_config", t.config.Filters)
	for i := range t.config.VirtualHosts {
		vh := &t.config.VirtualHosts[i]
		where := fmt.Sprintf("virtual_hosts[%d].", i)
		each(where+"typed_per_filter_config", vh.Filters)
		for j := range vh.Routes {
			r := &vh.Routes[j]
			where := fmt.Sprintf("%sroutes[%d].", where, j)
			each(where+"typed_per_filter_config", r.Filters)
			if r.Forward == nil {
				continue
			}
			for k := range r.Forward.Weighted {
				each(fmt.Sprintf("%sroute.weighted_clusters.clusters[%d].typed_per_filter_config", where, k), r.Forward.Weighted[k].Filters)
			}
		}
	}
}

// BufferLimit bounds the part of a body that is kept for retries and mirrors;
// false when the routes say nothing.
func (s *Selected) BufferLimit() (uint64, bool) {
	if s.Route != nil && s.Route.BufferLimit != nil {
		return *s.Route.BufferLimit, true
	}
	if s.VirtualHost != nil && s.VirtualHost.BufferLimit != nil {
		return *s.VirtualHost.BufferLimit, true
	}
	return 0, false
}

// hostOf returns the virtual host that a request is for. One that does not have the header that tells
// is for that of all names alone, and only where there is no other.
func (t *Table) hostOf(req *message.Request) *host {
	if t.config.HostHeader == "" {
		return t.find(req.Authority)
	}
	name, ok := req.HeaderValue(t.config.HostHeader, 0)
	if !ok && !t.onlyAny() {
		return nil
	}
	return t.find(name)
}

// onlyAny tells whether there is no name that a virtual host is found by.
func (t *Table) onlyAny() bool {
	return len(t.exact) == 0 && len(t.suffixes) == 0 && len(t.prefixes) == 0
}

// find returns the virtual host in Envoy's order: exact, longest suffix
// wildcard, longest prefix wildcard, "*".
func (t *Table) find(authority string) *host {
	if t.onlyAny() {
		return t.any
	}
	name := authority
	if t.config.IgnorePort {
		if at := portStart(name); at >= 0 {
			name = name[:at]
		}
	}
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return t.findFolded(name)
		}
	}
	return t.named(name)
}

// findFolded finds the virtual host of a name that is not in lower case, as few are: the room
// for another is not on the stack of all requests.
//
//go:noinline
func (t *Table) findFolded(name string) *host {
	var buf [256]byte
	return t.named(message.View(appendLower(buf[:0], name)))
}

func (t *Table) named(name string) *host {
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
