package authz

// DeniesAll tells whether every request of the peer would be denied, whatever it asks
// for, and by which rule: then a connection of the peer has no use any more, and what
// it carries must not go on. Where that depends on the request it is false.
func (e *Evaluator) DeniesAll(p *Peer) (rule string, denied bool) {
	if e == nil {
		return "", false
	}
	in := input{peer: p}
	for i := range e.filters {
		r := e.filters[i].rules
		switch {
		case r == nil || r.action == Log:
		case r.action == Allow:
			if r.matchAny(&in, possibly) == nil {
				return DefaultDeny, true
			}
		default:
			if p := r.matchAny(&in, certainly); p != nil {
				return p.name, true
			}
		}
	}
	return "", false
}

// certainty is how a matcher is asked without a request.
type certainty bool

const (
	certainly certainty = true  // does it match every request; false in doubt
	possibly  certainty = false // may it match some request; true in doubt
)

// matchAny returns a policy that matches with that certainty.
func (r *ruleSet) matchAny(in *input, how certainty) *policy {
	for i := range r.policies {
		p := &r.policies[i]
		if anyWithout(p.permissions, in, how) && anyWithout(p.principals, in, how) {
			return p
		}
	}
	return nil
}

func anyWithout(ms []matcher, in *input, how certainty) bool {
	for i := range ms {
		if ms[i].without(in, how) {
			return true
		}
	}
	return false
}

// without is match where the request is not known.
func (m *matcher) without(in *input, how certainty) bool {
	switch m.kind {
	case kindHeader, kindURLPath, kindTemplate:
		return how == possibly
	case kindAnd:
		for i := range m.sub {
			if !m.sub[i].without(in, how) {
				return false
			}
		}
		return true
	case kindOr:
		return anyWithout(m.sub, in, how)
	case kindNot:
		return !m.sub[0].without(in, !how)
	}
	return m.match(in)
}
