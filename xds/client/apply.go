package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hauberk-mesh/hauberk/xds/resource"
)

// handle gives a response to the Handler and queues the answer.
func (c *Client) handle(srv Server, a *answer) {
	c.mu.Lock()
	ts := c.knownLocked(a.url)
	if ts == nil || !ts.requested {
		// Any answer would read as a subscription.
		c.mu.Unlock()
		c.ignored.Do(func() {
			c.log.Warn("response of a type that was not asked for ignored", "peer", srv.Name, "type", a.url)
		})
		return
	}
	only := a.beats() // whatever becomes of them
	a.full = a.full && !only
	ts.heartbeat(a)
	ts.overtakes(a)
	u := ts.update(a)
	asked := maps.Clone(ts.sentNames)
	// That there is nothing of a type is news too, of the first answer to the wildcard.
	empty := ts.wildcard && !ts.complete && !a.partial
	c.mu.Unlock()

	errs := maps.Clone(a.bad)
	if u.Full || empty || len(u.Upserts)+len(u.Removed)+len(u.Refused) > 0 {
		for n, err := range c.cfg.Handler.Apply(u) {
			if err != nil && slices.ContainsFunc(u.Upserts, func(r *resource.Resource) bool { return r.Name == n }) {
				errs[n] = err
			}
		}
	}

	c.mu.Lock()
	bad := ts.record(u, errs)
	ts.nonce = a.nonce
	answer := reply{nonce: a.nonce, nack: describe(errs)}
	if len(errs) == 0 {
		ts.sotwVersion = a.version
		ts.verdict(nil)
	} else {
		answer.notBefore = time.Now().Add(ts.verdict(bad))
	}
	ts.replies = append(ts.replies, answer)
	ts.complete = ts.complete || !a.partial
	if c.cfg.SotW && !only {
		ts.answeredAll(asked)
	}
	c.status.LastUpdate = time.Now()
	c.status.FromCache = false
	c.checkSyncedLocked()
	c.mu.Unlock()
	if len(errs) > 0 {
		c.log.Error("configuration rejected", "peer", srv.Name, "type", a.url, "err", describe(errs))
	}
	select {
	case c.save <- struct{}{}:
	default:
	}
}

// heartbeat refuses of the resources without a body those that are not what was accepted. The
// others renew their time to live (xDS protocol, "TTL").
func (ts *typeState) heartbeat(a *answer) {
	for n, version := range a.bodyless {
		have := ""
		if old := ts.accepted[n]; ts.sotw {
			have = ts.sotwVersion
		} else if old != nil {
			have = old.Version
		}
		if have == "" || version != have {
			a.bad[n] = fmt.Errorf("resource: type %q in a response of type %q", "", a.url)
			delete(a.bodyless, n)
		}
	}
}

// beats tells whether a response says only that resources are there: of the rest of the state
// of the world it says nothing then (xDS protocol, "TTL").
func (a *answer) beats() bool {
	return len(a.bodyless) > 0 && len(a.resources)+len(a.removed)+len(a.bad) == 0
}

// update reduces a response to what concerns this subscription. Resources that
// are not wanted (any more) are neither errors nor news.
func (ts *typeState) update(a *answer) Update {
	u := Update{Type: a.url, Full: a.full}
	present := map[string]struct{}{}
	for _, r := range a.resources {
		present[r.Name] = struct{}{}
		if old, ok := ts.left[r.Name]; ok && a.bad[r.Name] == nil {
			old.Resource = r
			ts.left[r.Name] = old
		}
		if !ts.wants(r.Name) || a.bad[r.Name] != nil {
			continue
		}
		// The same pointer for the same content lets the Handler skip it.
		if old := ts.accepted[r.Name]; old != nil && old.Version == r.Version {
			r = old
		}
		u.Upserts = append(u.Upserts, r)
	}
	for _, n := range slices.Sorted(maps.Keys(a.bad)) {
		present[n] = struct{}{}
		if ts.named(n) {
			u.Refused = append(u.Refused, n)
		}
	}
	for _, n := range a.removed {
		if ts.wants(n) {
			u.Removed = append(u.Removed, n)
		}
	}
	for n := range a.bodyless {
		present[n] = struct{}{}
	}
	if a.full {
		for n := range ts.accepted {
			if _, ok := present[n]; !ok {
				u.Removed = append(u.Removed, n)
			}
		}
		slices.Sort(u.Removed)
	}
	return u
}

// named tells whether what a response was rejected for is a resource that is wanted, and not
// a position in the response.
func (ts *typeState) named(n string) bool { return ts.wants(n) && !strings.HasPrefix(n, unnamed) }

// record keeps the verdict and returns the rejected versions.
func (ts *typeState) record(u Update, errs map[string]error) map[string]string {
	bad := map[string]string{}
	if u.Full {
		clear(ts.rejected)
	}
	for n, err := range errs {
		bad[n] = ""
		if ts.named(n) {
			ts.rejected[n] = err.Error()
			delete(ts.absent, n)
		}
	}
	for _, r := range u.Upserts {
		if errs[r.Name] != nil {
			bad[r.Name] = r.Version
			continue
		}
		delete(ts.rejected, r.Name)
		delete(ts.absent, r.Name)
		ts.accept(r)
	}
	for _, n := range u.Removed {
		delete(ts.accepted, n)
		delete(ts.rejected, n)
		if _, named := ts.names[n]; named {
			ts.absent[n] = struct{}{}
		}
	}
	return bad
}

// answeredAll notes, in state of the world, that a response answers every name
// that had been asked for: what it does not carry does not exist.
func (ts *typeState) answeredAll(asked map[string]struct{}) {
	for n := range asked {
		if _, named := ts.names[n]; named && ts.accepted[n] == nil && ts.rejected[n] == "" {
			ts.absent[n] = struct{}{}
		}
	}
}

// handBack gives the Handler what it dropped a short while ago and wants again, where the
// server may not send it again: an answer may have overtaken what it was told. It returns when
// it is to be called next, 0 for never.
func (c *Client) handBack() (wait time.Duration) {
	for _, ts := range c.types() {
		c.mu.Lock()
		back, next := ts.comeBack()
		c.mu.Unlock()
		if next > 0 && (wait == 0 || next < wait) {
			wait = next
		}
		c.again(ts, Update{Type: ts.url, Upserts: back})
		if len(back) > 0 {
			c.mu.Lock()
			c.checkSyncedLocked()
			c.mu.Unlock()
		}
	}
	return wait
}

func (c *Client) types() []*typeState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

// again gives the Handler what had been accepted before. There is no response to acknowledge.
func (c *Client) again(ts *typeState, u Update) {
	if len(u.Upserts) == 0 {
		return
	}
	errs := c.cfg.Handler.Apply(u)
	if len(errs) > 0 {
		c.log.Error("configuration that had been accepted before rejected", "type", ts.url, "err", describe(errs))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range u.Upserts {
		if errs[r.Name] == nil {
			ts.accept(r)
		}
	}
}

// load applies the cache. What the Handler rejects, or does not ask for, is as
// if it had not been cached.
func (c *Client) load() {
	if c.cfg.Cache == nil {
		return
	}
	st, err := c.cfg.Cache.Load()
	if err != nil {
		if !noCache(err) {
			c.log.Error("cached configuration refused, starting without", "err", err)
		}
		return
	}
	byType := map[string][]*resource.Resource{}
	for _, r := range st.Resources {
		byType[r.Type] = append(byType[r.Type], r)
	}
	applied := 0
	for _, ts := range c.types() {
		applied += c.loadType(ts, byType[ts.url])
	}
	c.mu.Lock()
	// A clock that was ahead has it from the future; it is no younger than this start.
	if c.status.CachedAt = st.Saved; c.status.CachedAt.After(time.Now()) {
		c.status.CachedAt = time.Now()
	}
	c.fromCacheLocked(applied > 0 || slices.ContainsFunc(c.order, func(ts *typeState) bool { return ts.wildcard }))
	c.mu.Unlock()
	c.log.Info("cached configuration applied", "resources", applied, "sequence", st.Sequence, "age", time.Since(st.Saved).Round(time.Second))
}

// loadType applies what the cache has of a type, and keeps what nobody has asked for yet. That
// there is nothing is news of what is asked for by wildcard.
func (c *Client) loadType(ts *typeState, rs []*resource.Resource) (applied int) {
	c.mu.Lock()
	u := ts.update(&answer{url: ts.url, resources: rs, full: true})
	u.Cached = true
	ts.kept = map[string]*resource.Resource{}
	for _, r := range rs {
		if !ts.wants(r.Name) {
			ts.kept[r.Name] = r
		}
	}
	none := len(u.Upserts) == 0 && !ts.wildcard
	c.mu.Unlock()
	if none {
		return 0
	}
	errs := c.cfg.Handler.Apply(u)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range u.Upserts {
		if errs[r.Name] == nil && ts.wants(r.Name) {
			ts.accepted[r.Name] = r
			applied++
		}
	}
	if len(errs) > 0 {
		c.log.Error("part of the cached configuration rejected", "type", ts.url, "err", describe(errs))
	}
	return applied
}

// handKept gives the Handler what it has asked for since the cache was read.
func (c *Client) handKept() {
	for _, ts := range c.types() {
		c.mu.Lock()
		u := Update{Type: ts.url, Cached: true}
		for _, n := range slices.Sorted(maps.Keys(ts.kept)) {
			if ts.wants(n) {
				u.Upserts = append(u.Upserts, ts.kept[n])
				delete(ts.kept, n)
			}
		}
		c.fromCacheLocked(len(u.Upserts) > 0)
		c.mu.Unlock()
		c.again(ts, u)
	}
}

// fromCacheLocked notes that something of the cache is in force, and nothing newer.
func (c *Client) fromCacheLocked(yes bool) {
	if yes {
		c.status.FromCache = true
		c.status.AsOf = c.status.CachedAt
	}
}

// meanwhile waits for what may take long, and goes on handing over what was kept.
func (c *Client) meanwhile(done <-chan struct{}) {
	for {
		c.handKept()
		select {
		case <-done:
			return
		case <-c.wake:
		}
	}
}

func noCache(err error) bool { return errors.Is(err, errNone) }
