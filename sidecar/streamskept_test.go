package sidecar

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/client/cache"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// What a stream had kept goes with it: one that is opened again while the sidecar runs does not
// bring back what was removed for good.
func TestStreamThatEndedKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kept")
		open := func() *cache.Cache {
			c, err := cache.Open(file, "n", bytes.Repeat([]byte{1}, 32))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		if err := open().Store("cp", []*resource.Resource{assignment(t, "a", 80)}); err != nil {
			t.Fatal(err)
		}
		applied := 0
		s := newStreams(&streams{
			usable: func(*discovery.Stream) error { return nil }, log: newRig(t).log,
			apply: func(u client.Update, _ func(string) bool) map[string]error { applied += len(u.Upserts); return nil },
			open: func(_ *discovery.Stream, url string, h client.Handler) (*client.Client, error) {
				return client.New(client.Config{Type: url, Handler: h, Node: client.Node{ID: "n"}, Cache: open(), Servers: []client.Server{{
					Dial: func(context.Context) (grpc.ClientConnInterface, error) { return nil, errors.New("refused") }}}})
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx, nil) }()
		synctest.Wait()
		from := &discovery.Stream{Cluster: "one"}
		ask := func() {
			if err := s.Usable(from); err != nil {
				t.Fatal(err)
			}
			s.Subscribe(resource.EndpointType, resource.InStream(from.Key(), "a"))
		}
		ask()
		synctest.Wait()
		if applied != 1 {
			t.Fatalf("%d come from the cache at the start", applied)
		}
		s.Unsubscribe(resource.EndpointType, resource.InStream(from.Key(), "a"))
		ask() // before the old one has ended
		synctest.Wait()
		if _, err := os.Stat(file); applied != 1 || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d came from the cache; it is %v", applied, err)
		}
		// What is open at the end is kept for the next start.
		if err := open().Store("cp", []*resource.Resource{assignment(t, "a", 80)}); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	})
}

// A rotated token has the same cache, and another token of the same time none; caches that
// nobody opened go once the start is over, and nothing else does.
func TestCachesOfStreams(t *testing.T) {
	stream := func(token string) *discovery.Stream {
		return &discovery.Stream{Cluster: "one", Metadata: []discovery.Metadata{{Key: "token", Value: tlscontext.Secret(token)}}}
	}
	a, b := stream("a"), stream("b")
	if a.Key() == b.Key() || a.Key() != stream("a").Key() || a.Kept() != b.Kept() || strings.Contains(a.Kept(), "a\"") ||
		a.Kept() == (&discovery.Stream{Cluster: "one"}).Kept() || a.Kept() == (&discovery.Stream{Cluster: "one", Delta: true, Metadata: a.Metadata}).Kept() {
		t.Errorf("%s, %s: %s, %s", a.Key(), b.Key(), a.Kept(), b.Kept())
	}
	for _, h := range []hash.Hash{sha256.New(), hmac.New(sha256.New, nil)} {
		h.Write([]byte("\"token\" \"a\"\n"))
		if strings.Contains(a.Key(), hex.EncodeToString(h.Sum(nil)[:8])) {
			t.Error("a token can be guessed from", a.Key())
		}
	}
	var o opened
	dir := t.TempDir()
	take := func(of *discovery.Stream, want string) {
		t.Helper()
		if got := o.take(dir, "config-cache-x-1", streamKey{"x", of.Key()}); got != want {
			t.Errorf("has %s, want %s", got, want)
		}
	}
	take(a, "config-cache-x-1")
	take(b, "config-cache-x-1-2")
	take(a, "config-cache-x-1")
	o.release(streamKey{"x", a.Key()})
	take(b, "config-cache-x-1-2")
	take(stream("c"), "config-cache-x-1")
	for _, name := range []string{"config-cache", "config-cache.key", "config-cache-x-1-2", "config-cache-x-1.tmp", "config-cache-x-2", "config-cache-x-3.tmp", "node.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A start has what was rotated before it.
	o = opened{}
	take(a, "config-cache-x-1-2")
	take(b, "config-cache-x-1")
	if got := o.take(dir, keptOfMesh, streamKey{service: keptOfMesh}); got != keptOfMesh {
		t.Errorf("the mesh has %s", got)
	}
	if err := o.forget(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 5 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, e := range left {
		if e.Name() == "config-cache-x-2" || e.Name() == "config-cache-x-3.tmp" {
			t.Error(e.Name(), "is left")
		}
	}
}
