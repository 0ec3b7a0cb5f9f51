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
	// SubsetPicks are choices among subsets: by a subset that matched, by the
	// fallback policy, and among all hosts because that had none.
	SubsetPicks        [3]*Counter
	InvalidDestination *Counter

	EndpointsHealthy, EndpointsUnhealthy, EndpointsDraining, EndpointsDegraded, EndpointsEjected *Gauge

	m    *Metrics
	name string
}

// Cluster returns the handles of a cluster; for configuration time.
func (m *Metrics) Cluster(name string) *ClusterMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.clusters[name]; c != nil {
		return c
	}
	b := newBlock(33 + histogramCells(requestBounds))
	next := 0
	cell := func() int { next++; return next - 1 }
	counter := func(v *CounterVec, labels ...string) *Counter { return v.in(b, cell(), labels...) }
	gauge := func(labels ...string) *Gauge { return m.upstreamEndpoints.in(b, cell(), labels...) }

	c := &ClusterMetrics{m: m, name: name}
	for i, class := range [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		c.Requests[i] = counter(m.upstreamRequests, name, class)
	}
	c.ConnectOK = counter(m.upstreamConnections, name, "ok")
	c.ConnectRefused = counter(m.upstreamConnections, name, "refused")
	c.ConnectTimeout = counter(m.upstreamConnections, name, "timeout")
	c.ConnectTLS = counter(m.upstreamConnections, name, "tls")
	c.ConnectError = counter(m.upstreamConnections, name, "error")
	c.ConnectionsOpen = m.upstreamOpen.in(b, cell(), name)
	c.RetrySuccess = counter(m.upstreamRetries, name, "success")
	c.RetryFailure = counter(m.upstreamRetries, name, "failure")
	c.RetryOverflow = counter(m.upstreamRetries, name, "overflow")
	c.RetryLimit = counter(m.upstreamRetries, name, "limit")
	c.OverflowConnections = counter(m.upstreamOverflow, name, "connections")
	c.OverflowPending = counter(m.upstreamOverflow, name, "pending")
	c.OverflowRequests = counter(m.upstreamOverflow, name, "requests")
	c.OverflowRetries = counter(m.upstreamOverflow, name, "retries")
	c.BytesReceived = counter(m.upstreamBytes, name, "received")
	c.BytesSent = counter(m.upstreamBytes, name, "sent")
	c.Ejections = counter(m.upstreamEjections, name)
	c.NoHealthy = counter(m.upstreamNoHealthy, name)
	c.PoolsReplaced = counter(m.upstreamPoolReplaced, name)
	for i, result := range [...]string{"selected", "fallback", "panic"} {
		c.SubsetPicks[i] = counter(m.upstreamSubsetPicks, name, result)
	}
	c.InvalidDestination = counter(m.upstreamInvalidDestination, name)
	c.EndpointsHealthy = gauge(name, "healthy")
	c.EndpointsUnhealthy = gauge(name, "unhealthy")
	c.EndpointsDraining = gauge(name, "draining")
	c.EndpointsDegraded = gauge(name, "degraded")
	c.EndpointsEjected = gauge(name, "ejected")
	c.ConnectDuration = m.upstreamConnect.in(b, next, name)
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
