package sidecar

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
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
