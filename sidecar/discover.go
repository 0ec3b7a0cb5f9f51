package sidecar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/client/cache"
	"github.com/hauberk-mesh/hauberk/xds/names"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// base is a stream of what the bootstrap has discovered: the aggregated one, or that of all
// listeners or clusters.
type base struct {
	*client.Client
	kind, service string
	// until is when its first answer is not to be waited for any more, zero for never.
	until time.Time
}

// waits tells whether nothing of it is in force yet, and that is to be waited for.
func (b *base) waits(st client.Status) bool {
	return !st.Synced && !st.FromCache && (b.until.IsZero() || time.Now().Before(b.until))
}

// aggregatedKind is the kind of the stream of all types.
const aggregatedKind = "all"

// discover keeps the streams to control planes.
func (s *Sidecar) discover(ctx context.Context) error {
	if s.agent != nil && s.node().ID == "" {
		select {
		case <-s.agent.Ready(): // it says who this is
		case <-ctx.Done():
			return nil
		}
	}
	aggregated, err := s.aggregated(ctx)
	if err != nil {
		return err
	}
	listeners, err := s.ofType(resource.ListenerType)
	if err != nil {
		return err
	}
	clusters, err := s.ofType(resource.ClusterType)
	if err != nil {
		return err
	}
	all := slices.DeleteFunc([]*base{aggregated, clusters, listeners}, func(b *base) bool { return b == nil })
	s.mu.Lock()
	s.bases = all
	s.mu.Unlock()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wg sync.WaitGroup
	first := make(chan struct{})
	wg.Go(func() { defer close(first); s.clustersFirst(ctx) })
	for _, b := range all {
		wg.Go(func() {
			if b == listeners {
				<-first
			}
			if ctx.Err() != nil {
				return // what was kept would be put in force
			}
			if err := b.Run(ctx); err != nil {
				end(err)
			}
		})
	}
	wg.Go(func() { s.streams.Run(ctx, first) })
	wg.Go(func() { s.forgetUnopened(ctx, all) })
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// aggregated makes the client of the aggregated stream, nil where there is none.
func (s *Sidecar) aggregated(ctx context.Context) (*base, error) {
	servers, err := s.servers(ctx)
	if err != nil || len(servers) == 0 {
		return nil, err
	}
	ads := aggregates(s.cfg.Bootstrap)
	c, err := s.newClient(servers, "", !ads.Delta, s.aggregatedCache(ads), client.HandlerFunc(s.applyStreamed))
	if err != nil {
		return nil, err
	}
	s.state.follow(c)
	// What static ones name has been asked for by now: a client that asks for nothing counts
	// as synced.
	if !ads.Clusters {
		c.Unsubscribe(resource.ClusterType)
	}
	if !ads.Listeners {
		c.Unsubscribe(resource.ListenerType)
	}
	b := &base{Client: c, kind: aggregatedKind, service: ads.Cluster}
	if s.cfg.Bootstrap != nil {
		b.until = patience(ads, s.cfg.Bootstrap)
	}
	return b, nil
}

// aggregatedCache is the name of what is kept of the aggregated stream: that of the mesh, whose
// control planes are one another's, or of the service that the bootstrap names.
func (s *Sidecar) aggregatedCache(ads *config.ADS) string {
	name, key := keptOfMesh, streamKey{service: keptOfMesh}
	if ads.Cluster != "" && len(s.cfg.Servers) == 0 {
		name, key.service = keptName(aggregatedKind, &ads.Stream), ads.Key()
	}
	return s.caches.take(s.cfg.StateDir, name, key)
}

// keptName is the name of what is kept of a stream.
func keptName(kind string, from *discovery.Stream) string {
	of := sha256.Sum256([]byte(from.Kept()))
	return keptOfStreams + kind + "-" + hex.EncodeToString(of[:8])
}

// aggregates is what is asked for by the aggregated stream. That of the mesh has all but the
// types that have a stream of their own: of two servers each would remove what the other has.
func aggregates(b *config.Bootstrap) *config.ADS {
	if b != nil && b.ADS != nil {
		return b.ADS
	}
	own := func(from *discovery.Source) bool { return from != nil && from.Stream != nil }
	return &config.ADS{
		Listeners: b == nil || !own(b.LDS), Clusters: b == nil || !own(b.CDS), Stream: discovery.Stream{Delta: true},
	}
}

// patience is when the first answers of the aggregated stream are not to be waited for any
// more, as the sources of both that it has say; zero where one does not.
func patience(ads *config.ADS, b *config.Bootstrap) time.Time {
	var longest time.Duration
	for _, t := range []struct {
		has  bool
		from *discovery.Source
	}{{ads.Listeners, b.LDS}, {ads.Clusters, b.CDS}} {
		if !t.has {
			continue
		}
		if t.from == nil || t.from.Wait == nil || *t.from.Wait == 0 {
			return time.Time{}
		}
		longest = max(longest, *t.from.Wait)
	}
	if longest == 0 {
		return time.Time{}
	}
	return time.Now().Add(longest)
}

// ofType makes the client of a stream of all listeners or clusters, nil where there is none.
func (s *Sidecar) ofType(url string) (*base, error) {
	if s.cfg.Bootstrap == nil {
		return nil, nil
	}
	from := s.cfg.Bootstrap.LDS
	if url == resource.ClusterType {
		from = s.cfg.Bootstrap.CDS
	}
	if from == nil || from.Stream == nil {
		return nil, nil
	}
	c, err := s.ofStream(from.Stream, url, client.HandlerFunc(s.applyStreamed))
	if err != nil {
		return nil, err
	}
	b := &base{Client: c, kind: shortType(url), service: from.Stream.Key()}
	if from.Wait != nil && *from.Wait > 0 {
		b.until = time.Now().Add(*from.Wait)
	}
	return b, nil
}

// ofStream makes the client of a service of one type.
func (s *Sidecar) ofStream(from *discovery.Stream, url string, h client.Handler) (*client.Client, error) {
	servers, err := s.dial(from)
	if err != nil {
		return nil, err
	}
	kept := s.caches.take(s.cfg.StateDir, keptName(shortType(url), from), streamKey{url, from.Key()})
	return s.newClient(servers, url, !from.Delta, kept, h)
}

// newClient makes a client, which keeps what it accepts in a file of that name.
func (s *Sidecar) newClient(servers []client.Server, url string, sotw bool, kept string, h client.Handler) (*client.Client, error) {
	node := s.node()
	var store *cache.Cache
	if s.cfg.StateDir != "" {
		var err error
		if store, err = openCache(s.cfg.StateDir, kept, node.ID); err != nil {
			return nil, err
		}
	}
	return client.New(client.Config{Servers: servers, Node: node, Type: url, Handler: h, Cache: store, SotW: sotw, Log: s.cfg.Log})
}

// clustersFirst returns when clusters have come where a control plane has any, or are not
// to be waited for any more. Listeners and routes are asked for after them, as in Envoy.
func (s *Sidecar) clustersFirst(ctx context.Context) {
	b := s.cfg.Bootstrap
	if b == nil || !b.StreamsClusters() {
		return
	}
	wait := s.cfg.WarmUp
	if b.CDS.Wait != nil {
		wait = *b.CDS.Wait
	}
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	select {
	case <-s.clustersIn:
	case <-ctx.Done():
	}
}

// capabilities are what this build can honour; the control plane withholds the
// rest.
var capabilities = []string{names.CapRBAC, names.CapHTTP2, names.CapTunnel, names.CapRingHash, names.CapMaglev, names.CapConnectionHash,
	names.CapConnectionLimit, names.CapListenerLog, names.CapOutlierDetection, names.CapGatewayFailure, names.CapRetries,
	names.CapRetryRateLimited, names.CapLocalRateLimit, names.CapValidateClusters, names.CapGrowingWindows, names.CapTracing}

// secretsNode is who asks a service for secrets.
func secretsNode(b *config.Bootstrap) client.Node {
	if b == nil {
		return client.Node{}
	}
	n := b.Node
	return client.Node{ID: n.ID, Cluster: n.Cluster, Region: n.Region, Zone: n.Zone, SubZone: n.SubZone, Metadata: n.Metadata}
}

func (s *Sidecar) node() client.Node {
	n := client.Node{ID: s.cfg.Node, Version: s.cfg.Version, Features: capabilities}
	if b := s.cfg.Bootstrap; b != nil {
		n.Cluster, n.Region, n.Zone, n.SubZone = b.Node.Cluster, b.Node.Region, b.Node.Zone, b.Node.SubZone
		n.Metadata = b.Node.Metadata
		n.Features = slices.Concat(capabilities, b.Node.Features)
		if n.ID == "" {
			n.ID = b.Node.ID
		}
	}
	if n.ID == "" && s.agent != nil {
		n.ID = lastOf(s.agent.NodeID())
	}
	return n
}

// lastOf is the name of a node, "" of one that has no identity yet.
func lastOf(id spiffeid.ID) string {
	if id.IsZero() {
		return ""
	}
	return path.Base(id.Path())
}

// usable says why a service cannot be asked.
func (s *Sidecar) usable(from *discovery.Stream) error {
	if _, err := s.dial(from); err != nil {
		return err
	}
	if s.node().ID == "" {
		return errors.New("node.id: the service would not know who asks: it is not written, and there is no identity yet; write it, or use --node")
	}
	return nil
}
