package cluster

import (
	"context"
	"errors"
	"maps"
	"reflect"
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
	var exposed strings.Builder
	if err := m.opts.Metrics.Registry.WritePrometheus(&exposed); err != nil {
		t.Fatal(err)
	}
	if m.Get("new") != nil || strings.Contains(exposed.String(), `cluster="new"`) {
		t.Error("a cluster that was never applied is there, or counts")
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

// TestFaultOfSettings: where settings cannot be made, which comes before anything is tried,
// an update is refused as well; a cluster that it would have added can be ended.
func TestFaultOfSettings(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 2)
	m := newManager(t, Options{})
	cfg := &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1")}
	fresh := newCluster(m, cfg)
	if fresh.apply(nil, nil, findings{}, true) == nil {
		t.Error("not refused")
	}
	fresh.end()
	c := mustUpdate(t, m, cfg)
	h := c.hosts()[0]
	if c.apply(nil, nil, findings{}, false) == nil || c.Config() != cfg || c.hosts()[0] != h {
		t.Error("not refused, or the configuration in force did not stay")
	}
	serves(t, c, "10.0.0.1")
}

// breakSets has a cluster fault where it makes a set of endpoints, until mend is called.
func breakSets(c *Cluster) (mend func()) {
	good := c.cfg.Load()
	bad, cfg := *good, *good.Config
	cfg.LB, cfg.Hash = RingHash, &HashTable{MinRing: 1 << 62, MaxRing: 1 << 62} // a ring that no memory holds
	bad.Config = &cfg
	c.cfg.Store(&bad)
	return func() { c.cfg.Store(good) }
}

// TestFaultOfEndpoints: an assignment that one of its clusters cannot apply is in force at
// none of them, also where that one cannot make its old set again either.
func TestFaultOfEndpoints(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	m := newManager(t, Options{})
	eds := func(name string) *Cluster {
		return mustUpdate(t, m, &Config{Name: name, Type: EDS, ServiceName: "s"})
	}
	own, other := eds("s"), eds("other")
	set := func(specs ...string) error { return m.SetEndpoints(hosts("s", specs...)) }
	if err := set("10.0.0.1", "10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	mend := breakSets(other)
	if err := set("10.0.0.2", "10.0.0.3"); err == nil || !strings.Contains(err.Error(), "endpoints of s: for cluster other: ") {
		t.Errorf("%v", err)
	}
	mend()
	for _, c := range []*Cluster{own, other} {
		serves(t, c, "10.0.0.1", "10.0.0.2")
		if a := c.assigned(); a.Localities[0].Endpoints[0].Host != "10.0.0.1" {
			t.Errorf("%s has the endpoints of the refused assignment", c.name)
		}
	}
	if err := set("10.0.0.4"); err != nil {
		t.Fatal(err)
	}
	serves(t, own, "10.0.0.4")
	serves(t, other, "10.0.0.4")
}

// TestRefusedEndpointsLeaveHostsAlone: endpoints that one cluster cannot apply change
// nothing for another that could: its hosts are the same ones, with what their checks
// found, ejections, counters and idle connections.
func TestRefusedEndpointsLeaveHostsAlone(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	m := newManager(t, Options{})
	m.openCheck = func(ctx context.Context, _ *pool, _ *settings, _ protocol) (stream.Stream, Kind, error) {
		<-ctx.Done()
		return nil, ConnectTimeout, ctx.Err()
	}
	own := mustUpdate(t, m, &Config{
		Name: "s", Type: EDS, DropRemoved: true, CloseOnChange: true, HealthCheck: every(&HTTPCheck{Path: "/"}),
		Outlier: &Outlier{MaxEjectionPercent: 100, EnforcingConsecutive5xx: 100},
	})
	other := mustUpdate(t, m, &Config{Name: "other", Type: EDS, ServiceName: "s"})
	goes, stays := newServer(t).addr, newServer(t).addr
	if err := m.SetEndpoints(hosts("s", goes, "10.0.0.2", stays)); err != nil {
		t.Fatal(err)
	}
	were := own.hosts()
	own.mu.Lock()
	for _, h := range were {
		h.check.clear(checkFailed | checkPending) // it passes
	}
	own.eject(were[1], anomaly{Anomaly: Consecutive5xx})
	own.rebuild()
	own.mu.Unlock()
	for _, h := range []*Host{were[0], were[2]} {
		conn, err := connTo(h)
		if err != nil {
			t.Fatal(err)
		}
		h.Report(200)
		conn.Release()
	}
	set, stats, checks := own.set.Load(), own.Stats(), maps.Clone(own.checks)
	mend := breakSets(other)
	if m.SetEndpoints(hosts("s", "10.0.0.4", stays+" weight=7 priority=1")) == nil {
		t.Fatal("not refused")
	}
	mend()
	if own.set.Load() != set || !reflect.DeepEqual(own.Stats(), stats) || were[0].gone.Load() || were[1].gone.Load() {
		t.Errorf("%+v, before %+v", own.Stats(), stats)
	}
	if !maps.Equal(own.checks, checks) || own.ejected != 1 {
		t.Errorf("%d ejected; the checks stayed: %t", own.ejected, maps.Equal(own.checks, checks))
	}
	if err := m.SetEndpoints(hosts("s", stays+" weight=7")); err != nil {
		t.Fatal(err)
	}
	now := own.Stats()
	if h := own.hosts(); len(h) != 1 || h[0] != were[2] || now[0].Weight != 7 || now[0].Check != "passing" || now[0].Idle != 0 {
		t.Errorf("after the next update: %+v", now)
	}
	if !were[0].gone.Load() || !were[1].gone.Load() || were[0].conns.Load() != 0 || own.ejected != 0 {
		t.Error("a host did not depart with the next update")
	}
}

// TestFaultOfADeparture: a host whose connections cannot be ended departs all the same, and
// so do the others: the endpoints are in force, at every cluster.
func TestFaultOfADeparture(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	m := newManager(t, Options{})
	own := mustUpdate(t, m, &Config{Name: "s", Type: EDS, Endpoints: hosts("s", "10.0.0.1", "10.0.0.2")})
	other := mustUpdate(t, m, &Config{Name: "other", Type: EDS, ServiceName: "s"})
	were := own.hosts()
	were[0].pool("", DefaultPriority).idle = []*Conn{nil} // which cannot be closed
	if err := m.SetEndpoints(hosts("s", "10.0.0.3")); err != nil {
		t.Error(err)
	}
	if !were[0].gone.Load() || !were[1].gone.Load() {
		t.Error("a host did not depart")
	}
	serves(t, own, "10.0.0.3")
	serves(t, other, "10.0.0.3")
}

// TestFaultOfAnEndOfChecks: where the checks of a host that has departed cannot be ended, no
// request is sent to it all the same.
func TestFaultOfAnEndOfChecks(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "s", Type: EDS, Endpoints: hosts("s", "10.0.0.1")})
	gone := c.hosts()[0]
	c.mu.Lock()
	c.checks = map[*Host]*checker{gone: {}} // which cannot be stopped
	c.mu.Unlock()
	if err := m.SetEndpoints(hosts("s", "10.0.0.2")); err != nil {
		t.Error(err)
	}
	serves(t, c, "10.0.0.2")
	c.mu.Lock()
	delete(c.checks, gone)
	c.mu.Unlock()
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
