package client

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// written is the file of a cache.
func written(t *testing.T, rs ...*resource.Resource) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.cache")
	if err := openCache(t, path).Store("cp", rs); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is subscribed once the cache was read comes from it too, as long as no server has
// answered: of many names a stream begins with the first.
func TestNamesSubscribedAfterTheCacheWasRead(t *testing.T) {
	hangs := Server{Name: "hangs", Dial: func(ctx context.Context) (grpc.ClientConnInterface, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}

	for name, srv := range map[string]func() Server{
		"refuses": func() Server { return nowhere }, "hangs": func() Server { return hangs }, "silent": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if name == "silent" {
					srv = newPlane(t, "silent", apart{newForeign(t.Context())}).server
				}
				var all []*resource.Resource
				for i := range 50 {
					all = append(all, ep(fmt.Sprintf("e%02d", i), "1"))
				}
				m := newMirror()
				c, _ := run(t, m, Config{Servers: []Server{srv()}, Cache: openCache(t, written(t, all...)), Type: eds})
				for i, r := range all {
					c.Subscribe(eds, r.Name)
					if i == 0 || i == 20 {
						synctest.Wait()
					}
				}
				synctest.Wait()
				if d := m.differs(all); d != "" {
					t.Error(d)
				}
				if st := c.Status(); !st.FromCache || st.Synced || len(st.Types[1].Accepted) != len(all) {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// Once a server has answered, what it has not sent is old.
func TestCacheIsOldOnceAServerHasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newForeign(t.Context())
		f.publish(t, []*resource.Resource{ep("a", "2")})
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", apart{f}).server()}, Cache: openCache(t, written(t, ep("a", "1"), ep("b", "1"))), Type: eds})
		c.Subscribe(eds, "a")
		eventually(t, func() string { return m.lacks([]*resource.Resource{ep("a", "2")}) })
		c.Subscribe(eds, "b")
		time.Sleep(time.Second)
		wantNames(t, m, "after an answer", "a")
	})
}

// That a control plane had nothing is kept too.
func TestEmptyCacheIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{nowhere}, Cache: openCache(t, written(t)), Type: cds})
		synctest.Wait()
		if st := c.Status(); !st.FromCache || st.AsOf.IsZero() {
			t.Errorf("%+v", st)
		}
		if seen := m.seen(); len(seen) != 1 || seen[0].Type != cds || !seen[0].Full || !seen[0].Cached {
			t.Errorf("%+v", seen)
		}
	})
}

// A name that does not exist yet is no reason to leave a server: nothing is said of it.
func TestNothingIsSaidOfWhatDoesNotExist(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlane(t, "cp", apart{newForeign(t.Context())})
			c, _ := run(t, newMirror(), Config{Servers: []Server{p.server()}, Type: eds, SotW: sotw})
			c.Subscribe(eds, "unborn")
			time.Sleep(time.Hour)
			p.mu.Lock()
			defer p.mu.Unlock()
			if st := c.Status(); p.dials != 1 || !st.Connected {
				t.Errorf("%d streams: %+v", p.dials, st)
			}
		})
	})
}
