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
