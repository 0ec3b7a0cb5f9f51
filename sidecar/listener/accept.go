package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/tlsconf"
	"github.com/hauberk-mesh/hauberk/identity/verify"
	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/fair"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/tlscontext"
)

// acceptLoop takes connections until the listener stops or the socket is given up.
// Running out of file descriptors, where the reserve of them is used too, is waited out:
// connections that end free some.
func (l *listener) acceptLoop(b *bound) {
	defer close(b.done)
	defer panics.Contain(panics.Accept, nil, nil)
	const first, most = 5 * time.Millisecond, time.Second
	pause := first
	l.m.awaitRelief(l, b)
	for {
		c, err := b.sock.Accept()
		if err == nil {
			pause = first
			if !l.m.opts.Overload.Accepting() {
				// It came while the loop that was interrupted waited for the processor:
				// the runtime tells of what is ready rather than of the interruption.
				l.m.awaitRelief(l, b)
			}
			panics.Guard(panics.Accept, func() { l.accepted(c) })
			l.awaitRoom()
			continue
		}
		l.mu.Lock()
		over := l.removed || b.given
		l.mu.Unlock()
		if over || errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Interrupted, because of overload.
			l.m.awaitRelief(l, b)
			continue
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

// accepted starts serving a connection, unless a limit or an overload forbids it.
func (l *listener) accepted(c net.Conn) {
	if m := l.m.opts.Metrics; m != nil {
		m.Accepted(l.name)
	}
	generation, id := l.m.currentGeneration()
	a, refused := l.arrives(c, generation)
	if a == nil {
		_ = c.Close()
		if refused != "" {
			l.countRefused(refused)
		}
		return
	}
	a.id = id
	l.m.workers.Run(a)
}

// arrives enters a connection among those that arrive. It returns nil where the
// listener has ended, or there may be no more of them, which refused tells.
func (l *listener) arrives(c net.Conn, generation uint64) (a *arrival, refused string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return nil, "" // whoever ended the listener has closed those that were arriving
	}
	snap := l.current
	exempt := snap.exempt()
	if !exempt.Actions && l.m.tooMany(c) {
		return nil, "file_descriptors"
	}
	if refused = l.m.opts.Overload.Admit(l.name, l.open, exempt); refused != "" {
		return nil, refused
	}
	l.open++
	snap.refs.Add(1)
	l.arriving[c] = generation
	l.wg.Add(1)
	return &arrival{l: l, snap: snap, accepted: time.Now(), exempt: exempt, conn: c, generation: generation}, ""
}

// arrival is a connection on its way to its handler.
type arrival struct {
	l          *listener
	snap       *snapshot
	accepted   time.Time
	exempt     overload.Exempt
	conn       net.Conn
	id         uint64
	generation uint64
	match      target
	inspected  bool // it was seen whether this is TLS
	restored   bool // match.destination is not the socket's own
	announced  *authz.Announced
	chain      *chain
	placed     bool     // in the chain's limits
	entered    *tracked // once it is among the established ones
	noted      *stream.Noted
}

// Run implements workers.Task: it takes the connection from its first byte to its end, or
// to where it waits for more without a goroutine.
func (a *arrival) Run() {
	defer panics.Contain(panics.Accept, a, nil)
	t, ok := a.received()
	if !ok {
		a.leave()
		return
	}
	t.opened()
	t.conn.Serve()
}

// opened counts a connection, but not one that only carries others.
func (t *tracked) opened() {
	if !t.carrier {
		t.conn.PeerMetrics.ConnectionOpened(t.conn.Shard)
	}
}

// received is receive, whose panics refuse the connection.
func (a *arrival) received() (t *tracked, ok bool) {
	defer panics.Contain(panics.Accept, a, func() { t, ok = nil, false })
	t, err := a.receive()
	return t, err == nil
}

// LogValue implements slog.LogValuer.
func (a *arrival) LogValue() slog.Value {
	return slog.GroupValue(slog.String("listener", a.l.name), slog.String("src", addrString(a.conn.RemoteAddr())))
}

// leave gives back what a connection that was not admitted holds.
func (a *arrival) leave() {
	if t := a.entered; t != nil {
		a.arrived()
		t.opened()
		t.Finished(&t.conn)
		return
	}
	_ = a.conn.Close()
	if a.placed {
		a.chain.leave()
	}
	l := a.l
	l.mu.Lock()
	delete(l.arriving, a.conn)
	l.open--
	l.mu.Unlock()
	l.m.opts.Overload.Leave(a.exempt)
	a.snap.release()
	l.wg.Done()
}

// receive inspects, chooses the chain, takes a place in its limits, shakes hands and
// authorizes. What it refuses it has logged and counted.
func (a *arrival) receive() (*tracked, error) {
	sc, err := socketConn(a.conn)
	if err != nil {
		return nil, err
	}
	a.match = targetOf(a.conn)
	if err := a.inspect(sc); err != nil {
		return nil, err
	}
	if a.restored && a.snap.cfg.HandOff {
		if next := a.handOff(); next != nil {
			// What reads the connection next begins where it began.
			if err := a.inspect(sc); err != nil {
				return nil, err
			}
		}
	}
	a.chain = a.snap.tree.find(&a.match)
	if a.chain == nil {
		reason := "no_filter_chain"
		if a.snap.anyTLS && a.inspected && a.match.plaintext {
			reason = "plaintext"
		}
		return nil, a.refuse(telemetry.FlagNoRoute, reason,
			fmt.Errorf("no filter chain for server name %q, transport %s", a.match.serverName, a.match.transport()))
	}
	// As in Envoy, before a handshake: whoever is one too many costs none.
	if e := a.chain.enter(); e.reason != "" {
		return nil, a.refuseExcess(e)
	}
	a.placed = true
	s, err := a.open(sc)
	if err != nil {
		return nil, err
	}
	return a.admit(s)
}

func targetOf(c net.Conn) target {
	t := target{sought: sought{plaintext: true, local: true}}
	local, lok := c.LocalAddr().(*net.TCPAddr)
	remote, rok := c.RemoteAddr().(*net.TCPAddr)
	if lok && rok {
		t.between(unmapped(remote.AddrPort()), unmapped(local.AddrPort()))
		t.direct = t.source.Addr()
	}
	return t
}

// info is what is known of the connection before any handshake. A PROXY header
// names the client; the transport's own address stays in match.direct. Where the client wanted to
// go is match.destination, whoever told of it: Local is the socket's own.
func (a *arrival) info() *stream.Info {
	i := &stream.Info{Local: a.conn.LocalAddr(), Remote: a.conn.RemoteAddr(), SNI: a.match.serverName, Noted: a.noted}
	if a.proxied() {
		i.Remote, i.Direct = net.TCPAddrFromAddrPort(a.match.source), i.Remote
	}
	return i
}

// proxied tells whether a PROXY header named the client.
func (a *arrival) proxied() bool {
	remote, ok := a.conn.RemoteAddr().(*net.TCPAddr)
	return a.match.source.IsValid() && (!ok || unmapped(remote.AddrPort()) != a.match.source)
}

// open makes the stream: the socket itself, or TLS on it.
func (a *arrival) open(c stream.Conn) (stream.Stream, error) {
	if a.chain.tls == nil {
		return stream.NewSocket(c, a.info())
	}
	if a.inspected && a.match.plaintext {
		return nil, a.refuse(telemetry.FlagTLSFailure, "plaintext", errors.New("plaintext on an mTLS listener"))
	}
	t, err := stream.ServerTLS(c, nil, a.chain.tls)
	if err == nil && (a.chain.keepsPeer || telemetry.Wanted()&telemetry.WantCertificates != 0) {
		t.KeepPeerChain()
	}
	if err != nil {
		return nil, err
	}
	if a.chain.cfg.TLS.Context != nil {
		t.KeepPeerNames()
	}
	fair.Background(fair.Handshake)
	limit := a.l.m.opts.HandshakeTimeout
	if d := a.chain.cfg.HandshakeTimeout; d > 0 {
		limit = d
	}
	began := time.Now()
	if err := a.l.shake(t, limit); err != nil {
		reason := handshakeReason(err)
		a.countHandshake("failed", reason, 0, 0)
		return nil, a.refuse(telemetry.FlagTLSFailure, reason, err)
	}
	a.countHandshake("ok", "", t.Info().TLSVersion, time.Since(began))
	if telemetry.Wanted()&telemetry.WantHandshakes != 0 {
		a.note().Secured = time.Now()
	}
	t.Info().Noted = a.noted
	if id := a.chain.ownID; id != "" {
		t.SetOwnID(id)
	}
	if a.chain.ageless {
		t.ForgetExpiry()
	}
	if a.chain.untrusted && t.Info().PeerSigner == "" {
		t.ForgetPeer()
	}
	if a.proxied() {
		t.SetRemote(a.info().Remote)
	}
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
func (a *arrival) admit(s stream.Stream) (*tracked, error) {
	info := s.Info()
	f := downstream.Facts{
		ID: a.id, Stream: s, Peer: authz.NewPeer(info, a.match.destination), Place: a.chain.place,
		Accepted: a.accepted, Shard: telemetry.NextShard(),
	}
	if a.match.direct.IsValid() {
		f.Peer.Direct = a.match.direct
	}
	f.Peer.Announced = a.announced
	f.PeerMetrics = f.MetricsOf(info)
	t, e := a.enter(f)
	e.decision.Count(f.Shard)
	switch {
	case e.ended:
		return nil, errDenied
	case a.entered == nil:
		if !e.admitted {
			e.decision.Rule = peerNotAdmitted
		} else if delay := t.chain.network.DenyDelay(&t.conn.Peer); delay > 0 {
			a.arrived() // no withdrawal is kept for it: it is never let in
			a.wait(delay)
		}
		a.deny(&t.conn, e.decision)
		return nil, errDenied
	}
	if reason, yes := a.l.m.withdrawnSince(a.generation, t.conn.Workload, info); yes {
		a.l.closeByPolicy(t, reason, "")
	}
	a.arrived()
	if e.removed || e.orphan || a.l.m.opts.Drain.Draining() && !a.snap.cfg.DrainOnChange {
		t.conn.StartDrain()
	}
	return t, nil
}

// arrived takes a connection that has entered off those that arrive: until it has been
// held against the withdrawals that its handshake may have missed, those are kept.
func (a *arrival) arrived() {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	delete(a.l.arriving, a.conn)
}

// entry is what was found when a connection was to enter.
type entry struct {
	decision authz.Decision
	admitted bool // by the TLS context
	ended    bool // the listener has
	removed  bool // it is to end
	orphan   bool // no chain would take the connection now, or as it is
}

// enter puts the connection among the established ones, which sets entered, unless
// something speaks against it.
func (a *arrival) enter(f downstream.Facts) (t *tracked, e entry) {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	chain := a.chain
	if now := a.l.current; now != a.snap {
		// The configuration changed meanwhile: the handler stays, authorization
		// is what holds now.
		if c := now.tree.find(&a.match); c != nil {
			chain = c
			e.orphan = c.http() != a.chain.http() || !c.verifiesAs(a.chain)
		} else {
			e.orphan = true
		}
	}
	t = &tracked{
		l: a.l, snap: a.snap, own: a.chain, chain: chain, sought: a.match.sought, exempt: a.exempt,
		carrier: a.chain.carries(f.Info), placed: a.placed,
	}
	t.conn.Init(f, chain.policy)
	if chain != a.chain {
		t.conn.Supersede()
	}
	e.decision = chain.network.CheckConn(&t.conn.Peer) // not f's, which would be another object
	if len(chain.cfg.RBAC) > 0 {
		decision := e.decision
		t.conn.Decision = &decision
	}
	e.admitted = chain.admits(f.Info)
	t.conn.Attach(a.chain.serverOf(a.l), t)
	e.removed, e.ended = a.l.removed, a.l.ctx.Err() != nil
	if !e.decision.Allowed || !e.admitted || e.ended {
		return t, e
	}
	if e.orphan {
		t.orphan(time.Now())
	}
	a.l.conns[t] = struct{}{}
	a.entered = t
	return t, e
}

// refuseExcess logs a connection that a limit of its chain refuses. It is closed when the
// limit says; until then it arrives still, on this goroutine, and has its place in the bounds
// of the listener and the process, as in Envoy.
func (a *arrival) refuseExcess(e excess) error {
	r := a.record(a.info())
	e.note(r)
	a.log(r)
	a.l.countRefused(e.reason)
	if e.delay > 0 {
		a.wait(e.delay)
	}
	return errDenied
}

// wait lets time pass, but not beyond the listener's end.
func (a *arrival) wait(delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.l.ctx.Done():
	}
}

// Finished implements downstream.Owner.
func (t *tracked) Finished(c *downstream.Conn) {
	l := t.l
	l.countEnd(c)
	_ = c.Stream.Close()
	if !t.carrier {
		c.PeerMetrics.ConnectionClosed(c.Shard, time.Since(c.Accepted))
		logEnd(c, t.snap)
	}
	l.mu.Lock()
	if t.placed {
		t.own.leave()
	}
	delete(l.conns, t)
	l.open--
	l.mu.Unlock()
	l.m.opts.Overload.Leave(t.exempt)
	t.snap.release()
	l.wg.Done()
}

// deny logs a connection that authorization refuses and closes it.
func (a *arrival) deny(conn *downstream.Conn, d authz.Decision) {
	r := conn.NewRecord()
	r.ConnectionTermination, r.Metadata = "rbac_access_denied", conn.Announced.Said()
	r.Denied, r.Rule = true, d.Rule
	r.Duration = time.Since(a.accepted)
	a.log(r)
	a.l.m.say("connection denied", "listener", a.l.name, "service", conn.Service, "src", addrString(conn.Info.Remote),
		"src_id", conn.Info.PeerID, "rule", d.Rule)
	_ = conn.Stream.Close()
}

// refuse logs a connection that never became one, and returns err.
func (a *arrival) refuse(flags telemetry.Flags, reason string, err error) error {
	info := a.info()
	r := a.record(info)
	r.Flags, r.ConnectionTermination, r.TransportFailure = flags, reason, err.Error()
	a.log(r)
	if m := a.l.m.opts.Metrics; m != nil {
		m.Refused(a.l.name, reason)
	}
	say := a.l.m.say
	if errors.Is(err, io.EOF) {
		say = a.l.m.log.Debug // it said nothing: a check of whether somebody listens
	}
	say("connection refused", "listener", a.l.name, "src", addrString(info.Remote),
		"src_id", claimedID(err), "reason", reason, "err", err)
	return err
}

// record describes a connection that never became one.
func (a *arrival) record(info *stream.Info) *telemetry.Record {
	cfg := a.snap.cfg
	r := telemetry.NewRecord()
	r.Start, r.Duration = a.accepted, time.Since(a.accepted)
	r.Direction, r.Listener, r.Workload, r.Service = telemetry.Direction(cfg.Direction), a.l.name, cfg.Workload, cfg.Service
	if a.chain != nil {
		r.Chain, r.Workload, r.Service = a.chain.cfg.Name, a.chain.place.Workload, a.chain.place.Service
	}
	r.ConnectionID, r.Noted, r.SNI, r.Metadata = a.id, a.noted, a.match.serverName, a.announced.Said()
	r.DownstreamRemote, r.DownstreamDirect, r.DownstreamLocal = info.Remote, a.conn.RemoteAddr(), info.Local
	r.Destination = a.match.destination
	return r
}

// log writes a record where the chain's, and the listener's, records go.
func (a *arrival) log(r *telemetry.Record) {
	if a.chain != nil {
		r.Type = telemetry.LogConnectionEnd
		a.chain.log.Log(r)
	}
	a.snap.logConnection(r)
	a.snap.refused.Log(r)
	r.Release()
}

// handshakeReason is a word for a counter; what a peer sends decides only which
// of these it is.
func handshakeReason(err error) string {
	var verification *verify.Error
	var own *tlsconf.OwnError
	var denied *tlsconf.DeniedError
	var foreign *tlscontext.VerifyError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &foreign):
		return "verify_" + foreign.Rule
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
	// Package tls has only words for it.
	if strings.HasSuffix(err.Error(), "client didn't provide a certificate") {
		return "no_certificate"
	}
	return "handshake"
}

// claimedID is the SPIFFE ID in a failed handshake, when one could be read.
func claimedID(err error) string {
	var verification *verify.Error
	var denied *tlsconf.DeniedError
	var foreign *tlscontext.VerifyError
	switch {
	case errors.As(err, &foreign):
		return foreign.Subject
	case errors.As(err, &verification):
		return verification.ID
	case errors.As(err, &denied):
		return denied.Peer.String()
	}
	return ""
}
