package hcm

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/route"
)

// TestCopiesHaveTrailers: what ends a request ends each copy of it too, as the listener
// lets it pass.
func TestCopiesHaveTrailers(t *testing.T) {
	const request = "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\nX_Odd: 1\r\n\r\n"
	for _, version := range []int{1, 2} {
		seen := make(chan http.Header, 4)
		trailers := func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			seen <- r.Trailer
		}
		check := func(what string) {
			t.Helper()
			select {
			case got := <-seen:
				if got.Get("X-Sum") != "7" || len(got) != 1 {
					t.Errorf("%s over HTTP/%d has trailers %v", what, version, got)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("no %s over HTTP/%d", what, version)
			}
		}
		b := newBed(t, httpOrigin(t, echo))
		b.cfg.UnderscoreNames = DropUnderscores
		b.cluster("mirror", versionedOrigin(t, version, trailers))
		if version == 2 {
			b.speakHTTP2("mirror")
		}
		b.route().Forward.Mirrors = []route.Mirror{{Cluster: "mirror", Share: route.All}}
		b.start()
		b.dial().do(request)
		check("a mirrored request")

		var first atomic.Bool
		b = versionedBed(t, 1, version, func(w http.ResponseWriter, r *http.Request) {
			trailers(w, r)
			if first.CompareAndSwap(false, true) {
				<-r.Context().Done()
			}
		})
		b.cfg.UnderscoreNames = DropUnderscores
		f := b.route().Forward
		f.Timeout, f.Hedge = 10*time.Second, &route.HedgePolicy{OnPerTryTimeout: true}
		f.Retry = &route.RetryPolicy{On: route.Retry5xx, NumRetries: 1, PerTryTimeout: 50 * time.Millisecond}
		b.start()
		if resp, _ := b.dial().do(request); resp.StatusCode != 200 {
			t.Errorf("%d", resp.StatusCode)
		}
		check("a hedged request")
		check("the request that joined it")
	}
}
