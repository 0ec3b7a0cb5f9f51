package workloadapi

import (
	"strings"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// TestLargeCalls: every user of the host may call, and what calls hold is the memory that the
// host's workloads share.
func TestLargeCalls(t *testing.T) {
	s := serve(t, Config{Source: newSource(t)})
	c := healthv1.NewHealthClient(s.dial(t))
	if _, err := c.Check(limited(t), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(limited(t), "x", strings.Repeat("x", 2*maxHeaders))
	if _, err := c.Check(ctx, &healthv1.HealthCheckRequest{}); err == nil {
		t.Errorf("%d bytes of headers are taken", 2*maxHeaders)
	}
	if _, err := c.Check(limited(t), &healthv1.HealthCheckRequest{Service: strings.Repeat("x", 2*maxRequest)}); err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a request of %d bytes: %v", 2*maxRequest, err)
	}
}
