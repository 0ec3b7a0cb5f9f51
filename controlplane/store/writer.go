package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
	"github.com/hauberk-mesh/hauberk/controlplane/source"
)

// writer is the state of Run's goroutine. Nothing else touches it.
type writer struct {
	s *Store
	// raw is what the source says of each service, guards not applied.
	raw     map[catalog.Name][]*catalog.Instance
	guard   guard
	confirm confirms
	wg      sync.WaitGroup // confirmation reads

	// next is the snapshot under construction. Its maps are shared with the
	// published one until cloned says otherwise.
	next    catalog.Snapshot
	cloned  struct{ instances, entries, origins, broken bool }
	dirty   catalog.Dirty
	synced  bool
	serving int // serving instances in next

	// The unpublished change: when the source learned of the oldest part, the
	// highest index, when the writer took the first part, when to publish.
	received time.Time
	index    uint64
	first    time.Time
	deadline time.Time
}

func newWriter(s *Store) *writer {
	w := &writer{s: s, raw: map[catalog.Name][]*catalog.Instance{}, dirty: newDirty()}
	w.guard.window = s.cfg.GuardWindow
	w.confirm.init(s.cfg.Confirmer, s.cfg.ConfirmHold)
	w.next = catalog.Snapshot{
		Datacenter:   s.cfg.Datacenter,
		TrustDomain:  s.cfg.TrustDomain,
		Instances:    map[catalog.Name][]*catalog.Instance{},
		Entries:      map[catalog.EntryKey]api.ConfigEntry{},
		EntryOrigins: map[catalog.EntryKey]string{},
		Broken:       map[catalog.EntryKey]string{},
	}
	return w
}

func (w *writer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer w.wg.Wait()
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.startConfirms(ctx, time.Now())
		if at := w.wake(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		w.report()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u := <-w.s.in:
			w.apply(u, time.Now())
		case r := <-w.confirm.results:
			w.confirmed(r, time.Now())
		case <-timer.C:
			w.expire(time.Now())
		}
		if now := time.Now(); !w.deadline.IsZero() && !now.Before(w.deadline) {
			w.publish(now)
		}
	}
}

// wake is the next moment at which something is due.
func (w *writer) wake() time.Time {
	at := w.deadline
	for _, t := range []time.Time{w.guard.wake(), w.confirm.wake()} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// expire ends what is bounded in time.
func (w *writer) expire(now time.Time) {
	for _, n := range w.guard.expire(now) {
		w.refresh(n, now)
	}
	for _, n := range w.confirm.expire(now) {
		w.s.log.Warn("a service lost its last endpoint and nobody could confirm it: believed", "service", n.String())
		w.s.metrics.guards.WithLabelValues("confirm", "timeout").Inc()
		w.refresh(n, now)
	}
}

// apply takes one update of the source.
func (w *writer) apply(u source.Update, now time.Time) {
	if !u.Full && !w.synced {
		w.s.log.Error("update before the first full set ignored")
		return
	}
	w.clock(u, now)
	if u.Reconnected && w.synced {
		for _, n := range w.guard.open(w.next.Instances, w.raw, now) {
			w.refresh(n, now)
		}
		w.s.metrics.guards.WithLabelValues("reconnect", "opened").Inc()
	}
	if u.Datacenter != "" && w.s.cfg.Datacenter == "" && u.Datacenter != w.next.Datacenter {
		w.next.Datacenter, w.dirty.All = u.Datacenter, true
		w.schedule(now, false)
	}
	if u.DefaultAllow != nil && *u.DefaultAllow != w.next.DefaultAllow {
		w.next.DefaultAllow, w.dirty.All = *u.DefaultAllow, true
		w.schedule(now, true)
	}
	w.applyEntries(u, now)
	w.applyInstances(u, now)
	if u.Full && !w.synced {
		w.synced, w.dirty.All = true, true
		w.deadline = now
	}
	if w.deadline.IsZero() { // nothing changed: nothing to measure
		w.received, w.index = time.Time{}, 0
	}
}

func (w *writer) clock(u source.Update, now time.Time) {
	r := u.Received
	if r.IsZero() {
		r = now
	}
	if w.received.IsZero() || r.Before(w.received) {
		w.received = r
	}
	w.index = max(w.index, u.Index)
}

func (w *writer) applyInstances(u source.Update, now time.Time) {
	touched := map[catalog.Name]struct{}{}
	if u.Full {
		for n := range w.raw {
			touched[n] = struct{}{}
		}
		clear(w.raw)
	}
	for n, list := range u.Instances {
		list = slices.Clone(list)
		slices.SortFunc(list, compareInstances)
		w.raw[n] = list
		touched[n] = struct{}{}
	}
	for _, n := range u.DeletedServices {
		delete(w.raw, n)
		touched[n] = struct{}{}
	}
	// The verdict on mass loss needs all of the update.
	if w.guard.active(now) {
		for n := range touched {
			w.guard.observe(n, w.raw[n])
		}
		for _, n := range w.guard.judge() {
			touched[n] = struct{}{}
		}
	}
	for n := range touched {
		w.refresh(n, now)
	}
}

// refresh makes the published form of one service from what the source says and
// what the guards think of it.
func (w *writer) refresh(n catalog.Name, now time.Time) {
	raw, exists := w.raw[n]
	old, existed := w.next.Instances[n]
	list := w.guard.apply(n, raw, now)
	if w.synced {
		list = w.confirm.apply(n, old, list, w.serving, now)
	}
	if !exists && len(list) == 0 {
		if existed {
			delete(w.instances(), n)
			w.changed(n, old, nil, now)
		}
		return
	}
	if existed && catalog.EqualInstances(old, list) {
		return
	}
	w.instances()[n] = list
	w.changed(n, old, list, now)
}

func (w *writer) changed(n catalog.Name, old, list []*catalog.Instance, now time.Time) {
	w.serving += countServing(list) - countServing(old)
	w.dirty.Instances[n] = struct{}{}
	w.schedule(now, losesTraffic(old, list))
}

// losesTraffic reports whether an instance that took traffic must get less.
func losesTraffic(old, list []*catalog.Instance) bool {
	for _, o := range old {
		if !o.Health.Serving() {
			continue
		}
		i := find(list, o.Key())
		if i == nil || i.Health > o.Health || i.Address != o.Address || i.Port != o.Port {
			return true
		}
	}
	return false
}

func (w *writer) applyEntries(u source.Update, now time.Time) {
	seen := make(map[catalog.EntryKey]struct{}, len(u.Entries))
	for _, e := range u.Entries {
		k := catalog.KeyOf(e)
		seen[k] = struct{}{}
		w.setOrigin(k, u.Origins[k])
		_, broken := w.next.Broken[k]
		if !broken && catalog.EqualEntries(w.next.Entries[k], e) {
			continue
		}
		if broken {
			delete(w.brokenEntries(), k)
		}
		w.entries()[k] = e
		w.entryChanged(k, now)
	}
	for k, reason := range u.Broken {
		seen[k] = struct{}{}
		if _, good := w.next.Entries[k]; good {
			continue // the last good version stands
		}
		w.setOrigin(k, u.Origins[k])
		if w.next.Broken[k] != reason {
			w.brokenEntries()[k] = reason
			w.entryChanged(k, now)
		}
	}
	gone := u.DeletedEntries
	if u.Full {
		gone = slices.Concat(gone, absent(w.next.Entries, seen), absent(w.next.Broken, seen))
	}
	for _, k := range gone {
		w.deleteEntry(k, now)
	}
}

func absent[V any](have map[catalog.EntryKey]V, seen map[catalog.EntryKey]struct{}) []catalog.EntryKey {
	var out []catalog.EntryKey
	for k := range have {
		if _, ok := seen[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}

func (w *writer) deleteEntry(k catalog.EntryKey, now time.Time) {
	_, good := w.next.Entries[k]
	_, broken := w.next.Broken[k]
	if !good && !broken {
		return
	}
	if good {
		delete(w.entries(), k)
	}
	if broken {
		delete(w.brokenEntries(), k)
	}
	if _, ok := w.next.EntryOrigins[k]; ok {
		delete(w.origins(), k)
	}
	w.entryChanged(k, now)
}

func (w *writer) setOrigin(k catalog.EntryKey, origin string) {
	if origin != "" && w.next.EntryOrigins[k] != origin {
		w.origins()[k] = origin
	}
}

// entryChanged marks an entry dirty. Intentions decide who may call whom, and
// wait for nothing.
func (w *writer) entryChanged(k catalog.EntryKey, now time.Time) {
	w.dirty.Entries[k] = struct{}{}
	w.schedule(now, k.Kind == api.ServiceIntentions)
}

// schedule sets when to publish, given one more change.
func (w *writer) schedule(now time.Time, urgent bool) {
	if w.first.IsZero() {
		w.first = now
	}
	if urgent {
		if at := now.Add(w.s.cfg.Urgent); w.deadline.IsZero() || at.Before(w.deadline) {
			w.deadline = at
		}
		return
	}
	at := now.Add(w.s.cfg.Quiet)
	if last := w.first.Add(w.s.cfg.Max); last.Before(at) {
		at = last
	}
	// A pending urgent deadline is earlier than any new quiet one, and stays.
	if w.deadline.IsZero() || w.deadline.After(now.Add(w.s.cfg.Urgent)) {
		w.deadline = at
	}
}

func (w *writer) publish(now time.Time) {
	w.next.Generation++
	snap := w.next
	w.s.publish(Published{
		Snapshot: &snap, Dirty: w.dirty, Received: w.received, Index: w.index, At: now,
	})
	w.s.metrics.published.Inc()
	w.dirty = newDirty()
	w.cloned.instances, w.cloned.entries, w.cloned.origins, w.cloned.broken = false, false, false, false
	w.received, w.index, w.first, w.deadline = time.Time{}, 0, time.Time{}, time.Time{}
}

// report makes the store's status visible.
func (w *writer) report() {
	st := Status{
		Synced: w.s.current.Load() != nil, Generation: w.next.Generation,
		GuardUntil: w.guard.until, Mass: w.guard.mass,
		Held: w.guard.list(), Confirming: w.confirm.list(),
	}
	w.s.status.Store(&st)
	w.s.metrics.held.Set(float64(len(st.Held)))
	w.s.metrics.confirming.Set(float64(len(st.Confirming)))
	active := 0.0
	if !st.GuardUntil.IsZero() {
		active = 1
	}
	w.s.metrics.guard.Set(active)
}

// The following return a map of next that may be written.

func (w *writer) instances() map[catalog.Name][]*catalog.Instance {
	return own(&w.next.Instances, &w.cloned.instances)
}

func (w *writer) entries() map[catalog.EntryKey]api.ConfigEntry {
	return own(&w.next.Entries, &w.cloned.entries)
}

func (w *writer) origins() map[catalog.EntryKey]string {
	return own(&w.next.EntryOrigins, &w.cloned.origins)
}

func (w *writer) brokenEntries() map[catalog.EntryKey]string {
	return own(&w.next.Broken, &w.cloned.broken)
}

func own[K comparable, V any](m *map[K]V, cloned *bool) map[K]V {
	if !*cloned {
		*m, *cloned = maps.Clone(*m), true
	}
	return *m
}

func compareInstances(a, b *catalog.Instance) int {
	if c := strings.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

func find(list []*catalog.Instance, k catalog.InstanceKey) *catalog.Instance {
	for _, i := range list {
		if i.Key() == k {
			return i
		}
	}
	return nil
}

func countServing(list []*catalog.Instance) int {
	n := 0
	for _, i := range list {
		if i.Health.Serving() {
			n++
		}
	}
	return n
}
