package client

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	gcpcache "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// go-control-plane says at times that resources with a time to live are still there: with a name
// and no body, and of those alone.
func TestHeartbeatsOfAForeignServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f := &foreign{cache: gcpcache.NewSnapshotCacheWithHeartbeating(ctx, true, anyNode{}, nil, 10*time.Second)}
		f.sotw, f.delta = sotw.NewServer(ctx, f.cache, nil), delta.NewServer(ctx, f.cache, nil)
		ttl := time.Minute
		byType := map[string][]types.ResourceWithTTL{}
		for _, r := range mesh() {
			m, err := r.Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			with := types.ResourceWithTTL{Resource: m}
			if r.Name == "a" || r.Name == "in" {
				with.TTL = &ttl
			}
			byType[r.Type] = append(byType[r.Type], with)
		}
		snap, err := gcpcache.NewSnapshotWithTTLs("1", byType)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.cache.SetSnapshot(ctx, "all", snap); err != nil {
			t.Fatal(err)
		}
		m := newMirror()
		var said strings.Builder
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", f).server()}, SotW: true,
			Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))})
		<-c.Synced()
		before := c.Status().LastUpdate
		time.Sleep(time.Minute)
		synctest.Wait()
		if lacks := m.lacks(mesh()); lacks != "" || said.Len() > 0 {
			t.Errorf("%s; said %s", lacks, said.String())
		}
		if st := c.Status(); time.Since(before) < time.Minute || st.LastUpdate.Sub(before) < 30*time.Second {
			t.Errorf("no heartbeat came: updated at %v, then at %v", before, st.LastUpdate)
		}
		cancel()
	})
}

// Of increments the version is the resource's, and a body that is not there is none of another.
func TestHeartbeatsOfIncrements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &capture{}
		have := cl("a", "1")
		srv.respond = func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			beat := func(nonce, version string) *discoveryv3.DeltaDiscoveryResponse {
				return &discoveryv3.DeltaDiscoveryResponse{TypeUrl: cds, Nonce: nonce, SystemVersionInfo: "1", Resources: []*discoveryv3.Resource{{Name: "a", Version: version}}}
			}
			switch {
			case m.TypeUrl != cds:
			case m.ResponseNonce == "":
				return deltaResponse("1", have), nil
			case m.ResponseNonce == "1":
				return beat("2", have.Version), nil
			case m.ResponseNonce == "2":
				r := beat("3", "another")
				r.Resources = append(r.Resources, &discoveryv3.Resource{Name: "never", Version: "1"})
				return r, nil
			}
			return nil, nil
		}
		m := newMirror()
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}})
		time.Sleep(time.Second)
		got := map[string]string{}
		for _, r := range srv.requests(0) {
			if r.TypeUrl == cds {
				got[r.ResponseNonce] = r.ErrorDetail.GetMessage()
			}
		}
		want := map[string]string{"": "", "1": "", "2": "", "3": `a: resource: type "" in a response of type "` + cds + `"; never: resource: type "" in a response of type "` + cds + `"`}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("answers %q, want %q", got, want)
		}
		if n := len(m.seen()); m.names(cds)[0] != "a" || n > 3 {
			t.Errorf("has %v after %d updates", m.names(cds), n)
		}
	})
}

// In the state of the world what has no body is there, and its version is the response's.
func TestHeartbeatsAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{say: make(chan *discoveryv3.DiscoveryResponse)}
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", s).server()}, SotW: true})
		beat := wrapped(t, &discoveryv3.Resource{Name: "in"})
		in, out, other := ls("in", "1", ""), ls("out", "1", ""), ls("other", "1", "")
		rejected := func() int {
			for _, ts := range c.Status().Types {
				if ts.Type == lds {
					return len(ts.Rejected)
				}
			}
			return -1
		}
		s.of(lds, "1", in.Body, out.Body, other.Body)
		s.of(lds, "1", beat)
		if d := m.differs([]*resource.Resource{in, out, other}); d != "" || rejected() != 0 {
			t.Errorf("alone: %s, %d rejected", d, rejected())
		}
		s.of(lds, "1", beat, other.Body)
		if d := m.differs([]*resource.Resource{in, other}); d != "" || rejected() != 0 {
			t.Errorf("among others: %s, %d rejected", d, rejected())
		}
		s.of(lds, "2", beat, other.Body)
		if d := m.differs([]*resource.Resource{in, other}); d != "" || rejected() != 1 {
			t.Errorf("of another version: %s, %d rejected", d, rejected())
		}
		s.of(lds, "3", beat)
		if d := m.differs([]*resource.Resource{in, other}); d != "" || rejected() != 1 {
			t.Errorf("alone and of another version: %s, %d rejected", d, rejected())
		}
	})
}
