// Package store holds the one current state of the catalog as immutable,
// copy-on-write snapshots, and the guards against believing a false "empty".
//
// One goroutine (Run) owns all that changes. It takes a source's updates,
// gathers bursts, and publishes: nothing before the first full set; bad news
// (a removal, an instance that went down, an intention) within milliseconds;
// good news after a quiet moment, at the latest after a maximum.
//
// What the source says and what is published may differ, on purpose and for a
// bounded time: see guard.go (after a reconnect) and confirm.go (a service that
// lost its last endpoint).
package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// Defaults of Config.
const (
	// DefaultQuiet and DefaultMax batch what can wait: a burst is published
	// when nothing came for Quiet, or Max after its first change.
	DefaultQuiet = 100 * time.Millisecond
	DefaultMax   = time.Second
	// DefaultUrgent is how long what cannot wait is gathered.
	DefaultUrgent = 5 * time.Millisecond
	// DefaultGuardWindow bounds how long last-known health may be kept.
	DefaultGuardWindow = 60 * time.Second
	// DefaultConfirmHold bounds how long the loss of a service's last endpoint
	// waits for a confirmation that does not come.
	DefaultConfirmHold = 30 * time.Second
)

// Config is what a Store is made of. Zero durations mean the defaults.
type Config struct {
	// TrustDomain is the environment's, set into every snapshot.
	TrustDomain string
	// Datacenter, when set, overrides what the source says.
	Datacenter string
	// Confirmer is asked before the loss of a service's last endpoint is
	// believed. Nil, as for files, believes at once.
	Confirmer source.Confirmer

	Quiet, Max, Urgent       time.Duration
	GuardWindow, ConfirmHold time.Duration

	Logger *slog.Logger
	// Registerer takes the store's metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// ErrClosed is returned by Update and Next when Run has ended.
var ErrClosed = errors.New("store: closed")

// Published is a snapshot and how it came about.
type Published struct {
	Snapshot *catalog.Snapshot
	// Dirty is what differs from what the receiver saw before.
	Dirty catalog.Dirty
	// Received is when the source learned of the oldest change in it: the
	// start of the convergence clock. Index is the highest Consul index in it.
	Received time.Time
	Index    uint64
	// At is when it was published.
	At time.Time
}

// Store is the catalog's single owner. It implements source.Sink.
type Store struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	in      chan source.Update
	done    chan struct{}
	current atomic.Pointer[Published]
	status  atomic.Pointer[Status]

	mu     sync.Mutex // guards subs and closed
	subs   map[*Subscription]struct{}
	closed bool
}

// New returns a store. It does nothing until Run.
func New(cfg Config) *Store {
	setDefault(&cfg.Quiet, DefaultQuiet)
	setDefault(&cfg.Max, DefaultMax)
	setDefault(&cfg.Urgent, DefaultUrgent)
	setDefault(&cfg.GuardWindow, DefaultGuardWindow)
	setDefault(&cfg.ConfirmHold, DefaultConfirmHold)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg:     cfg,
		log:     cfg.Logger.With("component", "store"),
		metrics: newMetrics(cfg.Registerer),
		in:      make(chan source.Update),
		done:    make(chan struct{}),
		subs:    map[*Subscription]struct{}{},
	}
	s.status.Store(&Status{})
	return s
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Run owns the store until ctx ends. It is called once.
func (s *Store) Run(ctx context.Context) error {
	defer s.close()
	return newWriter(s).run(ctx)
}

// Update queues a change; it implements source.Sink.
func (s *Store) Update(ctx context.Context, u source.Update) error {
	select {
	case s.in <- u:
		return nil
	case <-s.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Current returns what was published last, nil before the first full set. Its
// Dirty is relative to the publication before it.
func (s *Store) Current() *Published { return s.current.Load() }

// Status tells what the store is holding back, and why.
func (s *Store) Status() Status { return *s.status.Load() }

// Status of a store.
type Status struct {
	// Synced is true once the first snapshot is published.
	Synced     bool
	Generation uint64
	// GuardUntil is when distrust after a reconnect ends, zero when there is
	// none. Mass says that most of the catalog looks lost.
	GuardUntil time.Time
	Mass       bool
	// Held are instances whose last-known health is published in place of what
	// the source says, as "service: node/id".
	Held []string
	// Confirming are services whose last endpoint is gone according to the
	// source, not yet confirmed.
	Confirming []string
}

func (s *Store) publish(p Published) {
	s.current.Store(&p)
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		sub.add(p)
	}
}

func (s *Store) close() {
	close(s.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	clear(s.subs)
}
