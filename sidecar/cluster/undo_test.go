package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
)

// beforeTheFirst is a priority that no decoder lets through: no set of endpoints can be
// made with it, which shows when their hosts have taken their places already.
const beforeTheFirst = " priority=-1"

// serves fails unless requests go to these hosts, to each of them, and to no other.
func serves(t *testing.T, c *Cluster, hosts ...string) {
	t.Helper()
	got := count1(t, c, 50)
	for _, h := range hosts {
		if got[h] == 0 {
			t.Errorf("%s is not chosen: %v", h, got)
		}
		delete(got, h)
	}
	if len(got) > 0 {
		t.Errorf("also chosen: %v", got)
	}
}

// TestFaultOfACluster: a cluster that cannot be applied is refused by its name; the one in
// force stays as it was, and others, and the next update of it, are applied.
func TestFaultOfACluster(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 2)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2")})
	cfg, were := c.Config(), c.hosts()
	for _, name := range []string{"c", "new"} {
		err := m.Update(&Config{Name: name, Outlier: &Outlier{}, Endpoints: hosts(name, "10.0.0.1 weight=7", "10.0.0.3"+beforeTheFirst)})
		if err == nil || !strings.Contains(err.Error(), "cluster "+name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m.Get("new") != nil {
		t.Error("a cluster that was never applied is there")
	}
	if m.Get("c") != c || c.Config() != cfg || c.judging != nil {
		t.Error("the configuration in force did not stay")
	}
	if h := c.hosts(); len(h) != 2 || h[0] != were[0] || h[1] != were[1] || h[0].Weight() != 1 || h[1].gone.Load() {
		t.Errorf("the hosts did not stay: %v, were %v", h, were)
	}
	serves(t, c, "10.0.0.1", "10.0.0.2")
	if mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.3")}) != c || c.hosts()[0] != were[0] || !were[1].gone.Load() {
		t.Error("the next update was not applied to the same cluster")
	}
	serves(t, c, "10.0.0.1", "10.0.0.3")
	serves(t, mustUpdate(t, m, &Config{Name: "new", Endpoints: hosts("new", "10.0.0.4")}), "10.0.0.4")
}

// TestFaultOfEndpoints: an assignment that one of its clusters cannot apply is in force at
// none of them, also where that one cannot make its old set again either.
func TestFaultOfEndpoints(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 2)
	m := newManager(t, Options{})
	eds := func(name string) *Cluster {
		return mustUpdate(t, m, &Config{Name: name, Type: EDS, ServiceName: "s"})
	}
	own, other := eds("s"), eds("other")
	set := func(specs ...string) error { return m.SetEndpoints(hosts("s", specs...)) }
	if err := set("10.0.0.1", "10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	good, kept := *other.cfg.Load(), own.hosts()[1]
	bad, cfg := good, *good.Config
	cfg.LB, cfg.Hash = RingHash, &HashTable{MinRing: 1 << 62, MaxRing: 1 << 62}
	bad.Config = &cfg
	other.cfg.Store(&bad) // a ring that no memory holds
	if err := set("10.0.0.2", "10.0.0.3"); err == nil || !strings.Contains(err.Error(), "endpoints of s: for cluster other: ") {
		t.Errorf("%v", err)
	}
	other.cfg.Store(&good)
	for _, c := range []*Cluster{own, other} {
		serves(t, c, "10.0.0.1", "10.0.0.2")
		if a := c.assigned(); a.Localities[0].Endpoints[0].Host != "10.0.0.1" {
			t.Errorf("%s has the endpoints of the refused assignment", c.name)
		}
	}
	if own.hosts()[1] != kept {
		t.Error("a host did not stay")
	}
	if err := set("10.0.0.4"); err != nil {
		t.Fatal(err)
	}
	serves(t, own, "10.0.0.4")
	serves(t, other, "10.0.0.4")
}

// TestFaultKeepsContextsApart: a connection that was made while a TLS context was tried is
// not taken for one of the context before, nor of the next.
func TestFaultKeepsContextsApart(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	m := newManager(t, Options{TLS: faultyTLS{}})
	with := func(sni, host string) *Config {
		return &Config{Name: "c", TLS: &TLS{SNI: sni}, Endpoints: hosts("c", host)}
	}
	c := mustUpdate(t, m, with("a", "10.0.0.1"))
	tried := c.cfg.Load().tlsGeneration + 1
	if m.Update(with("b", "10.0.0.1"+beforeTheFirst)) == nil {
		t.Fatal("not refused")
	}
	if s := c.cfg.Load(); s.TLS.SNI != "a" || s.tlsGeneration <= tried {
		t.Errorf("%s has number %d, what was tried %d", s.TLS.SNI, s.tlsGeneration, tried)
	}
	mustUpdate(t, m, with("c", "10.0.0.1"))
	if s := c.cfg.Load(); s.tlsGeneration <= tried+1 {
		t.Errorf("the next one has number %d", s.tlsGeneration)
	}
}

// TestFaultKeepsWhatGoesOn: after an update that could not be applied, a cluster's hosts are
// still checked, and have failed where they had, and its names are still resolved.
func TestFaultKeepsWhatGoesOn(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 2)
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{}
		dns.set(nil, "10.0.0.1")
		m := NewManager(Options{Resolver: dns})
		defer m.Close()
		checks := 0
		m.openCheck = func(context.Context, *pool, *settings, protocol) (stream.Stream, Kind, error) {
			checks++
			return nil, ConnectRefused, errors.New("refused")
		}
		checked := mustUpdate(t, m, &Config{Name: "checked", Endpoints: hosts("checked", "10.0.0.1"), HealthCheck: every(&HTTPCheck{Path: "/"})})
		named := mustUpdate(t, m, &Config{Name: "named", Type: StrictDNS, Endpoints: namesOn(80, "api.example"), DNS: &DNS{Refresh: time.Second}})
		wait(time.Minute)
		before := checks
		for _, c := range []*Cluster{checked, named} {
			if m.Update(&Config{Name: c.name, Endpoints: hosts(c.name, "10.0.0.1"+beforeTheFirst)}) == nil {
				t.Fatal("not refused")
			}
		}
		if checked.hosts()[0].check.state.Load()&checkFailed == 0 {
			t.Error("a host that failed its checks passes")
		}
		if got := addresses(named); len(got) != 1 || got[0] != "10.0.0.1:80" {
			t.Errorf("%v, before the name is resolved again", got)
		}
		dns.set(nil, "10.0.0.2")
		wait(time.Minute)
		if checks == before {
			t.Error("no host is checked any more")
		}
		if got := addresses(named); len(got) != 1 || got[0] != "10.0.0.2:80" {
			t.Errorf("%v, when the name was resolved again", got)
		}
	})
}

// TestFaultOfARemoval: a cluster whose end fails is gone, and the next one goes on.
func TestFaultOfARemoval(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1")})
	c.stopDNS = func() { panic("stop") }
	m.Remove("c")
	if m.Get("c") != nil {
		t.Error("it is still there")
	}
	if mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.2")}) == c {
		t.Error("it came back")
	}
	serves(t, m.Get("c"), "10.0.0.2")
}
