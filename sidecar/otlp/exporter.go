package otlp

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hauberk-mesh/hauberk/sidecar/message"
	"github.com/hauberk-mesh/hauberk/sidecar/panics"
	"github.com/hauberk-mesh/hauberk/sidecar/route"
	"github.com/hauberk-mesh/hauberk/sidecar/telemetry"
)

const (
	// maxPending bounds the bytes of items that wait in one shard.
	maxPending = 1 << 20
	// keptBuffer is how much memory for items is kept for the next ones.
	keptBuffer = 128 << 10
	// maxReason bounds what is logged of a collector's reason, in bytes.
	maxReason = 256
)

// Exporter is what items end in. Requests append to buffers, one for each shard, and
// never wait; a goroutine sends what is in them.
type Exporter struct {
	owner   *Exporters
	cfg     Config
	key     any
	headers route.Mutations
	shards  []pending
	refs    int // the owner's lock

	wake chan struct{} // there is an item
	full chan struct{} // a shard has enough to be sent now
	over chan struct{} // closed with the last reference

	complained time.Time
	spare      []byte // the memory of items that were sent
}

// pending is the items of one shard, encoded one after the other.
type pending struct {
	mu   sync.Mutex
	b    []byte
	n    int
	over bool     // nothing is sent any more
	_    [64]byte // apart from the next shard's
}

func newExporter(owner *Exporters, key any, cfg Config) (*Exporter, error) {
	e := &Exporter{
		owner: owner, cfg: cfg, key: key, shards: make([]pending, telemetry.Shards()),
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), over: make(chan struct{}),
	}
	steps := make([]route.HeaderMutation, len(cfg.Collector.Headers))
	for i := range steps {
		steps[i].Add = &cfg.Collector.Headers[i]
	}
	var err error
	e.headers, err = route.NewMutations(steps, message.RequestSingles)
	return e, err
}

// nothing is what the headers of a request to a collector know of a request.
type nothing struct{}

func (nothing) Record() *telemetry.Record { return &telemetry.Record{} }

// Add takes an item, which encode appends. Where there is no room for it, it is dropped
// and counted.
func (e *Exporter) Add(s telemetry.Shard, encode func(dst []byte) []byte) {
	n, before, after := e.shards[int(s)&(len(e.shards)-1)].add(encode, e.cfg.MaxItems)
	if n == 0 {
		e.cfg.Dropped.Inc(s)
		return
	}
	if n == 1 {
		signal(e.wake)
	}
	if n == (e.cfg.MaxItems+1)/2 || (before < e.cfg.SendAt || n == 1) && after >= e.cfg.SendAt {
		signal(e.full)
	}
}

// add appends an item to what waits, and returns how many items that are then, and its lengths
// before and after; 0 where there is no room. A fault of encode leaves what waits as it was.
func (at *pending) add(encode func(dst []byte) []byte, most int) (n, before, after int) {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.n >= most || len(at.b) > maxPending || at.over {
		return 0, 0, 0
	}
	before = len(at.b)
	at.b = encode(at.b)
	at.n++
	return at.n, before, len(at.b)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (e *Exporter) run() {
	defer panics.Contain(panics.Housekeeper, nil, nil)
	defer e.end()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for last := false; !last; {
		select {
		case <-e.wake:
			timer.Reset(e.cfg.Interval)
			select {
			case <-timer.C:
			case <-e.full:
			case <-e.over:
			case <-e.owner.closing:
			}
		case <-e.over:
			last = true
		case <-e.owner.closing:
			last = true
		}
		failed := false
		panics.Guard(panics.Housekeeper, func() { failed = e.flush(e.owner.ctx) })
		if failed && !last {
			e.pause(timer)
		}
	}
}

// pause lets a collector that could not be sent to come back: meanwhile what comes waits, and
// nobody dials for each batch.
func (e *Exporter) pause(timer *time.Timer) {
	timer.Reset(min(e.cfg.Interval, maxPause))
	select {
	case <-timer.C:
	case <-e.over:
	case <-e.owner.closing:
	}
	signal(e.wake) // what came may have been told of before
}

const maxPause = time.Second

// end has whatever comes later, and what came since the last flush, count as dropped.
func (e *Exporter) end() {
	for i := range e.shards {
		at := &e.shards[i]
		at.mu.Lock()
		n := at.n
		at.b, at.n, at.over = nil, 0, true
		at.mu.Unlock()
		e.cfg.Dropped.Add(0, uint64(n))
	}
}

// flush sends what waits, each shard's items in a request of their own, and tells whether any
// could not be sent.
func (e *Exporter) flush(ctx context.Context) (failed bool) {
	for i := range e.shards {
		at := &e.shards[i]
		at.mu.Lock()
		items, n := at.b, at.n
		if n > 0 {
			at.b, at.n, e.spare = e.spare[:0], 0, nil
		}
		at.mu.Unlock()
		if n == 0 {
			continue
		}
		lost, why, err := e.send(ctx, items)
		if cap(items) <= keptBuffer {
			e.spare = items // a burst is no reason to keep the memory
		}
		if err != nil {
			failed = true
			e.cfg.Failed.Add(0, uint64(n))
			e.complain(e.cfg.Items+" could not be sent", n, "err", err)
			continue
		}
		if lost = min(max(lost, 0), int64(n)); lost > 0 {
			e.complain("the collector rejects "+e.cfg.Items, int(lost), "reason", why[:min(len(why), maxReason)])
		}
		e.cfg.Rejected.Add(0, uint64(lost))
		e.cfg.Sent.Add(0, uint64(n)-uint64(lost))
	}
	return failed
}

// complain tells of items that were lost, at most once a minute.
func (e *Exporter) complain(what string, n int, key string, why any) {
	if now := time.Now(); now.Sub(e.complained) > time.Minute {
		e.complained = now
		e.owner.o.Log.Warn(what, "cluster", e.cfg.Collector.Cluster, e.cfg.Items, n, key, why)
	}
}

// send sends items; lost is how many of them the collector did not want, and why its
// reason.
func (e *Exporter) send(ctx context.Context, items []byte) (lost int64, why string, err error) {
	to := e.cfg.Collector
	c := e.owner.o.Clusters.Get(to.Cluster)
	if c == nil {
		return 0, "", fmt.Errorf("there is no cluster %q", to.Cluster)
	}
	timeout := to.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var req message.Request
	req.Method, req.Scheme, req.Path, req.Authority = "POST", "http", to.Path, to.Authority
	if req.Authority == "" {
		req.Authority = to.Cluster
	}
	req.Fields.Add("content-type", e.cfg.ContentType)
	req.Fields.Add("user-agent", e.cfg.Agent)
	var scratch []byte
	e.headers.Apply(&req.Fields, nothing{}, &scratch)
	body := e.cfg.Body(items)
	if to.GRPC {
		answer, err := c.CallGRPC(ctx, &req, body)
		lost, why = rejected(answer)
		return lost, why, err
	}
	a, err := c.Call(ctx, &req, body)
	switch {
	case err != nil:
		return 0, "", err
	case a.Head.Status < 200 || a.Head.Status > 299:
		return 0, "", fmt.Errorf("the collector answers %d", a.Head.Status)
	case !e.cfg.Mute:
		lost, why = rejected(a.Body)
	}
	return lost, why, nil
}
