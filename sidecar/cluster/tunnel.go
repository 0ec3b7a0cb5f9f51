package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hauberk-mesh/hauberk/sidecar/http2"
	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// openTunnel opens a byte stream as a stream of a shared connection (RFC 9113 8.5). It
// returns nil, and no error, where the host does not carry any. The caller has counted
// the stream as a connection, and the result's Close takes it off.
func (p *pool) openTunnel(ctx context.Context, s telemetry.Shard) (*Conn, error) {
	const tries = 3 // a connection may fill up, or leave, between choice and use
	var err error
	var full []*Conn // what waits there to be written goes when the peer reads: not soon
	for range tries {
		carrier := p.takeSharedBut(full, true, monotonic())
		if carrier == nil && len(full) > 0 {
			break
		}
		if carrier == nil {
			if p.multiplexed.declined.Load() {
				return nil, nil
			}
			if carrier, err = p.connectShared(ctx, protocolTunnel, s); err != nil {
				p.uncount()
				return nil, err
			}
		}
		switch {
		case carrier == nil:
			return nil, nil
		case carrier.HTTP2 == nil:
			// The host declined, and what was made to ask is good for one stream: it counts
			// for itself.
			p.uncount()
			carrier.condemned.Store(true)
			return carrier, nil
		}
		var conn *Conn
		if conn, err = carrier.tunnel(ctx); err == nil {
			return conn, nil
		}
		carrier.Release()
		if err == http2.ErrFull {
			full = append(full, carrier)
		} else if !errors.Is(err, http2.ErrRefused) {
			break
		}
	}
	p.uncount()
	kind := ConnectRefused
	switch {
	case ctx.Err() != nil:
		kind = Canceled
		p.host.cluster.metrics.Abandoned(s, telemetry.AbandonedPending)
	case err == http2.ErrFull:
		kind = OverflowConnections
		if m := p.host.cluster.metrics; m != nil {
			m.Use().OverflowConnections.Inc(s)
		}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		kind = ConnectTimeout
	}
	return nil, &Error{Kind: kind, Cluster: p.host.cluster.name, Host: p.host.key, Err: err}
}

// authority names a host in a CONNECT request.
func (h *Host) authority() string {
	if h.Addr() == nil || h.Addr().Network() == "unix" {
		return "localhost:1"
	}
	return h.Addr().String()
}

// tunnel opens a stream on a shared connection and waits until the peer agrees.
func (c *Conn) tunnel(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.pool.host.cluster.cfg.Load().connectTimeout)
	defer cancel()
	// What the peer does with the stream its listener decides, as for a connection;
	// the authority only names it.
	s, err := c.HTTP2.Open(&message.Request{
		Method: "CONNECT", Authority: c.pool.host.authority(), ContentLength: message.UnknownLength,
	}, false)
	if err != nil {
		return nil, err
	}
	stop := interruptWith(ctx, s.Interrupt)
	var head message.Response
	err = s.Flush()
	if err == nil {
		_, err = s.ReadHead(&head)
	}
	if stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && head.Status != 200 {
		err = fmt.Errorf("the peer answered CONNECT with %d", head.Status)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	// The stream is not given back for reuse: whoever copies from the tunnel may
	// still look at it when another goroutine closes it.
	return &Conn{Stream: http2.NewTunnel(s, nil), pool: c.pool, carrier: c}, nil
}
