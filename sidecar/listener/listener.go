package listener

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

// listener is one listener through all its configurations: its sockets, the
// snapshot that new connections get, and the connections.
type listener struct {
	m    *Manager
	name string

	ctx  context.Context // ends when the listener's connections must
	stop context.CancelFunc
	wg   sync.WaitGroup // accept loops and connections

	mu      sync.Mutex
	socks   []*bound // in the order of the addresses; none when unbound
	current *snapshot
	conns   map[*tracked]struct{}
	// arriving are connections that are not in conns yet, or only just, with the
	// generation of withdrawals that they began in. open counts those in either once.
	arriving map[net.Conn]uint64
	open     int64
	removed  bool // no longer accepts
	retired  bool // the listener's own reference on current is gone
	// judged is current where Judge has brought that, with a reference of its own; finished: nothing
	// is served any more.
	judged   *snapshot
	finished bool
}

// bound is a socket and its accept loop.
type bound struct {
	sock  *Socket
	addr  Address
	given bool          // to be given up; guarded by listener.mu
	done  chan struct{} // closed when the loop has ended; nil before it began
}

// tracked is a connection that is being served.
type tracked struct {
	conn downstream.Conn
	l    *listener
	snap *snapshot // keeps the chain alive
	own  *chain    // whose handler serves the connection, and in whose limits it has its place
	// carrier: it is no connection to anyone, but brings them. placed: it has a place in
	// the limits of own still. Guarded by listener.mu.
	carrier, placed bool
	// chain is what the connection is authorized by: its own chain, or the one
	// that replaced it. Guarded by listener.mu.
	chain *chain
	// ends is when it is closed at the latest, zero for never. Guarded by listener.mu.
	ends time.Time
	// sought is, with what conn knows, how the connection's chain, and its
	// replacement, is found.
	sought sought
	exempt overload.Exempt
}

// target is what a chain is found by, now as when the connection arrived.
func (t *tracked) target() *target {
	out := &target{destination: t.conn.Destination, direct: t.conn.Peer.Direct, sought: t.sought}
	if remote, ok := t.conn.Info.Remote.(*net.TCPAddr); ok {
		out.source = unmapped(remote.AddrPort())
	}
	return out
}

func newListener(m *Manager, name string) *listener {
	l := &listener{m: m, name: name, conns: map[*tracked]struct{}{}, arriving: map[net.Conn]uint64{}}
	l.ctx, l.stop = context.WithCancel(m.ctx)
	return l
}

// addresses of a configuration, the first one first.
func (c *Config) addresses() []Address {
	if c.Unbound {
		return nil
	}
	return append([]Address{{c.Network, c.Address, c.Socket}}, c.Additional...)
}

// bind takes sockets: those of listeners which are being removed, where they have
// the address, or new ones. On error none is held.
func (l *listener) bind(cfg *Config, removed []*listener) error {
	for i, a := range cfg.addresses() {
		sock := l.inherit(a, removed)
		if sock == nil {
			var err error
			if sock, err = l.m.opts.Sockets.Listen(l.name, i, a); err != nil {
				for _, b := range l.socks {
					_ = b.sock.Close()
				}
				l.socks = nil
				return err
			}
		}
		l.socks = append(l.socks, &bound{sock: sock, addr: a})
	}
	return nil
}

// inherit takes the socket of a removed listener. Its loop has ended before the
// socket goes on, so that no connection ends up with neither. One that was made with other options
// is closed: they would stay in force, whatever the new ones restrict. One that another has
// taken in this step is its own.
func (l *listener) inherit(a Address, removed []*listener) *Socket {
	for _, old := range removed {
		for i, b := range old.socks {
			if k := b.sock.key; k.network != a.Network || k.address != a.Address || k.owner != "" || b.sock.owner != old.name {
				continue
			}
			<-b.done
			if !reflect.DeepEqual(b.addr, a) {
				old.mu.Lock()
				old.socks = slices.Delete(slices.Clone(old.socks), i, i+1)
				old.mu.Unlock()
				_ = b.sock.Close()
				return nil
			}
			l.m.opts.Sockets.adopt(b.sock, l.name)
			b.sock.Resume()
			return b.sock
		}
	}
	return nil
}

// addrs are where the listener is bound.
func (l *listener) addrs() []net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []net.Addr
	for _, b := range l.socks {
		out = append(out, b.sock.Addr())
	}
	return out
}

func (l *listener) startAccepting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.socks {
		if b.done == nil {
			b.done = make(chan struct{})
			l.wg.Go(func() { l.acceptLoop(b) })
		}
	}
}

// stopAccepting ends the accept loops and keeps the sockets for a successor.
func (l *listener) stopAccepting() {
	l.mu.Lock()
	was := l.removed
	l.removed = true
	socks := l.socks
	l.mu.Unlock()
	if !was {
		interrupt(socks)
	}
	l.m.relieve()
}

// interrupt has the accept loops look at what they may do.
func interrupt(socks []*bound) {
	for _, b := range socks {
		b.sock.Interrupt()
	}
}

// update swaps the configuration. New connections get the new one; those that
// exist keep their chain's handler, and what they ask for is decided by the chain
// that they would get now.
func (l *listener) update(next *snapshot, removed []*listener) error {
	gone, err := l.rebind(next.cfg, removed)
	if err != nil {
		next.release()
		return err
	}
	l.mu.Lock()
	old := l.current
	l.current = next
	socks := l.socks
	l.mu.Unlock()
	if !next.cfg.IgnoreOverload && !l.m.opts.Overload.Accepting() {
		interrupt(socks) // the old configuration may have been exempt
	}
	l.startAccepting()
	l.giveUp(gone)
	l.recheck()
	old.release() // what connections have as their chain is open while recheck looks
	return nil
}

// rebind binds the addresses that are new, or takes them over from the removed, before those are given up that no
// configuration has any more, which it returns. A listener that accepts no more has none.
func (l *listener) rebind(cfg *Config, removed []*listener) (gone []*bound, err error) {
	l.mu.Lock()
	gone = slices.Clone(l.socks)
	over := l.removed
	l.mu.Unlock()
	if over {
		return nil, nil
	}
	var keep, fresh []*bound
	for i, a := range cfg.addresses() {
		at := slices.IndexFunc(gone, func(b *bound) bool { return b.addr.Network == a.Network && b.addr.Address == a.Address })
		if at >= 0 {
			if !reflect.DeepEqual(gone[at].addr, a) {
				err = fmt.Errorf("the options of socket %s %s cannot change while it is open; remove the listener first", a.Network, a.Address)
			}
			keep = append(keep, gone[at])
			gone = slices.Delete(gone, at, at+1)
		} else if err == nil {
			sock := l.inherit(a, removed)
			if sock == nil {
				sock, err = l.m.opts.Sockets.Listen(l.name, i, a)
			}
			if err == nil {
				b := &bound{sock: sock, addr: a}
				keep, fresh = append(keep, b), append(fresh, b)
			}
		}
		if err != nil {
			for _, b := range fresh {
				_ = b.sock.Close()
			}
			return nil, err
		}
	}
	l.mu.Lock()
	l.socks = keep
	for _, b := range gone {
		b.given = true
	}
	l.mu.Unlock()
	return gone, nil
}

// giveUp closes sockets when their loops have ended.
func (l *listener) giveUp(socks []*bound) {
	interrupt(socks)
	l.m.relieve()
	for _, b := range socks {
		<-b.done
		_ = b.sock.Close()
	}
}

// closeSockets closes what the listener has bound; its loops have been told to
// end.
func (l *listener) closeSockets() {
	for _, b := range l.socks {
		if b.done != nil {
			<-b.done
		}
		_ = b.sock.Close()
	}
}

// retire drains a removed listener: it gives up the sockets, asks connections to
// finish, and after the drain time closes what is left.
func (l *listener) retire() {
	l.closeSockets()
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
	defer panics.Contain(panics.Housekeeper, nil, nil)
	idle := make(chan struct{})
	go func() {
		defer panics.Contain(panics.Housekeeper, nil, nil)
		l.wg.Wait()
		close(idle)
	}()
	timer := time.NewTimer(l.m.opts.DrainTime)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		l.end(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "drain_time"})
	case <-l.m.ctx.Done():
		l.end(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "shutdown"})
	}
	l.stop()
	<-idle
	l.finish()
	l.m.mu.Lock()
	delete(l.m.gone, l)
	if l.m.opts.Metrics != nil && !l.m.has(l.name) {
		l.m.opts.Metrics.ForgetListener(l.name)
	}
	l.m.mu.Unlock()
	l.m.countListeners()
	if l.m.opts.Drained != nil {
		l.m.opts.Drained()
	}
}

// end closes every connection, also those that are still arriving. None is
// admitted once the context has ended.
func (l *listener) end(e downstream.Ending) {
	l.stop()
	l.closeAll(e)
	l.mu.Lock()
	arriving := slices.Collect(maps.Keys(l.arriving))
	l.mu.Unlock()
	for _, c := range arriving {
		_ = c.Close()
	}
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
		l.closeSockets()
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

// closeAll ends the established connections; it returns how many had not been ended yet.
func (l *listener) closeAll(e downstream.Ending) (n int64) {
	for _, t := range l.established() {
		if t.conn.End(e) {
			n++
		}
	}
	return n
}

// closeByPolicy ends a connection because a policy or an identity changed. One that was
// ended before, and whose handler has not returned yet, is not told of again.
func (l *listener) closeByPolicy(t *tracked, reason, rule string) (first bool) {
	if !t.conn.End(downstream.Ending{Flags: telemetry.FlagPolicyClosed, Reason: reason, Rule: rule}) {
		return false
	}
	l.m.say("connection closed", "listener", l.name, "reason", reason, "rule", rule,
		"src", addrString(t.conn.Info.Remote), "src_id", t.conn.Info.PeerID)
	if l.m.opts.Metrics != nil {
		l.m.opts.Metrics.PolicyClosed(l.name, reason)
	}
	return true
}

func addrString(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
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
