package hcm

import (
	"math/rand/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// mirrors sends copies of the request to the clusters that the route mirrors to and
// drops the answers. The request must be whole in memory: a longer one than is kept
// of a body is not mirrored, as in Envoy. It runs once for each exchange.
func (x *exchange) mirrors() {
	if x.mirrored || !x.complete || x.tunnel {
		return
	}
	x.mirrored = true
	if x.isMirrored() {
		x.sendMirrors()
	}
}

// isMirrored tells whether the request's cluster or its route may have copies made of it.
func (x *exchange) isMirrored() bool { return x.sel.Mirrored(x.cluster.Config().HTTP.Mirrors) }

// sendMirrors is apart from mirrors, as its copies are of few requests, and their room on the
// stack would be in the way of all.
//
//go:noinline
func (x *exchange) sendMirrors() {
	var buf [4]route.Mirrored
	for _, m := range x.sel.Mirrors(buf[:0], x.cluster.Config().HTTP.Mirrors, rand.Uint32) {
		c := x.m.clusters.Get(m.Cluster(x.req))
		if c == nil {
			continue
		}
		if !x.keep || !x.mayCopy() {
			x.m.countMirror("too_large", x.d.Shard)
			continue
		}
		if d := c.Dropping(); d != nil && d.Drops(x.d.Shard) {
			x.m.countMirror("dropped", x.d.Shard)
			continue
		}
		y := x.beside(x.m.ctx)
		if x.attempts > 0 && x.sel.Route.Forward.AutoHostRewrite {
			y.undoHostRewrite() // an attempt was made before the body was whole
		}
		if y.attempts > 1 {
			y.tellAttempt(1, 0) // an attempt that was not the first was made before the body was whole
		}
		y.attempts = 1
		m.Change(y.req, x, &y.scratch)
		y.cluster, y.pick = c, x.pick
		y.pick.OmitCanary, y.pick.OmitMetadata, y.pick.Reselections = false, nil, 0
		y.pick.Tried, y.pick.OtherPriorities = nil, 0
		y.pick.Avoid, y.pick.HasHash, y.pick.Client, y.pick.Metadata, y.pick.Request = nil, false, &y.asker, nil, y.req
		y.pick.Destination = x.destination(c.Config())
		y.span.Sampled = y.span.Sampled && !m.Unsampled()
		y.shadow, y.sel.Retry, y.timeouts = true, nil, route.Timeouts{Total: x.timeouts.Total}
		y.deadline, y.lifeEnd = noDeadline, noDeadline
		if t := x.timeouts.Total; t > 0 {
			y.deadline = monotonic() + int64(t)
		}
		x.m.background.Go(y.runMirror)
	}
}

// undoHostRewrite has a copy be for the host that the request was for before an attempt gave it the
// endpoint's name: that of a whole body is made before.
func (x *exchange) undoHostRewrite() {
	x.req.SetAuthority(x.original)
	x.req.Fields.Del("x-envoy-original-host")
}

// runMirror sends a copy and reads the answer to its end, so that the connection can
// be used again.
func (x *exchange) runMirror() {
	defer x.leave()
	defer panics.Contain(panics.Mirror, x.d, func() {
		x.spoil()
		x.m.countMirror("failed", x.d.Shard)
	})
	if x.attempt.run() != responded {
		x.m.countMirror("failed", x.d.Shard)
		return
	}
	x.m.countMirror("answered", x.d.Shard)
	x.settlePump()
	body := x.resp.Body
	for body != nil {
		data, last, err := body.Next()
		x.attempt.received += int64(len(data))
		if err != nil {
			x.endUpstream(false)
			return
		}
		if last {
			break
		}
	}
	x.endUpstream(true)
}

func (m *Manager) countMirror(result string, s telemetry.Shard) {
	if m.metrics != nil {
		m.metrics.Mirrored.With(result).Inc(s)
	}
}
