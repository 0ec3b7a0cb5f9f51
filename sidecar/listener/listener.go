package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/authz"
	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// listener is one listener through all its configurations: its socket, the
// snapshot that new connections get, and the connections.
type listener struct {
	m    *Manager
	name string
	sock *Socket

	ctx  context.Context // ends when the listener's connections must
	stop context.CancelFunc
	wg   sync.WaitGroup // accept loop and connections

	mu      sync.Mutex
	current *snapshot
	conns   map[*tracked]struct{}
	removed bool // no longer accepts
	retired bool // the listener's own reference on current is gone
	// loop is closed when the accept loop of the current socket has ended.
	loop chan struct{}
}

// tracked is a connection that is being served.
type tracked struct {
	conn *downstream.Conn
	snap *snapshot // keeps the chain alive
	// chain is what the connection is authorized by: its own chain, or the one
	// that replaced it. Guarded by listener.mu.
	chain *chain
	// match is what the connection's chain, and its replacement, is found by.
	match target
}

func newListener(m *Manager, name string) *listener {
	l := &listener{m: m, name: name, conns: map[*tracked]struct{}{}}
	l.ctx, l.stop = context.WithCancel(m.ctx)
	return l
}

// bind takes a socket: that of a listener which is being removed, where it has
// the address, or a new one.
func (l *listener) bind(cfg *Config, removed []*listener) error {
	for _, old := range removed {
		if s := old.sock; s != nil && s.key.network == cfg.Network && s.key.address == cfg.Address && s.key.owner == "" {
			// The old loop has ended before the socket goes on, so that no
			// connection ends up with neither.
			<-old.loop
			l.m.opts.Sockets.adopt(s, l.name)
			s.Resume()
			l.sock = s
			return nil
		}
	}
	sock, err := l.m.opts.Sockets.Listen(l.name, cfg.Network, cfg.Address)
	if err != nil {
		return err
	}
	l.sock = sock
	return nil
}

func (l *listener) addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sock.Addr()
}

func (l *listener) startAccepting() {
	l.mu.Lock()
	sock, done := l.sock, make(chan struct{})
	l.loop = done
	l.mu.Unlock()
	l.wg.Go(func() { l.acceptLoop(sock, done) })
}

// stopAccepting ends the accept loop and keeps the socket for a successor.
func (l *listener) stopAccepting() {
	l.mu.Lock()
	was := l.removed
	l.removed = true
	sock := l.sock
	l.mu.Unlock()
	if !was {
		sock.Interrupt()
	}
}

// update swaps the configuration. New connections get the new one; those that
// exist keep their chain's handler and are authorized by the chain that they
// would get now.
func (l *listener) update(next *snapshot) error {
	l.mu.Lock()
	old := l.current
	if old.cfg.Network != next.cfg.Network || old.cfg.Address != next.cfg.Address {
		l.mu.Unlock()
		return l.move(next)
	}
	l.current = next
	l.mu.Unlock()
	old.release()
	l.recheck()
	return nil
}

// move binds the new address before the old one is given up.
func (l *listener) move(next *snapshot) error {
	sock, err := l.m.opts.Sockets.Listen(l.name, next.cfg.Network, next.cfg.Address)
	if err != nil {
		next.release()
		return err
	}
	l.mu.Lock()
	oldSock, old, oldLoop := l.sock, l.current, l.loop
	l.sock, l.current = sock, next
	l.mu.Unlock()
	l.startAccepting()
	oldSock.Interrupt() // its loop sees that the socket changed and ends
	<-oldLoop
	_ = oldSock.Close()
	old.release()
	l.recheck()
	return nil
}

// retire drains a removed listener: it gives up the socket, asks connections to
// finish, and after the drain time closes what is left.
func (l *listener) retire() {
	<-l.loop
	_ = l.sock.Close()
	l.mu.Lock()
	first := !l.retired
	l.retired = true
	current := l.current
	l.mu.Unlock()
	if first {
		current.release()
	}
	for _, t := range l.established() {
		t.conn.StartDrain()
	}
	l.m.wg.Go(l.finishDrain)
}

func (l *listener) finishDrain() {
	idle := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(idle)
	}()
	timer := time.NewTimer(l.m.opts.DrainTime)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		l.closeAll(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "drain_time"})
	case <-l.m.ctx.Done():
		l.closeAll(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "shutdown"})
	}
	// Connections that were still shaking hands end here too.
	l.stop()
	<-idle
	l.m.mu.Lock()
	delete(l.m.gone, l)
	l.m.mu.Unlock()
	l.m.countListeners()
}

// shut releases what the listener holds once its connections have ended.
func (l *listener) shut() {
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	first := !l.retired
	l.retired = true
	current := l.current
	l.mu.Unlock()
	if first {
		_ = l.sock.Close()
		if current != nil {
			current.release()
		}
	}
}

func (l *listener) established() []*tracked {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*tracked, 0, len(l.conns))
	for t := range l.conns {
		out = append(out, t)
	}
	return out
}

func (l *listener) closeAll(e downstream.Ending) {
	for _, t := range l.established() {
		t.conn.End(e)
	}
}

// closeByPolicy ends a connection because a policy or an identity changed.
func (l *listener) closeByPolicy(t *tracked, reason, rule string) {
	l.m.say("connection closed", "listener", l.name, "reason", reason, "rule", rule,
		"src", addrString(t.conn.Info.Remote), "src_id", t.conn.Info.PeerID)
	if l.m.opts.Metrics != nil {
		l.m.opts.Metrics.PolicyClosed(l.name, reason)
	}
	t.conn.End(downstream.Ending{Flags: telemetry.FlagPolicyClosed, Reason: reason, Rule: rule})
}

func addrString(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// recheck decides anew for every connection by the chain it would get now, and
// closes those that are denied, or all of whose requests are. A connection that no chain wants any more is
// asked to finish, as Envoy does with a chain that is removed.
func (l *listener) recheck() int {
	l.mu.Lock()
	snap := l.current
	var denied, orphans []*tracked
	rules := map[*tracked]string{}
	for t := range l.conns {
		c := snap.tree.find(&t.match)
		if c == nil {
			orphans = append(orphans, t)
			continue
		}
		t.chain = c
		before := t.conn.Rules()
		t.conn.SetRequestAuthz(c.request)
		if !c.admits(t.conn.Info) {
			denied = append(denied, t)
			rules[t] = peerNotAdmitted
			continue
		}
		if d := c.network.CheckConn(&t.conn.AuthzPeer); !d.Allowed {
			denied = append(denied, t)
			rules[t] = d.Rule
			continue
		}
		if rule, is := newlyDenied(&t.conn.AuthzPeer, before, c.request); is {
			denied = append(denied, t)
			rules[t] = rule
		}
	}
	l.mu.Unlock()
	for _, t := range denied {
		l.closeByPolicy(t, "denied", rules[t])
	}
	for _, t := range orphans {
		t.conn.StartDrain()
	}
	return len(denied)
}

// newlyDenied tells whether the rules for requests leave a peer nothing that it may ask
// for, where those before did: the streams that it has open end too. A peer that never
// might gets its answer request by request, which says why.
func newlyDenied(p *authz.Peer, before, now *authz.Evaluator) (rule string, denied bool) {
	if rule, denied = now.DeniesAll(p); !denied {
		return "", false
	}
	_, was := before.DeniesAll(p)
	return rule, !was
}

// watchExpiry looks at the certificates behind connections: HTTP drains when the
// peer's has expired, TCP goes on and is logged.
func (m *Manager) watchExpiry() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := map[uint64]bool{}
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-tick.C:
			m.expire(now, told)
		}
	}
}

func (m *Manager) expire(now time.Time, told map[uint64]bool) {
	live := map[uint64]bool{}
	for _, l := range m.all() {
		for _, t := range l.established() {
			info := t.conn.Info
			if info.PeerNotAfter.IsZero() || now.Before(info.PeerNotAfter) {
				continue
			}
			live[t.conn.ID] = true
			if told[t.conn.ID] {
				continue
			}
			told[t.conn.ID] = true
			m.log.Info("the certificate that opened a connection has expired", "listener", l.name, "src_id", info.PeerID,
				"expired", info.PeerNotAfter.Format(time.RFC3339))
			l.mu.Lock()
			http := t.chain.http()
			l.mu.Unlock()
			action := "logged"
			if http {
				t.conn.StartDrain()
				action = "drained"
			}
			if m.opts.Metrics != nil {
				m.opts.Metrics.PeerExpired(l.name, action)
			}
		}
	}
	for id := range told {
		if !live[id] {
			delete(told, id)
		}
	}
}

// say logs about one connection, at a bounded rate.
func (m *Manager) say(msg string, args ...any) {
	if m.limit.Allow() {
		m.log.Info(msg, args...)
	}
}

// peerNotAdmitted stands for a rule where the TLS context refuses the peer.
const peerNotAdmitted = "peer not admitted"

// errDenied is why a connection is not served.
var errDenied = errors.New("denied")

// socketConn is what Accept gives, as streams take it.
func socketConn(c net.Conn) (stream.Conn, error) {
	sc, ok := c.(stream.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T is no socket", c)
	}
	return sc, nil
}
