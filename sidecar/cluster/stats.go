package cluster

// HostStats is a copy of a host's state, for people.
type HostStats struct {
	Address, Hostname string
	Health            Health
	Ejected           bool
	// Degraded: an answer said so, and outlier detection looks for that.
	Degraded                          bool
	Priority                          int
	Weight                            uint32
	Active, Connections, Idle         int64
	Requests, Success, Failed         uint64
	Connects, ConnectFailed, Timeouts uint64
	ConsecutiveFailures               int
	Region, Zone, SubZone             string
	// SuccessRate is in percent of the last outlier interval, below 0 where there
	// was too little traffic.
	SuccessRate float64
	// Check is what active health checks found: "" where there are none, "pending",
	// "passing", "degraded", "failing" or "timeout"; CheckError is the last failure.
	Check, CheckError            string
	CheckAttempts, CheckFailures uint64
	// Removed: discovery no longer names the host, and its checks pass.
	Removed bool
	// Metadata is the endpoint's "envoy.lb" metadata, Socket the name of the
	// transport socket it chose.
	Metadata map[string]any `json:",omitempty"`
	Socket   string         `json:",omitempty"`
}

// Stats returns the state of every host, in the order of the assignment.
func (c *Cluster) Stats() []HostStats {
	var out []HostStats
	hosts := c.hosts()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range hosts {
		s := HostStats{
			Address: h.key, Hostname: h.Hostname(), Health: h.Health(), Ejected: h.ejected(), Degraded: h.outlier.degraded.is.Load(),
			Priority: h.Priority(), Weight: h.Weight(), Active: h.active.Load(), Connections: h.conns.Load(),
			Requests: h.requests.Load(), Success: h.success.Load(), Failed: h.failed.Load(),
			Connects: h.connects.Load(), ConnectFailed: h.connectFailed.Load(), Timeouts: h.timeouts.Load(),
			ConsecutiveFailures: int(h.outlier.failures5xx.Load()), SuccessRate: h.outlier.successRate,
			Region: h.locality.Region, Zone: h.locality.Zone, SubZone: h.locality.SubZone,
			Check:   h.check.String(),
			Removed: h.check.removed, Metadata: h.Endpoint().Metadata[lbNamespace],
		}
		if past := h.check.history; past != nil {
			s.CheckError, s.CheckAttempts, s.CheckFailures = past.lastError, past.attempts, past.failures
		}
		if h.socket != nil {
			s.Socket = h.socket.Name
		}
		for _, p := range h.everyPool() {
			s.Idle += int64(p.idleCount())
		}
		out = append(out, s)
	}
	return out
}
