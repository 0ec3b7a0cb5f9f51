package render

import (
	"fmt"
	"regexp"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog/pattern"
)

// permission translates what an L7 permission matches. Everything it names must
// hold; without HTTP it matches every request.
func permission(h *api.IntentionHTTPPermission) (*rbacv3.Permission, error) {
	if h == nil {
		return anything(), nil
	}
	var all []*rbacv3.Permission
	path, err := permissionPath(h)
	if err != nil {
		return nil, err
	}
	if path != nil {
		all = append(all, &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
			Rule: &matcherv3.PathMatcher_Path{Path: path},
		}}})
	}
	for i, header := range h.Header {
		m, err := permissionHeader(header)
		if err != nil {
			return nil, fmt.Errorf("Header[%d].%w", i, err)
		}
		all = append(all, headerRule(m))
	}
	if len(h.Methods) > 0 {
		all = append(all, headerRule(methodMatch(h.Methods)))
	}
	if len(all) == 0 {
		return anything(), nil
	}
	return allOf(all), nil
}

func headerRule(m *routev3.HeaderMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: m}}
}

func permissionPath(h *api.IntentionHTTPPermission) (*matcherv3.StringMatcher, error) {
	set := 0
	for _, s := range []string{h.PathExact, h.PathPrefix, h.PathRegex} {
		if s != "" {
			set++
		}
	}
	if set > 1 {
		return nil, atField("PathExact", "only one of PathExact, PathPrefix and PathRegex may be set")
	}
	switch {
	case h.PathExact != "":
		return exactly(h.PathExact), nil
	case h.PathPrefix != "":
		return withPrefix(h.PathPrefix), nil
	case h.PathRegex != "":
		if err := checkRegex(h.PathRegex); err != nil {
			return nil, atField("PathRegex", "%w", err)
		}
		return matching(h.PathRegex), nil
	}
	return nil, nil
}

// permissionHeader keeps Envoy's meaning of Invert, as Consul does: a header
// that is absent matches neither a value nor its inversion, only an inverted
// Present.
func permissionHeader(h api.IntentionHTTPHeaderPermission) (*routev3.HeaderMatcher, error) {
	m, err := headerMatch(headerIntent{
		name: h.Name, present: h.Present, exact: h.Exact, prefix: h.Prefix, suffix: h.Suffix,
		contains: h.Contains, regex: h.Regex, invert: h.Invert, ignoreCase: h.IgnoreCase,
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// headerIntent is a header match as config entries write it.
type headerIntent struct {
	name                                   string
	present                                bool
	exact, prefix, suffix, contains, regex string
	invert, ignoreCase                     bool
}

func headerMatch(h headerIntent) (*routev3.HeaderMatcher, error) {
	if h.name == "" {
		return nil, atField("Name", "must be set")
	}
	var value *matcherv3.StringMatcher
	set := 0
	choose := func(s string, m func(string) *matcherv3.StringMatcher) {
		if s != "" {
			set++
			value = m(s)
		}
	}
	choose(h.exact, exactly)
	choose(h.prefix, withPrefix)
	choose(h.suffix, withSuffix)
	choose(h.contains, containing)
	if h.regex != "" {
		set++
		regex := h.regex
		if h.ignoreCase {
			// StringMatcher.ignore_case has no effect on expressions.
			regex = "(?i)" + regex
		}
		if err := checkRegex(regex); err != nil {
			return nil, atField("Regex", "%w", err)
		}
		value = matching(regex)
	} else if value != nil {
		value.IgnoreCase = h.ignoreCase
	}
	if h.present {
		set++
	}
	if set != 1 {
		return nil, atField("Name", "header %q needs exactly one of Present, Exact, Prefix, Suffix, Contains and Regex", h.name)
	}
	out := &routev3.HeaderMatcher{Name: strings.ToLower(h.name), InvertMatch: h.invert}
	if h.present {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	} else {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: value}
	}
	return out, nil
}

// methodMatch matches any of the methods. They are case-sensitive (RFC 9110
// section 9.1) and written in upper case, as Consul requires.
func methodMatch(methods []string) *routev3.HeaderMatcher {
	m := exactly(strings.ToUpper(methods[0]))
	if len(methods) > 1 {
		quoted := make([]string, len(methods))
		for i, s := range methods {
			quoted[i] = regexp.QuoteMeta(strings.ToUpper(s))
		}
		m = matching(strings.Join(quoted, "|"))
	}
	return &routev3.HeaderMatcher{
		Name:                 ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m},
	}
}

// checkRegex refuses what clients would: they all use RE2, as Go does.
func checkRegex(s string) error {
	if err := pattern.Check(s); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	return nil
}
