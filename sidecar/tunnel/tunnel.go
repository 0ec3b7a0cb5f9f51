// Package tunnel serves byte streams that come as CONNECT streams of one HTTP/2
// connection (RFC 9113 8.5): between two sidecars, a handshake and its memory are paid
// once for all connections from one identity to one instance. Each stream is served
// like a connection of its own, with the identity that the handshake proved.
package tunnel

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/hauberk-mesh/hauberk/sidecar/cluster"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
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
		cfg.OnGlitch = func(g http2.Glitch) { metrics.Glitches.With(g.String()).Inc(0) }
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

// Carries tells whether a connection is served stream by stream.
func (h *Handler) Carries(info *stream.Info) bool { return info.ALPN == cluster.TunnelALPN }

// Inner is who serves byte streams.
func (h *Handler) Inner() downstream.Handler { return h.inner }

// ServeStream implements downstream.Handler. The owner of a connection that Carries is a
// downstream.Carrier.
func (h *Handler) ServeStream(ctx context.Context, d *downstream.Conn) {
	if !h.Carries(d.Info) {
		h.inner.ServeStream(ctx, d)
		return
	}
	c := &conn{d: d}
	cfg := *h.cfg
	cfg.Workers = d.Server().Workers // a tunnel is a connection as others are
	c.sc = http2.NewServer(d.Stream, &cfg, c)
	d.OnDrain(c)
	err := c.sc.Serve(ctx)
	byPeer, busy := c.sc.Ended()
	if d.EndedBy(byPeer); busy {
		d.CutOff()
	}
	d.OnDrain(nil)
	var fault *http2.ConnError
	if errors.As(err, &fault) && fault.Err == nil && !fault.Remote && h.metrics != nil {
		h.metrics.ProtocolErrors.With("downstream", fault.Reason).Inc(d.Shard)
	}
}

// conn is a connection that carries tunnels.
type conn struct {
	d      *downstream.Conn
	sc     *http2.ServerConn
	server atomic.Pointer[downstream.Server] // of the newest tunnel
}

// Drain implements downstream.Drainer: no new tunnels; those that there are go on, as
// connections do, until the drain ends.
func (c *conn) Drain() { c.sc.Drain() }

// ServeStream implements http2.Handler. It returns when the tunnel is finished or waits
// for bytes without a goroutine.
func (c *conn) ServeStream(s *http2.Stream) {
	if req := s.Request(); req.Method != "CONNECT" || req.Upgrade != "" {
		c.d.Refuse("no_tunnel")
		refuse(s, 405)
		return
	}
	in, refusal := c.d.Carry()
	switch refusal {
	case downstream.Admitted:
	case downstream.Elsewhere:
		// The peer reads in this order: it does not try here again.
		c.sc.Drain()
		s.Reset(http2.RefusedStream)
		return
	default:
		refuse(s, 503)
		return
	}
	if s.WriteHead(&message.Response{Status: 200, ContentLength: message.UnknownLength}, false) != nil || s.Flush() != nil {
		in.Owner.Finished(nil)
		return
	}
	t := http2.NewTunnel(s, c.d.Info)
	s.Keep()
	child := c.d.Child(t, in.Place, c.serverOf(in.Handler), owner{in.Owner})
	child.PeerMetrics.ConnectionOpened(child.Shard)
	child.Serve()
}

func refuse(s *http2.Stream, status int) {
	_ = s.WriteHead(&message.Response{Status: status}, true)
	_ = s.Flush()
}

// serverOf is who serves by a handler: the same for all tunnels, until the listener is
// updated.
func (c *conn) serverOf(h downstream.Handler) *downstream.Server {
	server := c.server.Load()
	if server == nil || server.Handler != h {
		server = c.d.Server().With(h)
		c.server.Store(server)
	}
	return server
}

// owner gives the stream of a tunnel back when its connection is finished.
type owner struct{ downstream.Owner }

// Finished implements downstream.Owner.
func (o owner) Finished(child *downstream.Conn) {
	o.Owner.Finished(child)
	child.Stream.(*http2.Tunnel).Release()
}
