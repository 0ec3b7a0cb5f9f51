package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/spiffe"
	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
)

// connection is the one gRPC channel to the control planes. gRPC tries its
// addresses in order and moves on when one fails.
type connection struct {
	grpc     *grpc.ClientConn
	resolver *manual.Resolver

	mu        sync.Mutex
	addresses []string
	closed    bool
}

// connectTimeout bounds one address, so that a dead one does not hold up the
// next.
const connectTimeout = 5 * time.Second

func newConnection(a *Agent) (*connection, error) {
	conf, err := tlsconf.Client(tlsconf.ClientParams{
		Source:    nodeSource{a},
		Authorize: a.authorizeControlPlane,
		ALPN:      []string{"h2"},
	})
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	c := &connection{resolver: manual.NewBuilderWithScheme("hauberk")}
	c.resolver.InitialState(resolver.State{})
	c.grpc, err = grpc.NewClient("hauberk:///controlplanes",
		grpc.WithResolvers(c.resolver),
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 5 * time.Second},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return c, nil
}

// authorizeControlPlane: only a control plane of the own trust domain answers
// for the mesh, whatever else holds an SVID of it.
func (a *Agent) authorizeControlPlane(peer spiffeid.ID) error {
	id, err := spiffe.Of(peer)
	if err != nil {
		return err
	}
	if id.Kind != spiffe.ControlPlane || peer.TrustDomain() != a.TrustDomain() {
		return fmt.Errorf("%s is not a control plane of %s", peer, a.TrustDomain())
	}
	return nil
}

// setAddresses replaces where control planes are. The order of those that are
// not configured is shuffled, so that hosts spread.
func (c *connection) setAddresses(addresses []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sorted := slices.Sorted(slices.Values(addresses))
	if c.closed || len(addresses) == 0 || slices.Equal(sorted, c.addresses) {
		return
	}
	c.addresses = sorted
	shuffled := slices.Clone(addresses)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	var st resolver.State
	for _, x := range shuffled {
		st.Endpoints = append(st.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: x}}})
	}
	// Before the channel is used, the resolver keeps the state for later.
	c.resolver.InitialState(st)
	c.grpc.Connect()
	c.resolver.UpdateState(st)
}

func (c *connection) close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.grpc.Close()
}

// reportLoop tells a control plane what runs here, at each change and now and
// then, since control planes keep reports in memory.
func (a *Agent) reportLoop(ctx context.Context) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.reports:
		case <-tick.C:
		}
		if err := a.sendReport(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("report not sent", "err", err)
		}
	}
}

func (a *Agent) sendReport(ctx context.Context) error {
	a.mu.Lock()
	r := a.report
	warnings := r.Warnings
	if w := a.trustLocked().Warning(a.cfg.StaleAfter, time.Now()); w != "" {
		warnings = append(slices.Clone(warnings), w)
	}
	a.mu.Unlock()
	req := &identityv1.ReportRequest{Version: a.cfg.Version, Warnings: warnings}
	for _, w := range r.Workloads {
		req.Workloads = append(req.Workloads, &identityv1.WorkloadReport{
			SpiffeId: w.ID.String(), ProxyId: w.ProxyID, Service: w.Service, Application: w.Application, Listening: w.Listening,
		})
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := identityv1.NewIdentityClient(a.conn.grpc).Report(ctx, req, grpc.WaitForReady(true))
	return err
}

// waiter is a full-jitter exponential back-off.
type waiter struct{ limit time.Duration }

const (
	backoffBase = 200 * time.Millisecond
	backoffMax  = 10 * time.Second
)

func newBackoff() *waiter { return &waiter{limit: backoffBase} }

func (w *waiter) reset() { w.limit = backoffBase }

// wait returns false when ctx ended.
func (w *waiter) wait(ctx context.Context, wake <-chan struct{}) bool {
	timer := time.NewTimer(rand.N(w.limit) + 10*time.Millisecond)
	defer timer.Stop()
	w.limit = min(2*w.limit, backoffMax)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}
