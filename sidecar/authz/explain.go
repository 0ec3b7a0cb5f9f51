package authz

// Findings are what one filter makes of a request, for those who show it in Envoy's terms.
type Findings struct {
	Rules, Shadow Finding
	// Prefix stands in front of what is said of the shadow rules, RulesPrefix of the others.
	Prefix, RulesPrefix string
	// Logs: the rules say whether to log this request, and Logged what.
	Logs, Logged bool
}

// Finding is what one set of rules says.
type Finding struct {
	Asked, Allowed bool
	Policy         string // that matched, empty for none
}

// Explain asks filter i about a request once more, for what a Decision does not keep: it tells of all
// filters together, and these findings are of one. It decides nothing and counts nothing.
func (e *Evaluator) Explain(i int, p *Peer, r Request, m Metadata) (out Findings) {
	in, f := &input{peer: p, req: r, metadata: m, capitals: e.capitals}, &e.filters[i]
	out.Prefix = f.prefix
	if f.shadow != nil {
		out = f.ofShadow(in)
	}
	if f.rules != nil {
		out.RulesPrefix = f.name
		out.Rules, out.Logged = f.rules.find(in)
		out.Logs = f.rules.logs() && (f.rules.ordered == nil || out.Rules.Policy != "")
	}
	return out
}

// collectShadow keeps what the shadow rules find.
//
//go:noinline
func (f *filter) collectShadow(in *input) { in.found = append(in.found, f.ofShadow(in)) }

// ofShadow is what the shadow rules find.
func (f *filter) ofShadow(in *input) Findings {
	out := Findings{Prefix: f.prefix}
	out.Shadow, _ = f.shadow.find(in)
	return out
}

// find also tells whether a rule matched that marks a request to be logged.
func (r *ruleSet) find(in *input) (out Finding, logged bool) {
	out.Asked = true
	if o := r.ordered; o != nil {
		then := o.decide(in)
		if then != &o.unknown && (then != &o.otherwise || o.named) {
			out.Policy = then.name
		}
		out.Allowed = then.action != Deny
		return out, then.action == Log
	}
	p := r.match(in)
	if p != nil {
		out.Policy = p.name
	}
	out.Allowed = r.action == Log || (p != nil) == (r.action == Allow)
	return out, r.action == Log && p != nil
}

// logs tells whether a rule marks requests to be logged. A matcher of which nothing matched says
// neither.
func (r *ruleSet) logs() bool {
	o := r.ordered
	if o == nil {
		return r.action == Log
	}
	for i := range o.cases {
		if o.cases[i].then.action == Log {
			return true
		}
	}
	return o.otherwise.action == Log
}
