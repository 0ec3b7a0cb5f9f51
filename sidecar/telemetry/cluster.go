package telemetry

// ClusterMetrics are the handles of one cluster. The fields are set once.
type ClusterMetrics struct {
	// Requests by status class: index 0 is "none", 1 "1xx" … 5 "5xx".
	Requests [6]*Counter

	ConnectOK, ConnectRefused, ConnectTimeout, ConnectTLS, ConnectError *Counter

	ConnectionsOpen *Gauge
	ConnectDuration *Histogram

	RetrySuccess, RetryFailure, RetryOverflow, RetryLimit *Counter

	OverflowConnections, OverflowPending, OverflowRequests, OverflowRetries *Counter

	BytesReceived, BytesSent *Counter
	Ejections, NoHealthy     *Counter
	PoolsReplaced            *Counter

	EndpointsHealthy, EndpointsUnhealthy, EndpointsDraining, EndpointsDegraded, EndpointsEjected *Gauge

	m    *Metrics
	name string
	// The handles lie here, in the order in which they are placed.
	counters  [maxClusterCounters]Counter
	gauges    [maxClusterGauges]Gauge
	histogram Histogram
	block     block
}

const maxClusterCounters, maxClusterGauges = 32, 8

// clusterSeries is a series that every cluster has. They are not in the families,
// which would cost more than all the rest of a cluster: a family makes them of the
// clusters when it is read.
type clusterSeries struct {
	family *family
	labels []string // after the cluster's name
	handle int      // in the array of the family's kind
}

// series are those of one family, of all clusters.
func (m *Metrics) seriesOfClusters(f *family) []*series {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*series
	for name, c := range m.clusters {
		for _, cs := range m.clusterSeries {
			if cs.family != f {
				continue
			}
			s := &series{labels: append([]string{name}, cs.labels...)}
			switch f.Kind {
			case CounterKind:
				s.counter = &c.counters[cs.handle]
			case GaugeKind:
				s.gauge = &c.gauges[cs.handle]
			case HistogramKind:
				s.histogram = &c.histogram
			}
			out = append(out, s)
		}
	}
	return out
}

// placer gives a cluster's handles their cells. With the first cluster it also
// notes which series there are.
type placer struct {
	c                       *ClusterMetrics
	cells, counters, gauges int
	first                   bool
}

func (p *placer) note(f *family, handle int, labels []string) {
	if p.first {
		m := p.c.m
		m.clusterSeries = append(m.clusterSeries, clusterSeries{family: f, labels: labels, handle: handle})
		f.mu.Lock()
		f.more = m.seriesOfClusters
		f.mu.Unlock()
	}
}

func (p *placer) counter(v *CounterVec, labels ...string) *Counter {
	h := &p.c.counters[p.counters]
	h.b, h.cell = &p.c.block, p.cells
	p.note(v.f, p.counters, labels)
	p.counters++
	p.cells++
	return h
}

func (p *placer) gauge(v *GaugeVec, labels ...string) *Gauge {
	h := &p.c.gauges[p.gauges]
	h.b, h.cell = &p.c.block, p.cells
	p.note(v.f, p.gauges, labels)
	p.gauges++
	p.cells++
	return h
}

// Cluster returns the handles of a cluster; for configuration time.
func (m *Metrics) Cluster(name string) *ClusterMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.clusters[name]; c != nil {
		return c
	}
	c := &ClusterMetrics{m: m, name: name}
	p := &placer{c: c, first: len(m.clusterSeries) == 0}
	for i, class := range [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		c.Requests[i] = p.counter(m.upstreamRequests, class)
	}
	c.ConnectOK = p.counter(m.upstreamConnections, "ok")
	c.ConnectRefused = p.counter(m.upstreamConnections, "refused")
	c.ConnectTimeout = p.counter(m.upstreamConnections, "timeout")
	c.ConnectTLS = p.counter(m.upstreamConnections, "tls")
	c.ConnectError = p.counter(m.upstreamConnections, "error")
	c.ConnectionsOpen = p.gauge(m.upstreamOpen)
	c.RetrySuccess = p.counter(m.upstreamRetries, "success")
	c.RetryFailure = p.counter(m.upstreamRetries, "failure")
	c.RetryOverflow = p.counter(m.upstreamRetries, "overflow")
	c.RetryLimit = p.counter(m.upstreamRetries, "limit")
	c.OverflowConnections = p.counter(m.upstreamOverflow, "connections")
	c.OverflowPending = p.counter(m.upstreamOverflow, "pending")
	c.OverflowRequests = p.counter(m.upstreamOverflow, "requests")
	c.OverflowRetries = p.counter(m.upstreamOverflow, "retries")
	c.BytesReceived = p.counter(m.upstreamBytes, "received")
	c.BytesSent = p.counter(m.upstreamBytes, "sent")
	c.Ejections = p.counter(m.upstreamEjections)
	c.NoHealthy = p.counter(m.upstreamNoHealthy)
	c.PoolsReplaced = p.counter(m.upstreamPoolReplaced)
	c.EndpointsHealthy = p.gauge(m.upstreamEndpoints, "healthy")
	c.EndpointsUnhealthy = p.gauge(m.upstreamEndpoints, "unhealthy")
	c.EndpointsDraining = p.gauge(m.upstreamEndpoints, "draining")
	c.EndpointsDegraded = p.gauge(m.upstreamEndpoints, "degraded")
	c.EndpointsEjected = p.gauge(m.upstreamEndpoints, "ejected")
	c.histogram = Histogram{b: &c.block, first: p.cells, bounds: requestBounds}
	c.ConnectDuration = &c.histogram
	p.note(m.upstreamConnect.f, 0, nil)
	c.block.cells = (p.cells + histogramCells(requestBounds) + 7) &^ 7
	m.clusters[name] = c
	return c
}

// Answered counts an attempt by its status code; 0 is no answer.
func (c *ClusterMetrics) Answered(s Shard, code int) {
	if c == nil {
		return
	}
	class := code / 100
	if class < 0 || class >= len(c.Requests) {
		class = 0
	}
	c.Requests[class].Inc(s)
}

// TLSFailure counts a failed upstream handshake. reason is one of a few fixed
// words, never text that the peer sent.
func (c *ClusterMetrics) TLSFailure(reason string) {
	if c != nil {
		c.m.upstreamTLSFailures.With(c.name, reason).Inc(0)
	}
}

// Outlier counts a host that passive health checking found to be an outlier;
// result is "ejected", "observed" (chance did not enforce it) or "overflow" (too
// many are ejected).
func (c *ClusterMetrics) Outlier(reason, result string) {
	if c != nil {
		c.m.upstreamOutliers.With(c.name, reason, result).Inc(0)
	}
}

// HealthChecked counts an active health check; result is "success", "failure",
// "network_failure" or "timeout".
func (c *ClusterMetrics) HealthChecked(result string) {
	if c != nil {
		c.m.upstreamHealthChecks.With(c.name, result).Inc(0)
	}
}

// SubsetPicks are the counters of choices among subsets: by a subset that matched,
// by the fallback policy, and among all hosts because that had none. They are made
// for the clusters that have subsets; for configuration time.
func (c *ClusterMetrics) SubsetPicks() (counters [3]*Counter) {
	if c != nil {
		for i, result := range [...]string{"selected", "fallback", "panic"} {
			counters[i] = c.m.upstreamSubsetPicks.With(c.name, result)
		}
	}
	return counters
}

// InvalidDestinations counts requests whose header names no destination, for the
// clusters that look at one; for configuration time.
func (c *ClusterMetrics) InvalidDestinations() *Counter {
	if c == nil {
		return nil
	}
	return c.m.upstreamInvalidDestination.With(c.name)
}
