package hcm

import (
	"net/http"
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
)

// TestOutlierByGRPCStatus: a host whose answers to gRPC requests say in their heads that
// they failed is found out by them, as in Envoy; what the status is of other requests, or
// that it blames the client, says nothing against the host.
func TestOutlierByGRPCStatus(t *testing.T) {
	for name, c := range map[string]struct {
		status, kind string
		ejected      bool
	}{
		"unavailable":          {"14", "application/grpc", true},
		"internal":             {"13", "application/grpc+proto", true},
		"no status":            {"x", "application/grpc", true},
		"ok":                   {"0", "application/grpc", false},
		"not found":            {"5", "application/grpc", false},
		"not a gRPC request":   {"14", "text/plain", false},
		"an empty field value": {"", "application/grpc", false},
	} {
		t.Run(name, func(t *testing.T) {
			origin := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Grpc-Status", c.status)
			})
			b := newBed(t, origin)
			if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", origin),
				Outlier: &cluster.Outlier{Consecutive5xx: 2, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100}}); err != nil {
				t.Fatal(err)
			}
			client := b.start().dial()
			for range 2 {
				client.do("POST /x HTTP/1.1\r\nHost: h\r\nContent-Type: " + c.kind + "\r\nContent-Length: 0\r\n\r\n")
			}
			if s := b.clusters.Get("origin").Stats()[0]; s.Ejected != c.ejected {
				t.Errorf("ejected: %v; success %d, failed %d", s.Ejected, s.Success, s.Failed)
			}
		})
	}
}
