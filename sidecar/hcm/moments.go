package hcm

import (
	"net"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// observed is what formats, and a trace, want to know of an exchange beyond what it
// knows anyway. Where nobody asks it costs a comparison.
type observed struct {
	wants    telemetry.Want
	sizes    telemetry.Sizes
	moments  telemetry.Moments
	trailers message.Fields    // a copy: the response's end with the upstream
	live     *message.Fields   // the trailers themselves, while filters change them
	meters   *[2]message.Meter // what sizes has, kept for the next request
}

// reset prepares for the next exchange.
func (o *observed) reset() {
	if o.wants == 0 {
		return
	}
	o.wants, o.moments, o.sizes = 0, telemetry.Moments{}, telemetry.Sizes{}
	o.trailers.Reset()
}

// mark notes that a moment is now. It is for the exchange's own goroutine.
func (o *observed) mark(m telemetry.Moment) {
	if o.wants&telemetry.WantMoments != 0 {
		o.moments[m] = monotonic()
	}
}

// markFirst notes that a moment is now, unless it was before.
func (o *observed) markFirst(m telemetry.Moment) {
	if o.wants&telemetry.WantMoments != 0 && o.moments[m] == 0 {
		o.moments[m] = monotonic()
	}
}

// markAt notes a moment that the clock was read for anyway.
func (o *observed) markAt(m telemetry.Moment, at int64) {
	if o.wants&telemetry.WantMoments != 0 {
		o.moments[m] = at
	}
}

// attemptMoments are those that each attempt has anew.
var attemptMoments = [...]telemetry.Moment{
	telemetry.AttemptBegan, telemetry.AttemptReady, telemetry.ConnectBegan, telemetry.ConnectEnded, telemetry.ConnectSecured,
	telemetry.SendingBegan, telemetry.SendingEnded, telemetry.AnswerBegan, telemetry.AnswerBodyBegan, telemetry.AnswerEnded,
}

// forgetAttempt prepares for another attempt.
func (o *observed) forgetAttempt() {
	if o.wants&telemetry.WantMoments == 0 {
		return
	}
	for _, m := range attemptMoments {
		o.moments[m] = 0
	}
}

// adoptAttempt takes over what was noted of an attempt that another exchange made.
func (o *observed) adoptAttempt(from *observed) {
	for _, m := range attemptMoments {
		o.moments[m] = from.moments[m]
	}
}

// markConnected notes the moments of an attempt's connection.
func (o *observed) markConnected(c *cluster.Conn) {
	if o.wants&telemetry.WantMoments == 0 {
		return
	}
	o.moments[telemetry.AttemptReady] = monotonic()
	opening := c.Opening()
	for i, t := range [...]time.Time{opening.Began, opening.Connected, opening.Secured} {
		if !t.IsZero() {
			o.moments[int(telemetry.ConnectBegan)+i] = monotonicOf(t)
		}
	}
}

// keepTrailers copies a response's trailers, where somebody shows them.
func (o *observed) keepTrailers(f *message.Fields) {
	if f != nil && o.wants&telemetry.WantTrailers != 0 {
		o.trailers.CopyFrom(f)
	}
}

// show fills in what was asked for.
func (x *exchange) show(r *telemetry.Record) {
	o := &x.observed
	if o.wants == 0 {
		return
	}
	if o.wants&telemetry.WantMoments != 0 {
		o.moments[telemetry.ConnectionBegan] = monotonicOf(x.d.Accepted)
		if x.flags&telemetry.FlagDownstreamTermination != 0 {
			o.markFirst(telemetry.ConnectionEnded) // it went before its answer
		}
	}
	if o.wants&telemetry.WantConfigured != 0 {
		r.Configured = x
	}
	r.Moments = o.moments
	r.Sizes = o.sizes
	if o.live != nil {
		r.ResponseTrailers = o.live
	} else if o.trailers.Len() > 0 {
		r.ResponseTrailers = &o.trailers
	}
}

// servedBy is the configuration that serves an exchange: a copy, which stays as it is while the exchange
// goes on.
type servedBy struct {
	cluster *cluster.Cluster
	host    *cluster.Host
	route   *route.Route
	vhost   *route.VirtualHost
	place   *downstream.Place
}

// served notes what serves the exchange now: the route's cluster too where a filter answers in
// its place.
func (x *exchange) served() servedBy {
	c := x.cluster
	if c == nil && x.sel.Cluster != "" {
		c = x.m.clusters.Get(x.sel.Cluster)
	}
	return servedBy{c, x.attempt.host, x.sel.Route, x.sel.VirtualHost, x.d.Place}
}

// ConfiguredMetadata implements telemetry.Configured.
func (x *exchange) ConfiguredMetadata(p telemetry.Part) map[string]map[string]any {
	return x.served().ConfiguredMetadata(p)
}

// ConfiguredMetadata implements telemetry.Configured.
func (s servedBy) ConfiguredMetadata(p telemetry.Part) map[string]map[string]any {
	switch {
	case p == telemetry.PartCluster && s.cluster != nil:
		return s.cluster.Config().Metadata
	case p == telemetry.PartHost && s.host != nil:
		return s.host.Endpoint().Metadata
	case p == telemetry.PartRoute && s.route != nil:
		return s.route.Metadata
	case p == telemetry.PartVirtualHost && s.vhost != nil:
		return s.vhost.Metadata
	case p == telemetry.PartListener:
		return s.place.ListenerMetadata
	case p == telemetry.PartChain:
		return s.place.ChainMetadata
	}
	return nil
}

// Attempted implements telemetry.Attempts.
func (x *exchange) Attempted(i int) (addr net.Addr, hostname string, ok bool) {
	if i >= x.ntried {
		return nil, "", false
	}
	h := x.tried[i]
	return h.Addr(), h.Hostname(), true
}
