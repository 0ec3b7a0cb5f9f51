package hcm

import (
	"net/http"
	"testing"
	"time"

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

// TestHostAsksForNoMore: a checked host that answers any request with
// x-envoy-immediate-health-check-fail is down at once; the client sees the header too.
func TestHostAsksForNoMore(t *testing.T) {
	origin := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("X-Envoy-Immediate-Health-Check-Fail", "true")
		}
	})
	b := newBed(t, origin)
	if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", origin), HealthCheck: &cluster.HealthCheck{
		HTTP: &cluster.HTTPCheck{Path: "/healthz", Host: "h"}, Timeout: 5 * time.Second, Interval: time.Hour, NoTraffic: time.Hour, NoTrafficHealthy: time.Hour,
		Unhealthy: time.Hour, UnhealthyEdge: time.Hour, HealthyEdge: time.Hour, UnhealthyThreshold: 3, HealthyThreshold: 3}}); err != nil {
		t.Fatal(err)
	}
	check := func() string { return b.clusters.Get("origin").Stats()[0].Check }
	for late, tick := time.After(5*time.Second), time.Tick(5*time.Millisecond); check() != "passing"; {
		select {
		case <-tick:
		case <-late:
			t.Fatal(check())
		}
	}
	c := b.start().dial()
	if resp, _ := c.do("GET /x HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 200 || check() != "passing" {
		t.Fatal(resp.StatusCode, check())
	}
	resp, _ := c.do("GET /last HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp.StatusCode != 200 || resp.Header.Get("X-Envoy-Immediate-Health-Check-Fail") != "true" || check() != "failing" {
		t.Error(resp.StatusCode, resp.Header, check())
	}
}

// TestHostSaysItIsDegraded: a good answer that calls its host degraded is looked at where outlier
// detection is to.
func TestHostSaysItIsDegraded(t *testing.T) {
	for name, c := range map[string]struct {
		status   int
		detect   bool
		degraded bool
	}{
		"good": {204, true, true}, "not found": {404, true, true}, "a failure": {500, true, false}, "not looked for": {200, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			origin := httpOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Envoy-Degraded", "")
				w.WriteHeader(c.status)
			})
			b := newBed(t, origin)
			if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", origin), Outlier: &cluster.Outlier{DetectDegraded: c.detect}}); err != nil {
				t.Fatal(err)
			}
			b.start().dial().do("GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
			if got := b.clusters.Get("origin").Stats()[0].Degraded; got != c.degraded {
				t.Errorf("degraded: %v", got)
			}
		})
	}
}
