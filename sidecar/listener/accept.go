package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/verify"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// acceptLoop takes connections until the listener stops or its socket changes.
// Running out of file descriptors is waited out: connections that end free some.
func (l *listener) acceptLoop(sock *Socket, done chan struct{}) {
	defer close(done)
	const first, most = 5 * time.Millisecond, time.Second
	pause := first
	for {
		c, err := sock.Accept()
		if err == nil {
			pause = first
			l.wg.Go(func() { l.serve(c) })
			continue
		}
		l.mu.Lock()
		over := l.removed || l.sock != sock
		l.mu.Unlock()
		if over || errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // interrupted for another listener of this address, and resumed
		}
		if m := l.m.opts.Metrics; m != nil {
			m.AcceptFailed(l.name, acceptReason(err))
		}
		l.m.say("cannot accept", "listener", l.name, "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, most)
	}
}

// serve takes one connection from its first byte to its end.
func (l *listener) serve(c net.Conn) {
	accepted := time.Now()
	l.mu.Lock()
	snap := l.current
	snap.refs.Add(1)
	l.mu.Unlock()
	defer snap.release()
	if l.m.opts.Metrics != nil {
		l.m.opts.Metrics.Accepted(l.name)
	}
	generation, id := l.m.currentGeneration()
	// A peer that is silent while it is inspected must not hold up the end.
	stop := context.AfterFunc(l.ctx, func() { _ = c.Close() })
	defer stop()
	a := &arrival{l: l, snap: snap, accepted: accepted, id: id, generation: generation}
	t, err := a.receive(c)
	if err != nil {
		_ = c.Close()
		return
	}
	l.run(t, a.chain.handler)
}

// run serves a registered connection and takes it off the register. The handler
// is that of the snapshot serve holds: an update may give t another chain from
// the moment it is registered.
func (l *listener) run(t *tracked, handler downstream.Handler) {
	ctx, cancel := context.WithCancel(l.ctx)
	// Whoever ends the listener's context ends its connections.
	stop := context.AfterFunc(ctx, func() { _ = t.conn.Stream.Close() })
	defer func() {
		// A fault in serving one connection ends that connection and no other.
		if fault := recover(); fault != nil {
			l.m.log.Error("serving a connection failed", "listener", l.name, "service", t.conn.Service,
				"src", addrString(t.conn.Info.Remote), "err", fault, "stack", string(debug.Stack()))
		}
		stop()
		cancel()
		_ = t.conn.Stream.Close()
		t.conn.PeerMetrics.ConnectionClosed(t.conn.Shard)
		l.mu.Lock()
		delete(l.conns, t)
		l.mu.Unlock()
	}()
	t.conn.PeerMetrics.ConnectionOpened(t.conn.Shard)
	handler.ServeStream(ctx, t.conn)
}

// arrival is a connection on its way to its handler.
type arrival struct {
	l          *listener
	snap       *snapshot
	accepted   time.Time
	id         uint64
	generation uint64
	match      target
	chain      *chain
}

// receive inspects, chooses the chain, shakes hands and authorizes. What it
// refuses it has logged and counted.
func (a *arrival) receive(c net.Conn) (*tracked, error) {
	sc, err := socketConn(c)
	if err != nil {
		return nil, err
	}
	info := &stream.Info{Local: c.LocalAddr(), Remote: c.RemoteAddr()}
	a.match = targetOf(c)
	if a.snap.cfg.OriginalDst {
		if dst, ok := originalDestination(sc, a.match.destination); ok {
			a.match.destination = dst
		}
	}
	if a.snap.inspect {
		hello, err := inspectTLS(sc, a.accepted.Add(a.snap.timeout))
		switch {
		case err == nil:
			a.match.transport, a.match.serverName, a.match.alpn = "tls", hello.serverName, hello.alpn
		case errors.Is(err, errNotTLS):
			a.match.transport = "raw_buffer"
		default:
			return nil, a.refuse(info, telemetry.FlagTLSFailure, "client_hello", err)
		}
	}
	a.chain = a.snap.tree.find(&a.match)
	if a.chain == nil {
		reason := "no_filter_chain"
		if a.snap.anyTLS && a.match.transport == "raw_buffer" {
			reason = "plaintext"
		}
		return nil, a.refuse(info, telemetry.FlagNoRoute, reason,
			fmt.Errorf("no filter chain for server name %q, transport %s", a.match.serverName, a.match.transport))
	}
	s, err := a.open(sc, info)
	if err != nil {
		return nil, err
	}
	return a.admit(s, func() { reset(c) })
}

// reset ends a connection with a TCP reset: nothing waits, nothing is flushed.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func targetOf(c net.Conn) target {
	t := target{transport: "raw_buffer", local: true}
	local, lok := c.LocalAddr().(*net.TCPAddr)
	remote, rok := c.RemoteAddr().(*net.TCPAddr)
	if lok && rok {
		t.destination, t.source = unmapped(local.AddrPort()), unmapped(remote.AddrPort())
		t.direct = t.source.Addr()
		t.local = t.source.Addr() == t.destination.Addr() || t.source.Addr().IsLoopback()
	}
	return t
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// open makes the stream: the socket itself, or TLS on it.
func (a *arrival) open(c stream.Conn, info *stream.Info) (stream.Stream, error) {
	if a.chain.tls == nil {
		return stream.NewSocket(c, info)
	}
	if a.snap.inspect && a.match.transport == "raw_buffer" {
		return nil, a.refuse(info, telemetry.FlagTLSFailure, "plaintext", errors.New("plaintext on an mTLS listener"))
	}
	t, err := stream.ServerTLS(c, nil, a.chain.tls)
	if err != nil {
		return nil, err
	}
	// The handshake grows the stack, and the stack of a goroutine shrinks late:
	// it runs on one of its own.
	ctx, cancel := context.WithTimeout(a.l.ctx, a.l.m.opts.HandshakeTimeout)
	defer cancel()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- t.Handshake(ctx) }()
	if err := <-done; err != nil {
		reason := handshakeReason(err)
		a.countHandshake("failed", reason, 0, 0)
		return nil, a.refuse(info, telemetry.FlagTLSFailure, reason, err)
	}
	a.countHandshake("ok", "", t.Info().TLSVersion, time.Since(began))
	t.SetOwnID(a.chain.ownID)
	return t, nil
}

func (a *arrival) countHandshake(result, reason string, version uint16, took time.Duration) {
	if m := a.l.m.opts.Metrics; m != nil {
		m.Handshake(result, reason, version, took)
	}
}

// admit authorizes the connection and registers it. Both happen under the
// listener's lock, so that a change of policy either is seen here or sees the
// connection.
func (a *arrival) admit(s stream.Stream, abort func()) (*tracked, error) {
	info := s.Info()
	f := downstream.Facts{
		ID: a.id, Stream: s, Info: info, Abort: abort,
		Listener: a.l.name, Chain: a.chain.cfg.Name, Direction: telemetry.Direction(a.snap.cfg.Direction),
		Workload: a.chain.workload, Service: a.chain.service, Upstream: a.snap.cfg.Upstream,
		Destination: a.match.destination, Accepted: a.accepted,
		Shard: telemetry.NextShard(), Metrics: a.chain.metrics,
		AuthzPeer: authz.NewPeer(info, a.match.destination),
	}
	if a.chain.metrics != nil {
		peer := telemetry.PeerName(info.PeerID)
		if f.Direction == telemetry.Outbound && f.Upstream != "" {
			peer = f.Upstream
		}
		f.PeerMetrics = a.chain.metrics.Peer(peer)
	}
	a.l.mu.Lock()
	chain, orphan := a.chain, false
	if now := a.l.current; now != a.snap {
		// The configuration changed meanwhile: the handler stays, authorization
		// is what holds now.
		if c := now.tree.find(&a.match); c != nil {
			chain = c
		} else {
			orphan = true
		}
	}
	f.Decision = chain.network.CheckConn(&f.AuthzPeer)
	admitted := chain.admits(info)
	conn := downstream.New(f, chain.request)
	t := &tracked{conn: conn, snap: a.snap, chain: a.chain, match: a.match}
	ended := a.l.ctx.Err() != nil
	ok := f.Decision.Allowed && admitted && !ended
	if ok {
		a.l.conns[t] = struct{}{}
	}
	removed := a.l.removed
	a.l.mu.Unlock()
	f.Decision.Count(f.Shard)
	if ended {
		return nil, errDenied
	}
	if !ok {
		if !admitted {
			f.Decision.Rule = peerNotAdmitted
		}
		a.deny(conn, f.Decision)
		return nil, errDenied
	}
	if reason, yes := a.l.m.withdrawnSince(a.generation, conn.Workload, info); yes {
		a.l.closeByPolicy(t, reason, "")
	}
	if removed || orphan || a.l.m.opts.Drain.Draining() {
		conn.StartDrain()
	}
	return t, nil
}

// deny logs a connection that authorization refuses and closes it.
func (a *arrival) deny(conn *downstream.Conn, d authz.Decision) {
	r := conn.NewRecord()
	r.ConnectionTermination = "rbac_access_denied"
	r.Denied, r.Rule = true, d.Rule
	r.Duration = time.Since(a.accepted)
	a.log(r)
	a.l.m.say("connection denied", "listener", a.l.name, "service", conn.Service, "src", addrString(conn.Info.Remote),
		"src_id", conn.Info.PeerID, "rule", d.Rule)
	_ = conn.Stream.Close()
}

// refuse logs a connection that never became one, and returns err.
func (a *arrival) refuse(info *stream.Info, flags telemetry.Flags, reason string, err error) error {
	cfg := a.snap.cfg
	r := telemetry.NewRecord()
	r.Start, r.Duration = a.accepted, time.Since(a.accepted)
	r.Direction, r.Listener, r.Workload, r.Service = telemetry.Direction(cfg.Direction), a.l.name, cfg.Workload, cfg.Service
	if a.chain != nil {
		r.Chain, r.Workload, r.Service = a.chain.cfg.Name, a.chain.workload, a.chain.service
	}
	r.ConnectionID, r.SNI = a.id, a.match.serverName
	r.DownstreamRemote, r.DownstreamDirect, r.DownstreamLocal = info.Remote, info.Remote, info.Local
	r.Flags, r.ConnectionTermination, r.TransportFailure = flags, reason, err.Error()
	a.log(r)
	if m := a.l.m.opts.Metrics; m != nil {
		m.Refused(a.l.name, reason)
	}
	a.l.m.say("connection refused", "listener", a.l.name, "src", addrString(info.Remote),
		"src_id", claimedID(err), "reason", reason, "err", err)
	return err
}

// log writes a record where the chain's, and the listener's, records go.
func (a *arrival) log(r *telemetry.Record) {
	if a.chain != nil {
		a.chain.log.Log(r)
	}
	a.snap.log.Log(r)
	r.Release()
}

// handshakeReason is a word for a counter; what a peer sends decides only which
// of these it is.
func handshakeReason(err error) string {
	var verification *verify.Error
	var own *tlsconf.OwnError
	var denied *tlsconf.DeniedError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &verification):
		return "verify_" + string(verification.Rule)
	case errors.As(err, &own):
		return "no_own_identity"
	case errors.As(err, &denied):
		return "peer_not_allowed"
	case errors.As(err, &record):
		return "plaintext"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "closed_by_peer"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case stream.IsTimeout(err):
		return "timeout"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return "peer_alert"
	}
	if errors.As(err, &op) {
		return "connection"
	}
	return "handshake"
}

// claimedID is the SPIFFE ID in a failed handshake, when one could be read.
func claimedID(err error) string {
	var verification *verify.Error
	var denied *tlsconf.DeniedError
	switch {
	case errors.As(err, &verification):
		return verification.ID
	case errors.As(err, &denied):
		return denied.Peer.String()
	}
	return ""
}

func acceptReason(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no_file_descriptor"
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return "no_memory"
	case errors.Is(err, syscall.ECONNABORTED):
		return "aborted"
	}
	return "other"
}
