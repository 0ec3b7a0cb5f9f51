package config

import (
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/hcm"
)

// hcmClientCert reads what becomes of x-forwarded-client-cert.
func (d *decoder) hcmClientCert(m *hcmv3.HttpConnectionManager, out *hcm.Config, path string) error {
	rule, err := clientCertRule(m, path)
	if err != nil {
		return err
	}
	out.ForwardClientCert, out.ClientCert = rule.Forward, rule.Tell
	matcher, here := m.GetForwardClientCertMatcher(), path+".forward_client_cert_matcher"
	if matcher == nil {
		return nil
	}
	cases := &hcm.ClientCertCases{}
	out.ClientCertCases = cases
	for i, c := range matcher.GetMatcherList().GetMatchers() {
		here := at(here+".matcher_list.matchers", i)
		then, err := d.clientCertAction(c.GetOnMatch(), here+".on_match")
		if err != nil {
			return err
		}
		cases.Then, cases.When = append(cases.Then, *then), append(cases.When, authz.Condition{})
		if err := d.condition(requestLevel, c.GetPredicate(), &cases.When[i], here+".predicate", 0); err != nil {
			return err
		}
	}
	if matcher.GetOnNoMatch() != nil {
		cases.Otherwise, err = d.clientCertAction(matcher.GetOnNoMatch(), here+".on_no_match")
	}
	return err
}

func (d *decoder) clientCertAction(m *xdsmatcherv3.Matcher_OnMatch, path string) (*hcm.ClientCertRule, error) {
	path += ".action.typed_config"
	a, ok := extension[*hcmv3.HttpConnectionManager_ForwardClientCertConfig](d, m.GetAction().GetTypedConfig())
	if !ok {
		return nil, fail(path, "is no ForwardClientCertConfig")
	}
	return clientCertRule(a, path)
}

// clientCertRule reads what a connection manager and the action of its matcher have in common.
func clientCertRule(m interface {
	GetForwardClientCertDetails() hcmv3.HttpConnectionManager_ForwardClientCertDetails
	GetSetCurrentClientCertDetails() *hcmv3.HttpConnectionManager_SetCurrentClientCertDetails
}, path string) (*hcm.ClientCertRule, error) {
	forward, ok := map[hcmv3.HttpConnectionManager_ForwardClientCertDetails]hcm.ForwardClientCert{
		hcmv3.HttpConnectionManager_SANITIZE: hcm.Sanitize, hcmv3.HttpConnectionManager_FORWARD_ONLY: hcm.ForwardOnly,
		hcmv3.HttpConnectionManager_APPEND_FORWARD: hcm.AppendForward, hcmv3.HttpConnectionManager_SANITIZE_SET: hcm.SanitizeSet,
		hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY: hcm.AlwaysForwardOnly,
	}[m.GetForwardClientCertDetails()]
	if !ok {
		return nil, fail(path+".forward_client_cert_details", "unknown value %d", m.GetForwardClientCertDetails())
	}
	d := m.GetSetCurrentClientCertDetails()
	out := &hcm.ClientCertRule{Forward: forward, Tell: hcm.ClientCert{
		Cert: d.GetCert(), Chain: d.GetChain(), Subject: d.GetSubject().GetValue(), Issuer: d.GetIssuer(), URI: d.GetUri(), DNS: d.GetDns(),
	}}
	switch d.GetFormat() {
	case hcmv3.HttpConnectionManager_TEXT:
	case hcmv3.HttpConnectionManager_JSON:
		out.Tell.JSON = true
	default:
		return nil, fail(path+".set_current_client_cert_details.format", "unknown value %d", d.GetFormat())
	}
	return out, nil
}
