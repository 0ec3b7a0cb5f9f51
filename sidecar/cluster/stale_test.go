package cluster

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/panics/panicstest"
)

// stales is an assignment of one host that goes stale.
func stales(name, host string, after time.Duration) *Assignment {
	a := hosts(name, host)
	a.StaleAfter = after
	return a
}

// staleBed is a cluster c of EDS in a bubble.
func staleBed(t *testing.T) (*Manager, *Cluster) {
	t.Helper()
	m := newManager(t, Options{})
	return m, mustUpdate(t, m, &Config{Name: "c", Type: EDS})
}

// has fails unless the cluster has one host, of that address, or none where it is "".
func has(t *testing.T, when string, c *Cluster, host string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for _, h := range c.hosts() {
		got = append(got, h.key)
	}
	if strings.Join(got, " ") != host {
		t.Errorf("%s: hosts %q, want %q", when, got, host)
	}
}

func set(t *testing.T, m *Manager, a *Assignment) {
	t.Helper()
	if err := m.SetEndpoints(a); err != nil {
		t.Fatal(err)
	}
}

// TestStaleEndpoints: endpoints go when no update came in time, also one that says the same,
// and come back with the next.
func TestStaleEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := staleBed(t)
		const host = "10.0.0.1:80"
		set(t, m, stales("c", "10.0.0.1", 10*time.Second))
		time.Sleep(9 * time.Second)
		has(t, "before", c, host)
		set(t, m, stales("c", "10.0.0.1", 10*time.Second))
		time.Sleep(9 * time.Second)
		has(t, "the same came again", c, host)
		time.Sleep(2 * time.Second)
		has(t, "stale", c, "")
		set(t, m, stales("c", "10.0.0.1", 10*time.Second))
		has(t, "again", c, host)
		set(t, m, hosts("c", "10.0.0.1"))
		time.Sleep(time.Hour)
		has(t, "one for ever came", c, host)
		var out strings.Builder
		_ = m.opts.Metrics.Registry.WritePrometheus(&out)
		for _, want := range []string{
			`hauberk_upstream_assignments_total{cluster="c",result="ageing"} 3`,
			`hauberk_upstream_assignments_total{cluster="c",result="stale"} 1`,
		} {
			if !strings.Contains(out.String(), want+"\n") {
				t.Errorf("no %s in\n%s", want, &out)
			}
		}
		_ = m.Close()
	})
}

// TestAgeOfEndpoints: they age from when they came, whatever is done with their cluster, and
// are not served by one that comes when they are stale.
func TestAgeOfEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := staleBed(t)
		const host = "10.0.0.1:80"
		a := stales("c", "10.0.0.1", 10*time.Second)
		a.DropPerMillion = million
		set(t, m, a)
		time.Sleep(6 * time.Second)
		mustUpdate(t, m, &Config{Name: "c", Type: EDS, LB: Random})
		other := &Config{Name: "other", Type: EDS, ServiceName: "c"}
		if err := m.UpdateWith(other, a); err != nil {
			t.Fatal(err)
		}
		has(t, "another cluster", m.Get("other"), host)
		if c.Dropping() == nil {
			t.Error("nothing is dropped")
		}
		time.Sleep(5 * time.Second)
		has(t, "changed meanwhile", c, "")
		has(t, "came meanwhile", m.Get("other"), "")
		if c.Dropping() != nil {
			t.Error("what a stale assignment says is dropped")
		}
		for _, cfg := range []*Config{{Name: "c", Type: EDS}, {Name: "late", Type: EDS, ServiceName: "c"}} {
			if err := m.UpdateWith(cfg, a); err != nil {
				t.Fatal(err)
			}
			if len(m.Get(cfg.Name).hosts()) > 0 {
				t.Error("they serve until a timer is over that was over before")
			}
			has(t, "late", m.Get(cfg.Name), "")
		}
		_ = m.Close()
	})
}

// TestStaleNoMore: endpoints of a cluster that is of another type, is gone, or never discovers
// any, have no timer.
func TestStaleNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := staleBed(t)
		set(t, m, stales("c", "10.0.0.1", time.Second))
		mustUpdate(t, m, &Config{Name: "c", Endpoints: stales("c", "10.0.0.2", time.Second)})
		time.Sleep(time.Minute)
		has(t, "static", c, "10.0.0.2:80")
		gone := mustUpdate(t, m, &Config{Name: "gone", Type: EDS})
		set(t, m, stales("gone", "10.0.0.1", time.Hour))
		for _, want := range []bool{true, false} {
			gone.mu.Lock()
			if got := gone.ageing.timer != nil; got != want {
				t.Errorf("a timer: %v, want %v", got, want)
			}
			gone.mu.Unlock()
			m.Remove("gone")
		}
		_ = m.Close()
	})
}

// TestFaultKeepsTheAge: an update that is refused is none: the endpoints before it go in their time.
func TestFaultKeepsTheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c := staleBed(t)
		set(t, m, stales("c", "10.0.0.1", 10*time.Second))
		time.Sleep(6 * time.Second)
		mend := breakSets(c)
		if m.SetEndpoints(stales("c", "10.0.0.2", 10*time.Second)) == nil {
			t.Fatal("a fault is no error")
		}
		mend()
		has(t, "refused", c, "10.0.0.1:80")
		time.Sleep(5 * time.Second)
		has(t, "stale", c, "")
		_ = m.Close()
	})
}

// TestFaultOfGoingStale: what could not be taken out of use is, once it can be.
func TestFaultOfGoingStale(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 2) // and what was cannot be put back either
	synctest.Test(t, func(t *testing.T) {
		m, c := staleBed(t)
		set(t, m, stales("c", "10.0.0.1", 10500*time.Millisecond))
		time.Sleep(10400 * time.Millisecond)
		whole := c.cfg.Load()
		broken := *whole
		broken.Config = nil
		c.cfg.Store(&broken)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		c.cfg.Store(whole)
		has(t, "a fault", c, "10.0.0.1:80")
		time.Sleep(time.Second)
		has(t, "tried again", c, "")
		_ = m.Close()
	})
}

// TestNothingAgesOfARemovedCluster: the timer ends with the cluster, whatever else of its end fails.
func TestNothingAgesOfARemovedCluster(t *testing.T) {
	panicstest.Expect(t, panics.Configuration, 1)
	synctest.Test(t, func(t *testing.T) {
		m, c := staleBed(t)
		set(t, m, stales("c", "10.0.0.1", time.Hour))
		timer := c.ageing.timer
		broken := *c.cfg.Load()
		broken.Config = nil
		c.cfg.Store(&broken)
		m.Remove("c")
		if c.ageing.of != nil || timer.Stop() {
			t.Error("it waits for an update")
		}
		_ = m.Close()
	})
}
