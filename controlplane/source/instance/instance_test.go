package instance

import (
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// TestEvidence: a critical check proves something when it ran and failed; one that
// an agent restored, with the output of its last success perhaps, proves nothing.
func TestEvidence(t *testing.T) {
	for _, tc := range []struct {
		kind, output string
		want         catalog.Evidence
	}{
		{"tcp", "", catalog.EvidenceNone},
		{"tcp", "TCP connect 127.0.0.1:80: Success", catalog.EvidenceNone},
		{"tcp", "dial tcp 127.0.0.1:80: connect: connection refused", catalog.EvidenceSeen},
		{"grpc", "gRPC check 127.0.0.1:80: success", catalog.EvidenceNone},
		{"grpc", "gRPC check 127.0.0.1:80: NOT_SERVING", catalog.EvidenceSeen},
		{"http", "HTTP GET http://a/: 503 Service Unavailable Output: : Success", catalog.EvidenceSeen},
		{"ttl", "", catalog.EvidenceWeak},
		{"ttl", "All checks passing.", catalog.EvidenceSeen},
		{"alias", "", catalog.EvidenceNone},
		{"alias", "All checks passing.", catalog.EvidenceNone},
		{"alias", "No checks found.", catalog.EvidenceNone},
		{"alias", `Aliased check "app" failing: `, catalog.EvidenceNone},
		{"alias", `Aliased check "app" failing: TCP connect 127.0.0.1:80: Success`, catalog.EvidenceNone},
		{"alias", `Aliased check "app" failing: dial tcp 127.0.0.1:80: connect: connection refused`, catalog.EvidenceSeen},
		{"alias", "Service api-1 could not be found on node ", catalog.EvidenceSeen},
	} {
		c := &api.HealthCheck{CheckID: "c", Type: tc.kind, Status: api.HealthCritical, Output: tc.output}
		if got := evidenceOf(c); got != tc.want {
			t.Errorf("%s %q: %v, want %v", tc.kind, tc.output, got, tc.want)
		}
	}
}
