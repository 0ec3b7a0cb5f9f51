package cluster

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestOutlier runs on a clock of its own.
func TestOutlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewManager(Options{})
		defer m.Close()
		cfg := &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1", "10.0.0.2"), Outlier: &Outlier{
			Consecutive5xx: 3, EnforcingConsecutive5xx: 100, ConsecutiveGateway: 2, EnforcingConsecutiveGateway: 100,
			Interval: time.Second, BaseEjectionTime: 10 * time.Second, MaxEjectionPercent: 50,
		}}
		if err := m.Update(cfg); err != nil {
			t.Fatal(err)
		}
		c := m.Get("c")
		a, b := c.hosts()[0], c.hosts()[1]
		report := func(h *Host, outcomes ...Outcome) {
			for _, o := range outcomes {
				h.Report(o)
			}
		}
		report(a, 500, 500, 200, 500, 500)
		if a.ejected() {
			t.Error("ejected without three in a row")
		}
		report(a, 500)
		if got := count1(t, c, 10); !a.ejected() || got["10.0.0.2"] != 10 {
			t.Errorf("not ejected: %v", got)
		}
		// No more than half may be ejected.
		report(b, OutcomeConnect, OutcomeReset, 503, 503)
		if b.ejected() {
			t.Error("ejected beyond the maximum")
		}
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		if a.ejected() {
			t.Error("the ejection did not end")
		}
		// Gateway failures, connect failures among them, have a count of their own; the
		// second ejection lasts twice as long.
		report(a, OutcomeConnect, 502)
		if !a.ejected() {
			t.Error("gateway failures did not eject")
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if !a.ejected() {
			t.Error("the second ejection was as short as the first")
		}
		cfg = &Config{Name: "c", Endpoints: cfg.Endpoints}
		if err := m.Update(cfg); err != nil || a.ejected() {
			t.Error("switched off, and still ejected")
		}
		// Enforcing 0 counts and never ejects.
		cfg = &Config{Name: "c", Endpoints: cfg.Endpoints, Outlier: &Outlier{Consecutive5xx: 1, MaxEjectionPercent: 100}}
		_ = m.Update(cfg)
		report(a, 500)
		if a.ejected() {
			t.Error("ejected with enforcing 0")
		}
		// Split: failures without an answer do not count as 5xx.
		cfg = &Config{Name: "c", Endpoints: cfg.Endpoints, Outlier: &Outlier{
			Consecutive5xx: 2, EnforcingConsecutive5xx: 100, SplitLocalOrigin: true, ConsecutiveLocalOrigin: 3,
			EnforcingConsecutiveLocalOrigin: 100, MaxEjectionPercent: 100,
		}}
		_ = m.Update(cfg)
		report(a, OutcomeConnect, OutcomeConnect)
		if a.ejected() {
			t.Error("local failures counted as 5xx")
		}
		// A request that had a connection begins the count anew, whatever came of it then.
		report(a, OutcomeTimeout, OutcomeReset, OutcomeTimeout, OutcomeReset, OutcomeConnect)
		if a.ejected() {
			t.Error("hosts that can be connected to are ejected for what came then")
		}
		a.ReportCut() // the answer was reported, and with it the connection
		if !a.ejected() {
			t.Error("three local failures did not eject")
		}
		// The last host goes only where everything may.
		report(b, 500, 500)
		if !b.ejected() {
			t.Error("100 percent may be ejected")
		}
		if _, err := c.Pick(nil); err != nil {
			t.Error("no panic at 0 percent of 50")
		}
	})
}

// TestOutlierIntervals: hosts are judged once an interval, however short it is and however
// often the cluster changes.
func TestOutlierIntervals(t *testing.T) {
	for _, interval := range []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			m := NewManager(Options{})
			defer m.Close()
			update := func(interval time.Duration) *Cluster {
				return mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", "10.0.0.1"), Outlier: &Outlier{
					Consecutive5xx: 1, EnforcingConsecutive5xx: 100, MaxEjectionPercent: 100, Interval: interval, BaseEjectionTime: time.Millisecond,
				}})
			}
			c := update(interval)
			for range 3 {
				c.hosts()[0].Report(500)
				wait(interval / 2)
				update(interval)
				wait(interval/2 - time.Millisecond)
				if !c.hosts()[0].ejected() {
					t.Errorf("%v: the ejection ended before the interval", interval)
				}
				if wait(time.Millisecond); c.hosts()[0].ejected() {
					t.Errorf("%v: the ejection did not end with the interval", interval)
				}
			}
			c.hosts()[0].Report(500)
			update(interval / 3)
			if wait(interval / 3); c.hosts()[0].ejected() {
				t.Errorf("%v: a shorter interval does not act", interval)
			}
		})
	}
}

func (f *fakeDNS) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.addrs), f.err
}

func (f *fakeDNS) set(err error, addrs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs, f.err = nil, err
	for _, a := range addrs {
		f.addrs = append(f.addrs, netip.MustParseAddr(a))
	}
}

func TestStrictDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{}
		dns.set(nil, "10.0.0.2", "10.0.0.1")
		m := NewManager(Options{Resolver: dns})
		defer m.Close()
		a := &Assignment{Localities: []Locality{{Endpoints: []Endpoint{{Host: "api.example", Port: 80}}}}}
		if err := m.Update(&Config{Name: "c", Type: StrictDNS, Endpoints: a, DNS: &DNS{Refresh: time.Second, Family: AllFamilies}}); err != nil {
			t.Fatal(err)
		}
		c := m.Get("c")
		synctest.Wait()
		if len(c.hosts()) != 2 || c.hosts()[0].Hostname() != "api.example" {
			t.Fatalf("%+v", c.Stats())
		}
		kept := c.hosts()[0]
		dns.set(nil, "10.0.0.1", "10.0.0.3")
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if !slices.Contains(c.hosts(), kept) || len(c.hosts()) != 2 || c.hosts()[1].Endpoint().Host != "10.0.0.3" {
			t.Errorf("%+v", c.Stats())
		}
		dns.set(errors.New("no such host"))
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if len(c.hosts()) != 2 {
			t.Error("a failed lookup dropped the addresses")
		}
	})
}

// TestIdleTimeout: connections nobody uses end, by the sweeper.
func TestIdleTimeout(t *testing.T) {
	s := newServer(t)
	m := newManager(t, Options{})
	c := mustUpdate(t, m, &Config{Name: "c", Endpoints: hosts("c", s.addr), IdleTimeout: time.Millisecond})
	acquire(t, c, "web").Release()
	h := c.hosts()[0]
	h.sweepIdle(monotonic()+int64(2*time.Second), int64(time.Millisecond))
	ended(t, s.accepted(t, 1)[0])
}

func TestManyClusters(t *testing.T) {
	m := newManager(t, Options{})
	start := cpuTime(t)
	for i := range 10000 {
		mustUpdate(t, m, &Config{Name: "cluster-" + strconv.Itoa(i), Type: EDS})
	}
	if took := cpuTime(t) - start; took > 5*time.Second {
		t.Errorf("10,000 clusters took %v", took)
	}
	if len(m.All()) != 10000 || m.Get("cluster-77") == nil || m.Get("nothing") != nil {
		t.Error("clusters are missing")
	}
	if n := testing.AllocsPerRun(100, func() { m.Get("cluster-77") }); n != 0 {
		t.Errorf("looking one up allocates %v", n)
	}
}

// cpuTime is what this process has used: others on the machine do not count.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
