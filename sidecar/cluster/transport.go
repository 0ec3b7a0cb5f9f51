package cluster

import (
	"cmp"
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/descriptors"
)

// dialer is how connections are opened that need socket options; nil where the
// manager's way does.
func dialer(m *Manager, cfg *Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	bind := m.opts.Bind
	if cfg.Bind != nil {
		bind = cfg.Bind
	}
	if bind == nil && cfg.TCP == nil || m.opts.Dial != nil {
		return nil
	}
	d := m.quiet
	if k := cfg.TCP; k != nil {
		orSystem := func(v time.Duration) time.Duration {
			if v == 0 {
				return -1
			}
			return v
		}
		d.KeepAliveConfig = net.KeepAliveConfig{
			Enable: true, Idle: orSystem(k.Idle), Interval: orSystem(k.Interval), Count: k.Probes,
		}
		if k.Probes == 0 {
			d.KeepAliveConfig.Count = -1
		}
	}
	if bind == nil {
		return d.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return bind.dial(ctx, d, network, address)
	}
}

// dialWithin opens connections without probes, which Go would send and Envoy does not, as long
// as there are descriptors for hosts. That is asked before a socket is connected: one that a
// host does not answer has its descriptor meanwhile.
func dialWithin(line *descriptors.Line) net.Dialer {
	return net.Dialer{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) (short error) {
		err := c.Control(func(fd uintptr) {
			if line.Beyond(uint64(fd)) {
				short = errDescriptors
			}
		})
		return cmp.Or(err, short)
	}}
}

// errDescriptors is why a connection is not made that would take a descriptor which is kept
// for what is not for hosts.
var errDescriptors = errors.New("file descriptors are short")

// isShort tells whether we, and not a host, are why there is no connection.
func isShort(err error) bool {
	return errors.Is(err, errDescriptors) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// connect opens a transport connection to the host.
func (h *Host) connect(ctx context.Context, s *settings) (net.Conn, error) {
	t, dial := h.target.Load(), h.cluster.m.dial
	if s.dial != nil {
		dial = s.dial
	}
	if addresses := h.addresses(t, s.Eyeballs); len(addresses) > 1 {
		return h.dialAny(ctx, dial, addresses)
	}
	return dial(ctx, t.network, t.address)
}

// retireConns closes the idle connections; those in use are not pooled again.
func (h *Host) retireConns() {
	for _, p := range h.everyPool() {
		p.mu.Lock()
		for c := range p.all {
			c.condemned.Store(true)
		}
		p.mu.Unlock()
		p.closeIdle()
	}
}

// outdate has the requests that wait for a connection wait for one of what is spoken now.
func (h *Host) outdate() {
	for _, p := range h.everyPool() {
		p.purge(p.failed(Outdated, nil))
		p.roomFreed()
	}
}

// spent tells whether a connection has lived or served as long as it may.
func (c *Conn) spent(s *settings, now int64) bool {
	return c.served(s) || c.old(now)
}

func (c *Conn) served(s *settings) bool {
	most := s.HTTP.MaxRequestsPerConnection
	return most > 0 && c.uses.Load() >= uint64(most)
}

func (c *Conn) old(now int64) bool { return c.until > 0 && now >= c.until }

// idleFor is how long a shared connection carried nothing, below 0 where it carries
// something, or began to after now.
func (c *Conn) idleFor(now int64) int64 {
	if c.carries.Load() > 0 {
		return -1
	}
	return now - c.HTTP2.IdleSince()
}

// lifetime is when a connection that is made now has lived long enough, 0 for
// never. The jitter keeps connections that were made together from ending so.
func (s *settings) lifetime() int64 {
	o := &s.HTTP
	if o.MaxConnectionDuration <= 0 {
		return 0
	}
	return monotonic() + int64(jittered(o.MaxConnectionDuration, o.MaxConnectionJitter))
}
