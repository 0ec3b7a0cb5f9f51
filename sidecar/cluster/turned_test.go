package cluster

import (
	"context"
	"net/netip"
	"sync"
	"testing"
)

// TestAggregateTurned: a cluster that was an aggregate, or made of what clients asked for, has
// hosts all the while that its own are placed for the first time.
func TestAggregateTurned(t *testing.T) {
	ring := func(typ Type) *Config {
		return &Config{Name: "c", Type: typ, LB: RingHash, Hash: &HashTable{MinRing: 50_000}, Endpoints: hosts("c", "10.0.0.1", "10.0.0.2")}
	}
	dns := ring(StrictDNS)
	dns.Endpoints = namesOn(80, "10.0.0.1", "10.0.0.2")
	for name, to := range map[string]*Config{"Static": ring(Static), "EDS": ring(EDS), "DNS": dns} {
		for from, cfg := range map[string]*Config{
			"an aggregate": {Name: "c", Type: Aggregate, Aggregate: []string{"one"}}, "destinations": {Name: "c", Type: OriginalDestination},
		} {
			t.Run(name+" from "+from, func(t *testing.T) {
				m := newManager(t, Options{Resolver: resolverFunc(func(context.Context, string) ([]netip.Addr, error) { return nil, noSuchHost })})
				mustUpdate(t, m, &Config{Name: "one", Endpoints: hosts("one", "10.0.1.1")})
				c := mustUpdate(t, m, cfg)
				outer := mustUpdate(t, m, &Config{Name: "outer", Type: Aggregate, Aggregate: []string{"c"}})
				done := make(chan struct{})
				var wg sync.WaitGroup
				for _, picked := range []*Cluster{c, outer} {
					if cfg.Type == OriginalDestination && picked == outer {
						continue // it has no hosts for an aggregate
					}
					wg.Go(func() {
						for {
							select {
							case <-done:
								return
							default:
							}
							if _, err := picked.PickFor(&PickContext{Destination: netip.MustParseAddrPort("10.0.2.1:80")}); err != nil {
								t.Errorf("%s: %v", picked.name, err)
								return
							}
						}
					})
				}
				err := m.UpdateWith(to, to.Endpoints)
				close(done)
				wg.Wait()
				if err != nil || len(c.hosts()) != 2 {
					t.Errorf("%v: %v", c.hosts(), err)
				}
			})
		}
	}
}
