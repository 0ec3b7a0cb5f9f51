package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/config"
	"github.com/hauberk-mesh/hauberk/sidecar/discovery"
	"github.com/hauberk-mesh/hauberk/sidecar/files"
	"github.com/hauberk-mesh/hauberk/sidecar/listener"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
	"github.com/hauberk-mesh/hauberk/xds/client"
	"github.com/hauberk-mesh/hauberk/xds/resource"
)

func goVersion() string { return runtime.Version() }

// servers are the control planes of the aggregated stream: those given, those of the agent,
// or the one that the bootstrap names. It waits for the agent's first identity.
func (s *Sidecar) servers(ctx context.Context) ([]client.Server, error) {
	switch {
	case len(s.cfg.Servers) > 0:
		return s.cfg.Servers, nil
	case s.cfg.Bootstrap != nil && s.cfg.Bootstrap.ADS != nil:
		return s.dial(&s.cfg.Bootstrap.ADS.Stream)
	case s.agent == nil:
		return nil, nil
	}
	select {
	case <-s.agent.Ready():
	case <-ctx.Done():
		return nil, nil
	}
	return []client.Server{{
		Name: "control plane",
		Dial: func(context.Context) (grpc.ClientConnInterface, error) { return client.Shared(s.agent.Conn()), nil },
	}}, nil
}

// service is where a stream goes. Plaintext is for a server on the same host only.
func service(b *config.Bootstrap, from *discovery.Stream) (*config.Server, error) {
	at, err := b.Server(from.Cluster)
	if err != nil {
		return nil, err
	}
	for _, addr := range at.Addresses {
		if at.TLS == nil && !local(addr) {
			return nil, fmt.Errorf("cluster %q: %s is not on this host and has no transport_socket; configuration is not taken in plaintext over a network", from.Cluster, addr)
		}
	}
	return at, nil
}

// dial is how a foreign management server is reached, or a control plane with
// certificates from files.
func (s *Sidecar) dial(from *discovery.Stream) ([]client.Server, error) {
	at, err := service(s.cfg.Bootstrap, from)
	if err != nil {
		return nil, err
	}
	var out []client.Server
	for _, addr := range at.Addresses {
		out = append(out, client.Server{Name: addr, Dial: func(context.Context) (grpc.ClientConnInterface, error) {
			creds := insecure.NewCredentials()
			if at.TLS != nil {
				cfg, _, err := s.tls.ClientTLS("", from.Cluster, at.TLS)
				if err != nil {
					return nil, err
				}
				cfg.NextProtos = []string{"h2"}
				creds = credentials.NewTLS(cfg)
			}
			target := addr
			if !strings.HasPrefix(addr, "unix:") {
				target = "passthrough:///" + addr
			}
			return grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithStreamInterceptor(saying(from.Metadata)),
				grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: alive, Timeout: aliveTimeout}))
		}})
	}
	return out, nil
}

// A server that is gone without a word is found by pings: streams may be silent for days. gRPC
// servers take offence at more than one in five minutes, unless they are told otherwise.
const alive, aliveTimeout = 6 * time.Minute, 20 * time.Second

// saying adds metadata to streams.
func saying(fields []discovery.Metadata) grpc.StreamClientInterceptor {
	var pairs []string
	for _, f := range fields {
		pairs = append(pairs, f.Key, string(f.Value))
	}
	return func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(metadata.AppendToOutgoingContext(ctx, pairs...), d, c, method, o...)
	}
}

func local(addr string) bool {
	if strings.HasPrefix(addr, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// follow makes a client the one that is asked for what resources name. Names that were noted
// before are asked for now.
func (s *state) follow(controlPlane subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sub.controlPlane, s.unaggregated = controlPlane, false
	s.subscribe()
}

// followFiles does the same with files.
func (s *state) followFiles(files subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sub.files = files
	s.subscribe()
}

// errStatic refuses a discovered resource that has the name of one of the bootstrap.
func errStatic(what string) error {
	return fmt.Errorf("the bootstrap has a static %s of this name", what)
}

// missing says that routes are to be validated, and a cluster is not there. Those of a file
// are read before a control plane is asked for clusters, and have come too early then. Those in
// force that are said again, as the state of the world does with each change of others, were
// validated when they came.
func (s *state) missing(cfg *route.Config, name string) error {
	err := config.MissingCluster(cfg, s.known)
	if t := s.routes.get(name); err != nil && t != nil && reflect.DeepEqual(t.Config(), cfg) {
		return nil
	}
	if _, _, inFile := resource.SplitFile(name); err != nil && inFile && s.clustersCome {
		return fmt.Errorf("%w: %w", err, files.ErrEarly)
	}
	return err
}

// applyStreamed takes what a control plane sends. What files have that was refused for want
// of a cluster, or because it does not fit one, has another chance with every new one.
func (s *Sidecar) applyStreamed(u client.Update) map[string]error {
	if u.Type == resource.ClusterType {
		s.state.clustersCame()
	}
	errs := s.state.applyLive(u, s.state.asked(u.Type))
	if u.Type == resource.ClusterType {
		s.clustersOnce.Do(func() { close(s.clustersIn) })
		if s.files != nil {
			s.files.Retry()
		}
	}
	return errs
}

// asked tells, of what comes by name, whether something still names it: while what came waits for
// its turn, that may have gone. It holds while s.mu is.
func (s *state) asked(url string) func(name string) bool {
	var services map[string]bool
	few := 4 // are looked for one by one: most updates are of one
	return func(name string) bool {
		switch url {
		case resource.RouteType:
			return s.routeNames[name]
		case resource.EndpointType:
			if few--; few >= 0 {
				return s.discovers(name)
			}
			if services == nil {
				services = s.services()
			}
			return services[name]
		}
		return true
	}
}

// discovers tells whether a cluster has or waits for the endpoints of a service.
func (s *state) discovers(service string) bool {
	of := func(c *cluster.Config) bool { return c.Type == cluster.EDS && edsName(c) == service }
	for _, c := range s.clusterConfigs {
		if of(c) {
			return true
		}
	}
	for _, h := range s.held {
		if of(h.cfg) {
			return true
		}
	}
	return false
}

// services are those whose endpoints a cluster has or waits for.
func (s *state) services() map[string]bool {
	out := map[string]bool{}
	each := func(c *cluster.Config) {
		if c.Type == cluster.EDS {
			out[edsName(c)] = true
		}
	}
	for _, c := range s.clusterConfigs {
		each(c)
	}
	for _, h := range s.held {
		each(h.cfg)
	}
	return out
}

func (s *state) clustersCame() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clustersCome = false
}

func (s *state) subscribe() {
	for _, cfg := range s.clusterConfigs {
		if cfg.Type == cluster.EDS {
			s.sub.Subscribe(resource.EndpointType, edsName(cfg))
		}
	}
	for name := range s.routeNames {
		s.sub.Subscribe(resource.RouteType, name)
	}
}

// load takes the static resources of a bootstrap, which name static resources or those that
// discovery brings. Listeners are bound and accept when the static clusters are initialized.
func (s *state) load(b *config.Bootstrap) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading = true
	defer func() { s.loading = false }()
	var errs []error
	for _, c := range b.Clusters {
		s.staticClusters[c.Name] = true
		if err := s.setCluster(c); err != nil {
			errs = append(errs, err)
		}
	}
	s.holdListeners()
	var now []*listener.Config
	for _, l := range b.Listeners {
		s.staticListeners[l.Name] = true
		if err := cmp.Or(s.routesCome(l), config.MissingOfListener(l, s.known)); err != nil {
			errs = append(errs, err)
			continue
		}
		if s.accessLog != nil {
			addAccessLog(l, *s.accessLog)
		}
		if s.want(l) {
			now = append(now, l)
		}
	}
	s.wantWorkloads()
	for _, err := range s.replace(nil, now) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stop ends every wait.
func (s *state) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opening != nil {
		s.opening.Stop()
	}
	for name := range s.warming {
		s.cool(name)
	}
	for name := range s.held {
		s.release(name)
	}
	for name := range s.retries {
		s.forgo(name)
	}
	for _, f := range s.fetches {
		f.stop()
	}
}

// pending says what is not in force yet, for people; empty when all is.
func (s *state) pending() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting(s.warming, s.held, nil)
}

// unready is that of it in whose place there is nothing. What was before goes on serving, and a
// sidecar that does is ready, as in Envoy: an update that is late would take out all that get it.
func (s *state) unready() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	listeners, held := maps.Clone(s.warming), maps.Clone(s.held)
	maps.DeleteFunc(listeners, func(name string, _ *warming) bool { return s.inForce[name] != nil })
	maps.DeleteFunc(held, func(name string, _ *heldCluster) bool { return s.clusterConfigs[name] != nil })
	return s.waiting(listeners, held, s.secretsOf(held, s.serving()))
}

// waiting says what waits, and which of some secrets; nil for all.
func (s *state) waiting(listeners map[string]*warming, clusters map[string]*heldCluster, of map[tlscontext.SecretRef]bool) []string {
	var out []string
	for name := range listeners {
		out = append(out, "listener "+name+" waits for routes, clusters or secrets")
	}
	if s.opening != nil {
		for _, name := range s.uninitialized() {
			out = append(out, "cluster "+name+" waits for its first checks, or names")
		}
	}
	for name, h := range clusters {
		out = append(out, "cluster "+name+" waits for "+s.waitsFor(h))
	}
	if s.secrets != nil {
		out = append(out, s.secrets.Waiting(of)...)
	}
	for name, err := range s.failed {
		if s.inForce[name] == nil {
			out = append(out, "listener "+name+": "+err.Error())
		}
	}
	return out
}

// serving are the listeners in force, and those that are to be in nobody's place.
func (s *state) serving() map[string]*listener.Config {
	out := maps.Clone(s.wants)
	maps.Copy(out, s.inForce)
	return out
}

// named are the workloads that they name.
func (s *state) named() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return workloads(s.serving())
}
