// Package tunnel serves byte streams that come as CONNECT streams of one HTTP/2
// connection (RFC 9113 8.5): between two sidecars, a handshake and its memory are paid
// once for all connections from one identity to one instance. Each stream is served
// like a connection of its own, with the identity that the handshake proved.
package tunnel

import (
	"context"
	"errors"
	"io"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// Handler serves the connections of a filter chain whose terminal filter takes byte
// streams: those on which ALPN agreed on tunnels stream by stream, all others as they
// are.
type Handler struct {
	inner   downstream.Handler
	cfg     *http2.Config
	metrics *telemetry.Metrics
}

// New returns a handler in front of inner, which it closes with itself. metrics may be
// nil; log is slog.Default when nil.
func New(inner downstream.Handler, metrics *telemetry.Metrics) *Handler {
	// A tunnel may be as idle as the connection it stands for: nothing bounds its life
	// here.
	cfg := http2.ForTunnels()
	if metrics != nil {
		cfg.OnGlitch = func(g http2.Glitch) { metrics.ProtocolErrors.With("downstream", "http2_"+g.String()).Inc(0) }
	}
	return &Handler{inner: inner, cfg: cfg, metrics: metrics}
}

// Close implements io.Closer.
func (h *Handler) Close() error {
	if c, ok := h.inner.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// ServeStream implements downstream.Handler.
func (h *Handler) ServeStream(ctx context.Context, d *downstream.Conn) {
	if d.Info.ALPN != cluster.TunnelALPN {
		h.inner.ServeStream(ctx, d)
		return
	}
	c := &conn{d: d, server: d.Server().With(h.inner)}
	c.sc = http2.NewServer(d.Stream, h.cfg, c)
	d.OnDrain(c)
	err := c.sc.Serve(ctx)
	d.OnDrain(nil)
	var fault *http2.ConnError
	if errors.As(err, &fault) && fault.Err == nil && !fault.Remote && h.metrics != nil {
		h.metrics.ProtocolErrors.With("downstream", fault.Reason).Inc(d.Shard)
	}
}

// conn is a connection that carries tunnels.
type conn struct {
	d      *downstream.Conn
	server *downstream.Server // of the tunnels
	sc     *http2.ServerConn
}

// Drain implements downstream.Drainer: no new tunnels; those that there are go on, as
// connections do, until the drain ends.
func (c *conn) Drain() { c.sc.Drain() }

// ServeStream implements http2.Handler. It returns when the tunnel is finished or waits
// for bytes without a goroutine.
func (c *conn) ServeStream(s *http2.Stream) {
	if req := s.Request(); req.Method != "CONNECT" || req.Upgrade != "" {
		_ = s.WriteHead(&message.Response{Status: 405}, true)
		_ = s.Flush()
		return
	}
	if s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false) != nil || s.Flush() != nil {
		return
	}
	t := http2.NewTunnel(s, c.d.Info)
	s.Keep()
	child := c.d.Child(t, c.server, c)
	child.PeerMetrics.ConnectionOpened(child.Shard)
	child.Serve()
}

// Finished implements downstream.Owner, of the tunnels.
func (c *conn) Finished(child *downstream.Conn) {
	child.PeerMetrics.ConnectionClosed(child.Shard)
	child.Stream.(*http2.Tunnel).Release()
}
