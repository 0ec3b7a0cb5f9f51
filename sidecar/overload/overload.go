// Package overload keeps a process within its means: how many connections it may
// have, and what it stops doing when its memory runs short, as Envoy's overload
// manager does.
package overload

import (
	"context"
	"io/fs"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// Config is an overload manager (envoy.config.overload.v3.OverloadManager), and
// the limits that Envoy has in its runtime. The zero Config limits nothing.
type Config struct {
	// Refresh is how often resources are looked at, 1 s when 0.
	Refresh time.Duration
	// MaxConnections bounds the downstream connections of the process, 0 for no
	// bound, and ListenerConnections those of single listeners.
	MaxConnections      int64
	ListenerConnections map[string]int64
	// MaxHeap is the heap, in bytes, that counts as full.
	MaxHeap uint64
	// GroupMemory has the memory of the control group looked at; MaxGroupMemory is what of it counts as
	// full where the group's own limit is not less, 0 for none.
	GroupMemory    bool
	MaxGroupMemory uint64
	// CPU is whose processors are looked at.
	CPU CPUOf
	// Timeouts are how far ReduceTimeouts reduces each; nil leaves one alone.
	Timeouts [Timeouts]*Least
	// LeastHoard is what a stream must hold for ResetStreams to look at it, 0 for none.
	LeastHoard int
	// Paths is where the configuration has each resource looked at.
	Paths   [resources]string
	Actions []Action
}

// Action is an action or a load shed point: what is done while any of its triggers holds: of what it concerns, to as large
// a share as the trigger says that is highest.
type Action struct {
	Kind     Kind
	Triggers []Trigger
}

// Kind of an action.
type Kind uint8

// The actions.
const (
	// ShrinkHeap collects garbage and returns memory to the host.
	ShrinkHeap Kind = iota
	// StopAccepting leaves new connections in the sockets' queues.
	StopAccepting
	// RejectConnections closes new connections at once.
	RejectConnections
	// DisableKeepAlive ends connections with their current request.
	DisableKeepAlive
	// RefuseRequests answers requests with 503.
	RefuseRequests
	// ResetStreams ends those that hold much memory.
	ResetStreams
	// ReduceTimeouts has clients waited for less long, as Timeouts say.
	ReduceTimeouts

	// What follows are load shed points: each is asked where it is passed.

	// ShedAccept closes new connections at once.
	ShedAccept
	// ShedCodec ends connections with the first that their clients send.
	ShedCodec
	// ShedHTTP1 refuses what clients of HTTP/1 send, and ends their connections.
	ShedHTTP1
	// ShedGoAway drains connections of HTTP/2 on which something arrives; one of HTTP/1 ends with
	// its request.
	ShedGoAway
	// ShedGoAwayAndClose ends connections of HTTP/2 on which something arrives.
	ShedGoAwayAndClose
	// ShedHeaders answers requests with 503.
	ShedHeaders
	// ShedUpstream answers those with 503 that were about to be sent on.
	ShedUpstream
	// ShedConnections has pools make no connection to a host.
	ShedConnections
	kinds
)

var kindNames = [kinds]string{
	"shrink_heap", "stop_accepting_connections", "reject_incoming_connections", "disable_http_keepalive", "stop_accepting_requests",
	"reset_high_memory_stream", "reduce_timeouts", "tcp_listener_accept", "hcm_ondata_creating_codec", "http1_server_abort_dispatch",
	"http2_server_go_away_on_dispatch", "http2_server_go_away_and_close_on_dispatch", "http_connection_manager_decode_headers",
	"http_downstream_filter_check", "connection_pool_new_connection",
}

// String is Envoy's name, without what it begins with.
func (k Kind) String() string { return kindNames[k] }

// whole tells of actions that are done when a trigger is saturated, and not in part.
func (k Kind) whole() bool { return k == ShrinkHeap || k == StopAccepting }

// Resource is what can run short.
type Resource uint8

// The resources; 1 is full.
const (
	Heap Resource = iota
	Connections
	// Group is the memory of the process's control group.
	Group
	// CPU is the processors' time, smoothed.
	CPU
	resources
)

var resourceNames = [resources]string{"heap", "connections", "cgroup_memory", "cpu"}

// Trigger is saturated while the pressure on a resource is at or above a threshold. A
// scaled one holds in part from Scaling on.
type Trigger struct {
	Resource  Resource
	Threshold float64
	Scaled    bool
	Scaling   float64
}

// share is how much of the trigger holds at a pressure, from 0 to 1.
func (t Trigger) share(pressure float64) float64 {
	switch {
	case pressure >= t.Threshold:
		return 1
	case !t.Scaled || pressure <= t.Scaling:
		return 0
	}
	return (pressure - t.Scaling) / (t.Threshold - t.Scaling)
}

// Exempt is what a listener is exempt from.
type Exempt struct{ Limit, Actions bool }

// CPUOf is whose processors are looked at.
type CPUOf uint8

// Nobody's, the host's, or those of the control group.
const (
	NoCPU CPUOf = iota
	HostCPU
	GroupCPU
)

// Options are a manager's surroundings.
type Options struct {
	// Host are the files of the host, for what is looked at besides the heap and connections.
	Host fs.FS
	// Heap measures the heap in bytes; the runtime's when nil.
	Heap func() uint64
	// Live is what of it was in use at the runtime's last collection, and the number of that;
	// the runtime's when nil and Heap is.
	Live func() (bytes, collection uint64)
	// Collect frees what of it is garbage; a collection of the runtime's when nil.
	Collect func()
	// Release gives memory that is free back to the host; the runtime's when nil.
	Release func()
	// Releasable is how much Release could give back at the most; the runtime's when nil.
	Releasable func() uint64
	// Accept is told when connections are to be accepted again, or no more. It is
	// called on the goroutine of Run.
	Accept func(bool)
	// Hoards are the streams for which at least so many bytes are held. It is called on the
	// goroutine of Run.
	Hoards func(least int) []Hoard
	// Reduced is told when the share of ReduceTimeouts has changed. It is called on the goroutine of Run.
	Reduced func()
	Log     *slog.Logger
}

// Manager watches resources. A nil Manager limits nothing. Safe for concurrent
// use.
type Manager struct {
	cfg     *Config
	opts    Options
	open    atomic.Int64 // connections that count
	signals Signals
	shrunk  time.Time
	// collected is when the last collection ended, and took how long it took.
	collected time.Time
	took      time.Duration
	freed     bool // streams were reset since
	// known is the runtime's last collection that was acted upon.
	known   uint64
	sensors []*sensor
	// released is when Release was last called for the control group, and releasing how long it took.
	released  time.Time
	releasing time.Duration
	// groupLimit is what the control group may have whose memory is shortest.
	groupLimit uint64
}

// New returns a manager; Run makes it act. Sense has to be called before where it looks at files of the host.
func New(cfg *Config, o Options) *Manager {
	if o.Live == nil {
		o.Live = func() (uint64, uint64) { return 0, 0 }
		if o.Heap == nil {
			o.Live = live
		}
	}
	if o.Heap == nil {
		o.Heap = heap
	}
	if o.Collect == nil {
		o.Collect = runtime.GC
	}
	if o.Release == nil {
		o.Release = debug.FreeOSMemory
	}
	if o.Releasable == nil {
		o.Releasable = releasable
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{cfg: cfg, opts: o}
	for _, a := range cfg.Actions {
		m.signals.known |= 1 << a.Kind
	}
	return m
}

// live is what was in use at the last collection, and how many there were.
func live() (bytes, collection uint64) {
	sample := [...]metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample[:])
	return sample[0].Value.Uint64(), sample[1].Value.Uint64()
}

// releasable is what a collection frees and gives back, with what was freed before: neither what metadata takes, nor what
// is left of spans that are in use.
func releasable() uint64 {
	sample := [...]metrics.Sample{
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(sample[:])
	free, objects, live := sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64()
	return free + objects - min(live, objects)
}

// Config is what the manager was made with.
func (m *Manager) Config() *Config { return m.cfg }

// heap is what live and dead objects occupy.
func heap() uint64 {
	sample := [...]metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(sample[:])
	return sample[0].Value.Uint64() + sample[1].Value.Uint64()
}

// Admit counts a new connection of a listener which has open others, or says in a
// word why there is no room for it. Leave undoes it.
func (m *Manager) Admit(listener string, open int64, e Exempt) (refused string) {
	if m == nil {
		return ""
	}
	if !e.Actions && (m.signals.draw(RejectConnections) || m.signals.draw(ShedAccept)) {
		return "overload"
	}
	if limit, ok := m.cfg.ListenerConnections[listener]; ok && open >= limit {
		return "listener_connection_limit"
	}
	if e.Limit {
		return ""
	}
	if n := m.open.Add(1); m.cfg.MaxConnections > 0 && n > m.cfg.MaxConnections {
		m.open.Add(-1)
		return "global_connection_limit"
	}
	return ""
}

// Leave takes a connection off that was admitted.
func (m *Manager) Leave(e Exempt) {
	if m != nil && !e.Limit {
		m.open.Add(-1)
	}
}

// Signals are those for the connections of a listener.
func (m *Manager) Signals(exempt bool) *Signals {
	if m == nil || exempt {
		return nil
	}
	return &m.signals
}

// Accepting tells whether connections are to be accepted.
func (m *Manager) Accepting() bool { return m == nil || !m.signals.is(StopAccepting) }

// Run looks at the resources until the context ends; with none to look at it returns at once.
func (m *Manager) Run(ctx context.Context) {
	if len(m.cfg.Actions) == 0 && m.watched() == [resources]bool{} {
		return
	}
	every := m.cfg.Refresh
	if every <= 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.look()
		}
	}
}

// shrinkAtMost is how often the heap is shrunk while it is full: a collection
// costs what it is to save.
const shrinkAtMost = 10 * time.Second

// idleFor is how many times as long as a collection took the next one is waited for.
const idleFor = 10

func (m *Manager) look() {
	pressure, stale := m.measure()
	for r, p := range pressure {
		m.signals.pressure[r].Store(math.Float64bits(p))
	}
	m.signals.short.Store(m.memoryIsShort(pressure))
	now := m.shares(pressure)
	reduced := m.signals.shares[ReduceTimeouts].Load()
	for k := range kinds {
		if active := now[k] > 0; m.signals.set(k, now[k]) {
			m.opts.Log.Warn("overload action", append([]any{"component", "overload", "action", k.String(), "active", active}, m.logged(pressure)...)...)
			if k == StopAccepting && m.opts.Accept != nil {
				m.opts.Accept(!active)
			}
		}
	}
	if m.signals.shares[ReduceTimeouts].Load() != reduced && m.opts.Reduced != nil {
		m.opts.Reduced()
	}
	if share := m.shares(known(pressure, stale))[ResetStreams]; share > 0 {
		n := m.resetStreams(share)
		m.signals.counts[ResetStreams].Add(uint64(n))
		m.freed = m.freed || n > 0
		_, m.known = m.opts.Live() // what it counts may be what was freed just now
	}
	if now[ShrinkHeap] > 0 && time.Since(m.shrunk) >= shrinkAtMost {
		m.opts.Release()
		m.shrunk = time.Now()
	}
}

// measure is the pressure on each resource, and which of them were not measured just now.
func (m *Manager) measure() (pressure [resources]float64, stale [resources]bool) {
	if m.cfg.MaxConnections > 0 {
		pressure[Connections] = float64(m.open.Load()) / float64(m.cfg.MaxConnections)
	}
	m.sense(&pressure, &stale)
	pressure[Heap], stale[Heap] = m.measureHeap()
	return pressure, stale
}

// measureHeap is the pressure on the heap. Nothing is done, or goes on to be done, because of garbage: where actions
// keep the work away, little is allocated, and nothing would collect it. Until the next collection may be, what
// the runtime's own found in use is, and without one since no more is known to be than at the last look.
func (m *Manager) measureHeap() (pressure float64, stale bool) {
	pressure = m.heapPressure()
	if !m.acts(Heap, pressure) {
		return pressure, false
	}
	idle := idleFor * m.took
	if pressure > 1 {
		idle = m.took // it is worth half of a processor to know
	}
	if time.Since(m.collected) < idle {
		inUse := math.Float64frombits(m.signals.pressure[Heap].Load())
		live, n := m.opts.Live()
		if stale = n <= m.known; !stale {
			inUse, m.known = float64(live)/float64(m.cfg.MaxHeap), n
		}
		return min(pressure, inUse), stale
	}
	began := time.Now()
	if m.freed { // what streams held is in pools, which a collection empties by halves
		m.opts.Collect()
		m.freed = false
	}
	m.opts.Collect()
	m.collected = time.Now()
	m.took = m.collected.Sub(began)
	_, m.known = m.opts.Live()
	return m.heapPressure(), false
}

// known is the pressure without that of resources which were not measured just now: what streams held that were reset
// since may be a part of it, and others would be reset for it.
func known(pressure [resources]float64, stale [resources]bool) [resources]float64 {
	for r := range pressure {
		if stale[r] {
			pressure[r] = math.Inf(-1)
		}
	}
	return pressure
}

// shares are how much of each action is to be done.
func (m *Manager) shares(pressure [resources]float64) (now [kinds]float64) {
	for _, a := range m.cfg.Actions {
		for _, t := range a.Triggers {
			if share := t.share(pressure[t.Resource]); share == 1 || !a.Kind.whole() {
				now[a.Kind] = max(now[a.Kind], share)
			}
		}
	}
	return now
}

// memoryIsShort tells whether every request is refused because of memory. A load shed point is no sign of
// that: it keeps new requests out, and those that are in go on.
func (m *Manager) memoryIsShort(pressure [resources]float64) bool {
	for _, a := range m.cfg.Actions {
		for _, t := range a.Triggers {
			if a.Kind == RefuseRequests && (t.Resource == Heap || t.Resource == Group) && t.share(pressure[t.Resource]) == 1 {
				return true
			}
		}
	}
	return false
}

func (m *Manager) heapPressure() float64 {
	if m.cfg.MaxHeap == 0 {
		return 0
	}
	return float64(m.opts.Heap()) / float64(m.cfg.MaxHeap)
}

// acts tells whether anything is done at a pressure of a resource.
func (m *Manager) acts(r Resource, pressure float64) bool {
	for _, a := range m.cfg.Actions {
		for _, t := range a.Triggers {
			if t.Resource == r && t.share(pressure) > 0 {
				return true
			}
		}
	}
	return false
}

// watched tells which resources are looked at.
func (m *Manager) watched() [resources]bool {
	return [resources]bool{Heap: m.cfg.MaxHeap > 0, Connections: m.cfg.MaxConnections > 0, Group: m.cfg.GroupMemory, CPU: m.cfg.CPU != NoCPU}
}

// logged are the pressures of what is looked at, for a line of the log.
func (m *Manager) logged(pressure [resources]float64) (pairs []any) {
	for r, yes := range m.watched() {
		if yes {
			pairs = append(pairs, resourceNames[r], pressure[r])
		}
	}
	return pairs
}

// Pressures tells how short each resource is that is looked at.
func (m *Manager) Pressures(emit func(value float64, labels ...string)) {
	for r, yes := range m.watched() {
		if yes {
			emit(math.Float64frombits(m.signals.pressure[r].Load()), resourceNames[r])
		}
	}
}

// Shares tells how much of each action is done.
func (m *Manager) Shares(emit func(value float64, labels ...string)) {
	for _, a := range m.cfg.Actions {
		emit(float64(m.signals.shares[a.Kind].Load())/saturated, a.Kind.String())
	}
}

// Done tells how often each action was that is done to something.
func (m *Manager) Done(emit func(value float64, labels ...string)) {
	for _, a := range m.cfg.Actions {
		if !a.Kind.whole() && a.Kind != ReduceTimeouts {
			emit(float64(m.signals.counts[a.Kind].Load()), a.Kind.String())
		}
	}
}
