package hcm

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestRetriesOfACluster: its policy decides in place of the route's, whose times stay.
func TestRetriesOfACluster(t *testing.T) {
	for name, c := range map[string]struct {
		own, routes  *route.RetryPolicy
		asked        int32
		expectedTime string
	}{
		"in place of none":        {&route.RetryPolicy{On: route.Retry5xx, NumRetries: 2, PerTryTimeout: time.Second, BackOffBase: 1}, nil, 3, "5000"},
		"in place of the route's": {&route.RetryPolicy{}, &route.RetryPolicy{On: route.Retry5xx, NumRetries: 2, PerTryTimeout: 2 * time.Second, BackOffBase: 1}, 1, "2000"},
		"none":                    {nil, &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, BackOffBase: 1}, 2, "5000"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			var told atomic.Value
			addr := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					told.Store(r.Header.Get("x-envoy-expected-rq-timeout-ms"))
				}
				w.WriteHeader(503)
				_, _ = io.WriteString(w, "no")
			})
			b := newBed(t, addr)
			if err := b.clusters.Update(&cluster.Config{Name: "origin", Endpoints: endpoints("origin", addr), ConnectTimeout: time.Second, HTTP: cluster.HTTP{Retry: c.own}}); err != nil {
				t.Fatal(err)
			}
			b.route().Forward.Retry = c.routes
			b.start()
			if resp, _ := b.dial().do("GET / HTTP/1.1\r\nHost: h\r\n\r\n"); resp.StatusCode != 503 || asked.Load() != c.asked || told.Load() != c.expectedTime {
				t.Errorf("%d after %d attempts, which were told of %v ms", resp.StatusCode, asked.Load(), told.Load())
			}
		})
	}
}
