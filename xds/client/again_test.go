package client

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// What was accepted of a name goes when it is unsubscribed. Where it is subscribed again
// before the server heard of that, it comes again all the same; so it does twice.
func TestSubscribedAgainBeforeTheServerHeard(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		for _, names := range [][]string{{"a"}, {"a", "b"}} {
			t.Run(strings.Join(names, " "), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := adstest.NewBoard(mesh()...)
					m := newMirror()
					c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", ads.New(ads.Config{Provider: b})).server()}, SotW: sotw})
					<-c.Synced()
					synctest.Wait()
					for _, version := range []string{"22", "333"} {
						next := ls("in", version, "") // no endpoints follow it
						m.reject(func(r *resource.Resource) error {
							if r.Type == lds && r.Version == next.Version {
								// No request is sent while an update is applied.
								c.Unsubscribe(eds, names...)
								c.Subscribe(eds, names...)
								for _, n := range names {
									delete(m.have[eds], n)
								}
							}
							return nil
						})
						want := with(mesh(), next)
						b.Publish(want...)
						eventually(t, func() string { return m.differs(want) })
						if got := c.Status().Types[1]; got.Accepted["a"] == "" || got.Subscribed != 2 {
							t.Errorf("%+v", got)
						}
					}
				})
			})
		}
	})
}

// busy is a management server of the state of the world that sends the second answer of
// endpoints, in which there is only b, before it has read what was asked meanwhile. As the
// protocol says, it takes no notice of a request that has not the nonce of its last answer.
type busy struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	second chan struct{}
}

func (s *busy) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	bodies := map[string]*resource.Resource{"a": ep("a", "1"), "b": ep("b", "1")}
	nonce, asked := "", []string{}
	send := func(next string, names ...string) error {
		r := &discoveryv3.DiscoveryResponse{TypeUrl: eds, Nonce: next, VersionInfo: next}
		for _, n := range names {
			r.Resources = append(r.Resources, &anypb.Any{TypeUrl: eds, Value: bodies[n].Body.GetValue()})
		}
		nonce = next
		return stream.Send(r)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetTypeUrl() != eds || m.GetResponseNonce() != nonce {
			continue
		}
		fresh := slices.DeleteFunc(slices.Clone(m.GetResourceNames()), func(n string) bool { return slices.Contains(asked, n) })
		asked = m.GetResourceNames()
		switch {
		case len(fresh) > 0:
			err = send(nonce+"1", fresh...)
		case nonce == "1":
			select {
			case <-s.second:
			case <-stream.Context().Done():
			}
			bodies["b"] = ep("b", "2")
			err = send("2", "b")
		}
		if err != nil {
			return err
		}
	}
}

// Of the state of the world, an answer may be under way while a name is dropped and asked for
// again. Its server takes both requests for old, and does not send the name again.
func TestAnswerOvertakesWhatIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &busy{second: make(chan struct{})}
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", s).server()}, SotW: true})
		c.Subscribe(eds, "a", "b")
		eventually(t, func() string { return m.differs([]*resource.Resource{ep("a", "1"), ep("b", "1")}) })
		c.Unsubscribe(eds, "a")
		m.drop(eds, "a")
		synctest.Wait() // it has been sent
		c.Subscribe(eds, "a")
		synctest.Wait()
		close(s.second)
		eventually(t, func() string { return m.differs([]*resource.Resource{ep("a", "1"), ep("b", "2")}) })
		if got := c.Status().Types[1]; got.Accepted["a"] == "" {
			t.Errorf("%+v", got)
		}
	})
}
