package route

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/percent"
)

// RateLimit says how a request is described to rate limit filters
// (envoy.config.route.v3.RateLimit).
type RateLimit struct {
	// Stage is that of the filters which use it.
	Stage   uint32
	Actions []RateLimitAction // in the order of the descriptor's entries
	// Headers is the descriptor's say over the filter's x-ratelimit headers.
	Headers RateLimitHeaders
	// Hits is how many tokens a request takes, nil for one. HitsFormat says it in its stead: one
	// operator, without whose number the request has no descriptor. With Refund it gives so many
	// back. These are for what filters have themselves.
	Hits       *uint32 `json:",omitempty"`
	HitsFormat string  `json:",omitempty"`
	Refund     bool    `json:",omitempty"`
}

// RateLimitHeaders tells whether a client is told of its limit.
type RateLimitHeaders uint8

// Envoy's XRateLimitOption values.
const (
	RateLimitHeadersOfFilter RateLimitHeaders = iota
	RateLimitHeadersOff
	RateLimitHeadersOn
)

// HostRateLimits tells which routes' requests a virtual host's rate limits describe.
type HostRateLimits uint8

// Envoy's VhRateLimitsOptions values.
const (
	HostRateLimitsOverridden HostRateLimits = iota // of routes that have none of their own
	HostRateLimitsIncluded
	HostRateLimitsIgnored
)

// RateLimitActionKind is what an action makes an entry of.
type RateLimitActionKind uint8

// The actions, named as Envoy names them.
const (
	LimitSourceCluster RateLimitActionKind = iota
	LimitDestinationCluster
	LimitRequestHeader
	LimitQueryParameter
	LimitRemoteAddress
	LimitMaskedRemoteAddress
	LimitGenericKey
	LimitHeaderValueMatch
	LimitQueryParameterValueMatch
	LimitRemoteAddressMatch
)

// RateLimitAction makes one entry of a descriptor, of Key and a value. Where it makes
// none, there is no descriptor.
type RateLimitAction struct {
	Kind RateLimitActionKind
	Key  string
	// Value is the literal one of generic keys and of matches.
	Value string
	// Name is the header's, in lower case, or the parameter's.
	Name string
	// SkipIfAbsent leaves the entry out, and not the descriptor, where the header or
	// parameter is missing.
	SkipIfAbsent bool
	// Headers and Query all have to match, or, with Unless, not all of them.
	Headers []HeaderMatch
	Query   []QueryMatch
	Unless  bool
	// Prefixes are the addresses that match, or, with Unless, all others.
	Prefixes []netip.Prefix
	// V4Bits and V6Bits are how much of an address is kept.
	V4Bits, V6Bits int
}

// Described is the request that is described.
type Described struct {
	Request  *message.Request
	Client   *Client
	Selected *Selected
	// Source is the cluster that this node belongs to.
	Source string
}

// RateLimits are the lists that describe the request: its route's and its virtual host's.
// A request that is not forwarded has none.
func (s *Selected) RateLimits(o HostRateLimits) (own, host []RateLimit) {
	if s.Route == nil || s.Route.Forward == nil {
		return nil, nil
	}
	f := s.Route.Forward
	if f.IncludeHostRateLimits || o == HostRateLimitsIncluded || o == HostRateLimitsOverridden && len(f.RateLimits) == 0 {
		host = s.VirtualHost.RateLimits
	}
	return f.RateLimits, host
}

// AppendDescriptor appends the request's descriptor to b, in the form of
// AppendDescriptorEntry; false when an action makes no entry. It allocates nothing
// where b has room.
func (r *RateLimit) AppendDescriptor(b []byte, d *Described) ([]byte, bool) {
	for i := range r.Actions {
		var ok bool
		if b, ok = r.Actions[i].appendEntry(b, d); !ok {
			return b, false
		}
	}
	return b, true
}

// AppendDescriptorEntry appends one entry of a descriptor: two texts, each after its
// length. Descriptors are equal when their bytes are.
func AppendDescriptorEntry(b []byte, key, value string) []byte {
	b, at := openEntry(b, key)
	return closeEntry(append(b, value...), at)
}

func openEntry(b []byte, key string) (_ []byte, at int) {
	b = binary.BigEndian.AppendUint32(b, uint32(len(key)))
	b = append(b, key...)
	return append(b, 0, 0, 0, 0), len(b)
}

func closeEntry(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// CutDescriptorEntry takes the first entry off a descriptor; ok is false at its end.
func CutDescriptorEntry(b []byte) (key, value, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, nil, false
	}
	key, rest = cutText(b)
	value, rest = cutText(rest)
	return key, value, rest, true
}

func cutText(b []byte) (text, rest []byte) {
	n := binary.BigEndian.Uint32(b)
	return b[4 : 4+n], b[4+n:]
}

func (a *RateLimitAction) appendEntry(b []byte, d *Described) ([]byte, bool) {
	switch a.Kind {
	case LimitSourceCluster:
		return AppendDescriptorEntry(b, a.Key, d.Source), true
	case LimitDestinationCluster:
		if d.Selected.Route == nil || d.Selected.Route.Forward == nil {
			return b, false
		}
		return AppendDescriptorEntry(b, a.Key, d.Selected.Cluster), true
	case LimitRequestHeader:
		value, _, ok := d.Request.HeaderFrom(message.NameOf(a.Name), 0)
		if !ok {
			return b, a.SkipIfAbsent
		}
		return AppendDescriptorEntry(b, a.Key, value), true
	case LimitQueryParameter:
		_, query := cut(d.Request.Path)
		value, ok := decodedParameter(query, a.Name)
		if !ok {
			return b, a.SkipIfAbsent
		}
		b, at := openEntry(b, a.Key)
		return closeEntry(percent.Append(b, value), at), true
	case LimitRemoteAddress, LimitMaskedRemoteAddress:
		return a.appendAddress(b, d.Client)
	case LimitHeaderValueMatch:
		if a.headersMatch(d.Request) == a.Unless {
			return b, false
		}
	case LimitRemoteAddressMatch:
		if !a.addressMatches(d.Client) {
			return b, false
		}
	case LimitQueryParameterValueMatch:
		var matches bool
		if b, matches = a.queryMatches(b, d.Request); matches == a.Unless {
			return b, false
		}
	}
	return AppendDescriptorEntry(b, a.Key, a.Value), true
}

func (a *RateLimitAction) appendAddress(b []byte, c *Client) ([]byte, bool) {
	if c == nil || !c.Addr.IsValid() {
		return b, false
	}
	addr := c.Addr.Unmap().WithZone("")
	b, at := openEntry(b, a.Key)
	if a.Kind == LimitRemoteAddress {
		return closeEntry(addr.AppendTo(b), at), true
	}
	bits := a.V6Bits
	if addr.Is4() {
		bits = a.V4Bits
	}
	return closeEntry(netip.PrefixFrom(addr, bits).Masked().AppendTo(b), at), true
}

func (a *RateLimitAction) addressMatches(c *Client) bool {
	if c == nil || !c.Addr.IsValid() {
		return false
	}
	addr := c.Addr.Unmap().WithZone("")
	return slices.ContainsFunc(a.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }) != a.Unless
}

func (a *RateLimitAction) headersMatch(req *message.Request) bool {
	for i := range a.Headers {
		if !a.Headers[i].Match(req) {
			return false
		}
	}
	return true
}

// queryMatches uses what is behind b's end as memory.
func (a *RateLimitAction) queryMatches(b []byte, req *message.Request) ([]byte, bool) {
	_, query := cut(req.Path)
	for i := range a.Query {
		q := &a.Query[i]
		value, ok := decodedParameter(query, q.Name)
		if q.Value == nil {
			if ok != (q.Present == nil || *q.Present) {
				return b, false
			}
			continue
		}
		start := len(b)
		b = percent.Append(b, value)
		ok = ok && q.Value.Match(message.View(b[start:]))
		if b = b[:start]; !ok {
			return b, false
		}
	}
	return b, true
}

// decodedParameter is the first parameter of a name. Unlike the matches of routes, rate
// limits decode what is percent-encoded, as in Envoy: a client must not come by
// another bucket by another spelling. The value is as it came.
func decodedParameter(query, name string) (value string, ok bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		k, v, _ := strings.Cut(pair, "=")
		if percent.Equal(k, name) {
			return v, true
		}
	}
	return "", false
}
