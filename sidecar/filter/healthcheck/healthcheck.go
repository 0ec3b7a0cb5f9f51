// Package healthcheck answers the health checks of load balancers in front
// (envoy.filters.http.health_check).
package healthcheck

import (
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/filter"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Config is envoy.extensions.filters.http.health_check.v3.HealthCheck.
type Config struct {
	// PassThrough asks the upstream, and keeps its answer for CacheTime; otherwise
	// the sidecar answers itself.
	PassThrough bool
	CacheTime   time.Duration // 0 keeps nothing
	// MinHealthy is the least percentage of healthy or degraded hosts of clusters
	// that makes a 200; not with PassThrough.
	MinHealthy map[string]float64
	// Headers tell a health check: all of them must match.
	Headers []route.HeaderMatch
}

// Healthy tells how many hosts of a cluster are healthy or degraded, and how many
// there are; ok is false when there is no such cluster.
type Healthy func(cluster string) (healthy, total int, ok bool)

// Filter is the filter of one chain.
type Filter struct {
	*Config
	healthy  Healthy
	clusters []string // of MinHealthy, sorted
	service  string   // the cluster that this node belongs to, for a header
	checks   *telemetry.Counter
	cached   atomic.Pointer[answer]
}

// answer is an upstream's that is kept.
type answer struct {
	reply *filter.Reply
	until time.Time
}

// New makes a filter.
func New(c *Config, healthy Healthy, service string, count filter.Counter) (*Filter, error) {
	switch {
	case c.CacheTime > 0 && !c.PassThrough:
		return nil, errors.New("health check: a cache time needs pass_through_mode")
	case len(c.MinHealthy) > 0 && c.PassThrough:
		return nil, errors.New("health check: percentages of clusters do not go together with pass_through_mode")
	}
	return &Filter{Config: c, healthy: healthy, clusters: slices.Sorted(maps.Keys(c.MinHealthy)), service: service, checks: count.Of("health_check")}, nil
}

// a health check, in a State's Value.
const checked = 1

func reply(status int, details string) *filter.Reply {
	r := &filter.Reply{Status: status, GRPC: filter.NoGRPC, Details: details}
	if status/100 != 2 {
		r.Flags = telemetry.FlagLocalHealthCheck
	}
	return r
}

var (
	good        = reply(200, "health_check_ok")
	goodCluster = reply(200, "health_check_ok_cluster_healthy")
	draining    = reply(503, "health_check_failed")
	noCluster   = reply(503, "health_check_failed_no_cluster_found")
	empty       = reply(503, "health_check_failed_cluster_empty")
	unhealthy   = reply(503, "health_check_failed_cluster_unhealthy")
)

// degradedHeader is a host's word that it is worse off than others.
const degradedHeader = "x-envoy-degraded"

func addDegraded(c *filter.Context) { c.Response.Fields.Set(degradedHeader, "") }

// Request implements filter.Filter.
func (f *Filter) Request(c *filter.Context) filter.Verdict {
	for i := range f.Headers {
		if !f.Headers[i].Match(c.Request) {
			return filter.Continue
		}
	}
	c.State.Value = checked
	c.NoteHealthCheck()
	f.checks.Inc(c.Shard)
	if c.Draining() {
		return filter.Answer(draining)
	}
	if f.PassThrough {
		if a := f.cached.Load(); a != nil && time.Now().Before(a.until) {
			return filter.Answer(a.reply)
		}
		return filter.Continue
	}
	for _, name := range f.clusters {
		healthy, total, ok := f.healthy(name)
		least := int(f.MinHealthy[name])
		switch {
		case !ok:
			return filter.Answer(noCluster)
		case total == 0 && least > 0:
			return filter.Answer(empty)
		case healthy*100 < total*least:
			return filter.Answer(unhealthy)
		}
	}
	if len(f.clusters) > 0 {
		return filter.Answer(goodCluster)
	}
	return filter.Answer(good)
}

// Response implements filter.Filter.
func (f *Filter) Response(c *filter.Context) {
	fields := &c.Response.Fields
	if c.State.Value != checked {
		if c.Draining() {
			fields.Set("x-envoy-immediate-health-check-fail", "true")
		}
		return
	}
	if f.CacheTime > 0 && !c.Draining() {
		if a := f.cached.Load(); a == nil || !time.Now().Before(a.until) {
			r := reply(c.Response.Status, "health_check_cached")
			if fields.Has(message.XEnvoyOther) {
				if _, ok := fields.Get(degradedHeader); ok {
					r.Headers = addDegraded
				}
			}
			f.cached.Store(&answer{r, time.Now().Add(f.CacheTime)})
		}
	}
	if f.service != "" {
		fields.Set("x-envoy-upstream-healthchecked-cluster", f.service)
	}
}
