package ads

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLongNames: what a client names is remembered, so that it may not be of any length.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	for what, r := range map[string]request{
		"subscribed": &discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{long}},
		"held":       &discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, InitialResourceVersions: map[string]string{long: "1"}},
		"a version":  &discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, InitialResourceVersions: map[string]string{"a": long}},
		"listed":     &discoveryv3.DiscoveryRequest{TypeUrl: eds, ResourceNames: []string{long}},
	} {
		_, delta := r.(*discoveryv3.DeltaDiscoveryRequest)
		d := newDriver(t, delta, set())
		if _, err := d.c.apply(r, d.now); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNamesOfOnePeerAreBounded: its streams answer together for what they name, until they end.
func TestNamesOfOnePeerAreBounded(t *testing.T) {
	srv := New(Config{Provider: newBoard(set())}, WithPeerID(func(context.Context) (string, error) { return "greedy", nil }))
	c := serve(t, srv)
	name := strings.Repeat("x", maxName-10)
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprint(name, i))
	}
	s := openDelta(t, c, cds)
	recv(t, s)
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: names}); err != nil {
		t.Fatal(err)
	}
	recv(t, s)
	srv.mu.Lock()
	charged := srv.named["greedy"]
	srv.named["greedy"] += maxPeerNames - charged // as other streams would
	srv.mu.Unlock()
	if want := len(names) * maxName; charged < want || charged > want+len(names)*perName {
		t.Errorf("charged %d for %d", charged, want)
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"one more"}}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := s.Recv(); err != nil {
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%v", err)
			}
			break
		}
	}
	for { // until the session has left
		srv.mu.Lock()
		left, sessions := srv.named["greedy"], len(srv.sessions)
		srv.mu.Unlock()
		if sessions > 0 {
			continue
		}
		if want := maxPeerNames - charged; left != want {
			t.Errorf("%d are left of the stream's names", left-want)
		}
		return
	}
}

// TestLongNode: what a client says of itself is kept as long as its stream; but for the
// extensions that an Envoy lists.
func TestLongNode(t *testing.T) {
	c := serve(t, New(Config{Provider: newBoard(set())}))
	for what, n := range map[string]struct {
		node *corev3.Node
		want codes.Code
	}{
		"an Envoy":       {&corev3.Node{Id: "n", Extensions: []*corev3.Extension{{Name: strings.Repeat("x", 2*maxNode)}}}, codes.OK},
		"much to say":    {&corev3.Node{Id: strings.Repeat("x", 2*maxNode)}, codes.InvalidArgument},
		"much it can do": {&corev3.Node{Id: "n", ClientFeatures: []string{strings.Repeat("x", 2*maxNode)}}, codes.InvalidArgument},
	} {
		s, err := c.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: n.node, TypeUrl: cds}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != n.want {
			t.Errorf("%s: %v", what, err)
		}
	}
}
