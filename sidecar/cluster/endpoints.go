package cluster

import (
	"net"
	"strconv"
)

// endpointSet is what the load balancer reads. Immutable; a change of endpoints,
// of health or of an ejection makes a new one.
type endpointSet struct {
	hosts []*Host // all, in order of arrival
	prios []priority
	// load is, in percent, how far each priority's share reaches; nil when the
	// first takes all.
	healthyLoad, degradedLoad []int
}

// priority is one priority level.
type priority struct {
	all, healthy, degraded group
	// panic: too few hosts are healthy, so all are used (Envoy's panic mode).
	panic bool
}

// defaultOverprovisioning is Envoy's factor in percent where an assignment names
// none: a priority gives requests away only below 100/1.4 = 71 % healthy hosts.
const defaultOverprovisioning = 140

// replace makes a the assignment. Hosts are recognised by address, so that their
// pools and counters survive. c.mu is held.
func (c *Cluster) replace(a *Assignment) {
	c.assignment = a
	old := c.byKey
	c.byKey = make(map[string]*Host, len(old))
	if a != nil && !c.removed {
		for _, l := range a.Localities {
			for i := range l.Endpoints {
				e := &l.Endpoints[i]
				key := e.key()
				if c.byKey[key] != nil {
					continue // the first mention counts, as in Envoy
				}
				h := old[key]
				if h == nil {
					h = newHost(c, key, e)
				}
				h.place(e, l.Priority)
				c.byKey[key] = h
			}
		}
	}
	for key, h := range old {
		if c.byKey[key] != h {
			c.forget(h)
		}
	}
	c.rebuild()
}

// forget retires a host that the assignment no longer names.
func (c *Cluster) forget(h *Host) {
	if h.ejected() {
		c.ejected--
	}
	h.gone.Store(true)
	h.closeIdle()
}

// rebuild makes the endpoint set of what is known. c.mu is held.
func (c *Cluster) rebuild() {
	s := &endpointSet{}
	levels := map[int]*levelHosts{}
	top := -1
	var healthy, unhealthy, draining, degraded int
	if c.assignment != nil && !c.removed {
		seen := make(map[*Host]bool, len(c.byKey))
		for _, l := range c.assignment.Localities {
			for i := range l.Endpoints {
				h := c.byKey[l.Endpoints[i].key()]
				if seen[h] {
					continue
				}
				seen[h] = true
				s.hosts = append(s.hosts, h)
				lv := levels[h.Priority()]
				if lv == nil {
					lv = &levelHosts{}
					levels[h.Priority()] = lv
				}
				top = max(top, h.Priority())
				lv.all = append(lv.all, h)
				switch health := h.Health(); {
				case health == Draining:
					draining++
				case health == Unhealthy:
					unhealthy++
				case h.ejected():
				case health == Degraded:
					degraded++
					lv.degraded = append(lv.degraded, h)
				default:
					healthy++
					lv.healthy = append(lv.healthy, h)
				}
			}
		}
	}
	for p := 0; p <= top; p++ {
		lv := levels[p]
		if lv == nil {
			lv = &levelHosts{}
		}
		s.prios = append(s.prios, priority{
			all: newGroup(lv.all), healthy: newGroup(lv.healthy), degraded: newGroup(lv.degraded),
		})
	}
	factor := defaultOverprovisioning
	if c.assignment != nil && c.assignment.Overprovisioning > 0 {
		factor = c.assignment.Overprovisioning
	}
	s.spread(c.cfg.Load().panicPercent, factor)
	c.set.Store(s)
	for _, h := range s.hosts {
		if st := h.Health(); st == Unhealthy || st == Draining {
			h.closeIdle()
		}
	}
	if m := c.metrics; m != nil {
		m.EndpointsHealthy.Set(float64(healthy))
		m.EndpointsUnhealthy.Set(float64(unhealthy))
		m.EndpointsDraining.Set(float64(draining))
		m.EndpointsDegraded.Set(float64(degraded))
		m.EndpointsEjected.Set(float64(c.ejected))
	}
}

type levelHosts struct{ all, healthy, degraded []*Host }

// spread computes the share of each priority as Envoy does: in order, each takes
// what its healthy hosts can bear, then in order what its degraded ones can.
func (s *endpointSet) spread(panicPercent float64, overprovisioning int) {
	total := 0
	for i := range s.prios {
		p := &s.prios[i]
		if n := len(p.all.hosts); n > 0 {
			total += min(100, overprovisioning*(len(p.healthy.hosts)+len(p.degraded.hosts))/n)
		}
	}
	available := min(total, 100)
	for i := range s.prios {
		p := &s.prios[i]
		n := len(p.all.hosts)
		if n == 0 {
			continue
		}
		share := 100 * float64(len(p.healthy.hosts)+len(p.degraded.hosts)) / float64(n)
		p.panic = total < 100 && share < panicPercent
	}
	if available == 0 {
		return
	}
	left, reach := 100, 0
	take := func(g func(*priority) *group) []int {
		loads := make([]int, len(s.prios))
		for i := range s.prios {
			p := &s.prios[i]
			if n := len(p.all.hosts); n > 0 && left > 0 {
				// Normalised, so that what is available takes all requests.
				part := min(left, min(100, overprovisioning*len(g(p).hosts)/n)*100/available)
				left -= part
				reach += part
			}
			loads[i] = reach
		}
		return loads
	}
	s.healthyLoad = take(func(p *priority) *group { return &p.healthy })
	s.degradedLoad = take(func(p *priority) *group { return &p.degraded })
	// Rounding leaves a rest: the last share that is not empty takes it.
	if left > 0 {
		last := reach
		for _, loads := range [][]int{s.healthyLoad, s.degradedLoad} {
			for i := range loads {
				if loads[i] == last {
					loads[i] = 100
				}
			}
		}
	}
	if len(s.prios) > 0 && s.healthyLoad[0] == 100 {
		s.healthyLoad, s.degradedLoad = nil, nil
	}
}

func (e *Endpoint) key() string {
	if e.Pipe != "" {
		return "unix:" + e.Pipe
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}
