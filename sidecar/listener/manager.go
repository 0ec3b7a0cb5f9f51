package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/hauberk-mesh/hauberk/sidecar/downstream"
	"github.com/hauberk-mesh/hauberk/sidecar/drain"
	"github.com/hauberk-mesh/hauberk/sidecar/overload"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/stream"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
	"github.com/hauberk-mesh/hauberk/sidecar/workers"
)

// TLSProvider turns the secret names of a downstream TLS context into a
// configuration. It is asked once for each filter chain that is applied; the
// configuration itself takes the current certificate and trust bundle at each
// handshake, and verifies t.RequireClientCertificate and t.PeerIDs.
type TLSProvider interface {
	// ServerTLS returns the configuration and the SPIFFE ID that it presents, "" for one
	// that tells each connection (handshake.Presented). workload is the listener's, which
	// the secret name "default" means.
	ServerTLS(workload, listener string, t *TLS) (cfg *tls.Config, ownID string, err error)
}

// Options are a Manager's collaborators.
type Options struct {
	// NewHandler builds the terminal filter of a chain: the HTTP connection manager
	// or the TCP proxy. A handler that is an io.Closer is closed when neither the
	// listener nor a connection uses its chain any more.
	NewHandler func(*Config, *FilterChain) (downstream.Handler, error)
	TLS        TLSProvider        // nil refuses chains with TLS
	Metrics    *telemetry.Metrics // nil counts nothing
	Logs       *telemetry.Logs    // made when nil
	Log        *slog.Logger       // slog.Default when nil
	Sockets    *Sockets           // made when nil
	// Drain is the process's: when it starts, every connection, also a new one, is
	// asked to finish, and at its deadline all are closed.
	Drain *drain.Watcher
	// DrainTime is how long the connections of a removed listener may go on; 10
	// minutes when 0, as in Envoy.
	DrainTime time.Duration
	// Drained is called, with no lock held, when the last connection of a removed listener
	// has ended and Draining has it no more; nil tells nobody.
	Drained func()
	// Relieve has idle connections end soon, as descriptors get short; it does not wait. May be nil.
	Relieve func()
	// HandshakeTimeout is 10 s when 0.
	HandshakeTimeout time.Duration
	// Descriptors is how many file descriptors the process may have open: RLIMIT_NOFILE's
	// when nil. A part of them is kept from connections, but of those of listeners that are
	// exempt from overload actions. Safe for concurrent use.
	Descriptors func() uint64
	// Overload bounds connections; nil bounds nothing. Its Accept is the manager's
	// method of that name.
	Overload *overload.Manager
}

// Manager owns the listeners and their connections.
type Manager struct {
	opts    Options
	log     *slog.Logger
	ownLogs bool
	limit   *rate.Limiter // of messages about single connections

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// poller waits for idle connections; nil where the host cannot.
	poller      *stream.Poller
	workers     workers.Pool // serve connections
	descriptors reserve

	shared sharedBuckets

	// apply serialises changes of configuration. It guards over: nothing is accepted any
	// more, whatever the configuration.
	apply sync.Mutex
	over  bool

	mu        sync.Mutex
	listeners map[string]*listener
	// gone are removed listeners that still have connections.
	gone map[*listener]struct{}
	// withdrawals of the recent past, for handshakes that they overtook, however slow.
	withdrawals []withdrawal
	generation  uint64
	nextID      uint64
	// relief is closed when connections may be accepted again.
	relief chan struct{}
	held   atomic.Bool // none is accepted, whatever its listener says

	cut atomic.Int64
}

// withdrawal is a call of CloseConns.
type withdrawal struct {
	generation uint64
	at         time.Time
	match      func(workload string, info *stream.Info) bool
	reason     string
}

// mostIdleWorkers are kept: enough for connections that ask seldom, each at a time of its
// own. The stacks of the many that connect at once would lie in memory that connections
// could have instead.
const mostIdleWorkers = 32

// NewManager starts a manager; Close ends it.
func NewManager(opts Options) *Manager {
	m := &Manager{opts: opts, log: opts.Log, listeners: map[string]*listener{}, gone: map[*listener]struct{}{},
		limit: rate.NewLimiter(10, 20), workers: workers.Pool{MostIdle: mostIdleWorkers}, descriptors: newReserve(opts.Descriptors)}
	if m.log == nil {
		m.log = slog.Default()
	}
	m.log = m.log.With("component", "listener")
	if m.opts.Logs == nil {
		m.opts.Logs, m.ownLogs = telemetry.NewLogs(opts.Metrics), true
	}
	if m.opts.Sockets == nil {
		m.opts.Sockets = NewSockets(m.log)
	}
	if m.opts.DrainTime <= 0 {
		m.opts.DrainTime = 10 * time.Minute
	}
	if m.opts.HandshakeTimeout <= 0 {
		m.opts.HandshakeTimeout = 10 * time.Second
	}
	var err error
	if m.poller, err = stream.NewPoller(); err != nil {
		m.log.Warn("idle connections keep their goroutines", "err", err)
	}
	m.relief = make(chan struct{})
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.wg.Go(m.watchExpiry)
	if opts.Drain != nil {
		m.wg.Go(m.watchDrain)
	}
	return m
}

// Apply adds a listener or changes it. A change keeps the socket, unless the
// address changed, and every connection; established connections go on with what
// they started with, except for authorization, which is decided anew at once. When
// Apply fails, what was in force stays.
func (m *Manager) Apply(cfg *Config) error {
	return m.Replace(nil, []*Config{cfg})[cfg.Name]
}

// Remove stops a listener; its connections drain.
func (m *Manager) Remove(name string) { m.Replace([]string{name}, nil) }

// Replace removes and applies listeners as one change: a listener that takes the
// address of a removed one takes its socket too, and no connection attempt fails
// in between. It returns what failed, by name.
func (m *Manager) Replace(remove []string, add []*Config) map[string]error {
	m.apply.Lock()
	defer m.apply.Unlock()
	failed := map[string]error{}
	var removed []*listener
	for _, name := range remove {
		if slices.ContainsFunc(add, func(c *Config) bool { return c.Name == name }) {
			continue
		}
		if l := m.take(name); l != nil {
			l.stopAccepting()
			removed = append(removed, l)
		}
	}
	for _, cfg := range add {
		if err := m.applyOne(cfg, removed); err != nil {
			failed[cfg.Name] = fmt.Errorf("listener %s: %w", cfg.Name, err)
		}
	}
	for _, l := range removed {
		l.retire()
	}
	m.countListeners()
	return failed
}

// take removes a listener from the table and puts it among those that drain.
func (m *Manager) take(name string) *listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.listeners[name]
	if l != nil {
		delete(m.listeners, name)
		m.gone[l] = struct{}{}
	}
	return l
}

func (m *Manager) applyOne(cfg *Config, removed []*listener) error {
	if m.ctx.Err() != nil {
		return errors.New("the listener manager is closed")
	}
	m.mu.Lock()
	l := m.listeners[cfg.Name]
	m.mu.Unlock()
	var before *snapshot
	if l != nil {
		before = l.current // only changed under m.apply
	}
	next, err := m.compile(cfg, before)
	if err != nil {
		return err
	}
	if l != nil {
		return l.update(next, removed)
	}
	l = newListener(m, cfg.Name)
	if l.removed = m.over; !m.over {
		if err := l.bind(cfg, removed); err != nil {
			next.release()
			return err
		}
	}
	l.current = next
	m.mu.Lock()
	m.listeners[cfg.Name] = l
	m.mu.Unlock()
	l.startAccepting()
	m.log.Info("listener added", "listener", cfg.Name, "address", fmt.Sprint(l.addrs()), "service", cfg.Service)
	return nil
}

func (m *Manager) countListeners() {
	if m.opts.Metrics == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opts.Metrics.ListenersActive.With("active").Set(float64(len(m.listeners)))
	m.opts.Metrics.ListenersActive.With("draining").Set(float64(len(m.gone)))
}

// AllAddrs tells every address that listeners are bound to, by name.
func (m *Manager) AllAddrs() map[string][]net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string][]net.Addr, len(m.listeners))
	for name, l := range m.listeners {
		out[name] = l.addrs()
	}
	return out
}

// Addrs tells the first address that each listener is bound to, by name.
func (m *Manager) Addrs() map[string]net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]net.Addr, len(m.listeners))
	for name, l := range m.listeners {
		if a := l.addrs(); len(a) > 0 {
			out[name] = a[0]
		}
	}
	return out
}

// Configs are the configurations in force, sorted by name.
func (m *Manager) Configs() []*Config {
	var out []*Config
	for _, l := range m.all() {
		l.mu.Lock()
		if !l.removed {
			out = append(out, l.current.cfg)
		}
		l.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b *Config) int { return cmpString(a.Name, b.Name) })
	return out
}

// Draining are the configurations of removed listeners that still have connections, in
// no order: what they name is still in use.
func (m *Manager) Draining() []*Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*Config
	for l := range m.gone {
		l.mu.Lock()
		out = append(out, l.current.cfg)
		l.mu.Unlock()
	}
	return out
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Conns are the established connections, also those of removed listeners.
func (m *Manager) Conns() []*downstream.Conn {
	var out []*downstream.Conn
	for _, l := range m.all() {
		for _, t := range l.established() {
			out = append(out, &t.conn)
		}
	}
	slices.SortFunc(out, func(a, b *downstream.Conn) int { return int(int64(a.ID) - int64(b.ID)) })
	return out
}

// Serving is how many connections there are, those that still arrive included.
func (m *Manager) Serving() (n int64) {
	for _, l := range m.all() {
		l.mu.Lock()
		n += l.open
		l.mu.Unlock()
	}
	return n
}

// StopAccepting gives the sockets up for good and keeps the connections: whoever
// connects now is refused at once, and may try somebody else.
func (m *Manager) StopAccepting() {
	m.apply.Lock()
	defer m.apply.Unlock()
	m.over = true
	for _, l := range m.all() {
		l.stopAccepting()
		l.closeSockets()
	}
}

// all are the listeners, removed ones with connections included.
func (m *Manager) all() []*listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Collect(maps.Values(m.listeners))
	return slices.AppendSeq(out, maps.Keys(m.gone))
}

// has tells whether there is a listener of a name, or one that drains. m.mu is held.
func (m *Manager) has(name string) bool {
	if m.listeners[name] != nil {
		return true
	}
	for l := range m.gone {
		if l.name == name {
			return true
		}
	}
	return false
}

// Recheck decides authorization anew for every connection and closes those that
// are denied now; it returns how many. Apply does this for the listener that
// changed.
func (m *Manager) Recheck() int {
	n := 0
	for _, l := range m.all() {
		n += l.recheck()
	}
	return n
}

// CloseConns closes the connections that match at once, among them those whose
// handshake ends just now: a withdrawn identity or a lost trust anchor. workload is
// the listener's. It returns how many were closed; reason is a word for logs.
func (m *Manager) CloseConns(match func(workload string, info *stream.Info) bool, reason string) int {
	now, eldest := time.Now(), m.eldestArrival()
	m.mu.Lock()
	m.generation++
	m.withdrawals = slices.DeleteFunc(m.withdrawals, func(w withdrawal) bool {
		return w.generation <= eldest && now.Sub(w.at) > time.Minute
	})
	m.withdrawals = append(m.withdrawals, withdrawal{m.generation, now, match, reason})
	m.mu.Unlock()
	n := 0
	for _, l := range m.all() {
		for _, t := range l.established() {
			if match(t.conn.Workload, t.conn.Info) {
				if l.closeByPolicy(t, reason, "") {
					n++
				}
			}
		}
	}
	return n
}

// eldestArrival is the generation of withdrawals that the first of the connections which
// arrive began in. A minute covers one that is between accept and its listener's list.
func (m *Manager) eldestArrival() uint64 {
	eldest := uint64(math.MaxUint64)
	for _, l := range m.all() {
		l.mu.Lock()
		for _, g := range l.arriving {
			eldest = min(eldest, g)
		}
		l.mu.Unlock()
	}
	return eldest
}

// Accept takes connections again, or leaves them in their sockets' queues. It is
// for the overload manager.
func (m *Manager) Accept(yes bool) {
	if yes {
		m.relieve()
		return
	}
	for _, l := range m.all() {
		l.mu.Lock()
		socks, exempt := l.socks, l.current != nil && l.current.cfg.IgnoreOverload
		l.mu.Unlock()
		if exempt {
			continue
		}
		interrupt(socks)
	}
}

// Hold leaves all connections in their sockets' queues until Open: nothing is served yet. It is
// for listeners that come after it.
func (m *Manager) Hold() { m.held.Store(true) }

// Open ends what Hold began.
func (m *Manager) Open() {
	m.held.Store(false)
	m.relieve()
}

// relieve lets the accept loops that wait look again.
func (m *Manager) relieve() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.relief)
	m.relief = make(chan struct{})
}

// awaitRelief holds the accept loop of a socket up while nothing is to be accepted. It
// undoes the interruption that brought it there: only then it looks, for whoever
// interrupts has forbidden first.
func (m *Manager) awaitRelief(l *listener, b *bound) {
	for {
		m.mu.Lock()
		relief := m.relief
		m.mu.Unlock()
		l.mu.Lock()
		over := l.removed || b.given
		if !over {
			b.sock.Resume()
		}
		held := !over && (m.held.Load() || !l.current.cfg.IgnoreOverload && !m.opts.Overload.Accepting())
		l.mu.Unlock()
		if !held {
			return
		}
		select {
		case <-relief:
		case <-l.ctx.Done():
			return
		}
	}
}

// withdrawnSince tells whether a withdrawal after a generation covers a peer.
func (m *Manager) withdrawnSince(generation uint64, workload string, info *stream.Info) (reason string, yes bool) {
	m.mu.Lock()
	recent := slices.Clone(m.withdrawals)
	m.mu.Unlock()
	for _, w := range recent {
		if w.generation > generation && w.match(workload, info) {
			return w.reason, true
		}
	}
	return "", false
}

func (m *Manager) currentGeneration() (generation, id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nextID++
	return m.generation, m.nextID
}

// Close stops all listeners, closes all connections and waits until everything
// that serves them has ended.
func (m *Manager) Close() error {
	m.apply.Lock()
	defer m.apply.Unlock()
	m.stop()
	for _, l := range m.all() {
		l.stopAccepting()
		l.end(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "shutdown"})
		l.shut()
	}
	m.wg.Wait()
	if m.poller != nil {
		_ = m.poller.Close()
	}
	m.workers.Close()
	m.opts.Sockets.CloseInherited()
	if m.ownLogs {
		m.opts.Logs.Close()
	}
	return nil
}

// watchDrain carries the process's drain to the connections.
func (m *Manager) watchDrain() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	select {
	case <-m.ctx.Done():
		return
	case <-m.opts.Drain.Done():
	}
	for _, l := range m.all() {
		for _, t := range l.established() {
			if !t.snap.cfg.DrainOnChange {
				panics.Guard(panics.Housekeeper, t.conn.StartDrain)
			}
		}
	}
	m.closeAtDeadline()
}

// closeAtDeadline looks at the deadline again each second, because a second drain call
// may bring it forward, and closes what there is from then on: whoever connects while the
// process is still there is not served past it.
func (m *Manager) closeAtDeadline() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		wait := time.Second
		if deadline := m.opts.Drain.Deadline(); !deadline.IsZero() {
			if left := time.Until(deadline); left <= 0 {
				m.cutAll(downstream.Ending{Flags: telemetry.FlagDraining, Reason: "drain_deadline"})
			} else {
				wait = min(wait, left)
			}
		}
		tick.Reset(wait)
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// cutAll ends all connections.
func (m *Manager) cutAll(e downstream.Ending) {
	for _, l := range m.all() {
		panics.Guard(panics.Housekeeper, func() { m.cut.Add(l.closeAll(e)) })
	}
}

// Cut is how many connections were closed at the deadline of the process's drain, or
// after it.
func (m *Manager) Cut() int64 { return m.cut.Load() }
