package client

import (
	"strings"
	"testing"
	"testing/synctest"

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
