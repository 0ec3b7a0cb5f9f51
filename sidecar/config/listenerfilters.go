package config

//lint:file-ignore SA1019 deprecated fields are in many configurations, and mean what they meant

import (
	"cmp"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/xds/logformat"
)

// listenerFilters reads the listener filters, and those that older fields ask for.
func (d *decoder) listenerFilters(out *listener.Config, m *listenerv3.Listener) error {
	for i, f := range m.GetListenerFilters() {
		here := at("listener_filters", i)
		filter := listener.Filter{}
		switch c := d.unpacked[f.GetTypedConfig()].(type) {
		case *tlsinspectorv3.TlsInspector:
			filter.TLSInspector = true
			filter.MaxClientHello = int(c.GetMaxClientHelloSize().GetValue())
			filter.TLSOnly = c.GetCloseConnectionOnClientHelloParsingErrors()
			filter.JA3, filter.JA4 = c.GetEnableJa3Fingerprinting().GetValue(), c.GetEnableJa4Fingerprinting().GetValue()
		case *originaldstv3.OriginalDst:
			filter.OriginalDst = true
		case *httpinspectorv3.HttpInspector:
			filter.HTTPInspector = true
		case *proxyprotocolv3.ProxyProtocol:
			var err error
			if filter.ProxyProtocol, err = proxyProtocol(c, here+".typed_config"); err != nil {
				return err
			}
		default:
			return fail(here, "filter %q has no typed_config", f.GetName())
		}
		if p := f.GetFilterDisabled(); p != nil {
			var err error
			if filter.Disabled, err = predicate(p, here+".filter_disabled", 0); err != nil {
				return err
			}
		}
		out.Filters = append(out.Filters, filter)
	}
	has := func(is func(listener.Filter) bool) bool { return slices.ContainsFunc(out.Filters, is) }
	if out.HandOff && !has(func(f listener.Filter) bool { return f.OriginalDst }) {
		out.Filters = append(out.Filters, listener.Filter{OriginalDst: true})
	}
	// As Envoy: the first chain decides for the listener, and what is asked for so comes last.
	if fc := m.GetFilterChains(); len(fc) > 0 && fc[0].GetUseProxyProto().GetValue() &&
		!has(func(f listener.Filter) bool { return f.ProxyProtocol != nil }) {
		out.Filters = append(out.Filters, listener.Filter{ProxyProtocol: &listener.ProxyProtocol{}})
	}
	return nil
}

func proxyProtocol(m *proxyprotocolv3.ProxyProtocol, path string) (*listener.ProxyProtocol, error) {
	out := &listener.ProxyProtocol{
		Optional: m.GetAllowRequestsWithoutProxyProtocol(),
		NoV1:     slices.Contains(m.GetDisallowedVersions(), corev3.ProxyProtocolConfig_V1),
		NoV2:     slices.Contains(m.GetDisallowedVersions(), corev3.ProxyProtocolConfig_V2),
	}
	if out.NoV1 && out.NoV2 {
		return nil, fail(path+".disallowed_versions", "leaves no version, as in Envoy; remove one")
	}
	if m.GetTlvLocation() != proxyprotocolv3.ProxyProtocol_DYNAMIC_METADATA {
		return nil, fail(path+".tlv_location", "is %s; nothing has filter state, use DYNAMIC_METADATA", m.GetTlvLocation())
	}
	for i, r := range m.GetRules() {
		here, to := at(path+".rules", i)+".on_tlv_present", r.GetOnTlvPresent()
		if to == nil {
			return nil, fail(here, "is missing")
		}
		if to.GetMetadataNamespace() == lbNamespace {
			return nil, fail(here+".metadata_namespace", "what a client's header says does not choose among hosts; use another than %s", lbNamespace)
		}
		rule := listener.ProxyRule{Type: byte(r.GetTlvType()), Namespace: cmp.Or(to.GetMetadataNamespace(), logformat.MetadataProxy), Key: to.GetKey()}
		switch to.GetValueStringEncoding() {
		case proxyprotocolv3.ProxyProtocol_KeyValuePair_UNSPECIFIED, proxyprotocolv3.ProxyProtocol_KeyValuePair_SANITIZED_UTF8:
		case proxyprotocolv3.ProxyProtocol_KeyValuePair_BASE64:
			rule.Base64 = true
		default:
			return nil, fail(here+".value_string_encoding", "unknown value %d", to.GetValueStringEncoding())
		}
		out.Rules = append(out.Rules, rule)
	}
	var err error
	out.Passed, err = passedExtensions(m.GetPassThroughTlvs(), path+".pass_through_tlvs")
	return out, err
}

func predicate(m *listenerv3.ListenerFilterChainMatchPredicate, path string, depth int) (*listener.Predicate, error) {
	if depth > maxRuleDepth {
		return nil, fail(path, "is nested more than %d deep", maxRuleDepth)
	}
	out := &listener.Predicate{}
	set := func(to *[]listener.Predicate, rules []*listenerv3.ListenerFilterChainMatchPredicate, path string) error {
		for i, r := range rules {
			p, err := predicate(r, at(path, i), depth+1)
			if err != nil {
				return err
			}
			*to = append(*to, *p)
		}
		return nil
	}
	var err error
	switch r := m.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		out.Any = true
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		err = set(&out.Or, r.OrMatch.GetRules(), path+".or_match.rules")
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		err = set(&out.And, r.AndMatch.GetRules(), path+".and_match.rules")
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		out.Not, err = predicate(r.NotMatch, path+".not_match", depth+1)
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		lo, hi := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		if lo < 0 || lo >= hi || hi > 65536 {
			return nil, fail(path+".destination_port_range", "[%d, %d) is not a range of ports", lo, hi)
		}
		out.IsRange, out.From, out.To = true, uint16(lo), uint16(hi)
	default:
		return nil, fail(path, "has no rule")
	}
	return out, err
}
