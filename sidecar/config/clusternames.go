package config

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// tokenBytes are what a field's name is made of (RFC 9110 5.6.2), in lower case.
const tokenBytes = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"

// serverNames reads which name connections ask for by the requests that they are opened for.
func serverNames(m *corev3.UpstreamHttpProtocolOptions, out *cluster.Config, path string) error {
	if m.GetAutoSni() || m.GetAutoSanValidation() {
		n := &cluster.ServerNames{SNI: m.GetAutoSni(), Verify: m.GetAutoSanValidation(), Header: strings.ToLower(m.GetOverrideAutoSniHeader())}
		if n.Header != "" && strings.Trim(n.Header, tokenBytes) != "" {
			return fail(path+".override_auto_sni_header", "%q is not the name of a header field", n.Header)
		}
		out.HTTP.Names = n
	}
	if out.HTTP.Names != nil && out.Type == cluster.Aggregate {
		return fail(path, "an aggregate cluster opens no connections; put it on its clusters")
	}
	here := "transport_socket"
	check := func(t *cluster.TLS) error {
		n := out.HTTP.Names
		switch {
		case t == nil:
		case t.Context == nil && n != nil:
			return fail(path, "is not for the mesh, where the server name is the cluster's and its SPIFFE ID is verified: use sni and match_typed_subject_alt_names")
		case t.Context != nil && t.Context.VerifySNI && t.SNI == "" && !t.AutoHostSNI && (n == nil || !n.SNI):
			return fail(here+".typed_config.auto_sni_san_validation", "there is no name to check: set sni, auto_host_sni or auto_sni")
		case t.Context != nil && n != nil:
			t.Context.NamesToo = n.Verify
		}
		return nil
	}
	if err := check(out.TLS); err != nil {
		return err
	}
	for i := range out.Sockets {
		here = at("transport_socket_matches", i) + ".transport_socket"
		if err := check(out.Sockets[i].TLS); err != nil {
			return err
		}
	}
	return nil
}
