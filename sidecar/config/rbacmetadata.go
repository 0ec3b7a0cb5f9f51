package config

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	typematcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/xds/names"
)

func sourcedMetadata(l level, m *rbacv3.SourcedMetadata, path string) (*authz.MetadataRule, error) {
	return metadataRule(l, m.GetMetadataMatcher(), m.GetMetadataSource(), path+".metadata_matcher")
}

// metadataRule reads a rule on metadata. What it looks for need not be there: it holds for nothing then.
func metadataRule(l level, m *typematcherv3.MetadataMatcher, source rbacv3.MetadataSource, path string) (*authz.MetadataRule, error) {
	out := &authz.MetadataRule{Namespace: m.GetFilter(), Invert: m.GetInvert()}
	switch source {
	case rbacv3.MetadataSource_DYNAMIC:
		telemetry.ShowMetadata() // or requests would not keep what filters say of them
	case rbacv3.MetadataSource_ROUTE:
		out.OfRoute = true
		if err := l.request(path); err != nil {
			return nil, err
		}
		if out.Namespace == names.MetadataNamespace {
			return nil, fail(path+".filter", "%q is the mesh's own, and not for rules", out.Namespace)
		}
	default:
		return nil, fail(path, "unknown source %d", source)
	}
	switch {
	case out.Namespace == "":
		return nil, fail(path+".filter", "is missing")
	case len(m.GetPath()) == 0:
		return nil, fail(path+".path", "is empty")
	case m.GetValue() == nil:
		return nil, fail(path+".value", "is missing")
	}
	for i, p := range m.GetPath() {
		if p.GetKey() == "" {
			return nil, fail(at(path+".path", i)+".key", "is missing")
		}
		out.Path = append(out.Path, p.GetKey())
	}
	return out, valueMatch(m.GetValue(), &out.Value, path+".value", 0)
}

func valueMatch(m *typematcherv3.ValueMatcher, out *authz.ValueMatch, path string, depth int) (err error) {
	if depth > maxRuleDepth {
		return fail(path, "is nested more than %d deep", maxRuleDepth)
	}
	switch v := m.GetMatchPattern().(type) {
	case *typematcherv3.ValueMatcher_NullMatch_:
		out.Null = true
	case *typematcherv3.ValueMatcher_BoolMatch:
		out.Bool = &v.BoolMatch
	case *typematcherv3.ValueMatcher_PresentMatch:
		out.Present = &v.PresentMatch
	case *typematcherv3.ValueMatcher_StringMatch:
		out.Text, err = stringMatch(v.StringMatch, path+".string_match")
	case *typematcherv3.ValueMatcher_DoubleMatch:
		out.Number, err = numberMatch(v.DoubleMatch, path+".double_match")
	case *typematcherv3.ValueMatcher_ListMatch:
		out.OneOf = &authz.ValueMatch{}
		err = valueMatch(v.ListMatch.GetOneOf(), out.OneOf, path+".list_match.one_of", depth+1)
	case *typematcherv3.ValueMatcher_OrMatch:
		path += ".or_match.value_matchers"
		if len(v.OrMatch.GetValueMatchers()) < 2 {
			return fail(path, "has %d items; at least 2 are needed", len(v.OrMatch.GetValueMatchers()))
		}
		out.Or = make([]authz.ValueMatch, len(v.OrMatch.GetValueMatchers()))
		for i, sub := range v.OrMatch.GetValueMatchers() {
			if err := valueMatch(sub, &out.Or[i], at(path, i), depth+1); err != nil {
				return err
			}
		}
	default:
		return fail(path, "has no pattern")
	}
	return err
}

func numberMatch(m *typematcherv3.DoubleMatcher, path string) (*authz.NumberMatch, error) {
	switch p := m.GetMatchPattern().(type) {
	case *typematcherv3.DoubleMatcher_Exact:
		return &authz.NumberMatch{Exact: &p.Exact}, nil
	case *typematcherv3.DoubleMatcher_Range:
		return &authz.NumberMatch{Low: p.Range.GetStart(), High: p.Range.GetEnd()}, nil
	}
	return nil, fail(path, "has no pattern")
}

// metadataOf is what rules and access logs may ask for of configured metadata, and clusters of their
// endpoints'. The mesh's own is kept elsewhere.
func metadataOf(m *corev3.Metadata) map[string]map[string]any {
	var out map[string]map[string]any
	for namespace, s := range m.GetFilterMetadata() {
		if namespace == names.MetadataNamespace {
			continue
		}
		if out == nil {
			out = map[string]map[string]any{}
		}
		out[namespace] = s.AsMap()
	}
	return out
}
