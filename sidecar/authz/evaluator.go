package authz

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// The names of decisions that no policy made.
const (
	DefaultDeny  = "default deny"
	DefaultAllow = "default allow"
)

// Request is what rules see of a request; *message.Request implements it. The
// value of ":path" must be exactly the path that will be forwarded. HeaderFrom goes
// through the values of a field: each is matched by itself, as Envoy does, so that
// a value cannot be hidden behind another of the same name.
type Request interface {
	Header(lower string) (value string, ok bool)
	HeaderFrom(name message.Name, from int) (value string, next int, ok bool)
}

// Peer is the connection that a decision is about, its addresses parsed once.
type Peer struct {
	Info *stream.Info
	// Direct is the address at the other end of the connection and Remote the client's,
	// which a trusted hop may have named in x-forwarded-for. Info.Remote stands between
	// them: it is what the PROXY protocol says.
	Direct, Remote netip.Addr
	// Destination is the original one where a firewall redirected the connection.
	Destination netip.AddrPort
	// Announced is what a PROXY header said beside addresses; nil where there was none.
	Announced *Announced
}

// Announced is what a PROXY header said of a connection beside addresses. Immutable.
type Announced struct {
	// Metadata are for rules of connections and for their logs, not for requests; nil for none.
	Metadata *telemetry.Metadata
	// Extensions are those that upstreams may be told.
	Extensions proxytlv.Client
}

// Said are the metadata, nil for none.
func (a *Announced) Said() *telemetry.Metadata {
	if a == nil {
		return nil
	}
	return a.Metadata
}

// Passed has the extensions, nil of nobody.
func (a *Announced) Passed() *proxytlv.Client {
	if a == nil {
		return nil
	}
	return &a.Extensions
}

// NewPeer describes a connection. An invalid destination falls back to the
// connection's local address.
func NewPeer(info *stream.Info, destination netip.AddrPort) Peer {
	p := Peer{Info: info, Destination: destination}
	p.Remote = addrPort(info.Remote).Addr()
	if p.Direct = p.Remote; info.Direct != nil {
		p.Direct = addrPort(info.Direct).Addr() // a Unix socket's is in no prefix
	}
	if !p.Destination.IsValid() {
		p.Destination = addrPort(info.Local)
	}
	p.Destination = netip.AddrPortFrom(Bare(p.Destination.Addr()), p.Destination.Port())
	return p
}

// Bare is an address as rules compare it: IPv4 as such, and IPv6 without the zone of a
// link-local one, with which it would be in no prefix (RFC 4007 11), and no DENY would see it.
// Rules make it of what they compare, too: others put addresses into a Peer as sockets have them.
func Bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(Bare(ap.Addr()), ap.Port())
}

// Decision is the verdict and its reason.
type Decision struct {
	Allowed bool
	// Rule is the policy that decided, DefaultDeny or DefaultAllow; empty when
	// there are no filters.
	Rule string
	// Filter is the stat prefix of the filter that decided.
	Filter string
	// Logged is set when a policy of a LOG filter matched.
	Logged bool
	// ShadowDenied tells that shadow rules would have denied, and ShadowRule
	// which; ShadowRule is empty when there are no shadow rules.
	ShadowDenied bool
	ShadowRule   string

	counter, shadow *telemetry.Counter
}

// Count adds the decision to hauberk_authz_decisions_total.
func (d Decision) Count(s telemetry.Shard) {
	d.counter.Inc(s)
	d.shadow.Inc(s)
}

// Level says what rules of a filter can see.
type Level uint8

// The levels.
const (
	// Connection rules see addresses and identities; a rule about headers or the
	// path is refused, because it could never hold.
	Connection Level = iota
	// Exchange rules see the request too.
	Exchange
)

// CounterFor interns the counter of one rule's decisions;
// (*telemetry.Metrics).AuthzCounter is one.
type CounterFor func(shadow, allowed bool, rule string) *telemetry.Counter

// Evaluator decides over a list of RBAC filters. Immutable. A nil Evaluator
// allows everything: nothing was configured.
type Evaluator struct {
	level   Level
	filters []filter
	asks    bool // rules ask what network filters have found
	// capitals: paths were normalised, and their escapes have capital digits.
	capitals bool
}

type filter struct {
	name          string
	rules, shadow *ruleSet
	prefix        string
	denyDelay     time.Duration
}

type ruleSet struct {
	action   Action
	policies []policy
	// unmatched counts what no policy matched.
	unmatched *telemetry.Counter
	// ordered stands in place of all that, if it is there.
	ordered *ordered
}

type policy struct {
	name        string
	permissions []matcher
	principals  []matcher
	counter     *telemetry.Counter
}

// Compile checks and compiles filters. count may be nil. Errors name the filter,
// the policy and the field.
func Compile(filters []NetworkFilter, level Level, count CounterFor) (*Evaluator, error) {
	if len(filters) == 0 {
		return nil, nil
	}
	if count == nil {
		count = func(bool, bool, string) *telemetry.Counter { return nil }
	}
	e := &Evaluator{level: level, filters: make([]filter, len(filters))}
	for i, f := range filters {
		c := compiler{level: level, count: count}
		rules, err := c.ruleSet(f.Rules, false)
		if err != nil {
			return nil, fmt.Errorf("authz: filter %d (%s): rules: %w", i, f.StatPrefix, err)
		}
		shadow, err := c.ruleSet(f.Shadow, true)
		if err != nil {
			return nil, fmt.Errorf("authz: filter %d (%s): shadow rules: %w", i, f.StatPrefix, err)
		}
		e.filters[i] = filter{f.StatPrefix, rules, shadow, f.ShadowPrefix, f.DenyDelay}
		e.asks = e.asks || c.asks
	}
	return e, nil
}

// CheckConn decides over a connection. An evaluator of the Exchange level must not
// be asked: it denies, because its rules need a request.
func (e *Evaluator) CheckConn(p *Peer) Decision {
	if e == nil {
		return Decision{Allowed: true}
	}
	if e.level == Exchange {
		return Decision{Rule: DefaultDeny}
	}
	return e.check(&input{peer: p, collects: e.asks})
}

// DenyDelay is how long a connection that CheckConn denies waits for its end: the denial is looked
// for once more, so that a decision need not carry it.
func (e *Evaluator) DenyDelay(p *Peer) time.Duration {
	if e == nil || e.level == Exchange {
		return 0
	}
	in, d := input{peer: p, collects: e.asks}, undecided
	for i := range e.filters {
		if !e.filters[i].check(&in, &d) {
			return e.filters[i].denyDelay
		}
	}
	return 0
}

// CheckRequest decides over a request, of which nobody has said anything. It allocates nothing,
// but for rules on metadata, and once for expressions on a path that was normalised and has escapes
// with letters.
func (e *Evaluator) CheckRequest(p *Peer, r Request) Decision {
	if e == nil {
		return Decision{Allowed: true}
	}
	return e.check(&input{peer: p, req: r, capitals: e.capitals})
}

// input is what matchers look at.
type input struct {
	peer     *Peer
	req      Request
	metadata Metadata // nil for none
	// found is by network filters so far, where rules ask for it: the shadow rules of a filter
	// speak before its others do. In a filter of requests they speak after them.
	collects bool
	capitals bool // as of Evaluator
	found    []Findings
	// small is the path whole in its other spelling, empty where it has none: see smallPath.
	whole, small string
	// without is the path parameters without its parameters, made at most once for a filter.
	parameters, without string
}

func (e *Evaluator) check(in *input) Decision {
	d := undecided
	for i := range e.filters {
		if !e.filters[i].check(in, &d) {
			break
		}
	}
	return d
}

// undecided is the decision before the first filter.
var undecided = Decision{Allowed: true, Rule: DefaultAllow}

// Len is the number of filters. A nil Evaluator has none.
func (e *Evaluator) Len() int {
	if e == nil {
		return 0
	}
	return len(e.filters)
}

// OfNormalized returns e, which is asked of paths that were normalised.
func (e *Evaluator) OfNormalized(paths bool) *Evaluator {
	if e == nil {
		return nil
	}
	e.capitals = paths
	for i := range e.filters {
		if f := &e.filters[i]; paths {
			f.rules.spell()
			f.shadow.spell()
		}
	}
	return e
}

// Named gives e, which stands in place of filter i of another, those of its prefixes that e
// itself does not have, as in Envoy.
func (e *Evaluator) Named(of *Evaluator, i int) *Evaluator {
	if e != nil {
		for n := range e.filters {
			f := &e.filters[n]
			f.name, f.prefix = cmp.Or(f.name, of.filters[i].name), cmp.Or(f.prefix, of.filters[i].prefix)
		}
	}
	return e
}

// Next asks filter i about a request and carries its decision into d, whose zero
// value is the one before the first; false ends the request. It is CheckRequest in
// steps, for chains in which other filters stand between, which m tells of. It allocates
// what CheckRequest does.
func (e *Evaluator) Next(i int, p *Peer, r Request, m Metadata, d *Decision) bool {
	if d.Rule == "" {
		*d = undecided
	}
	in := input{peer: p, req: r, metadata: m, capitals: e.capitals}
	return e.filters[i].check(&in, d)
}

// check carries the filter's decision into d; false when it denies.
func (f *filter) check(in *input, d *Decision) bool {
	if f.shadow != nil {
		f.shadow.shadowInto(in, d)
		if in.collects {
			f.collectShadow(in)
		}
	}
	if f.rules == nil {
		return true
	}
	if f.rules.ordered != nil {
		return f.rules.ordered.into(in, d, f.name)
	}
	p := f.rules.match(in)
	switch {
	case f.rules.action == Log:
		d.Logged = d.Logged || p != nil
	case f.rules.action == Allow && p == nil:
		d.Allowed, d.Rule, d.Filter, d.counter = false, DefaultDeny, f.name, f.rules.unmatched
	case f.rules.action == Deny && p != nil:
		d.Allowed, d.Rule, d.Filter, d.counter = false, p.name, f.name, p.counter
	case f.rules.action == Allow:
		d.Rule, d.Filter, d.counter = p.name, f.name, p.counter
	case d.Rule == DefaultAllow:
		d.Filter, d.counter = f.name, f.rules.unmatched
	}
	return d.Allowed
}

func (r *ruleSet) shadowInto(in *input, d *Decision) {
	if d.ShadowDenied {
		return
	}
	if r.ordered != nil {
		r.ordered.shadowInto(in, d)
		return
	}
	p := r.match(in)
	switch {
	case r.action == Allow && p == nil:
		d.ShadowDenied, d.ShadowRule, d.shadow = true, DefaultDeny, r.unmatched
	case r.action == Deny && p != nil:
		d.ShadowDenied, d.ShadowRule, d.shadow = true, p.name, p.counter
	case p != nil:
		d.ShadowRule, d.shadow = p.name, p.counter
	case d.ShadowRule == "":
		d.ShadowRule, d.shadow = DefaultAllow, r.unmatched
	}
}

// match returns the first policy, in order of name, that matches.
func (r *ruleSet) match(in *input) *policy {
	for i := range r.policies {
		p := &r.policies[i]
		if anyOf(p.permissions, in) && anyOf(p.principals, in) {
			return p
		}
	}
	return nil
}
