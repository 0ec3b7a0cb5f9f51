package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/percent"
)

// written is a descriptor as key=value, with commas.
func written(b []byte) string {
	var out []string
	for {
		key, value, rest, ok := CutDescriptorEntry(b)
		if !ok {
			return strings.Join(out, ",")
		}
		out, b = append(out, string(key)+"="+string(value)), rest
	}
}

func TestDescribe(t *testing.T) {
	req := &message.Request{Method: "GET", Authority: "h.example", Path: "/p?a=1&b=x%2Fy&%63=z&b=second&e&bad=%2&plus=x+y"}
	req.Fields.Add("X-User", "ann")
	req.Fields.Add("X-User", "bob")
	req.Fields.Add("X-Empty", "")
	exact := func(s string) *StringMatch { return &StringMatch{Exact: &s} }
	absent := false
	header := func(name string) RateLimitAction {
		return RateLimitAction{Kind: LimitRequestHeader, Key: "k", Name: name}
	}
	skipped := header("x-none")
	skipped.SkipIfAbsent = true
	query := func(name string) RateLimitAction {
		return RateLimitAction{Kind: LimitQueryParameter, Key: "k", Name: name}
	}
	headers := func(unless bool, value string) RateLimitAction {
		return RateLimitAction{Kind: LimitHeaderValueMatch, Key: "k", Value: "v", Unless: unless, Headers: []HeaderMatch{{Name: ":method", Value: exact("GET")}, {Name: "x-user", Value: exact(value)}}}
	}
	queries := func(unless bool, q ...QueryMatch) RateLimitAction {
		return RateLimitAction{Kind: LimitQueryParameterValueMatch, Key: "k", Value: "v", Unless: unless, Query: q}
	}
	near := RateLimitAction{Kind: LimitRemoteAddressMatch, Key: "n", Value: "near", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
	far := near
	far.Unless = true
	masked := RateLimitAction{Kind: LimitMaskedRemoteAddress, Key: "m", V4Bits: 24, V6Bits: 64}
	const none = "(none)"
	for _, c := range []struct {
		name    string
		addr    string
		actions []RateLimitAction
		want    string
	}{
		{"source", "", []RateLimitAction{{Kind: LimitSourceCluster, Key: "s"}}, "s=here"},
		{"destination", "", []RateLimitAction{{Kind: LimitDestinationCluster, Key: "d"}}, "d=there"},
		{"two entries", "", []RateLimitAction{{Kind: LimitGenericKey, Key: "g", Value: "x"}, header("x-user")}, "g=x,k=ann"},
		{"pseudo-header", "", []RateLimitAction{header(":authority")}, "k=h.example"},
		{"empty header", "", []RateLimitAction{header("x-empty")}, "k="},
		{"no header", "", []RateLimitAction{{Kind: LimitGenericKey, Key: "g", Value: "x"}, header("x-none")}, none},
		{"skipped header", "", []RateLimitAction{skipped, header("x-user")}, "k=ann"},
		{"query", "", []RateLimitAction{query("a")}, "k=1"},
		{"decoded value, the first", "", []RateLimitAction{query("b")}, "k=x/y"},
		{"decoded name", "", []RateLimitAction{query("c")}, "k=z"},
		{"no value", "", []RateLimitAction{query("e")}, "k="},
		{"broken encoding", "", []RateLimitAction{query("bad")}, "k=%2"},
		{"plus sign", "", []RateLimitAction{query("plus")}, "k=x+y"},
		{"no parameter", "", []RateLimitAction{query("none")}, none},
		{"no parameter of the empty name", "", []RateLimitAction{query("")}, none},
		{"headers", "", []RateLimitAction{headers(false, "bob")}, "k=v"},
		{"not the headers", "", []RateLimitAction{headers(false, "cat")}, none},
		{"unless headers", "", []RateLimitAction{headers(true, "bob")}, none},
		{"unless other headers", "", []RateLimitAction{headers(true, "cat")}, "k=v"},
		{"parameters", "", []RateLimitAction{queries(false, QueryMatch{Name: "a"}, QueryMatch{Name: "b", Value: exact("x/y")})}, "k=v"},
		{"not the parameters", "", []RateLimitAction{queries(false, QueryMatch{Name: "a", Value: exact("2")})}, none},
		{"no such parameter", "", []RateLimitAction{queries(false, QueryMatch{Name: "none", Value: exact("")})}, none},
		{"absent parameter", "", []RateLimitAction{queries(false, QueryMatch{Name: "none", Present: &absent})}, "k=v"},
		{"unless parameters", "", []RateLimitAction{queries(true, QueryMatch{Name: "a"})}, none},
		{"address", "192.0.2.7", []RateLimitAction{{Kind: LimitRemoteAddress, Key: "r"}}, "r=192.0.2.7"},
		{"mapped address", "::ffff:192.0.2.7", []RateLimitAction{{Kind: LimitRemoteAddress, Key: "r"}, masked}, "r=192.0.2.7,m=192.0.2.0/24"},
		{"masked", "2001:db8::1", []RateLimitAction{masked}, "m=2001:db8::/64"},
		{"zone", "fe80::1%eth0", []RateLimitAction{{Kind: LimitRemoteAddress, Key: "r"}, masked}, "r=fe80::1,m=fe80::/64"},
		{"an address in a prefix", "192.0.2.7", []RateLimitAction{near}, "n=near"},
		{"one in the other", "2001:db8::1", []RateLimitAction{near}, "n=near"},
		{"a mapped one", "::ffff:192.0.2.7", []RateLimitAction{near}, "n=near"},
		{"one in none", "192.0.3.7", []RateLimitAction{near}, none},
		{"inverted, in a prefix", "192.0.2.7", []RateLimitAction{far}, none},
		{"inverted, in none", "192.0.3.7", []RateLimitAction{far}, "n=near"},
		{"inverted, no address", "", []RateLimitAction{far}, none},
		{"no address", "", []RateLimitAction{{Kind: LimitRemoteAddress, Key: "r"}}, none},
	} {
		client := &Client{}
		if c.addr != "" {
			client.Addr = netip.MustParseAddr(c.addr)
		}
		d := &Described{Request: req, Client: client, Selected: &Selected{Route: &Route{Forward: &Forward{}}, Cluster: "there"}, Source: "here"}
		b, ok := (&RateLimit{Actions: c.actions}).AppendDescriptor(nil, d)
		got := none
		if ok {
			got = written(b)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	d := &Described{Request: req, Selected: &Selected{}}
	if _, ok := (&RateLimit{Actions: []RateLimitAction{{Kind: LimitDestinationCluster, Key: "d"}}}).AppendDescriptor(nil, d); ok {
		t.Error("a request without a route has a destination")
	}
}

// Texts cannot be split in another way into the same descriptor.
func TestDescriptorsAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, texts := range [][]string{{"ab", "c"}, {"a", "bc"}, {"", "abc"}, {"abc", ""}, {"a", "b", "c", ""}, {"a", "", "b", "c"}} {
		var b []byte
		for i := 0; i < len(texts); i += 2 {
			b = AppendDescriptorEntry(b, texts[i], texts[i+1])
		}
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%q and %s are the same", texts, other)
		}
		seen[string(b)] = written(b)
	}
}

func TestSelectedRateLimits(t *testing.T) {
	own, host := []RateLimit{{Stage: 1}}, []RateLimit{{Stage: 2}}
	for _, c := range []struct {
		own      []RateLimit
		included bool
		option   HostRateLimits
		want     bool // the virtual host's are used
	}{
		{own, false, HostRateLimitsOverridden, false}, {nil, false, HostRateLimitsOverridden, true}, {own, true, HostRateLimitsOverridden, true},
		{own, false, HostRateLimitsIncluded, true}, {nil, false, HostRateLimitsIgnored, false}, {nil, true, HostRateLimitsIgnored, true},
	} {
		s := &Selected{VirtualHost: &VirtualHost{RateLimits: host}, Route: &Route{Forward: &Forward{RateLimits: c.own, IncludeHostRateLimits: c.included}}}
		gotOwn, gotHost := s.RateLimits(c.option)
		if len(gotOwn) != len(c.own) || (gotHost != nil) != c.want {
			t.Errorf("%+v: %v, %v", c, gotOwn, gotHost)
		}
	}
	direct := &Selected{VirtualHost: &VirtualHost{RateLimits: host}, Route: &Route{Direct: &DirectResponse{}}}
	if own, host := direct.RateLimits(HostRateLimitsIncluded); own != nil || host != nil {
		t.Error("a direct response is limited")
	}
}

// FuzzQueryDescriptor: whatever the query, a parameter's value is that of its decoded
// first occurrence.
func FuzzQueryDescriptor(f *testing.F) {
	for _, s := range []string{"q=1", "%71=%31", "q", "&&q=%", "q=%4", "a=b&q=c&q=d", "Q=1", "q=%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		value, ok := decodedParameter(query, "q")
		want, found := "", false
		for pair := range strings.SplitSeq(query, "&") {
			k, v, _ := strings.Cut(pair, "=")
			if string(percent.Append(nil, k)) == "q" {
				want, found = v, true
				break
			}
		}
		if ok != found || value != want {
			t.Fatalf("%q: %q %v, want %q %v", query, value, ok, want, found)
		}
	})
}
