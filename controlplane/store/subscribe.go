package store

import (
	"context"
	"sync"

	"github.com/hauberk-mesh/hauberk/controlplane/catalog"
)

// Subscription is one reader's place in the stream of snapshots. A reader that
// is slow gets the newest snapshot with everything that became dirty since it
// last looked: it never sees a queue, and never misses a change.
type Subscription struct {
	store *Store
	ready chan struct{} // capacity 1: something is pending

	mu      sync.Mutex
	pending *Published
}

// Subscribe returns a subscription. If a snapshot exists it is pending at once,
// with everything dirty.
func (s *Store) Subscribe() *Subscription {
	sub := &Subscription{store: s, ready: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return sub
	}
	s.subs[sub] = struct{}{}
	// publish stores current before it takes the lock, so whatever is current
	// here is either already complete or about to be added again: never lost.
	if p := s.current.Load(); p != nil {
		first := *p
		first.Dirty = catalog.Dirty{All: true}
		sub.add(first)
	}
	return sub
}

// C is signalled when Take has something to return.
func (sub *Subscription) C() <-chan struct{} { return sub.ready }

// Take returns what is pending, if anything.
func (sub *Subscription) Take() (Published, bool) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.pending == nil {
		return Published{}, false
	}
	p := *sub.pending
	sub.pending = nil
	return p, true
}

// Next waits for the next publication. It returns ErrClosed when the store's
// Run has ended and nothing is pending.
func (sub *Subscription) Next(ctx context.Context) (Published, error) {
	for {
		if p, ok := sub.Take(); ok {
			return p, nil
		}
		select {
		case <-sub.ready:
		case <-sub.store.done:
			if p, ok := sub.Take(); ok {
				return p, nil
			}
			return Published{}, ErrClosed
		case <-ctx.Done():
			return Published{}, ctx.Err()
		}
	}
}

// Close ends the subscription.
func (sub *Subscription) Close() {
	sub.store.mu.Lock()
	defer sub.store.mu.Unlock()
	delete(sub.store.subs, sub)
}

func (sub *Subscription) add(p Published) {
	sub.mu.Lock()
	if old := sub.pending; old != nil {
		p.Dirty = mergeDirty(old.Dirty, p.Dirty)
		p.Index = max(old.Index, p.Index)
		if old.Received.Before(p.Received) {
			p.Received = old.Received
		}
	}
	sub.pending = &p
	sub.mu.Unlock()
	select {
	case sub.ready <- struct{}{}:
	default:
	}
}

// mergeDirty returns the union in fresh maps: those of a publication are shared
// by all subscribers.
func mergeDirty(a, b catalog.Dirty) catalog.Dirty {
	if a.All || b.All {
		return catalog.Dirty{All: true}
	}
	out := newDirty()
	for _, d := range []catalog.Dirty{a, b} {
		for n := range d.Instances {
			out.Instances[n] = struct{}{}
		}
		for k := range d.Entries {
			out.Entries[k] = struct{}{}
		}
	}
	return out
}

func newDirty() catalog.Dirty {
	return catalog.Dirty{
		Instances: map[catalog.Name]struct{}{},
		Entries:   map[catalog.EntryKey]struct{}{},
	}
}
