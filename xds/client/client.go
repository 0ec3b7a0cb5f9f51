package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// Client keeps one stream to one of its servers.
type Client struct {
	// Set once.
	cfg    Config
	node   *corev3.Node
	log    *slog.Logger
	synced chan struct{}
	// wake and saved hold at most one token: a subscription changed, and
	// something was accepted that the cache lacks.
	wake chan struct{}
	save chan struct{}
	// silent counts the streams and attempts in a row that brought nothing. Run's alone.
	silent int
	// ignored bounds what is said of responses that nobody asked for: a server sends any number.
	ignored rate.Sometimes

	mu      sync.Mutex
	running bool
	order   []*typeState
	status  Status
}

// New checks the configuration. Listeners and clusters are subscribed by
// wildcard, but on the stream of another type; Unsubscribe(type) undoes that
// before Run.
func New(cfg Config) (*Client, error) {
	switch {
	case len(cfg.Servers) == 0:
		return nil, errors.New("xds client: no control plane is configured")
	case cfg.Node.ID == "":
		return nil, errors.New("xds client: node.id is empty")
	case cfg.Handler == nil:
		return nil, errors.New("xds client: no handler")
	}
	if _, ok := methods[cfg.Type]; !ok {
		return nil, fmt.Errorf("xds client: there is no service of %s", cfg.Type)
	}
	for i, s := range cfg.Servers {
		if s.Dial == nil {
			return nil, fmt.Errorf("xds client: server %d (%s) has no dialer", i, s.Name)
		}
	}
	node, err := cfg.Node.Message()
	if err != nil {
		return nil, fmt.Errorf("xds client: node: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.BackoffBase <= 0 {
		cfg.BackoffBase = 200 * time.Millisecond
	}
	if cfg.BackoffMax <= 0 {
		cfg.BackoffMax = 10 * time.Second
	}
	c := &Client{
		cfg: cfg, node: node, log: cfg.Log.With("component", "xds"),
		synced: make(chan struct{}), wake: make(chan struct{}, 1), save: make(chan struct{}, 1),
		ignored: rate.Sometimes{Interval: 10 * time.Second},
	}
	for _, url := range resource.PushOrder {
		c.typeLocked(url)
	}
	for _, url := range []string{resource.ClusterType, resource.ListenerType} {
		c.typeLocked(url).wildcard = cfg.Type == "" || cfg.Type == url
	}
	c.status.Since = time.Now()
	return c, nil
}

// Message is the node as it goes over the wire.
func (n Node) Message() (*corev3.Node, error) {
	m := &corev3.Node{
		Id: n.ID, Cluster: n.Cluster, UserAgentName: UserAgent, ClientFeatures: slices.Clone(n.Features),
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: n.Version},
	}
	if len(n.Metadata) > 0 {
		md, err := structpb.NewStruct(n.Metadata)
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		m.Metadata = md
	}
	if n.Region+n.Zone+n.SubZone != "" {
		m.Locality = &corev3.Locality{Region: n.Region, Zone: n.Zone, SubZone: n.SubZone}
	}
	return m, nil
}

// typeLocked returns the state of a type, in push order.
func (c *Client) typeLocked(url string) *typeState {
	if ts := c.knownLocked(url); ts != nil {
		return ts
	}
	ts := newTypeState(url, c.cfg.SotW)
	c.order = append(c.order, ts)
	return ts
}

// knownLocked is that of a type that somebody here has named, else nil: a server names what it likes.
func (c *Client) knownLocked(url string) *typeState {
	for _, ts := range c.order {
		if ts.url == url {
			return ts
		}
	}
	return nil
}

// Run applies the cache, then keeps a stream until ctx ends; that is the only
// way it returns without an error.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("xds client: Run was called twice")
	}
	c.running = true
	c.mu.Unlock()
	c.load()
	var saver sync.WaitGroup
	if c.cfg.Cache != nil {
		saver.Go(func() { c.saveLoop(ctx) })
	}
	defer saver.Wait()
	servers := rand.Perm(len(c.cfg.Servers))
	for failures, i := 0, 0; ; i++ {
		srv := c.cfg.Servers[servers[i%len(servers)]]
		answered, err := c.stream(ctx, srv)
		if ctx.Err() != nil {
			c.disconnected("", nil)
			return nil
		}
		c.disconnected(srv.Name, err)
		c.silent++
		if answered {
			failures, c.silent = 0, 0
		}
		wait := c.backoff(failures / len(servers))
		failures++
		c.log.Warn("control plane stream ended", "peer", srv.Name, "err", err, "retry_in", wait)
		waited, end := context.WithTimeout(ctx, wait)
		c.meanwhile(waited.Done())
		end()
		if ctx.Err() != nil {
			c.disconnected("", nil)
			return nil
		}
	}
}

// backoff is full jitter: anywhere between nothing and the doubled base, so that
// the clients of a restarted control plane arrive spread out.
func (c *Client) backoff(round int) time.Duration {
	bound := c.cfg.BackoffMax
	if round < 16 {
		bound = min(bound, c.cfg.BackoffBase<<round)
	}
	return rand.N(bound) + time.Millisecond
}

func (c *Client) disconnected(server string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Connected {
		c.status.Connected = false
		c.status.Since = time.Now()
		if c.status.Synced {
			c.status.AsOf = c.status.Since
		}
	}
	if err != nil {
		c.status.LastError = err.Error()
		if server != "" {
			c.status.LastError = server + ": " + c.status.LastError
		}
		c.status.LastErrorAt = time.Now()
	}
}

// Subscribe asks for resources by name; without names, for all of the type. A
// name that is subscribed already is not asked for again.
func (c *Client) Subscribe(typeURL string, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.typeLocked(typeURL).subscribe(names) {
		c.poke()
	}
}

// Unsubscribe drops names; without names, the wildcard. What is no longer
// subscribed is forgotten without being handed to the Handler as removed.
func (c *Client) Unsubscribe(typeURL string, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.typeLocked(typeURL).unsubscribe(names) {
		c.poke()
	}
	c.checkSyncedLocked()
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Synced is closed once listeners and clusters were answered in full and every
// route and assignment asked for was answered. The cache does not count.
func (c *Client) Synced() <-chan struct{} { return c.synced }

func (c *Client) checkSyncedLocked() {
	if c.status.Synced {
		return
	}
	for _, ts := range c.order {
		if !ts.settled() {
			return
		}
	}
	c.status.Synced = true
	close(c.synced)
}

// Status reports the present state.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.status
	if st.Connected && st.Synced {
		st.AsOf = time.Now()
	}
	for _, ts := range c.order {
		t := TypeStatus{
			Type: ts.url, Wildcard: ts.wildcard, Subscribed: len(ts.names),
			Accepted: make(map[string]string, len(ts.accepted)), Rejected: maps.Clone(ts.rejected),
		}
		for n, r := range ts.accepted {
			t.Accepted[n] = r.Version
		}
		st.Types = append(st.Types, t)
	}
	return st
}

// Resources returns what was accepted, in push order and by name.
func (c *Client) Resources() []*resource.Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resourcesLocked()
}

func (c *Client) resourcesLocked() (out []*resource.Resource) {
	for _, ts := range c.order {
		from := len(out)
		for _, r := range ts.accepted {
			out = append(out, r)
		}
		slices.SortFunc(out[from:], func(a, b *resource.Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	return out
}

// Shared keeps a connection open when a stream over it ends. No connection stays
// none, which the client reports and tries again.
func Shared(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
	if conn == nil {
		return nil
	}
	return struct{ grpc.ClientConnInterface }{conn}
}
