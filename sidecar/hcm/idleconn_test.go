package hcm

import (
	"io"
	"net/http"
	"testing"
)

// TestIdleConnectionsOfHosts: each request is given a connection that has not been idle for
// too long when it comes.
func TestIdleConnectionsOfHosts(t *testing.T) {
	bridges(t, func(t *testing.T, down, up int) {
		for idle, connections := range map[bool]int{false: 1, true: 3} {
			b := versionedBed(t, down, up, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
			if idle {
				cfg := *b.clusters.Get("origin").Config()
				cfg.IdleTimeout = 1
				if err := b.clusters.Update(&cfg); err != nil {
					t.Fatal(err)
				}
			}
			b.start()
			client, seen := b.httpClient(down), map[string]bool{}
			for range 3 {
				resp, err := client.Get("http://" + b.addr + "/")
				if err != nil {
					t.Fatal(err)
				}
				peer, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				seen[string(peer)] = true
			}
			if len(seen) != connections {
				t.Errorf("timeout of 1 ns %v: %d connections, want %d", idle, len(seen), connections)
			}
		}
	})
}
