package authz

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Ordered is xds.type.matcher.v3.Matcher with RBAC's actions: the first case that holds
// decides. Where none does, Otherwise decides; nil denies, as in Envoy.
type Ordered struct {
	Cases     []Case
	Otherwise *Outcome
}

// Case is an outcome and when it is that.
type Case struct {
	When Condition
	Then Outcome
}

// Outcome is envoy.config.rbac.v3.Action. Log passes, and records the match.
type Outcome struct {
	Name   string
	Action Action
}

// Condition is a predicate over an input. Exactly one of the fields before Value is set.
type Condition struct {
	And, Or []Condition
	Not     *Condition
	// Header, URISAN and SNI are texts, which Value matches. One that is absent is not
	// matched by anything. A field that is there more than once is one text, its values
	// joined by commas, and so are the URIs of a foreign peer's certificate.
	Header      string // lower case
	URISAN, SNI bool
	// Source and DirectSource match addresses: those of Peer.Remote and Peer.Direct.
	Source, DirectSource []netip.Prefix

	Value *route.StringMatch
}

// ordered is a compiled Ordered.
type ordered struct {
	cases     []orderedCase
	otherwise outcome
	unknown   outcome // of what cannot be told
	named     bool    // otherwise was configured
}

type orderedCase struct {
	when matcher
	then outcome
}

type outcome struct {
	name    string
	action  Action
	counter *telemetry.Counter
}

func (c *compiler) ordered(o *Ordered, shadow bool) (*ordered, error) {
	denied := outcome{DefaultDeny, Deny, c.count(shadow, false, DefaultDeny)}
	out := &ordered{otherwise: denied, unknown: denied}
	if o.Otherwise != nil {
		var err error
		out.named = true
		if out.otherwise, err = c.outcome(*o.Otherwise, shadow); err != nil {
			return nil, fmt.Errorf("otherwise: %w", err)
		}
	}
	for i := range o.Cases {
		when, err := c.condition(&o.Cases[i].When, 0)
		if err != nil {
			return nil, fmt.Errorf("cases[%d]%w", i, err)
		}
		then, err := c.outcome(o.Cases[i].Then, shadow)
		if err != nil {
			return nil, fmt.Errorf("cases[%d]: %w", i, err)
		}
		out.cases = append(out.cases, orderedCase{when, then})
	}
	return out, nil
}

func (c *compiler) outcome(o Outcome, shadow bool) (outcome, error) {
	if o.Name == "" || o.Action > Log {
		return outcome{}, fmt.Errorf("action %d of %q: a name and a known action are needed", o.Action, o.Name)
	}
	return outcome{o.Name, o.Action, c.count(shadow, o.Action != Deny, o.Name)}, nil
}

func (c *compiler) condition(p *Condition, depth int) (m matcher, err error) {
	if depth > maxDepth {
		return m, wrong("nested more than %d deep", maxDepth)
	}
	if err := one(p.And != nil, p.Or != nil, p.Not != nil, p.Header != "", p.URISAN, p.SNI, p.Source != nil, p.DirectSource != nil); err != nil {
		return m, err
	}
	switch {
	case p.And != nil:
		m.kind = kindAnd
		m.sub, err = each(p.And, "and_matcher", depth, c.condition)
	case p.Or != nil:
		m.kind = kindOr
		m.sub, err = each(p.Or, "or_matcher", depth, c.condition)
	case p.Not != nil:
		m.kind = kindNot
		m.sub, err = each([]Condition{*p.Not}, "not_matcher", depth, c.condition)
	case p.Source != nil:
		m, err = among(kindRemote, p.Source)
	case p.DirectSource != nil:
		m, err = among(kindDirect, p.DirectSource)
	default:
		m, err = c.text(p)
	}
	return m, err
}

// among matches an address that is in one of several prefixes.
func among(k kind, prefixes []netip.Prefix) (matcher, error) {
	m := matcher{kind: k}
	sorted := slices.Clone(prefixes)
	for i, p := range sorted {
		if !p.IsValid() {
			return m, at("custom_match", wrong("not a valid prefix"))
		}
		sorted[i] = p.Masked()
	}
	if len(sorted) == 0 {
		return m, at("custom_match", wrong("has no prefix"))
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, p := range sorted {
		if n := len(m.among); n == 0 || !m.among[n-1].Contains(p.Addr()) {
			m.among = append(m.among, p)
		}
	}
	return m, nil
}

// contains tells whether an address is in the prefix, or in one of those that stand in its
// place. No two of them overlap, so only the last one that begins at or before it may have it.
func (m *matcher) contains(a netip.Addr) bool {
	if m.among == nil {
		return m.prefix.Contains(a)
	}
	i, found := slices.BinarySearchFunc(m.among, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && m.among[i-1].Contains(a)
}

func (c *compiler) text(p *Condition) (m matcher, err error) {
	switch {
	case p.Value == nil:
		return m, at("value_match", wrong("is missing"))
	case p.Header != "" && c.level == Connection:
		return m, at("input", wrong("a network filter sees no requests; put the rule into the HTTP filter"))
	case p.Header != strings.ToLower(p.Header):
		return m, at("input", because(errors.New("the name of a header must be lower case")))
	}
	switch {
	case p.Header != "":
		m.kind, m.header = kindLine, &headerMatcher{name: message.NameOf(p.Header), path: p.Header == ":path"}
	case p.URISAN:
		m.kind = kindURISAN
	default:
		m.kind = kindServerName
	}
	if m.str, err = compileString(p.Value); err != nil {
		err = at("value_match", because(err))
	}
	return m, err
}

// matchLine matches all values of a field as one text.
func (m *matcher) matchLine(in *input) bool {
	r := in.req
	first, next, ok := r.HeaderFrom(m.header.name, 0)
	switch {
	case !ok:
		return false
	case m.header.path:
		return m.str.matchPath(first, first, in)
	}
	second, next, more := r.HeaderFrom(m.header.name, next)
	if !more {
		return m.str.match(first)
	}
	values := []string{first, second}
	for {
		value, after, ok := r.HeaderFrom(m.header.name, next)
		if !ok {
			return m.str.match(strings.Join(values, ","))
		}
		values, next = append(values, value), after
	}
}

// matchURISAN matches the URIs that a peer is vouched to have, as one text.
func (m *matcher) matchURISAN(info *stream.Info) bool {
	if info.Peer.Names() == nil {
		return info.PeerID != "" && m.str.match(info.PeerID)
	}
	switch uris := info.Peer.URIs(); len(uris) {
	case 0:
		return false
	case 1:
		return m.str.match(uris[0])
	default:
		return m.str.match(strings.Join(uris, ","))
	}
}

// decide returns the outcome of the first case that holds. A case of which that is not known
// ends the search, and denies, as in Envoy: a case behind it may let pass what it would deny.
func (o *ordered) decide(in *input) *outcome {
	for i := range o.cases {
		switch holds, known := o.cases[i].when.holds(in); {
		case !known:
			return &o.unknown
		case holds:
			return &o.cases[i].then
		}
	}
	return &o.otherwise
}

// holds is match, and whether that is known: without TLS nothing is known of a peer's URIs, which
// is another thing than that it has none. No inversion makes a match of it.
func (m *matcher) holds(in *input) (holds, known bool) {
	if in.peer.Info.TLS {
		return m.match(in), true
	}
	switch m.kind {
	case kindURISAN:
		return false, false
	case kindAnd:
		for i := range m.sub {
			if holds, known = m.sub[i].holds(in); !holds {
				return false, known
			}
		}
		return true, true
	case kindOr:
		known = true
		for i := range m.sub {
			h, k := m.sub[i].holds(in)
			if h {
				return true, true
			}
			known = known && k
		}
		return false, known
	case kindNot:
		holds, known = m.sub[0].holds(in)
		return known && !holds, known
	}
	return m.match(in), true
}

// into carries what the cases decide into d; false when they deny.
func (o *ordered) into(in *input, d *Decision, filter string) bool {
	then := o.decide(in)
	d.Rule, d.Filter, d.counter = then.name, filter, then.counter
	d.Allowed, d.Logged = d.Allowed && then.action != Deny, d.Logged || then.action == Log
	return d.Allowed
}

// shadowInto is into for rules that are only reported.
func (o *ordered) shadowInto(in *input, d *Decision) {
	then := o.decide(in)
	d.ShadowDenied, d.ShadowRule, d.shadow = then.action == Deny, then.name, then.counter
}

// deniesAll tells whether all requests would be denied, and by which rule: the first case
// that may hold is not one that lets a request pass, up to one behind which nothing is asked.
func (o *ordered) deniesAll(in *unasked) (rule string, denied bool) {
	for i := range o.cases {
		c := &o.cases[i]
		may, last := c.when.without(in, possibly), c.when.without(in, certainly)
		switch {
		case may && c.then.action != Deny:
			return "", false
		case may && last:
			return c.then.name, true
		case last:
			return o.unknown.name, true
		}
	}
	return o.otherwise.name, o.otherwise.action == Deny
}
