package client

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// stuck takes some streams and reads nothing of them.
type stuck struct {
	*capture
	reads func(stream int) bool
}

func (s stuck) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	s.mu.Lock()
	n := len(s.streams)
	if !s.reads(n) {
		s.streams = append(s.streams, nil)
	}
	s.mu.Unlock()
	if s.reads(n) {
		return s.capture.DeltaAggregatedResources(stream)
	}
	<-stream.Context().Done()
	return nil
}

// What a client that has much says first is more than a connection takes of a stream that
// nobody reads. It is not to wait for that with its state locked, nor for ever.
func TestServerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clusters, endpoints []*resource.Resource
		for i := range 3000 {
			name := fmt.Sprintf("a-cluster-with-a-name-of-some-length-%d", i)
			clusters, endpoints = append(clusters, cl(name, "1")), append(endpoints, ep(name, "1"))
		}
		srv := stuck{capture: &capture{}, reads: func(stream int) bool { return stream != 1 }}
		srv.respond = func(stream int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			switch {
			case m.TypeUrl == eds && m.ResponseNonce != "" && stream == 0:
				return nil, errors.New("restart")
			case m.ResponseNonce != "":
				return nil, nil
			case m.TypeUrl == cds:
				return deltaResponse("c", clusters...), nil
			case m.TypeUrl == eds:
				return deltaResponse("e", endpoints...), nil
			}
			return nil, nil
		}
		c, _ := run(t, newMirror(), Config{Servers: []Server{newPlane(t, "cp", srv).server()}, BackoffMax: time.Second})
		eventually(t, func() string {
			if srv.opened() < 2 {
				return "no second stream"
			}
			return ""
		})
		synctest.Wait()
		if !c.mu.TryLock() {
			t.Fatal("the client's state is locked while it sends")
		}
		c.mu.Unlock()
		c.Subscribe(eds, "another")
		time.Sleep(answerTimeout + 2*time.Second)
		if srv.opened() != 3 || !c.Status().Connected {
			t.Errorf("%d streams: %+v", srv.opened(), c.Status().LastError)
		}
	})
}

// deafLater answers the first request of its first stream, and reads nothing more of it.
type deafLater struct{ *capture }

func (s deafLater) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	s.mu.Lock()
	first := len(s.streams) == 0
	if first {
		s.streams = append(s.streams, nil)
	}
	s.mu.Unlock()
	if !first {
		return s.capture.DeltaAggregatedResources(stream)
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(deltaResponse("c", cl("c", "1"))); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// TestServerThatStopsReading: one that has answered and reads no more is left for another stream,
// as what is asked for later would never reach it.
func TestServerThatStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := deafLater{&capture{}}
		srv.respond = func(int, *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			return nil, nil
		}
		c, _ := run(t, newMirror(), Config{Servers: []Server{newPlane(t, "cp", srv).server()}, BackoffMax: time.Second})
		eventually(t, func() string {
			if !c.Status().Connected {
				return "not connected"
			}
			return ""
		})
		var names []string
		for i := range 5000 {
			names = append(names, fmt.Sprintf("an-endpoint-with-a-name-of-some-length-%d", i))
		}
		c.Subscribe(eds, names...)
		time.Sleep(time.Second) // the message that overdraws what gRPC takes passes, the next one waits
		c.Subscribe(eds, "another")
		time.Sleep(sendTimeout + 5*time.Second)
		if n := srv.opened(); n < 2 {
			t.Errorf("%d streams: %+v", n, c.Status())
		}
	})
}

func (c *capture) opened() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}
