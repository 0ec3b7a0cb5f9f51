package client

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	gcpcache "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// unchanging is a server of the state of the world that says nothing to who says it has the
// version that there is, on whatever stream it was told.
type unchanging struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	version string
	mute    bool
	unknown bool // nothing is said of endpoints: there are none of the name
	streams atomic.Int32
}

func (u *unchanging) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	u.streams.Add(1)
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		if u.mute || m.VersionInfo == u.version || m.TypeUrl == eds && u.unknown {
			continue
		}
		r := &discoveryv3.DiscoveryResponse{TypeUrl: m.TypeUrl, VersionInfo: u.version, Nonce: u.version}
		if m.TypeUrl == lds {
			r.Resources = append(r.Resources, ls("in", u.version, "").Body)
		}
		if err := s.Send(r); err != nil {
			return err
		}
	}
}

// A server may say nothing to a client that comes back with the version that it has.
func TestServerWithNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unchanging{version: "1"}
		p, m := newPlane(t, "cp", u), newMirror()
		c, _ := run(t, m, Config{Servers: []Server{p.server()}, SotW: true})
		<-c.Synced()
		p.stop()
		time.Sleep(time.Second)
		p.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := c.Status(); !st.Connected || u.streams.Load() != 2 {
			t.Errorf("connected %v, streams %d: %s", st.Connected, u.streams.Load(), st.LastError)
		}
		// It is not one that was never answered, where its stream ends again.
		p.stop()
		synctest.Wait()
		u.version = "2"
		p.start()
		eventually(t, func() string { return m.differs([]*resource.Resource{ls("in", "2", "")}) })
	})
}

// A name that nobody knows is never answered, and is no reason to take such a server for dead.
func TestServerWithNothingNewAndAnUnknownName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unchanging{version: "1", unknown: true}
		p := newPlane(t, "cp", u)
		c, _ := run(t, newMirror(), Config{Servers: []Server{p.server()}, SotW: true})
		c.Subscribe(eds, "nobody")
		time.Sleep(time.Second)
		p.stop()
		time.Sleep(time.Second)
		p.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := c.Status(); !st.Connected || u.streams.Load() != 2 {
			t.Errorf("connected %v, streams %d: %s", st.Connected, u.streams.Load(), st.LastError)
		}
	})
}

// go-control-plane is such a server where there is nothing of a type.
func TestForeignServerWithNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f := newForeign(ctx)
		snap, err := gcpcache.NewSnapshot("1", map[string][]types.Resource{lds: {}})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.cache.SetSnapshot(ctx, "all", snap); err != nil {
			t.Fatal(err)
		}
		p := newPlane(t, "cp", apart{f})
		c, _ := run(t, newMirror(), Config{Servers: []Server{p.server()}, SotW: true, Type: lds})
		<-c.Synced()
		p.stop()
		time.Sleep(time.Second)
		p.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := c.Status(); !st.Connected {
			t.Errorf("not connected: %s", st.LastError)
		}
	})
}

// One that says nothing where another answers is left for that, as it may be stuck.
func TestSilentServerIsLeftForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := []*unchanging{{version: "1"}, {version: "1"}}
		planes := []*plane{newPlane(t, "0", servers[0]), newPlane(t, "1", servers[1])}
		c, _ := run(t, newMirror(), Config{Servers: []Server{planes[0].server(), planes[1].server()}, SotW: true})
		<-c.Synced()
		synctest.Wait()
		first := 0
		if c.Status().Server == "1" {
			first = 1
		}
		servers[1-first].mute = true
		servers[first].version = "2"
		planes[first].stop()
		planes[first].start()
		time.Sleep(answerTimeout + 15*time.Second)
		synctest.Wait()
		if st := c.Status(); !st.Connected || st.Server != planes[first].name {
			t.Errorf("%+v", st)
		}
		// A client that has nothing of a server is always answered.
		if servers[1-first].streams.Load() != 1 {
			t.Errorf("%d streams", servers[1-first].streams.Load())
		}
	})
}

// What was never accepted has no version: silence is no answer to that.
func TestSilenceBeforeTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unchanging{version: "1", mute: true}
		c, _ := run(t, newMirror(), Config{Servers: []Server{newPlane(t, "cp", u).server()}, SotW: true})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if st := c.Status(); st.Connected || u.streams.Load() < 3 {
			t.Errorf("connected %v, streams %d", st.Connected, u.streams.Load())
		}
	})
}
