package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Options are a Proxy's collaborators.
type Options struct {
	Clusters *cluster.Manager
	Logs     *telemetry.Logs // needed when there is an access log
	Metrics  *telemetry.Metrics
	Log      *slog.Logger // slog.Default when nil
}

// defaultIdleTimeout is Envoy's.
const defaultIdleTimeout = time.Hour

// Proxy relays the connections of a filter chain. It implements
// downstream.Handler and io.Closer.
type Proxy struct {
	cfg      *Config
	clusters *cluster.Manager
	access   *telemetry.Log
	log      *slog.Logger
	total    uint32 // of weights
	idle     time.Duration
	attempts int
}

var _ downstream.Handler = (*Proxy)(nil)

// New checks the configuration and opens the access log.
func New(cfg *Config, o Options) (*Proxy, error) {
	p := &Proxy{cfg: cfg, clusters: o.Clusters, log: o.Log, idle: defaultIdleTimeout, attempts: max(cfg.MaxConnectAttempts, 1)}
	if p.log == nil {
		p.log = slog.Default()
	}
	p.log = p.log.With("component", "tcp")
	if cfg.IdleTimeout != nil {
		p.idle = *cfg.IdleTimeout
	}
	if o.Clusters == nil {
		return nil, errors.New("tcp: there is no cluster manager")
	}
	for _, w := range cfg.Weighted {
		if p.total+w.Weight < p.total {
			return nil, errors.New("tcp: the weights of the clusters overflow")
		}
		p.total += w.Weight
	}
	if cfg.Cluster == "" && p.total == 0 {
		return nil, errors.New("tcp: neither a cluster nor a weighted cluster is named")
	}
	if len(cfg.AccessLog) > 0 {
		if o.Logs == nil {
			return nil, errors.New("tcp: there is nothing that writes access logs")
		}
		log, err := o.Logs.Open(cfg.AccessLog)
		if err != nil {
			return nil, fmt.Errorf("tcp: %w", err)
		}
		p.access = log
	}
	return p, nil
}

// Close releases the access log. No connection may be served any more.
func (p *Proxy) Close() error {
	p.access.Close()
	return nil
}

// pick chooses the cluster of one connection.
func (p *Proxy) pick() string {
	if p.cfg.Cluster != "" {
		return p.cfg.Cluster
	}
	n := rand.Uint32N(p.total)
	for _, w := range p.cfg.Weighted {
		if n < w.Weight {
			return w.Cluster
		}
		n -= w.Weight
	}
	return p.cfg.Weighted[len(p.cfg.Weighted)-1].Cluster
}

// ServeStream implements downstream.Handler.
func (p *Proxy) ServeStream(ctx context.Context, c *downstream.Conn) {
	name := p.pick()
	o := outcome{cluster: name}
	up := p.connect(ctx, c, &o)
	if up != nil {
		p.relay(ctx, c, up, &o)
	}
	p.finish(c, &o)
}

// outcome is what the access log tells beside the connection's own facts.
type outcome struct {
	cluster        string
	flags          telemetry.Flags
	failure        string
	attempts       int
	upstream       *stream.Info
	host           *cluster.Host
	received, sent int64
	termination    string
}

// connect opens the upstream; each attempt lets the load balancer choose anew.
func (p *Proxy) connect(ctx context.Context, c *downstream.Conn, o *outcome) *cluster.Conn {
	cl := p.clusters.Get(o.cluster)
	if cl == nil {
		o.flags, o.failure = telemetry.FlagNoCluster, "no such cluster"
		return nil
	}
	pick := cluster.PickContext{Destination: cluster.Redirected(c.Destination, c.Info)}
	for range p.attempts {
		o.attempts++
		up, err := cl.OpenFor(ctx, c.Workload, &pick, c.Shard)
		if err == nil {
			o.upstream, o.host = up.Stream.Info(), up.Host()
			o.flags, o.failure = 0, ""
			return up
		}
		o.failure, o.flags = err.Error(), telemetry.FlagUpstreamConnectFailure
		var failed *cluster.Error
		if errors.As(err, &failed) {
			o.flags = failed.Flags()
		}
		// Where no host could be chosen, another attempt finds none either.
		if ctx.Err() != nil || failed != nil && failed.Host == "" {
			break
		}
	}
	return nil
}

// relay copies both ways until both ends are done. The end of one direction is
// passed on as a half-close; an error ends both.
func (p *Proxy) relay(ctx context.Context, c *downstream.Conn, up *cluster.Conn, o *outcome) {
	stop := context.AfterFunc(ctx, func() { _ = up.Close() })
	defer stop()
	defer func() { _ = up.Close() }()
	watch := newIdleWatch(p.idle, func() {
		o.termination = "idle_timeout"
		_ = c.Stream.Close()
		_ = up.Close()
	})
	var wg sync.WaitGroup
	var upErr error
	wg.Go(func() {
		o.received, upErr = p.oneWay(up.Stream, c.Stream, watch)
		if upErr != nil {
			_ = up.Close()
			_ = c.Stream.Close()
		}
	})
	sent, downErr := p.oneWay(c.Stream, up.Stream, watch)
	if downErr != nil {
		_ = up.Close()
		_ = c.Stream.Close()
	}
	wg.Wait()
	watch.stop()
	o.sent = sent
}

// oneWay copies until the source ends, then half-closes the destination.
func (p *Proxy) oneWay(dst, src stream.Stream, watch *idleWatch) (int64, error) {
	n, err := copyStream(dst, src, watch)
	if err != nil {
		return n, err
	}
	return n, dst.CloseWrite()
}

// finish counts and logs the connection.
func (p *Proxy) finish(c *downstream.Conn, o *outcome) {
	c.PeerMetrics.Bytes(c.Shard, o.received, o.sent)
	if o.failure != "" {
		p.log.Debug("upstream not reached", "service", c.Service, "cluster", o.cluster, "err", o.failure)
	}
	r := c.NewRecord()
	r.Duration = time.Since(c.Accepted)
	r.Cluster, r.Attempts = o.cluster, o.attempts
	r.BytesReceived, r.BytesSent = o.received, o.sent
	r.Flags |= o.flags
	if o.termination != "" && r.ConnectionTermination == "" {
		r.ConnectionTermination = o.termination
	}
	if o.flags != 0 {
		r.UpstreamTransportFailure = o.failure
	}
	if i := o.upstream; i != nil {
		r.UpstreamHost, r.UpstreamLocal = i.Remote, i.Local
		r.UpstreamTLS(i)
	}
	p.access.Log(r)
	r.Release()
}
