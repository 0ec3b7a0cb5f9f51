// Package headermutation changes headers and query parameters in the order configured
// (envoy.filters.http.header_mutation).
package headermutation

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/percent"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// Config is envoy.extensions.filters.http.header_mutation.v3.HeaderMutation, or its
// per-route form.
type Config struct {
	Request, Response []route.HeaderMutation
	// RequestTrailers and ResponseTrailers change trailers, where a message has any.
	RequestTrailers, ResponseTrailers []route.HeaderMutation `json:",omitempty"`
	Query                             []QueryMutation        // after Request
	// MostSpecificWins applies the route's changes last, instead of the route
	// configuration's. It has no meaning for a route.
	MostSpecificWins bool
}

// QueryMutation changes a query parameter: Remove, or Key.
type QueryMutation struct {
	Remove     string
	Key, Value string // Value with %OPERATORS%
	Action     route.AppendAction
}

// Filter is the filter of one chain.
type Filter struct {
	own              *mutations
	mostSpecificWins bool
}

type mutations struct {
	request, response                 route.Mutations
	requestTrailers, responseTrailers route.Mutations
	query                             []queryMutation
}

type queryMutation struct {
	*QueryMutation
	value route.Value
}

// New makes a filter.
func New(c *Config) (*Filter, error) {
	own, err := compile(c)
	return &Filter{own, c.MostSpecificWins}, err
}

func compile(c *Config) (*mutations, error) {
	out := &mutations{}
	var err error
	for _, list := range []struct {
		name    string
		from    []route.HeaderMutation
		to      *route.Mutations
		singles message.IDs
	}{
		{"request", c.Request, &out.request, message.RequestSingles}, {"response", c.Response, &out.response, message.ResponseSingles},
		{"request trailers", c.RequestTrailers, &out.requestTrailers, 0},
		{"response trailers", c.ResponseTrailers, &out.responseTrailers, message.TrailerSingles},
	} {
		if *list.to, err = route.NewMutations(list.from, list.singles); err != nil {
			return nil, fmt.Errorf("header mutation: %s: %w", list.name, err)
		}
	}
	for i := range c.Query {
		v, err := route.NewValue(c.Query[i].Value)
		if err != nil {
			return nil, fmt.Errorf("header mutation: query parameter %s: %w", c.Query[i].Key, err)
		}
		out.query = append(out.query, queryMutation{&c.Query[i], v})
	}
	return out, nil
}

// Override implements filter.Overrider. A route's changes are made besides the
// filter's own, and those of all levels.
func (f *Filter) Override(config any) (any, error) {
	c, ok := config.(*Config)
	if !ok {
		return nil, fmt.Errorf("header mutation: the route's configuration is a %T", config)
	}
	return compile(c)
}

// each visits the filter's own changes and then the routes' in their order.
func (f *Filter) each(c *filter.Context, apply func(*filter.Context, *mutations)) {
	apply(c, f.own)
	n := len(c.Overrides)
	for i := range n {
		at := i
		if f.mostSpecificWins {
			at = n - 1 - i
		}
		apply(c, c.Overrides[at].(*mutations))
	}
}

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	f.each(c, request)
	return filter.Continue
}

func request(c *filter.Context, m *mutations) {
	m.request.Apply(&c.Request.Fields, c, c.Scratch)
	if len(m.query) > 0 && c.Request.Path != "" {
		m.mutateQuery(c)
	}
	if !m.requestTrailers.None() {
		c.ChangeRequestTrailers(m.requestTrailers)
	}
}

// Response implements filter.Filter.
func (f *Filter) Response(c *filter.Context) { f.each(c, response) }

func response(c *filter.Context, m *mutations) {
	m.response.Apply(&c.Response.Fields, c, c.Scratch)
}

// ResponseTrailers implements filter.Trailers.
func (f *Filter) ResponseTrailers(c *filter.Context, t *message.Fields) {
	f.each(c, func(c *filter.Context, m *mutations) { m.responseTrailers.Apply(t, c, c.Scratch) })
}

// parameter is one of a query. name is its key, decoded; key and value are as they are
// written.
type parameter struct{ name, key, value string }

// mutateQuery writes the query anew, in the order of the parameters' names, as Envoy does
// (it allocates: a rare thing). Parameters that nothing changes stay as they are written:
// Envoy decodes them, so that an encoded ampersand makes two of one.
func (m *mutations) mutateQuery(c *filter.Context) {
	path, query := message.SplitPath(c.Request.Path)
	var ps []parameter
	for pair := range strings.SplitSeq(query, "&") {
		if pair != "" {
			k, v, _ := strings.Cut(pair, "=")
			ps = append(ps, parameter{string(percent.Append(nil, k)), k, v})
		}
	}
	for i := range m.query {
		q := &m.query[i]
		if q.Remove != "" {
			ps = without(ps, q.Remove)
			continue
		}
		// What needs no escape is passed through, and the next value takes the same memory.
		ps = q.apply(ps, encoded(strings.Clone(q.value.In(c, c.Scratch))))
	}
	slices.SortStableFunc(ps, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString(path)
	for i, p := range ps {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(p.key + "=" + p.value)
	}
	c.Request.SetPath(b.String())
}

func (q *QueryMutation) apply(ps []parameter, value string) []parameter {
	at := -1
	for i := range ps {
		if ps[i].name == q.Key {
			at = i
			break
		}
	}
	p := parameter{q.Key, encoded(q.Key), value}
	switch {
	case q.Action == route.AppendIfExistsOrAdd, at < 0 && q.Action != route.OverwriteIfExists:
		return append(ps, p)
	case at < 0 || q.Action == route.AddIfAbsent:
		return ps
	}
	rest := append(ps[:at:at], p)
	return append(rest, without(ps[at+1:], q.Key)...)
}

func without(ps []parameter, key string) []parameter {
	var out []parameter
	for _, p := range ps {
		if p.name != key {
			out = append(out, p)
		}
	}
	return out
}

// encoded writes a space as %20: a plus sign stands for itself, as in Envoy.
func encoded(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
