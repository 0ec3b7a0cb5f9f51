package tcp

import (
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// mostShown is how many of the hosts that were tried the log tells of, the last ones.
const mostShown = 8

// outcome is what the access log tells beside the connection's own facts.
type outcome struct {
	cluster     string
	flags       telemetry.Flags
	attempts    int
	upstream    *stream.Info
	host        *cluster.Host      // of upstream
	moments     *telemetry.Moments // nil where nobody shows them
	trouble     *trouble           // nil where there was none: most connections have no room for it
	termination string
}

// trouble is why an upstream was not reached, at once or at all.
type trouble struct {
	failure   string      // of the last attempt, "" where that succeeded
	transport string      // the same in the words of Envoy's transport failure reasons
	failed    []unreached // the hosts that could not be reached
}

// unreached is such a host.
type unreached struct {
	at   net.Addr
	name string
}

// had is the trouble there was.
func (o *outcome) had() trouble {
	if o.trouble == nil {
		return trouble{}
	}
	return *o.trouble
}

// failed notes an attempt that was in vain, at a host whose address is nil where it had none.
func (o *outcome) failed(failure, transport string, h unreached) {
	if o.trouble == nil {
		o.trouble = new(trouble)
	}
	t := o.trouble
	if t.failure, t.transport = failure, transport; h.at != nil {
		t.failed = append(t.failed[max(0, len(t.failed)+1-mostShown):], h)
	}
}

// succeeded notes that the last attempt was not.
func (o *outcome) succeeded() {
	if o.flags = 0; o.trouble != nil {
		o.trouble.failure, o.trouble.transport = "", ""
	}
}

// line is a connection's outcome as a log shows it: whose it is, and what moved until then.
type line struct {
	outcome
	p              *Proxy
	c              *downstream.Conn
	received, sent int64
}

// Attempted implements telemetry.Attempts.
func (o *outcome) Attempted(i int) (addr net.Addr, hostname string, ok bool) {
	switch failed := o.had().failed; {
	case i < len(failed):
		return failed[i].at, failed[i].name, true
	case i == len(failed) && o.upstream != nil:
		return o.upstream.Remote, o.host.Hostname(), true
	}
	return nil, "", false
}

// markAsked notes that an attempt begins, where somebody shows it.
func (o *outcome) markAsked(c *downstream.Conn) {
	if telemetry.Wanted()&telemetry.WantMoments != 0 {
		o.begin(c)
		o.mark(c, telemetry.AttemptBegan, time.Now())
	}
}

// begin forgets all moments but that in which the connection was accepted.
func (o *outcome) begin(c *downstream.Conn) {
	o.moments = new(telemetry.Moments)
	o.mark(c, telemetry.RequestBegan, c.Accepted)
	o.mark(c, telemetry.ConnectionBegan, c.Accepted)
}

// markReady notes the moments of the connection that an attempt got.
func (o *outcome) markReady(c *downstream.Conn, up *cluster.Conn) {
	if o.moments == nil {
		return
	}
	opening := up.Opening()
	o.mark(c, telemetry.AttemptReady, time.Now())
	o.mark(c, telemetry.ConnectBegan, opening.Began)
	o.mark(c, telemetry.ConnectEnded, opening.Connected)
	o.mark(c, telemetry.ConnectSecured, opening.Secured)
}

// mark notes a moment on a clock that is 1 when the connection was accepted.
func (o *outcome) mark(c *downstream.Conn, m telemetry.Moment, at time.Time) {
	if !at.IsZero() {
		o.moments[m] = 1 + int64(at.Sub(c.Accepted))
	}
}

// closedBy is why the proxy itself closed a connection, "" where it did not.
func (o *outcome) closedBy() string {
	switch {
	case o.flags&telemetry.FlagNoCluster != 0:
		return "no_cluster"
	case o.termination == endIdle || o.termination == endDuration:
		return o.termination
	}
	return ""
}

// finish counts and logs the connection.
func (p *Proxy) finish(c *downstream.Conn, o *outcome, received, sent int64) {
	c.Received, c.Sent = received, sent
	if failure := o.had().failure; failure != "" {
		p.text.Debug("upstream not reached", "service", c.Service, "cluster", o.cluster, "err", failure)
	}
	// What its listener ended, that has counted.
	if reason := o.closedBy(); reason != "" && p.metrics != nil && c.Ended() == nil {
		p.metrics.PolicyClosed(c.Listener, reason)
	}
	c.Held = p.log(c, o, telemetry.LogConnectionEnd, received, sent)
}

// log writes the connection as it is now, and returns what it told.
func (p *Proxy) log(c *downstream.Conn, o *outcome, occasion telemetry.LogType, received, sent int64) *line {
	r := c.NewRecord()
	r.Type, r.Metadata = occasion, c.Announced.Said()
	r.Duration = time.Since(c.Accepted)
	if telemetry.Wanted()&telemetry.WantMoments != 0 {
		if o.moments == nil {
			o.begin(c) // no attempt was made
		}
		if occasion == telemetry.LogConnectionEnd {
			o.mark(c, telemetry.ConnectionEnded, time.Now())
		}
	}
	l := &line{outcome: *o, p: p, c: c, received: received, sent: sent}
	l.Show(r)
	p.access.Log(r)
	r.Release()
	return l
}

// Show implements downstream.Outcome: what there is beside the connection's own facts.
func (l *line) Show(r *telemetry.Record) {
	r.Cluster, r.ClusterStat, r.Attempts = l.cluster, l.p.clusters.StatName(l.cluster), l.attempts
	r.BytesReceived, r.BytesSent = l.received, l.sent
	r.Flags |= l.flags
	if l.termination != "" && r.ConnectionTermination == "" {
		r.ConnectionTermination = l.termination
	}
	had := l.had()
	if l.flags != 0 {
		r.UpstreamFailure, r.UpstreamTransportFailure = had.failure, had.transport
	}
	r.Attempted = l
	if l.moments != nil {
		r.Moments = *l.moments
	}
	// One that was not asked for a connection, because of an overload, has no other flag (cluster.Shed).
	if n := len(had.failed); n > 0 && l.flags != telemetry.FlagRetryLimitExceeded {
		r.UpstreamHost, r.UpstreamHostname = had.failed[n-1].at, had.failed[n-1].name
	}
	if i := l.upstream; i != nil {
		r.UpstreamHostname = l.host.Hostname()
		r.UpstreamHost, r.UpstreamLocal = i.Remote, i.Local
		r.UpstreamTLS(i)
	}
	r.DownstreamClose, r.UpstreamClose = l.resets()
	if r.LocalClose == "" {
		r.LocalClose = l.localClose()
		if l.upstream != nil {
			r.UpstreamLocalClose = r.LocalClose
		}
	}
	wanted := telemetry.Wanted()
	if wanted&telemetry.WantSizes != 0 {
		r.Sizes = l.sizes()
	}
	if wanted&telemetry.WantConfigured != 0 {
		r.Configured = l
	}
}

// sizes are those of bytes that pass as they are.
func (l *line) sizes() telemetry.Sizes {
	s := telemetry.Sizes{Downstream: new(message.Meter)}
	s.Downstream.WireReceived.Store(l.received)
	s.Downstream.WireSent.Store(l.sent)
	if l.upstream != nil {
		s.Upstream = new(message.Meter)
		s.Upstream.WireSent.Store(l.received)
		s.Upstream.WireReceived.Store(l.sent)
	}
	return s
}

// resets tell which of the two connections was reset, and by whom: what one end resets is reset
// towards the other, of which Envoy tells only towards the client.
func (o *outcome) resets() (down, up telemetry.CloseType) {
	switch o.termination {
	case endDownstreamReset:
		return telemetry.CloseRemoteReset, telemetry.CloseNormal
	case endUpstreamReset:
		return telemetry.CloseLocalReset, telemetry.CloseRemoteReset
	}
	return telemetry.CloseNormal, telemetry.CloseNormal
}

// localClose is Envoy's word for why the proxy closed the client's connection.
func (o *outcome) localClose() string {
	switch {
	case o.termination == endIdle:
		return "tcp_session_idle_timeout"
	case o.termination == endDuration:
		return "max_connection_duration_reached"
	case o.termination == "" && o.upstream == nil && (o.flags != 0 || o.attempts > 0):
		return initializationFailures[o.flags&failures]
	}
	return ""
}

const failures = telemetry.FlagNoHealthyUpstream | telemetry.FlagUpstreamOverflow | telemetry.FlagNoCluster

// initializationFailures are Envoy's words for a connection that gets no host, as it writes them.
var initializationFailures = map[telemetry.Flags]string{
	0:                               "tcp_initializion_failure:0",
	telemetry.FlagNoHealthyUpstream: "tcp_initializion_failure:1",
	telemetry.FlagUpstreamOverflow:  "tcp_initializion_failure:2",
	telemetry.FlagNoCluster:         "tcp_initializion_failure:3",
}

// ConfiguredMetadata implements telemetry.Configured.
func (l *line) ConfiguredMetadata(part telemetry.Part) map[string]map[string]any {
	switch part {
	case telemetry.PartCluster:
		if l.host != nil {
			return l.host.Cluster().Config().Metadata
		}
		if cl := l.p.clusters.Get(l.cluster); cl != nil {
			return cl.Config().Metadata
		}
	case telemetry.PartHost:
		if l.host != nil {
			return l.host.Endpoint().Metadata
		}
	case telemetry.PartListener:
		return l.c.ListenerMetadata
	case telemetry.PartChain:
		return l.c.ChainMetadata
	}
	return nil
}
