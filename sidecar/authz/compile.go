package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// maxDepth bounds the nesting of and, or and not.
const maxDepth = 64

type compiler struct {
	level Level
	count CounterFor
	asks  bool // a rule asks what network filters have found
}

func (c *compiler) ruleSet(r *Rules, shadow bool) (*ruleSet, error) {
	if r == nil {
		return nil, nil
	}
	if r.Ordered != nil {
		if r.Action != Allow || len(r.Policies) > 0 {
			return nil, errors.New("policies and an order of cases exclude one another")
		}
		o, err := c.ordered(r.Ordered, shadow)
		return &ruleSet{ordered: o}, err
	}
	if r.Action > Log {
		return nil, fmt.Errorf("action %d is unknown", r.Action)
	}
	out := &ruleSet{action: r.Action, policies: make([]policy, 0, len(r.Policies))}
	seen := map[string]bool{}
	for _, p := range r.Policies {
		if seen[p.Name] {
			return nil, fmt.Errorf("policy %q is there twice", p.Name)
		}
		seen[p.Name] = true
		compiled, err := c.policy(p)
		if err != nil {
			return nil, fmt.Errorf("policy %q: %w", p.Name, err)
		}
		compiled.counter = c.count(shadow, r.Action != Deny, p.Name)
		out.policies = append(out.policies, compiled)
	}
	slices.SortFunc(out.policies, func(a, b policy) int { return strings.Compare(a.name, b.name) })
	switch r.Action {
	case Allow:
		out.unmatched = c.count(shadow, false, DefaultDeny)
	case Deny:
		out.unmatched = c.count(shadow, true, DefaultAllow)
	}
	return out, nil
}

func (c *compiler) policy(p Policy) (policy, error) {
	out := policy{name: p.Name}
	if len(p.Permissions) == 0 || len(p.Principals) == 0 {
		return out, errors.New("permissions and principals must not be empty; use any to match everything")
	}
	for i := range p.Permissions {
		m, err := c.permission(&p.Permissions[i], 0)
		if err != nil {
			return out, fmt.Errorf("permissions[%d]%w", i, err)
		}
		out.permissions = append(out.permissions, m)
	}
	for i := range p.Principals {
		m, err := c.principal(&p.Principals[i], 0)
		if err != nil {
			return out, fmt.Errorf("principals[%d]%w", i, err)
		}
		out.principals = append(out.principals, m)
	}
	return out, nil
}

// at prefixes an error with the field that it is about; errors below a policy
// start with the rest of their path or with ": ".
func at(field string, err error) error { return fmt.Errorf(".%s%w", field, err) }

// because ends the path of a field with what is wrong.
func because(err error) error { return fmt.Errorf(": %w", err) }

func wrong(format string, args ...any) error { return because(fmt.Errorf(format, args...)) }

// one checks that exactly one of the fields of a rule is set.
func one(set ...bool) error {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n != 1 {
		return wrong("exactly one field must be set, %d are", n)
	}
	return nil
}

func (c *compiler) permission(p *Permission, depth int) (m matcher, err error) {
	if depth > maxDepth {
		return m, wrong("nested more than %d deep", maxDepth)
	}
	if err := one(p.Any, p.And != nil, p.Or != nil, p.Not != nil, p.Header != nil, p.URLPath != nil,
		p.Destination != nil, p.Port != 0, p.PortRange != nil, p.SNI != nil, p.Template != nil, p.Metadata != nil); err != nil {
		return m, err
	}
	switch {
	case p.Any:
		m.kind = kindAny
	case p.And != nil:
		m.kind = kindAnd
		m.sub, err = each(p.And, "and_rules", depth, c.permission)
	case p.Or != nil:
		m.kind = kindOr
		m.sub, err = each(p.Or, "or_rules", depth, c.permission)
	case p.Not != nil:
		m.kind = kindNot
		var sub matcher
		if sub, err = c.permission(p.Not, depth+1); err != nil {
			err = at("not_rule", err)
		}
		m.sub = []matcher{sub}
	case p.Header != nil:
		m, err = c.header(p.Header)
	case p.URLPath != nil:
		m, err = c.urlPath(p.URLPath)
	case p.Destination != nil:
		m.kind, m.prefix = kindDestination, p.Destination.Masked()
		if !m.prefix.IsValid() {
			err = at("destination_ip", wrong("not a valid prefix"))
		}
	case p.Port != 0:
		m.kind, m.lo, m.hi = kindPort, uint32(p.Port), uint32(p.Port)+1
	case p.PortRange != nil:
		m.kind, m.lo, m.hi = kindPort, p.PortRange[0], p.PortRange[1]
		if m.lo >= m.hi {
			err = at("destination_port_range", wrong("[%d, %d) is empty", m.lo, m.hi))
		}
	case p.Template != nil:
		if c.level == Connection {
			return m, at("uri_template", wrong("a network filter sees no requests; put the rule into the HTTP filter"))
		}
		m.kind, m.tmpl = kindTemplate, p.Template
	case p.Metadata != nil:
		m, err = c.metadata(p.Metadata)
	case p.SNI != nil:
		m.kind = kindSNI
		if m.str, err = compileString(p.SNI); err != nil {
			err = at("requested_server_name", because(err))
		}
	}
	return m, err
}

func (c *compiler) principal(p *Principal, depth int) (m matcher, err error) {
	if depth > maxDepth {
		return m, wrong("nested more than %d deep", maxDepth)
	}
	if p.Name != nil && !p.Authenticated {
		return m, at("authenticated.principal_name", wrong("a name needs authenticated"))
	}
	if err := one(p.Any, p.And != nil, p.Or != nil, p.Not != nil, p.Authenticated,
		p.DirectSource != nil, p.ConnectionSource != nil, p.Source != nil, p.Header != nil, p.URLPath != nil, p.Metadata != nil); err != nil {
		return m, err
	}
	switch {
	case p.Any:
		m.kind = kindAny
	case p.And != nil:
		m.kind = kindAnd
		m.sub, err = each(p.And, "and_ids", depth, c.principal)
	case p.Or != nil:
		m.kind = kindOr
		m.sub, err = each(p.Or, "or_ids", depth, c.principal)
	case p.Not != nil:
		m.kind = kindNot
		var sub matcher
		if sub, err = c.principal(p.Not, depth+1); err != nil {
			err = at("not_id", err)
		}
		m.sub = []matcher{sub}
	case p.Authenticated && p.Name == nil:
		m.kind = kindAuthenticated
	case p.Authenticated:
		m.kind = kindPeerName
		if m.str, err = compileString(p.Name); err != nil {
			err = at("authenticated.principal_name", because(err))
		}
	case p.DirectSource != nil:
		m.kind, m.prefix = kindDirect, p.DirectSource.Masked()
		if !m.prefix.IsValid() {
			err = at("direct_remote_ip", wrong("not a valid prefix"))
		}
	case p.ConnectionSource != nil:
		m.kind, m.prefix = kindConnection, p.ConnectionSource.Masked()
		if !m.prefix.IsValid() {
			err = at("source_ip", wrong("not a valid prefix"))
		}
	case p.Source != nil:
		m.kind, m.prefix = kindRemote, p.Source.Masked()
		if !m.prefix.IsValid() {
			err = at("remote_ip", wrong("not a valid prefix"))
		}
	case p.Header != nil:
		m, err = c.header(p.Header)
	case p.URLPath != nil:
		m, err = c.urlPath(p.URLPath)
	case p.Metadata != nil:
		m, err = c.metadata(p.Metadata)
	}
	return m, err
}

func each[T any](rules []T, field string, depth int, compile func(*T, int) (matcher, error)) ([]matcher, error) {
	if len(rules) == 0 {
		return nil, at(field, wrong("must not be empty"))
	}
	out := make([]matcher, len(rules))
	for i := range rules {
		m, err := compile(&rules[i], depth+1)
		if err != nil {
			return nil, at(fmt.Sprintf("%s[%d]", field, i), err)
		}
		out[i] = m
	}
	return out, nil
}

func (c *compiler) urlPath(s *route.StringMatch) (matcher, error) {
	if c.level == Connection {
		return matcher{}, at("url_path", wrong("a network filter sees no requests; put the rule into the HTTP filter"))
	}
	str, err := compileString(s)
	if err != nil {
		return matcher{}, at("url_path", because(err))
	}
	return matcher{kind: kindURLPath, str: str}, nil
}

func (c *compiler) header(h *route.HeaderMatch) (matcher, error) {
	fail := func(err error) (matcher, error) { return matcher{}, at("header("+h.Name+")", because(err)) }
	switch {
	case c.level == Connection:
		return fail(errors.New("a network filter sees no requests; put the rule into the HTTP filter"))
	case h.Name == "":
		return fail(errors.New("the name is empty"))
	case h.Name != strings.ToLower(h.Name):
		return fail(errors.New("the name must be lower case"))
	}
	out := &headerMatcher{name: message.NameOf(h.Name), path: h.Name == ":path", present: true, invert: h.Invert, missingAsEmpty: h.MissingAsEmpty}
	set := 0
	if h.Value != nil {
		set++
		str, err := compileString(h.Value)
		if err != nil {
			return fail(err)
		}
		out.str = str
	}
	if h.Range != nil {
		set++
		out.isRange, out.lo, out.hi = true, h.Range[0], h.Range[1]
		if out.lo >= out.hi {
			return fail(fmt.Errorf("range [%d, %d) is empty", out.lo, out.hi))
		}
	}
	if h.Present != nil {
		set++
		out.present = *h.Present
	}
	if set > 1 {
		return fail(errors.New("only one of value, range and present may be set"))
	}
	return matcher{kind: kindHeader, header: out}, nil
}
