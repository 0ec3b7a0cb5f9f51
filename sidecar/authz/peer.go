package authz

// DeniesAll tells whether filter i would deny every request of a peer, whatever it asked
// for, and by which rule. With forwarded, requests on the peer's connection may be those
// of other clients, whom a trusted hop names. Where the answer depends on the request it
// is false.
func (e *Evaluator) DeniesAll(i int, p *Peer, forwarded bool) (rule string, denied bool) {
	in := unasked{input{peer: p}, forwarded}
	r := e.filters[i].rules
	switch {
	case r != nil && r.ordered != nil:
		return r.ordered.deniesAll(&in)
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
	return "", false
}

// unasked is the input of a request that was not made.
type unasked struct {
	input
	forwarded bool
}

// certainty is how a matcher is asked without a request.
type certainty bool

const (
	certainly certainty = true  // does it match every request; false in doubt
	possibly  certainty = false // may it match some request; true in doubt
)

// matchAny returns a policy that matches with that certainty.
func (r *ruleSet) matchAny(in *unasked, how certainty) *policy {
	for i := range r.policies {
		p := &r.policies[i]
		if anyWithout(p.permissions, in, how) && anyWithout(p.principals, in, how) {
			return p
		}
	}
	return nil
}

func anyWithout(ms []matcher, in *unasked, how certainty) bool {
	for i := range ms {
		if ms[i].without(in, how) {
			return true
		}
	}
	return false
}

// without is match where the request is not known.
func (m *matcher) without(in *unasked, how certainty) bool {
	switch m.kind {
	case kindHeader, kindURLPath, kindTemplate, kindLine, kindMetadata:
		return how == possibly
	case kindRemote:
		if in.forwarded {
			return how == possibly
		}
	case kindURISAN:
		if !in.peer.Info.TLS {
			return how == certainly // neither it nor its inverse matches: what is not known denies
		}
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
	return m.match(&in.input)
}
