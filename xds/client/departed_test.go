package client

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// scripted is a management server of the state of the world that says of endpoints what a test
// has it say, and nothing else.
type scripted struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	say chan *discoveryv3.DiscoveryResponse
}

func (s *scripted) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case r := <-s.say:
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (s *scripted) answer(nonce string, rs ...*resource.Resource) {
	r := &discoveryv3.DiscoveryResponse{TypeUrl: eds, Nonce: nonce, VersionInfo: nonce}
	for _, e := range rs {
		r.Resources = append(r.Resources, &anypb.Any{TypeUrl: eds, Value: e.Body.GetValue()})
	}
	s.say <- r
	synctest.Wait()
}

// departing is a client that has endpoints of a and b, and its server.
func departing(t *testing.T) (*Client, *mirror, *scripted, *plane) {
	s := &scripted{say: make(chan *discoveryv3.DiscoveryResponse)}
	p, m := newPlane(t, "cp", s), newMirror()
	c, _ := run(t, m, Config{Servers: []Server{p.server()}, SotW: true})
	c.Subscribe(eds, "a", "b")
	s.answer("1", ep("a", "1"), ep("b", "1"))
	if d := m.differs([]*resource.Resource{ep("a", "1"), ep("b", "1")}); d != "" {
		t.Fatal(d)
	}
	return c, m, s, p
}

func (m *mirror) leave(c *Client, name string) {
	m.drop(eds, name)
	c.Unsubscribe(eds, name)
	synctest.Wait()
}

func wantNames(t *testing.T, m *mirror, why string, want ...string) {
	t.Helper()
	if got := m.names(eds); !slices.Equal(got, want) {
		t.Errorf("%s: endpoints of %v, want %v", why, got, want)
	}
}

// What left before its stream ended is the new stream's server's to tell.
func TestDepartedBeforeTheStreamEnded(t *testing.T) {
	for name, again := range map[string]time.Duration{"long before": 5 * time.Second, "just before": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, m, s, p := departing(t)
				m.leave(c, "a")
				time.Sleep(time.Second)
				if again < 2*time.Second {
					c.Subscribe(eds, "a")
					p.stop()
					time.Sleep(time.Hour)
				} else {
					p.stop()
					time.Sleep(again)
					c.Subscribe(eds, "a")
					time.Sleep(leftFor)
					m.leave(c, "b")
				}
				before := m.names(eds)
				p.start()
				time.Sleep(11 * time.Second)
				wantNames(t, m, "before the server has said anything", before...)
				s.answer("1", ep("a", "2"))
				if got := m.have[eds]["a"]; got == nil || got.Version != ep("a", "2").Version {
					t.Errorf("%v", got)
				}
			})
		})
	}
}

// A server that is asked again for what it has no more says nothing. Only an answer that may
// have overtaken what is asked has the old one be put in force again.
func TestDepartedAndDeletedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m, s, _ := departing(t)
		m.leave(c, "a")
		s.answer("2", ep("b", "2")) // it knows of that
		time.Sleep(5 * time.Second)
		c.Subscribe(eds, "a")
		time.Sleep(time.Second)
		wantNames(t, m, "asked for again", "b")
		time.Sleep(leftFor)
		s.answer("3", ep("b", "3"))
		wantNames(t, m, "too late to have been overtaken", "b")
	})
}

// An answer that was under way when a name was dropped overtakes it, though it comes before the
// name is asked for again.
func TestOvertakenBeforeItIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m, s, _ := departing(t)
		m.leave(c, "a")
		m.reject(func(*resource.Resource) error { c.Subscribe(eds, "a"); return nil })
		s.answer("2", ep("b", "2"))
		wantNames(t, m, "the answer to it has all names", "a", "b")
	})
}

// The newest of what left is what comes back: also what came while it was dropped.
func TestDepartedIsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m, s, _ := departing(t)
		once := false
		m.reject(func(r *resource.Resource) error {
			if r.Name == "a" && !once {
				once = true
				c.Unsubscribe(eds, "a")
				c.Subscribe(eds, "a")
			}
			return nil
		})
		s.answer("2", ep("a", "2"))
		m.reject(nil)
		m.drop(eds, "a")
		s.answer("3", ep("b", "3"))
		if got := m.have[eds]["a"]; got == nil || got.Version != ep("a", "2").Version {
			t.Errorf("comes back as %v", got)
		}
		for _, ts := range c.order {
			if len(ts.left) > 0 {
				t.Errorf("%s: %v", ts.url, ts.left)
			}
		}
	})
}

// What left is not kept for longer than it may come back.
func TestDepartedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m, _, _ := departing(t)
		m.leave(c, "a")
		time.Sleep(leftFor + time.Second)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, ts := range c.order {
			if len(ts.left) > 0 {
				t.Errorf("%s: %v", ts.url, ts.left)
			}
		}
	})
}
