//go:build e2e

package mesh

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestInstanceKilledGRPC: of two instances one is killed, application and sidecar. A
// call of gRPC is a POST, which nobody may send twice: each call that the killed
// instance held fails, each other that fails had been written to it, and none arrives
// at both.
func TestInstanceKilledGRPC(t *testing.T) {
	m := newMesh(t)
	m.protocol("rpc", "grpc")
	m.allow("web", "rpc")
	web := m.workload(spec{id: "web-1", service: "web", upstreams: []string{"rpc"}})
	stays, dies := newGRPCApp("rpc-a"), newGRPCApp("rpc-k")
	stays.hold, dies.hold = make(chan struct{}), make(chan struct{})
	close(stays.hold)
	m.workload(spec{id: "rpc-a", service: "rpc", grpc: stays})
	killed := m.workload(spec{id: "rpc-k", service: "rpc", grpc: dies})
	client := web.rpc("rpc")
	web.rpcAnswers(5*second, client, codes.OK, "rpc-a")
	web.rpcAnswers(5*second, client, codes.OK, "rpc-k")
	streams := hold(t, client, 6)
	if streams.instances["rpc-a"] == 0 || streams.instances["rpc-k"] == 0 {
		t.Fatalf("the streams are at %v", streams.instances)
	}

	var mu sync.Mutex
	failed := map[string]error{}
	sent := 0
	m.killUnderLoad(killed, 5*time.Millisecond, func() int { return len(dies.unanswered()) }, func(kind string, n int) {
		id := fmt.Sprintf("%s-%d", kind, n)
		_, err := call(client, id, kind == "hold")
		mu.Lock()
		defer mu.Unlock()
		sent++
		if err != nil {
			failed[id] = err
		}
	})

	held := dies.unanswered()
	for _, id := range held {
		if failed[id] == nil {
			t.Errorf("%s was at the killed instance, was not answered by it, and did not fail: it was sent twice", id)
		}
	}
	// A record is written after the answer: wait for the last.
	m.eventually(5*second, "the access log has each failed call as one that was written to the killed instance", func() error {
		written := map[string]bool{}
		for _, r := range web.records(func(r map[string]any) bool {
			return r["upstream"] == killed.mesh && r["flags"] != "-"
		}) {
			id, _ := r["request_id"].(string)
			written[id] = true
		}
		for id, err := range failed {
			if !written[id] {
				return fmt.Errorf("%s failed (%v) elsewhere", id, err)
			}
		}
		return nil
	})
	for id, err := range failed {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s ended with %v, want %s", id, err, codes.Unavailable)
		}
	}
	stays.mu.Lock()
	defer stays.mu.Unlock()
	dies.mu.Lock()
	defer dies.mu.Unlock()
	for id := range dies.arrived {
		if id != "" && stays.arrived[id] && strings.Contains(id, "-") {
			t.Errorf("%s arrived at both instances", id)
		}
	}
	streams.mu.Lock()
	defer streams.mu.Unlock()
	if len(streams.failures) != streams.instances["rpc-k"] {
		t.Errorf("%d streams ended of %v: %v", len(streams.failures), streams.instances, streams.failures)
	}
	for _, f := range streams.failures {
		if !strings.Contains(f, "rpc-k") {
			t.Errorf("a stream at the other instance ended: %s", f)
		}
	}
	t.Logf("%d calls, %d failed: %d that the killed application held, %d that were on their way to it; %d of %d streams",
		sent, len(failed), len(held), len(failed)-len(held), len(streams.failures), 6)
	if len(held) == 0 {
		t.Error("no call was in flight: the test showed nothing")
	}
}

// unanswered are the calls that arrived and have no answer.
func (a *grpcApp) unanswered() (ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.arrived {
		if !a.answered[id] {
			ids = append(ids, id)
		}
	}
	return ids
}
