package telemetry

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// ClusterMetrics is what is counted of one cluster. Its counters come into being with
// the first that is counted: of ten thousand clusters most are not used for long times.
type ClusterMetrics struct {
	m         *Metrics
	name      string
	endpoints [len(endpointStates)]atomic.Int32
	used      atomic.Pointer[ClusterCounters]
	holders   int // clusters whose counters they are; m.mu guards it
	// others are the series that have labels of their own, which few clusters have. m.mu
	// guards them.
	others    map[otherSeries]struct{}
	redirects results
	zonePicks results
}

type otherSeries struct {
	f   *family
	key string
}

// ClusterCounters are the counters of a cluster that is used, values of one piece of
// memory.
type ClusterCounters struct {
	// Requests by status class: index 0 is "none", 1 "1xx" … 5 "5xx".
	Requests [6]Counter

	ConnectOK, ConnectRefused, ConnectTimeout, ConnectTLS, ConnectError Counter

	ConnectionsOpen Gauge
	ConnectDuration Histogram
	// RequestDuration is of attempts that were answered: from sending to the end of the
	// exchange.
	RequestDuration Histogram
	// Failures are attempts that were sent and not answered, or not as a whole, by how they
	// ended.
	Failures [failures]Counter

	RetrySuccess, RetryFailure, RetryOverflow, RetryLimit Counter

	OverflowConnections, OverflowPending, OverflowRequests, OverflowRetries, OverflowPools Counter

	BytesReceived, BytesSent Counter
	Ejections, NoHealthy     Counter
	PoolsReplaced            Counter
	PanicPicks               Counter

	block block
	// What few clusters have comes with a cluster's first.
	abandoned results
	ends      results
}

var endpointStates = [...]string{"healthy", "unhealthy", "draining", "degraded", "ejected"}

// Failure is how an attempt ended that was sent and not answered, or not as a whole.
type Failure uint8

// The failures.
const (
	FailedTimeout        Failure = iota // the request's time was over
	FailedTryTimeout                    // the attempt's was
	FailedTryIdleTimeout                // nothing moved in the attempt
	FailedTermination                   // the connection ended
	FailedReset                         // the upstream reset the stream
	FailedRefused                       // the upstream certainly did nothing
	FailedProtocol                      // the answer broke the protocol
	FailedStreamDuration                // the cluster's longest duration of streams was over

	failures
)

var failureNames = [failures]string{"timeout", "per_try_timeout", "per_try_idle_timeout", "termination", "reset", "refused", "protocol_error", "max_stream_duration"}

var statusClasses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// each calls fn with every handle, its family, and its label after the cluster's
// name, "" for none.
func (c *ClusterCounters) each(m *Metrics, fn func(f *family, label string, handle any)) {
	for i := range c.Requests {
		fn(m.upstreamRequests.f, statusClasses[i], &c.Requests[i])
	}
	fn(m.upstreamConnections.f, "ok", &c.ConnectOK)
	fn(m.upstreamConnections.f, "refused", &c.ConnectRefused)
	fn(m.upstreamConnections.f, "timeout", &c.ConnectTimeout)
	fn(m.upstreamConnections.f, "tls", &c.ConnectTLS)
	fn(m.upstreamConnections.f, "error", &c.ConnectError)
	fn(m.upstreamOpen.f, "", &c.ConnectionsOpen)
	fn(m.upstreamRetries.f, "success", &c.RetrySuccess)
	fn(m.upstreamRetries.f, "failure", &c.RetryFailure)
	fn(m.upstreamRetries.f, "overflow", &c.RetryOverflow)
	fn(m.upstreamRetries.f, "limit", &c.RetryLimit)
	fn(m.upstreamOverflow.f, "connections", &c.OverflowConnections)
	fn(m.upstreamOverflow.f, "pending", &c.OverflowPending)
	fn(m.upstreamOverflow.f, "requests", &c.OverflowRequests)
	fn(m.upstreamOverflow.f, "retries", &c.OverflowRetries)
	fn(m.upstreamOverflow.f, "pools", &c.OverflowPools)
	fn(m.upstreamBytes.f, "received", &c.BytesReceived)
	fn(m.upstreamBytes.f, "sent", &c.BytesSent)
	fn(m.upstreamEjections.f, "", &c.Ejections)
	fn(m.upstreamNoHealthy.f, "", &c.NoHealthy)
	fn(m.upstreamPoolReplaced.f, "", &c.PoolsReplaced)
	fn(m.upstreamPanicPicks.f, "", &c.PanicPicks)
	for i := range c.Failures {
		fn(m.upstreamFailures.f, failureNames[i], &c.Failures[i])
	}
	fn(m.upstreamConnect.f, "", &c.ConnectDuration)
	fn(m.upstreamDuration.f, "", &c.RequestDuration)
}

// newClusterCounters makes the handles; the cells come with the first that is counted.
func (m *Metrics) newClusterCounters() *ClusterCounters {
	c, cells := &ClusterCounters{}, 0
	c.each(m, func(f *family, _ string, handle any) {
		switch h := handle.(type) {
		case *Counter:
			h.b, h.cell = &c.block, cells
			cells++
		case *Gauge:
			h.b, h.cell = &c.block, cells
			cells++
		case *Histogram:
			*h = Histogram{b: &c.block, first: cells, bounds: f.Bounds, coarse: coarseFor(f.Bounds)}
			cells += histogramCells(f.Bounds)
		}
	})
	c.block.cells = wholeLines(cells)
	return c
}

// clusterSeries is one of a cluster's series in a family: its label after the cluster's
// name, and its cell in the block of counters, or the number of an endpoint's state.
type clusterSeries struct {
	label string
	at    int
}

// layOut has the families visit the clusters' series. They are not kept in the families,
// which would cost more than all the rest of a cluster. m.mu is held.
func (m *Metrics) layOut() {
	m.unused = m.newClusterCounters()
	m.layout = map[*family][]clusterSeries{}
	add := func(f *family, label string, at int) {
		m.layout[f] = append(m.layout[f], clusterSeries{label, at})
	}
	for i, state := range endpointStates {
		add(m.upstreamEndpoints.f, state, i)
	}
	m.unused.each(m, func(f *family, label string, handle any) {
		switch h := handle.(type) {
		case *Counter:
			add(f, label, h.cell)
		case *Gauge:
			add(f, label, h.cell)
		case *Histogram:
			add(f, label, h.first)
		}
	})
	for f, list := range m.layout {
		slices.SortFunc(list, func(a, b clusterSeries) int { return strings.Compare(a.label, b.label) })
		f.mu.Lock()
		f.more = m.visitClusters
		f.mu.Unlock()
	}
}

// visitClusters visits the series of one family, of all clusters by name. It holds no
// lock meanwhile.
func (m *Metrics) visitClusters(f *family, visit func(*series)) {
	clusters, layout, unused := m.inOrder(f)
	var (
		c Counter
		g Gauge
		h Histogram
		s series
	)
	switch f.Kind {
	case CounterKind:
		s.counter = &c
	case GaugeKind:
		s.gauge = &g
	case HistogramKind:
		s.histogram = &h
	}
	for _, of := range clusters {
		block := &unused.block // where everything is zero
		if used := of.used.Load(); used != nil {
			block = &used.block
		}
		for _, l := range layout {
			s.labels = append(s.labels[:0], of.name, l.label)[:len(f.Labels)]
			c.b, c.cell = block, l.at
			h.b, h.first, h.bounds = block, l.at, f.Bounds
			if g.b, g.cell = block, l.at; f == m.upstreamEndpoints.f {
				g.b, g.cell = &unused.block, 0
				g.Set(float64(of.endpoints[l.at].Load()))
			}
			visit(&s)
		}
	}
}

func (m *Metrics) inOrder(f *family) ([]*ClusterMetrics, []clusterSeries, *ClusterCounters) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byName == nil {
		m.byName = slices.SortedFunc(maps.Values(m.clusters), func(a, b *ClusterMetrics) int { return strings.Compare(a.name, b.name) })
	}
	return m.byName, m.layout[f], m.unused
}

// Cluster returns what is counted of a cluster; for configuration time.
func (m *Metrics) Cluster(name string) *ClusterMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.clusters[name]; c != nil {
		return c
	}
	if m.unused == nil {
		m.layOut()
	}
	c := &ClusterMetrics{m: m, name: name}
	m.clusters[name], m.byName = c, nil
	return c
}

// Hold notes a cluster whose counters these are: two have the same where alt_stat_name says so.
func (c *ClusterMetrics) Hold() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.holders++
}

// Forget ends the exposition of a cluster that is gone, the last that has the counters; a nil ClusterMetrics has none.
// What is still under way counts for nobody, and a cluster of the same name begins anew.
func (c *ClusterMetrics) Forget() {
	if c == nil {
		return
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.holders--; c.holders > 0 || c.m.clusters[c.name] != c {
		return
	}
	delete(c.m.clusters, c.name)
	c.m.byName = nil
	for o := range c.others {
		o.f.deleteKey(o.key)
	}
}

// other is a counter with a label of its own, nil of a cluster that is gone.
func (c *ClusterMetrics) other(v *CounterVec, labels ...string) *Counter {
	labels, ok := c.hold(v.f, labels...)
	if !ok {
		return nil
	}
	return v.With(labels...)
}

// hold notes a series that goes with the cluster, whose labels it returns, and is false of one that
// is gone.
func (c *ClusterMetrics) hold(f *family, labels ...string) ([]string, bool) {
	labels = append([]string{c.name}, labels...)
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.clusters[c.name] != c {
		return nil, false
	}
	if c.others == nil {
		c.others = map[otherSeries]struct{}{}
	}
	c.others[otherSeries{f, seriesKey(labels)}] = struct{}{}
	return labels, true
}

// Use returns the counters, nil for nil.
func (c *ClusterMetrics) Use() *ClusterCounters {
	if c == nil {
		return nil
	}
	if u := c.used.Load(); u != nil {
		return u
	}
	c.used.CompareAndSwap(nil, c.m.newClusterCounters())
	return c.used.Load()
}

// SetEndpoints tells how many endpoints are in which state.
func (c *ClusterMetrics) SetEndpoints(healthy, unhealthy, draining, degraded, ejected int) {
	for i, n := range [...]int{healthy, unhealthy, draining, degraded, ejected} {
		c.endpoints[i].Store(int32(n))
	}
}

// Answered counts an attempt by its status code; 0 is no answer.
func (c *ClusterMetrics) Answered(s Shard, code int) {
	if c == nil {
		return
	}
	class := code / 100
	if class < 0 || class >= len(statusClasses) {
		class = 0
	}
	c.Use().Requests[class].Inc(s)
}

// Failed counts an attempt that was sent and not answered, or not as a whole.
func (c *ClusterMetrics) Failed(s Shard, f Failure) {
	if c != nil {
		c.Use().Failures[f].Inc(s)
	}
}

// Bytes counts bytes received from and sent to hosts.
func (c *ClusterMetrics) Bytes(s Shard, received, sent int64) {
	if c == nil {
		return
	}
	u := c.Use()
	u.BytesReceived.Add(s, uint64(received))
	u.BytesSent.Add(s, uint64(sent))
}

// TLSFailure counts a failed upstream handshake. reason is one of a few fixed
// words, never text that the peer sent.
func (c *ClusterMetrics) TLSFailure(reason string) {
	if c != nil {
		c.other(c.m.upstreamTLSFailures, reason).Inc(0)
	}
}

// Outlier counts a host that passive health checking found to be an outlier;
// result is "ejected", "observed" (chance did not enforce it) or "overflow" (too
// many are ejected).
func (c *ClusterMetrics) Outlier(reason, result string) {
	if c != nil {
		c.other(c.m.upstreamOutliers, reason, result).Inc(0)
	}
}

// HealthChecked counts an active health check; result is "success", "failure",
// "network_failure", "timeout" or "passive_failure".
func (c *ClusterMetrics) HealthChecked(result string) {
	if c != nil {
		c.other(c.m.upstreamHealthChecks, result).Inc(0)
	}
}

// Redirect is what becomes of a redirect that its route has followed.
type Redirect uint8

// What becomes of it: it is followed, or passed on for a reason.
const (
	RedirectFollowed    Redirect = iota
	RedirectIncomplete           // not all of the request is here, to be sent again
	RedirectBadLocation          // it leads nowhere
	RedirectScheme               // it leads from http to https, or back
	RedirectTooMany
	RedirectNoRoute
	RedirectRefused // by a predicate
	RedirectUpdated // others decide now than those who admitted the request

	redirects
)

var redirectNames = [redirects]string{"followed", "incomplete_request", "bad_location", "scheme", "too_many", "no_route", "predicate", "updated"}

// Redirected counts a redirect that its route has followed. The counters come with a cluster's
// first: few have any.
func (c *ClusterMetrics) Redirected(s Shard, r Redirect) {
	if c == nil {
		return
	}
	c.redirects.of(c, c.m.upstreamRedirects, redirectNames[:])[r].Inc(s)
}

// results are counters by what came of something, which come with the first that is counted.
type results struct{ made atomic.Pointer[[]*Counter] }

func (r *results) of(c *ClusterMetrics, v *CounterVec, names []string) []*Counter {
	if made := r.made.Load(); made != nil {
		return *made
	}
	counters := make([]*Counter, len(names))
	for i, name := range names {
		counters[i] = c.other(v, name)
	}
	r.made.Store(&counters)
	return counters
}

// SubsetPicks are the counters of choices among subsets: by a subset that matched,
// by the fallback policy, and among all hosts because that had none. They are made
// for the clusters that have subsets; for configuration time.
func (c *ClusterMetrics) SubsetPicks() (counters [3]*Counter) {
	if c != nil {
		for i, result := range [...]string{"selected", "fallback", "panic"} {
			counters[i] = c.other(c.m.upstreamSubsetPicks, result)
		}
	}
	return counters
}

// ZonePick is why a request went to a zone.
type ZonePick uint8

// The reasons.
const (
	ZoneAllDirectly ZonePick = iota // all go to the sidecar's zone
	ZoneSampled                     // it is among those of which its zone's hosts are enough
	ZoneCrossed                     // it is not
	ZoneNoCapacity                  // nor has any other zone enough
	ZoneOwnPanics                   // too few of the sidecar's own cluster are healthy: to any

	zonePicks
)

// ZoneStructure is what came of it when a cluster's routing by zone was worked out.
type ZoneStructure uint8

// The outcomes.
const (
	ZoneDirect      ZoneStructure = iota // all go to the sidecar's zone
	ZoneResidual                         // a share goes to other zones
	ZoneUnneeded                         // there is one zone
	ZoneTooFewHosts                      // the cluster is too small
	ZoneOwnAbsent                        // the sidecar's own cluster has no hosts in its zone

	zoneStructures
)

var (
	zonePickNames      = [zonePicks]string{"direct", "sampled", "cross_zone", "no_capacity", "local_cluster_panic"}
	zoneStructureNames = [zoneStructures]string{"direct", "residual", "one_zone", "cluster_too_small", "local_cluster_not_ok"}
)

// ZonePicked counts a request by why it goes where it does. The counters come with a cluster's
// first.
func (c *ClusterMetrics) ZonePicked(s Shard, p ZonePick) {
	if c != nil {
		c.zonePicks.of(c, c.m.upstreamZonePicks, zonePickNames[:])[p].Inc(s)
	}
}

// ZoneRouted counts that a cluster's routing by zone was worked out; for configuration time.
func (c *ClusterMetrics) ZoneRouted(s ZoneStructure) {
	if c != nil {
		c.other(c.m.upstreamZoneStructures, zoneStructureNames[s]).Inc(0)
	}
}

// Dropped counts requests that are dropped because of an overload, for the clusters that drop
// any; for configuration time.
func (c *ClusterMetrics) Dropped() *Counter {
	if c == nil {
		return nil
	}
	return c.other(c.m.upstreamDropped)
}

// AssignmentAges counts an assignment that goes stale unless there is an update in time.
func (c *ClusterMetrics) AssignmentAges() {
	if c != nil {
		c.other(c.m.upstreamAssignments, "ageing").Inc(0)
	}
}

// AssignmentStale counts one of which none came.
func (c *ClusterMetrics) AssignmentStale() {
	if c != nil {
		c.other(c.m.upstreamAssignments, "stale").Inc(0)
	}
}

// InvalidDestinations counts requests whose header names no destination, for the
// clusters that look at one; for configuration time.
func (c *ClusterMetrics) InvalidDestinations() *Counter {
	if c == nil {
		return nil
	}
	return c.other(c.m.upstreamInvalidDestination)
}
