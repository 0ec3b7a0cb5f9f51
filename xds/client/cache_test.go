package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/xds/ads"
	"github.com/hauberk-mesh/hauberk/xds/adstest"
	"github.com/hauberk-mesh/hauberk/xds/client/cache"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func openCache(t *testing.T, path string) *cache.Cache {
	t.Helper()
	c, err := cache.Open(path, "n1", bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// nowhere is a control plane that refuses connections.
var nowhere = Server{Name: "nowhere", Dial: func(context.Context) (grpc.ClientConnInterface, error) {
	return nil, errors.New("connection refused")
}}

// cached runs a client against a control plane until its cache is written, and
// returns the file.
func cached(t *testing.T, rs []*resource.Resource) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.cache")
	m := newMirror()
	c, stop := run(t, m, Config{
		Servers: []Server{newPlane(t, "cp1", ads.New(ads.Config{Provider: adstest.NewBoard(rs...)})).server()},
		Cache:   openCache(t, path),
	})
	<-c.Synced()
	eventually(t, func() string { return m.differs(rs) })
	stop()
	return path
}

func TestSidecarStartsFromItsCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := cached(t, mesh())
		time.Sleep(time.Hour)
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{nowhere}, Cache: openCache(t, path)})
		synctest.Wait()
		if d := m.differs(mesh()); d != "" {
			t.Fatal(d)
		}
		st := c.Status()
		if !st.FromCache || st.Synced || st.Connected || time.Since(st.CachedAt) < time.Hour {
			t.Fatalf("%+v", st)
		}
		for _, u := range m.seen() {
			if !u.Full || !u.Cached {
				t.Errorf("%s: full %v, cached %v", u.Type, u.Full, u.Cached)
			}
		}
	})
}

// TestAgeOfTheConfiguration: current while connected, then as old as the end of
// the stream, and after a restart as old as the cache.
func TestAgeOfTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.cache")
		p := newPlane(t, "cp1", ads.New(ads.Config{Provider: adstest.NewBoard(mesh()...)}))
		m := newMirror()
		c, stop := run(t, m, Config{Servers: []Server{p.server()}, Cache: openCache(t, path)})
		if st := c.Status(); !st.AsOf.IsZero() {
			t.Fatalf("before there is any: %v", st.AsOf)
		}
		<-c.Synced()
		time.Sleep(time.Hour)
		if st := c.Status(); !st.AsOf.Equal(time.Now()) {
			t.Fatalf("connected for an hour: %v old", time.Since(st.AsOf))
		}
		p.stop()
		time.Sleep(time.Hour)
		if st := c.Status(); time.Since(st.AsOf).Round(time.Second) != time.Hour {
			t.Fatalf("away for an hour: %v old", time.Since(st.AsOf))
		}
		stop()
		time.Sleep(time.Hour)
		c, _ = run(t, newMirror(), Config{Servers: []Server{nowhere}, Cache: openCache(t, path)})
		synctest.Wait()
		if st := c.Status(); !st.AsOf.Equal(st.CachedAt) || time.Since(st.AsOf) < 3*time.Hour-time.Minute {
			t.Fatalf("from a cache of %v: %v old", st.CachedAt, time.Since(st.AsOf))
		}
	})
}

// TestAgeOfACacheFromTheFuture: one that was written while the clock was years ahead ages all the
// same, so that it is told when nobody confirms it.
func TestAgeOfACacheFromTheFuture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.cache")
	if err := openCache(t, path).Store("cp1", mesh()); err != nil { // a bubble's clock is behind this one
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c, _ := run(t, newMirror(), Config{Servers: []Server{nowhere}, Cache: openCache(t, path)})
		time.Sleep(time.Hour)
		if st := c.Status(); !st.FromCache || time.Since(st.AsOf) != time.Hour {
			t.Errorf("after an hour it is %v old", time.Since(st.AsOf))
		}
	})
}

func TestCachedVersionsAreNotSentAgain(t *testing.T) {
	protocols(t, func(t *testing.T, sotw bool) {
		synctest.Test(t, func(t *testing.T) {
			path := cached(t, mesh())
			next := without(without(with(mesh(), ep("a", "2")), cds, "b"), eds, "b")
			srv := ads.New(ads.Config{Provider: adstest.NewBoard(next...)})
			m := newMirror()
			c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp2", srv).server()}, Cache: openCache(t, path), SotW: sotw})
			<-c.Synced()
			eventually(t, func() string { return m.differs(next) })
			if c.Status().FromCache {
				t.Error("still said to be from the cache")
			}
			if sotw {
				return
			}
			for _, u := range m.seen() {
				if !u.Cached && len(u.Upserts) > 0 && u.Type != eds {
					t.Errorf("%s was sent again", u.Type)
				}
			}
		})
	})
}

func TestRefusedCacheIsIgnoredAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := cached(t, mesh())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		m := newMirror()
		c, stop := run(t, m, Config{Servers: []Server{nowhere}, Cache: openCache(t, path), Log: slog.New(slog.NewTextHandler(&log, nil))})
		synctest.Wait()
		if len(m.seen()) > 0 || c.Status().FromCache {
			t.Fatal("part of a forged cache was applied")
		}
		stop()
		if !strings.Contains(log.String(), "cached configuration refused") || !strings.Contains(log.String(), "not authentic") {
			t.Fatalf("log %s", log.String())
		}
		// The unusable file stays until there is something to replace it.
		if now, _ := os.ReadFile(path); !bytes.Equal(now, b) {
			t.Fatal("the file was touched")
		}
	})
}

func TestCachedResourcesTheHandlerRejectsAreAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := cached(t, mesh())
		m := newMirror()
		m.reject(func(r *resource.Resource) error {
			if r.Name == "b" && r.Type == cds {
				return errors.New("no")
			}
			return nil
		})
		srv := &capture{respond: func(int, *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			return nil, nil
		}}
		run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}, Cache: openCache(t, path)})
		synctest.Wait()
		versions := srv.requests(0)[0].InitialResourceVersions
		if versions["a"] == "" || versions["b"] != "" {
			t.Fatalf("initial versions %v", versions)
		}
	})
}

func TestCacheIsWrittenOncePerBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.cache")
		b := adstest.NewBoard(mesh()...)
		m := newMirror()
		c, _ := run(t, m, Config{Servers: []Server{newPlane(t, "cp", ads.New(ads.Config{Provider: b})).server()}, Cache: openCache(t, path)})
		<-c.Synced()
		time.Sleep(5 * time.Second)
		before := sequence(t, path)
		last := mesh()
		for i := range 50 {
			last = with(mesh(), ep("a", strings.Repeat("x", i+2)))
			b.Publish(last...)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		if n := sequence(t, path) - before; n == 0 || n > 2 {
			t.Errorf("%d writes for one burst", n)
		}
		st, err := openCache(t, path).Load()
		if err != nil || len(st.Resources) != len(last) {
			t.Fatalf("%+v, %v", st, err)
		}
	})
}

func sequence(t *testing.T, path string) uint64 {
	t.Helper()
	st, err := openCache(t, path).Load()
	if err != nil {
		t.Fatal(err)
	}
	return st.Sequence
}

// TestBeginningDoesNotReplaceAWholeConfiguration: a client that could not read
// its cache and hears only of clusters leaves the file alone.
func TestBeginningDoesNotReplaceAWholeConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.cache")
		srv := &capture{respond: func(_ int, m *discoveryv3.DeltaDiscoveryRequest) (*discoveryv3.DeltaDiscoveryResponse, error) {
			if m.TypeUrl == cds && m.ResponseNonce == "" {
				return deltaResponse("1", cl("a", "1")), nil
			}
			return nil, nil
		}}
		m := newMirror()
		_, stop := run(t, m, Config{Servers: []Server{newPlane(t, "cp", srv).server()}, Cache: openCache(t, path)})
		time.Sleep(5 * time.Second)
		stop()
		if len(m.names(cds)) != 1 {
			t.Fatal("nothing was applied")
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a part was cached: %v", err)
		}
	})
}
