package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/proxytlv"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
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
	metrics  *telemetry.Metrics
	text     *slog.Logger
	total    uint32 // of weights
	idle     time.Duration
	attempts int
	most     int // bytes of a direction that are held, 0 for no limit but its own
	watch    *watch

	maxDuration, flushEvery int64
	// subset is what is asked of hosts, and that of each weighted cluster.
	subset  *cluster.MetadataMatch
	subsets []*cluster.MetadataMatch
}

var _ downstream.Handler = (*Proxy)(nil)

// New checks the configuration and opens the access log.
func New(cfg *Config, o Options) (*Proxy, error) {
	p := &Proxy{cfg: cfg, clusters: o.Clusters, metrics: o.Metrics, text: o.Log, idle: defaultIdleTimeout, attempts: max(cfg.MaxConnectAttempts, 1),
		maxDuration: int64(cfg.MaxDuration), flushEvery: int64(cfg.LogInterval)}
	if p.text == nil {
		p.text = slog.Default()
	}
	p.text = p.text.With("component", "tcp")
	if cfg.IdleTimeout != nil {
		p.idle = *cfg.IdleTimeout
	}
	if l := cfg.BufferLimit; l != nil {
		p.most = int(*l)
	}
	p.watch = newWatch(p.shortestLimit())
	if o.Clusters == nil {
		return nil, errors.New("tcp: there is no cluster manager")
	}
	p.subset = cluster.NewMetadataMatch(cfg.Metadata)
	for _, w := range cfg.Weighted {
		both := maps.Clone(cfg.Metadata)
		if both == nil {
			both = map[string]any{}
		}
		maps.Copy(both, w.Metadata)
		p.subsets = append(p.subsets, cluster.NewMetadataMatch(both))
		if p.total+w.Weight < p.total {
			return nil, errors.New("tcp: the weights of the clusters overflow")
		}
		p.total += w.Weight
	}
	if cfg.Cluster == "" && p.total == 0 && (!cfg.ServerNameCluster || len(cfg.Weighted) > 0) {
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

// shortestLimit is the shortest of the times that a connection is held to.
func (p *Proxy) shortestLimit() time.Duration {
	var out time.Duration
	for _, d := range []time.Duration{p.idle, p.cfg.MaxDuration, p.cfg.LogInterval} {
		if d > 0 && (out == 0 || d < out) {
			out = d
		}
	}
	return out
}

// lifetime is how long one connection may last.
func (p *Proxy) lifetime() int64 {
	if p.cfg.MaxDurationJitter <= 0 {
		return p.maxDuration
	}
	return p.maxDuration + int64(rand.Float64()*p.cfg.MaxDurationJitter/100*float64(p.maxDuration))
}

// pick chooses the cluster of one connection, and what is asked of its hosts.
func (p *Proxy) pick(serverName string) (string, *cluster.MetadataMatch) {
	if p.cfg.ServerNameCluster && serverName != "" {
		return serverName, p.subset
	}
	if p.cfg.Cluster != "" || p.total == 0 {
		return p.cfg.Cluster, p.subset // "" is no cluster's name: there is none for who asked for none
	}
	n, last := rand.Uint32N(p.total), len(p.cfg.Weighted)-1
	for i, w := range p.cfg.Weighted[:last] {
		if n < w.Weight {
			return w.Cluster, p.subsets[i]
		}
		n -= w.Weight
	}
	return p.cfg.Weighted[last].Cluster, p.subsets[last]
}

// place is what the choice of a host depends on.
func (p *Proxy) place(c *downstream.Conn, subset *cluster.MetadataMatch) *cluster.PickContext {
	out := &struct {
		pc     cluster.PickContext
		client route.Client
	}{pc: cluster.PickContext{Metadata: subset, Destination: cluster.Redirected(c.Destination, c.Info), Shard: c.Shard}}
	pc := &out.pc
	if remote, ok := c.Info.Remote.(*net.TCPAddr); ok {
		out.client.Addr = remote.AddrPort().Addr().Unmap()
		pc.Client = &out.client
		if p.cfg.HashSourceIP {
			pc.Hash, pc.HasHash = xxhash.Sum64String(out.client.Addr.String()), true
		}
	}
	return pc
}

// asker is whom the upstream is opened for.
func (p *Proxy) asker(c *downstream.Conn) *cluster.Asker {
	a := &cluster.Asker{To: c.Destination, Extensions: p.cfg.extensions(c.Announced)}
	if remote, ok := c.Info.Remote.(*net.TCPAddr); ok {
		ap := remote.AddrPort()
		a.From = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return a
}

// extensions are those that may be announced of a client that said these, nil for no header.
func (cfg *Config) extensions(said *authz.Announced) *proxytlv.Client {
	switch {
	case said != nil && (cfg.Extensions == "" || cfg.Merge == IfAbsent):
		return said.Passed()
	case cfg.Merge == Append:
		return &proxytlv.Client{Said: said.Passed().List() + cfg.Extensions}
	}
	return &proxytlv.Client{Said: cfg.Extensions + said.Passed().List().Without(cfg.Extensions)}
}

// ServeStream implements downstream.Handler.
func (p *Proxy) ServeStream(ctx context.Context, c *downstream.Conn) {
	r, held := c.Held.(*relay)
	if held {
		r.returns.Store(p.watch.now() < r.last.Load()+parkAfter)
	} else {
		if r = p.begin(ctx, c); r == nil {
			return
		}
		c.Held = r
		p.watch.add(r)
	}
	if !p.serve(r) {
		r.park()
		return
	}
	p.end(r)
}

// serve is relay.serve. A panic is the connection's owner's to recover, who then takes
// the streams back: the other direction must be done with them by then.
func (p *Proxy) serve(r *relay) (finished bool) {
	returned := false
	defer func() {
		if !returned {
			r.close()
			r.wg.Wait()
			p.end(r)
		}
	}()
	finished = r.serve()
	returned = true
	return finished
}

// end closes the upstream of a connection that is over, counts and logs it.
func (p *Proxy) end(r *relay) {
	p.watch.remove(r)
	r.unlogged()
	r.close()
	o := r.outcome()
	p.finish(r.c, &o, r.toUp.moved.Load(), r.down.moved.Load())
}

// begin connects to the upstream. Where that fails the connection is over, and
// logged.
func (p *Proxy) begin(ctx context.Context, c *downstream.Conn) *relay {
	began := p.watch.now()
	name, subset := p.pick(c.Info.SNI)
	var o outcome // as in Envoy, of no cluster until that is asked for a host
	if p.cfg.LogOnStart {
		p.log(c, &o, telemetry.LogConnectionStart, 0, 0)
	}
	var until int64
	if p.maxDuration > 0 {
		until = began + p.lifetime()
	}
	var first *early
	if p.cfg.AwaitData {
		first = &early{}
		if !p.await(c, first, until, &o) {
			first.drop()
			p.finish(c, &o, 0, 0)
			return nil
		}
	}
	o.cluster = name
	up := p.connect(ctx, c, p.place(c, subset), &o, until)
	if up == nil {
		said := first.said()
		first.drop()
		c.PeerMetrics.Bytes(c.Shard, said, 0)
		p.finish(c, &o, said, 0)
		return nil
	}
	r := newRelay(p, c, up, o)
	r.end, r.first = until, first
	if first == nil {
		r.logConnected()
	}
	return r
}

// connect opens the upstream; each attempt lets the load balancer choose anew. A connection
// that was ended meanwhile gets none, nor one that has lasted until its time was over, where
// until is not 0.
func (p *Proxy) connect(ctx context.Context, c *downstream.Conn, pc *cluster.PickContext, o *outcome, until int64) *cluster.Conn {
	cl := p.clusters.Get(o.cluster)
	if cl == nil {
		o.failed("no such cluster", "", unreached{})
		o.flags = telemetry.FlagNoCluster
		return nil
	}
	if until > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(until-p.watch.now()))
		defer cancel()
	}
	for range p.attempts {
		if o.attempts > 0 {
			p.backOff(ctx, o.attempts)
		}
		if p.isOver(ctx, c, o) {
			return nil
		}
		o.attempts++
		o.markAsked(c)
		up, err := cl.OpenFor(ctx, c.Workload, pc, p.asker(c), c.Shard)
		if p.isOver(ctx, c, o) {
			if err == nil {
				_ = up.Close()
			}
			return nil
		}
		if err == nil {
			o.upstream, o.host = up.Stream.Info(), up.Host()
			o.succeeded()
			o.markReady(c, up)
			return up
		}
		o.flags = telemetry.FlagUpstreamConnectFailure
		var failed *cluster.Error
		if errors.As(err, &failed) {
			if o.flags = failed.Flags(); failed.Kind == cluster.OverflowPending {
				o.flags = 0 // of a byte stream Envoy has no flag that says so
			}
			o.failed(err.Error(), failed.TransportFailure(), unreached{failed.Addr, failed.Name})
		} else {
			o.failed(err.Error(), "", unreached{})
		}
		// Where no host could be chosen, or the cluster takes no connection, there is nothing
		// to try again.
		if failed != nil && failed.Host == "" {
			o.attempts--
			return nil
		}
	}
	// As Envoy: also where one attempt was the limit.
	o.flags |= telemetry.FlagRetryLimitExceeded
	return nil
}

// isOver tells whether the connection is over before it has an upstream: it was ended, the
// listener was, or it has lasted as long as it may.
func (p *Proxy) isOver(ctx context.Context, c *downstream.Conn, o *outcome) bool {
	if ctx.Err() == context.DeadlineExceeded {
		o.flags, o.termination = telemetry.FlagDurationTimeout, endDuration
	}
	return ctx.Err() != nil || c.Ended() != nil
}

// backOff waits before another attempt, with full jitter, and no longer than ctx.
func (p *Proxy) backOff(ctx context.Context, attempts int) {
	b := p.cfg.Backoff
	if b == nil {
		return
	}
	most := b.Max
	if shift := attempts - 1; shift < 63 && b.Base < most>>shift {
		most = b.Base << shift
	}
	timer := time.NewTimer(rand.N(most))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
