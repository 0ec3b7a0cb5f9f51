package config

import (
	"strings"
	"testing"
)

func TestObjectIDs(t *testing.T) {
	for _, text := range []string{"", "1", "1.", ".1", "1.2.", "a.b", "3.1", "1.40", "0.40", "1.02", "1.+2", "1.-2", "1.2.99999999999", "msUPN", " 1.2"} {
		if id, err := objectID(text, "here.oid"); err == nil || !strings.HasPrefix(err.Error(), "here.oid: ") {
			t.Errorf("%q: %v %v", text, id, err)
		}
	}
	for _, text := range []string{"1.2", "2.999", "0.39", "1.3.6.1.4.1.311.20.2.3"} {
		if id, err := objectID(text, ""); err != nil || id.String() != text {
			t.Errorf("%q: %v %v", text, id, err)
		}
	}
}

func TestOtherNames(t *testing.T) {
	names := func(fields string) string {
		return oneEndpoint + `transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {trusted_ca: {filename: /ca.pem}, match_typed_subject_alt_names: [{` + fields + `, matcher: {exact: a}}]}}}}` + "\n"
	}
	if _, err := clusterOf(t, names("san_type: OTHER_NAME, oid: 1.2.3")); err != nil && !strings.Contains(err.Error(), "ca.pem") {
		t.Error(err)
	}
	for _, fields := range []string{"san_type: OTHER_NAME", "san_type: OTHER_NAME, oid: what"} {
		if _, err := clusterOf(t, names(fields)); err == nil || !strings.Contains(err.Error(), "match_typed_subject_alt_names[0].oid: ") {
			t.Errorf("%s: %v", fields, err)
		}
	}
	// As in Envoy it says nothing of other types.
	if _, err := clusterOf(t, names("san_type: DNS, oid: what")); err != nil && strings.Contains(err.Error(), "oid") {
		t.Error(err)
	}
}
