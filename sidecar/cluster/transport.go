package cluster

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"
)

// dialer is how connections are opened that need socket options; nil where the
// manager's way does.
func dialer(m *Manager, cfg *Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	source := m.opts.Bind
	if cfg.Source != nil {
		source = *cfg.Source
	}
	if !source.IsValid() && cfg.TCP == nil || m.opts.Dial != nil {
		return nil
	}
	d := &net.Dialer{KeepAlive: -1} // no probes, which Go would send
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
	var from *net.TCPAddr
	if source.IsValid() {
		from = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		own := *d
		if from != nil && strings.HasPrefix(network, "tcp") {
			own.LocalAddr = from
		}
		return own.DialContext(ctx, network, address)
	}
}

// connect opens a transport connection to the host.
func (h *Host) connect(ctx context.Context, s *settings) (net.Conn, error) {
	t, dial := h.target.Load(), h.cluster.m.dial
	if s.dial != nil {
		dial = s.dial
	}
	if others := h.others.Load(); others != nil && len(*others) > 0 {
		return h.dialAny(ctx, dial, append([]string{t.address}, *others...))
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
