package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	gcpcache "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcpresource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// foreign is go-control-plane's server over its snapshot cache.
type foreign struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cache gcpcache.SnapshotCache
	sotw  sotw.Server
	delta delta.Server
	n     int
}

type anyNode struct{}

func (anyNode) ID(*corev3.Node) string { return "all" }

func newForeign(ctx context.Context) *foreign {
	f := &foreign{cache: gcpcache.NewSnapshotCache(true, anyNode{}, nil)}
	f.sotw = sotw.NewServer(ctx, f.cache, nil)
	f.delta = delta.NewServer(ctx, f.cache, nil)
	return f
}

func (f *foreign) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return f.sotw.StreamHandler(s, gcpresource.AnyType)
}

func (f *foreign) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return f.delta.DeltaStreamHandler(s, gcpresource.AnyType)
}

func (f *foreign) publish(t *testing.T, rs []*resource.Resource) {
	t.Helper()
	f.n++
	byType := map[string][]types.Resource{}
	for _, r := range rs {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		byType[r.Type] = append(byType[r.Type], m)
	}
	snap, err := gcpcache.NewSnapshot(fmt.Sprint(f.n), byType)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cache.SetSnapshot(t.Context(), "all", snap); err != nil {
		t.Fatal(err)
	}
}

// lacks compares by content: go-control-plane's versions are its own.
func (m *mirror) lacks(rs []*resource.Resource) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, r := range rs {
		got := m.have[r.Type][r.Name]
		if got == nil || string(got.Body.GetValue()) != string(r.Body.GetValue()) {
			return fmt.Sprintf("lacks %s %s", r.Type, r.Name)
		}
	}
	for _, have := range m.have {
		n += len(have)
	}
	if n != len(rs) {
		return fmt.Sprintf("has %d, wants %d", n, len(rs))
	}
	return ""
}

func TestForeignManagementServer(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			f := newForeign(ctx)
			f.publish(t, mesh())
			p := newPlane(t, "go-control-plane", f)
			m := newMirror()
			c, _ := run(t, m, Config{Servers: []Server{p.server()}, SotW: sotw})
			<-c.Synced()
			eventually(t, func() string { return m.lacks(mesh()) })
			for i, next := range [][]*resource.Resource{
				with(mesh(), ep("a", "2")),
				with(mesh(), cl("c", "1"), ep("c", "1"), rt("r", "2", "c")),
				without(without(mesh(), cds, "b"), eds, "b"),
				without(without(mesh(), lds, "out"), rds, "r"),
				mesh(),
			} {
				f.publish(t, next)
				eventually(t, func() string {
					if d := m.lacks(next); d != "" {
						return fmt.Sprintf("change %d: %s", i, d)
					}
					return ""
				})
			}
			// It comes back after a loss, and follows.
			p.stop()
			time.Sleep(5 * time.Second)
			f.publish(t, with(mesh(), ep("b", "9")))
			p.start()
			eventually(t, func() string { return m.lacks(with(mesh(), ep("b", "9"))) })
		})
	})
}

// TestForeignServerThatLoopsOnNack: go-control-plane sends a rejected snapshot
// again at once, over 20,000 times a second. Our client's delayed answers stop
// that, and good resources are in force meanwhile.
func TestForeignServerThatLoopsOnNack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f := newForeign(ctx)
		f.publish(t, mesh())
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "go-control-plane", f).server()}, SotW: true})
		<-c.Synced()
		bad := cl("b", "bad")
		m.reject(func(r *resource.Resource) error {
			if string(r.Body.GetValue()) == string(bad.Body.GetValue()) {
				return errors.New("no")
			}
			return nil
		})
		before := len(m.seen())
		f.publish(t, with(mesh(), bad, cl("a", "2")))
		time.Sleep(20 * time.Second)
		if n := len(m.seen()) - before; n > 20 {
			t.Errorf("%d responses in 20 s", n)
		}
		if d := m.lacks(with(mesh(), cl("a", "2"))); d != "" {
			t.Error(d)
		}
		f.publish(t, with(mesh(), cl("b", "3")))
		eventually(t, func() string { return m.lacks(with(mesh(), cl("b", "3"))) })
		if st := c.Status(); strings.Contains(st.LastError, "no") {
			t.Errorf("%+v", st)
		}
	})
}
