package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	urimatchv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// maxRuleDepth bounds the nesting of a rule, which is evaluated recursively.
const maxRuleDepth = 32

// level is the kind of filter a rule is in: a network filter sees no request.
type level bool

const (
	connectionLevel level = false
	requestLevel    level = true
)

func (d *decoder) networkRBAC(m *netrbacv3.RBAC, path string) (*authz.NetworkFilter, error) {
	out, err := d.rbacFilter(m.GetStatPrefix(), m, connectionLevel, path)
	if err != nil {
		return nil, err
	}
	out.ShadowPrefix = m.GetShadowRulesStatPrefix()
	if out.DenyDelay, err = duration(m.GetDelayDeny(), path+".delay_deny"); err != nil {
		return nil, err
	}
	switch m.GetEnforcementType() {
	case netrbacv3.RBAC_ONE_TIME_ON_FIRST_BYTE:
	case netrbacv3.RBAC_CONTINUOUS:
		// What a filter judges by does not change with what a client sends, but for what later
		// filters say of its first bytes: a rule that waits for that would never hold.
		if out.AsksFindings() {
			return nil, fail(path+".enforcement_type", "CONTINUOUS asks again what filters behind it have found meanwhile; put those before it and remove the field")
		}
	default:
		return nil, fail(path+".enforcement_type", "unknown value %d", m.GetEnforcementType())
	}
	return out, nil
}

func (d *decoder) httpRBAC(m *httprbacv3.RBAC, path string) (*authz.HTTPFilter, error) {
	out, err := d.rbacFilter(m.GetRulesStatPrefix(), m, requestLevel, path)
	if err == nil {
		out.ShadowPrefix = m.GetShadowRulesStatPrefix()
	}
	return out, err
}

// rbacMessage is what the filters of both levels have.
type rbacMessage interface {
	GetRules() *rbacv3.RBAC
	GetShadowRules() *rbacv3.RBAC
	GetMatcher() *xdsmatcherv3.Matcher
	GetShadowMatcher() *xdsmatcherv3.Matcher
}

func (d *decoder) rbacFilter(prefix string, m rbacMessage, l level, path string) (*authz.NetworkFilter, error) {
	out := &authz.NetworkFilter{StatPrefix: prefix}
	var err error
	if out.Rules, err = d.rules(l, m.GetRules(), m.GetMatcher(), path+".", ""); err != nil {
		return nil, err
	}
	out.Shadow, err = d.rules(l, m.GetShadowRules(), m.GetShadowMatcher(), path+".", "shadow_")
	return out, err
}

// rules reads policies, or the matcher that may stand in their place. Beside a matcher policies
// are ignored, as Envoy documents it.
func (d *decoder) rules(l level, m *rbacv3.RBAC, matcher *xdsmatcherv3.Matcher, path, kind string) (*authz.Rules, error) {
	switch {
	case matcher != nil:
		ordered, err := d.ordered(l, matcher, path+kind+"matcher")
		return &authz.Rules{Ordered: ordered}, err
	case m == nil:
		return nil, nil
	}
	path += kind + "rules"
	out := &authz.Rules{}
	switch m.GetAction() {
	case rbacv3.RBAC_ALLOW:
		out.Action = authz.Allow
	case rbacv3.RBAC_DENY:
		out.Action = authz.Deny
	case rbacv3.RBAC_LOG:
		out.Action = authz.Log
	default:
		return nil, fail(path+".action", "unknown value %d", m.GetAction())
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetPolicies())) {
		here := path + ".policies[" + strconv.Quote(name) + "]"
		src := m.GetPolicies()[name]
		p := authz.Policy{Name: name}
		var err error
		if p.Permissions, err = d.permissions(l, src.GetPermissions(), here+".permissions", 0); err != nil {
			return nil, err
		}
		if p.Principals, err = l.principals(src.GetPrincipals(), here+".principals", 0); err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, p)
	}
	return out, nil
}

func (d *decoder) permissions(l level, ms []*rbacv3.Permission, path string, depth int) ([]authz.Permission, error) {
	out := make([]authz.Permission, len(ms))
	for i, m := range ms {
		if err := d.permission(l, m, &out[i], at(path, i), depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (d *decoder) permission(l level, m *rbacv3.Permission, out *authz.Permission, path string, depth int) (err error) {
	if depth > maxRuleDepth {
		return fail(path, "is nested more than %d deep", maxRuleDepth)
	}
	switch r := m.GetRule().(type) {
	case *rbacv3.Permission_Any:
		if !r.Any {
			return fail(path+".any", "only true is allowed")
		}
		out.Any = true
	case *rbacv3.Permission_AndRules:
		out.And, err = d.permissions(l, r.AndRules.GetRules(), path+".and_rules.rules", depth+1)
	case *rbacv3.Permission_OrRules:
		out.Or, err = d.permissions(l, r.OrRules.GetRules(), path+".or_rules.rules", depth+1)
	case *rbacv3.Permission_NotRule:
		out.Not = &authz.Permission{}
		err = d.permission(l, r.NotRule, out.Not, path+".not_rule", depth+1)
	case *rbacv3.Permission_Header:
		if err := l.request(path + ".header"); err != nil {
			return err
		}
		out.Header, err = headerMatch(r.Header, path+".header")
	case *rbacv3.Permission_UrlPath:
		if err := l.request(path + ".url_path"); err != nil {
			return err
		}
		out.URLPath, err = stringMatch(r.UrlPath.GetPath(), path+".url_path.path")
	case *rbacv3.Permission_DestinationIp:
		p, err := prefix(r.DestinationIp, path+".destination_ip")
		if err != nil {
			return err
		}
		out.Destination = &p
	case *rbacv3.Permission_DestinationPort:
		if r.DestinationPort == 0 {
			return fail(path+".destination_port", "0 is no port")
		}
		out.Port = uint16(r.DestinationPort)
	case *rbacv3.Permission_DestinationPortRange:
		lo, hi := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		if lo < 0 || lo >= hi || hi > 65536 {
			return fail(path+".destination_port_range", "[%d, %d) is not a range of ports", lo, hi)
		}
		out.PortRange = &[2]uint32{uint32(lo), uint32(hi)}
	case *rbacv3.Permission_UriTemplate:
		if err := l.request(path + ".uri_template"); err != nil {
			return err
		}
		c, ok := extension[*urimatchv3.UriTemplateMatchConfig](d, r.UriTemplate.GetTypedConfig())
		if !ok {
			return fail(path+".uri_template.typed_config", "is missing")
		}
		if out.Template, err = route.NewTemplate(c.GetPathTemplate()); err != nil {
			return fail(path+".uri_template.typed_config.path_template", "%v", err)
		}
	case *rbacv3.Permission_Metadata:
		out.Metadata, err = metadataRule(l, r.Metadata, rbacv3.MetadataSource_DYNAMIC, path+".metadata")
	case *rbacv3.Permission_SourcedMetadata:
		out.Metadata, err = sourcedMetadata(l, r.SourcedMetadata, path+".sourced_metadata")
	case *rbacv3.Permission_RequestedServerName:
		out.SNI, err = stringMatch(r.RequestedServerName, path+".requested_server_name")
	default:
		return fail(path, "has no rule")
	}
	return err
}

// request refuses what needs a request in a filter that has none: Envoy would
// let such a rule silently never match.
func (l level) request(path string) error {
	if l == requestLevel {
		return nil
	}
	return fail(path, "a network filter sees no request; use the HTTP RBAC filter")
}

func (l level) principals(ms []*rbacv3.Principal, path string, depth int) ([]authz.Principal, error) {
	out := make([]authz.Principal, len(ms))
	for i, m := range ms {
		if err := l.principal(m, &out[i], at(path, i), depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (l level) principal(m *rbacv3.Principal, out *authz.Principal, path string, depth int) (err error) {
	if depth > maxRuleDepth {
		return fail(path, "is nested more than %d deep", maxRuleDepth)
	}
	switch id := m.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		if !id.Any {
			return fail(path+".any", "only true is allowed")
		}
		out.Any = true
	case *rbacv3.Principal_AndIds:
		out.And, err = l.principals(id.AndIds.GetIds(), path+".and_ids.ids", depth+1)
	case *rbacv3.Principal_OrIds:
		out.Or, err = l.principals(id.OrIds.GetIds(), path+".or_ids.ids", depth+1)
	case *rbacv3.Principal_NotId:
		out.Not = &authz.Principal{}
		err = l.principal(id.NotId, out.Not, path+".not_id", depth+1)
	case *rbacv3.Principal_Authenticated_:
		out.Authenticated = true
		if n := id.Authenticated.GetPrincipalName(); n != nil {
			out.Name, err = stringMatch(n, path+".authenticated.principal_name")
		}
	case *rbacv3.Principal_Metadata:
		out.Metadata, err = metadataRule(l, id.Metadata, rbacv3.MetadataSource_DYNAMIC, path+".metadata")
	case *rbacv3.Principal_SourcedMetadata:
		out.Metadata, err = sourcedMetadata(l, id.SourcedMetadata, path+".sourced_metadata")
	case *rbacv3.Principal_SourceIp:
		err = source(id.SourceIp, &out.ConnectionSource, path+".source_ip")
	case *rbacv3.Principal_RemoteIp:
		err = source(id.RemoteIp, &out.Source, path+".remote_ip")
	case *rbacv3.Principal_DirectRemoteIp:
		err = source(id.DirectRemoteIp, &out.DirectSource, path+".direct_remote_ip")
	case *rbacv3.Principal_Header:
		if err := l.request(path + ".header"); err != nil {
			return err
		}
		out.Header, err = headerMatch(id.Header, path+".header")
	case *rbacv3.Principal_UrlPath:
		if err := l.request(path + ".url_path"); err != nil {
			return err
		}
		out.URLPath, err = stringMatch(id.UrlPath.GetPath(), path+".url_path.path")
	default:
		return fail(path, "has no identifier")
	}
	return err
}

func source(r *corev3.CidrRange, out **netip.Prefix, path string) error {
	p, err := prefix(r, path)
	*out = &p
	return err
}
