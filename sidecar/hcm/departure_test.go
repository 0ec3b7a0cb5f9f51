package hcm

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
)

// TestClientsLeaveMidRequest: a client that goes away while its request's body is being
// sent on, and no answer is there, takes its exchange with it and nothing else. Whoever
// sends the body has let go of the connection before that is given back.
func TestClientsLeaveMidRequest(t *testing.T) {
	for _, up := range []int{1, 2} {
		arrived := make(chan struct{}, 1000)
		b := versionedBed(t, 2, up, func(_ http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				arrived <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body) // until it breaks
			}
		})
		b.start()
		c := b.httpClient(2)
		for range 10 {
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			for range 20 {
				r, w := io.Pipe()
				wg.Go(func() {
					req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+b.addr, r)
					if resp, err := c.Do(req); err == nil {
						_ = resp.Body.Close()
						t.Errorf("answered with %d", resp.StatusCode)
					}
					_ = r.Close()
				})
				wg.Go(func() { _, _ = w.Write([]byte("the beginning")) })
			}
			for range 20 {
				<-arrived
			}
			cancel()
			wg.Wait()
		}
		resp, err := c.Get("http://" + b.addr)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
	}
}
