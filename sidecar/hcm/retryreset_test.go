package hcm

import (
	"testing"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestResetsOfTheIdempotentAreRetried: whatever code a host resets with.
func TestResetsOfTheIdempotentAreRetried(t *testing.T) {
	b := newBed(t, "127.0.0.1:1").start()
	x := besides(b)
	defer x.leave()
	x.cluster, x.attempt.until = b.clusters.Get("origin"), noDeadline
	if x.attempt.choose() != responded {
		t.Fatal("no host")
	}
	x.attempt.wrote = true
	p := &route.RetryPolicy{On: route.RetryResetIdempotent, NumRetries: 1}
	for _, code := range []http2.Code{http2.NoError, http2.ProtocolError, http2.InternalError, http2.Cancel, http2.ConnectError} {
		for _, method := range []string{"GET", "POST"} {
			x.req.Method = method
			o := x.attempt.broken(&http2.StreamError{Code: code, Remote: true})
			if got := x.wantsRetry(p, o); got != (method == "GET") {
				t.Errorf("%v of a %s: retried: %v", code, method, got)
			}
		}
	}
}
