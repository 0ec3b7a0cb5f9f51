//go:build e2e

package memory

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// overloadManager keeps the heap at a size by all that can be done for it.
const overloadManager = `
overload_manager:
  refresh_interval: 0.02s
  resource_monitors: [{name: heap, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: %d}}]
  buffer_factory_config: {minimum_account_to_track_power_of_two: 18}
  actions:
  - {name: envoy.overload_actions.shrink_heap, triggers: [{name: heap, threshold: {value: 0.8}}]}
  - {name: envoy.overload_actions.disable_http_keepalive, triggers: [{name: heap, threshold: {value: 0.9}}]}
  - {name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: heap, threshold: {value: 0.95}}]}
  - {name: envoy.overload_actions.stop_accepting_connections, triggers: [{name: heap, threshold: {value: 0.95}}]}
  - {name: envoy.overload_actions.reset_high_memory_stream, triggers: [{name: heap, scaled: {scaling_threshold: 0.7, saturation_threshold: 0.9}}]}
`

// zeros are a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestBoundedInTotal: clients that send as much as their windows admit to a host that reads
// nothing hold no more memory of the sidecar together than its overload manager admits, though
// each keeps to its limits.
func TestBoundedInTotal(t *testing.T) {
	const clients, streams, limit = 20, 2, 64 << 20
	addr := freeAddr(t)
	over := make(chan struct{})
	text := bootstrap(addr, origin(t, func(net.Conn) { <-over }), httpFilter, "", "") + fmt.Sprintf(overloadManager, limit)
	s := start(t, text, addr)
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	defer close(over)
	var resets atomic.Int64
	for range clients {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(tr.CloseIdleConnections)
		for range streams {
			all.Go(func() {
				for ctx.Err() == nil {
					r, _ := http.NewRequestWithContext(ctx, "POST", "http://"+addr, io.LimitReader(zeros{}, 24<<20))
					resp, err := tr.RoundTrip(r)
					switch {
					case err == nil:
						_ = resp.Body.Close()
					case strings.Contains(err.Error(), "NO_ERROR"):
						resets.Add(1)
					}
				}
			})
		}
	}
	var most int64
	for ctx.Err() == nil && resets.Load() < clients && most <= 2*limit {
		most = max(most, s.memory(t).anonymous)
		<-time.After(5 * time.Millisecond)
	}
	t.Logf("%.1f MB anonymous at most, %d streams were reset", float64(most)/1e6, resets.Load())
	if most > 2*limit || resets.Load() < clients {
		t.Errorf("%d bytes anonymous, where the heap is to have %d, and %d streams were reset", most, limit, resets.Load())
	}
}
