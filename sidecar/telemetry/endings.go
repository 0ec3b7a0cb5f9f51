package telemetry

// Abandonment is how the sidecar gives up an attempt before its answer is whole.
type Abandonment uint8

// The ways.
const (
	AbandonedPending Abandonment = iota // it had no connection yet
	AbandonedStream                     // its stream of HTTP/2 is reset

	abandonments
)

var abandonmentNames = [abandonments]string{"pending", "stream"}

// Abandoned counts an attempt that the sidecar gives up. The counters come with a cluster's
// first.
func (c *ClusterMetrics) Abandoned(s Shard, a Abandonment) {
	if c != nil {
		c.Use().abandoned.of(c, c.m.upstreamAbandoned, abandonmentNames[:])[a].Inc(s)
	}
}

// connectionEnds are how upstream connections end: who ended them, and whether something was under
// way then.
var connectionEnds = [...]string{"local", "local_with_request", "remote", "remote_with_request"}

// ConnectionEnded counts a connection to a host that is over, or that could not be made. A nil
// ClusterMetrics counts nothing.
func (c *ClusterMetrics) ConnectionEnded(byPeer, busy bool) {
	if c == nil {
		return
	}
	i := 0
	if byPeer {
		i = 2
	}
	if busy {
		i++
	}
	c.Use().ends.of(c, c.m.upstreamEnds, connectionEnds[:])[i].Inc(0)
}
