package tlscontext

import (
	"context"
	"crypto/x509"
	"log/slog"
	"runtime"
	"sync"
	"time"
	"weak"
)

// Cache makes each context once, looks at the files of all of them at an
// interval, and forgets a context when its configuration is gone. Safe for
// concurrent use.
type Cache struct {
	log     *slog.Logger
	secrets Secrets

	mu      sync.Mutex
	servers map[weak.Pointer[Server]]*Context
	clients map[weak.Pointer[Client]]*Context
}

// Interval is how often files are looked at. They are not relied on to notify,
// which network and overlay file systems do not.
const Interval = 5 * time.Second

// NewCache returns an empty cache; Run keeps it current. secrets may be nil.
func NewCache(log *slog.Logger, secrets Secrets) *Cache {
	return &Cache{log: log, secrets: secrets, servers: map[weak.Pointer[Server]]*Context{}, clients: map[weak.Pointer[Client]]*Context{}}
}

// Server returns the context of a downstream configuration.
func (c *Cache) Server(cfg *Server) (*Context, error) {
	return cached(c, c.servers, cfg, func() (*Context, error) { return NewServer(cfg, Options{Secrets: c.secrets}) })
}

// Client returns the context of an upstream configuration.
func (c *Cache) Client(cfg *Client) (*Context, error) {
	return cached(c, c.clients, cfg, func() (*Context, error) { return NewClient(cfg, Options{Secrets: c.secrets}) })
}

// cached holds the key weakly: the entry goes with the configuration, of which the
// context keeps a copy. A context is made without the lock: its files may be on a disk that takes long, and every
// connection to a host asks for a context.
func cached[T any](c *Cache, m map[weak.Pointer[T]]*Context, cfg *T, make func() (*Context, error)) (*Context, error) {
	key := weak.Make(cfg)
	c.mu.Lock()
	have := m[key]
	c.mu.Unlock()
	if have != nil {
		return have, nil
	}
	made, err := make()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have = m[key]; have != nil {
		return have, nil // somebody was quicker
	}
	m[key] = made
	runtime.AddCleanup(cfg, func(key weak.Pointer[T]) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(m, key)
	}, key)
	return made, nil
}

// Run looks at files until the context ends.
func (c *Cache) Run(ctx context.Context) { Look(ctx, c.Refresh) }

// Look calls look each Interval until the context ends.
func Look(ctx context.Context, look func()) {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			look()
		}
	}
}

// Refresh looks at all files now.
func (c *Cache) Refresh() {
	for _, x := range c.contexts() {
		x.Refresh(c.log)
	}
}

// Leaves are the own certificates of all contexts.
func (c *Cache) Leaves() []*x509.Certificate {
	var out []*x509.Certificate
	for _, x := range c.contexts() {
		out = append(out, x.Leaves()...)
	}
	return out
}

// Anchors are what peers are verified against, by the file or secret that they are in.
func (c *Cache) Anchors() map[string][]*x509.Certificate {
	out := map[string][]*x509.Certificate{}
	for _, x := range c.contexts() {
		if s := x.state.Load(); s.trust != "" {
			out[s.trust] = s.anchors
		}
	}
	return out
}

// AsOf tells, by the file or secret of the anchors, when trust was last found in it.
// Several contexts may share one: the oldest counts.
func (c *Cache) AsOf() map[string]time.Time {
	out := map[string]time.Time{}
	for _, x := range c.contexts() {
		if trust := x.state.Load().trust; trust != "" {
			if asOf := x.AsOf(); out[trust].IsZero() || asOf.Before(out[trust]) {
				out[trust] = asOf
			}
		}
	}
	return out
}

func (c *Cache) contexts() []*Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Context, 0, len(c.servers)+len(c.clients))
	for _, x := range c.servers {
		out = append(out, x)
	}
	for _, x := range c.clients {
		out = append(out, x)
	}
	return out
}
