package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// callTimeout bounds one request to a control plane.
const callTimeout = 15 * time.Second

// keep renews what is due, obtains what is missing and drops what is withdrawn,
// until ctx ends. It alone changes the identities.
func (a *Agent) keep(ctx context.Context) {
	for {
		next := a.keepOnce(ctx)
		timer := time.NewTimer(max(time.Until(next), 10*time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// keepOnce does what is due and returns when it wants to be called again.
func (a *Agent) keepOnce(ctx context.Context) time.Time {
	next := time.Now().Add(time.Minute)
	soonest := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	a.dropWithdrawn()
	a.saveUnsaved()
	soonest(a.keepNode(ctx))
	for _, id := range a.due() {
		soonest(a.keepWorkload(ctx, id))
	}
	return next
}

// due are the identities to hold: those wanted, or all, as far as permitted.
func (a *Agent) due() []spiffeid.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.record == nil || a.record.Banned {
		return nil
	}
	var out []spiffeid.ID
	for _, w := range a.record.Workloads {
		if len(a.wanted) == 0 || slices.Contains(a.wanted, w.ID) {
			out = append(out, w.ID)
		}
	}
	return out
}

// dropWithdrawn forgets what the record no longer names, also on disk.
func (a *Agent) dropWithdrawn() {
	a.mu.Lock()
	var gone []spiffeid.ID
	for id := range a.workloads {
		if a.record != nil && !a.record.Permits(id) {
			gone = append(gone, id)
			delete(a.workloads, id)
		}
	}
	a.mu.Unlock()
	for _, id := range gone {
		a.log.Warn("identity withdrawn", "id", id.String())
		if err := a.state.dropWorkload(id); err != nil {
			a.log.Error("withdrawn identity stays on disk", "id", id.String(), "err", err)
		}
	}
	if len(gone) > 0 {
		a.publish()
	}
}

// renewAt is half of an SVID's life, give or take a tenth of it, decided by the
// serial so that it stays the same across looks and differs between hosts.
func renewAt(v *svid.SVID) time.Time {
	leaf := v.Leaf()
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	var seed uint64
	for _, b := range leaf.SerialNumber.Bytes() {
		seed = seed<<8 | uint64(b)
	}
	jitter := rand.New(rand.NewPCG(seed, 0)).Float64()*0.1 - 0.05
	return leaf.NotBefore.Add(time.Duration(float64(life) * (0.5 + jitter)))
}

// again is when a failed attempt is repeated.
func again() time.Time { return time.Now().Add(500*time.Millisecond + rand.N(1500*time.Millisecond)) }

func (a *Agent) keepNode(ctx context.Context) time.Time {
	a.mu.Lock()
	node, notBefore := a.node, a.nodeNext
	a.mu.Unlock()
	at := renewAt(node)
	if at.Before(notBefore) {
		at = notBefore
	}
	if time.Now().Before(at) {
		return at
	}
	v, err := a.renewNode(ctx, node)
	a.mu.Lock()
	a.nodeErr, a.nodeNext = err, time.Time{}
	if err != nil {
		a.nodeNext = again().Add(10 * time.Second)
		at = a.nodeNext
	}
	if v != nil {
		a.node, a.nodeUnsaved = v, err != nil
		at = renewAt(v)
	}
	a.mu.Unlock()
	if err != nil {
		a.log.Warn("node svid not renewed, or not kept", "id", node.ID.String(), "err", err)
	}
	if v != nil {
		a.publish()
	}
	return at
}

// saveUnsaved keeps on disk what was issued while it took nothing.
func (a *Agent) saveUnsaved() {
	a.mu.Lock()
	node, unsaved := a.node, map[*held]*svid.SVID{}
	if !a.nodeUnsaved {
		node = nil
	}
	for _, h := range a.workloads {
		if h.unsaved {
			unsaved[h] = h.svid
		}
	}
	a.mu.Unlock()
	if node != nil && a.state.saveNode(node) == nil {
		a.mu.Lock()
		a.nodeUnsaved, a.nodeErr, a.nodeNext = false, nil, time.Time{}
		a.mu.Unlock()
	}
	for h, v := range unsaved {
		if a.state.saveWorkload(v) == nil {
			a.mu.Lock()
			h.unsaved, h.err, h.next = false, nil, time.Time{}
			a.mu.Unlock()
		}
	}
}

// renewNode returns the next SVID also where it cannot be kept: on a full disk the one before
// would expire, and then only a token helps.
func (a *Agent) renewNode(ctx context.Context, node *svid.SVID) (*svid.SVID, error) {
	csr, err := identityv1.NewCSR(a.key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := identityv1.NewIdentityClient(a.conn.grpc).Renew(ctx, &identityv1.RenewRequest{Csr: csr})
	if err != nil {
		return nil, err
	}
	chain, err := identityv1.ParseChain(reply.GetChain())
	if err != nil {
		return nil, err
	}
	v, err := svid.New(chain, a.key)
	if err != nil {
		return nil, err
	}
	if err := a.check(v, node.ID, reply.GetServerTime()); err != nil {
		return nil, err
	}
	return v, a.state.saveNode(v)
}

// check verifies an SVID as a peer would, before it replaces anything.
func (a *Agent) check(v *svid.SVID, want spiffeid.ID, serverTime int64) error {
	return identityv1.Check(v, a.bundle(), want, identityv1.Skew(serverTime, time.Now()))
}

func (a *Agent) bundle() *trust.Bundle {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bundles[a.td.Name()]
}

func (a *Agent) keepWorkload(ctx context.Context, id spiffeid.ID) time.Time {
	a.mu.Lock()
	h := a.workloads[id]
	if h == nil {
		h = &held{}
		a.workloads[id] = h
	}
	have, notBefore := h.svid, h.next
	a.mu.Unlock()
	var at time.Time
	if have != nil && !a.stale(have) {
		at = renewAt(have)
	}
	if at.Before(notBefore) {
		at = notBefore
	}
	if time.Now().Before(at) {
		return at
	}
	v, err := a.issue(ctx, id)
	a.mu.Lock()
	h.err = err
	if err != nil {
		h.next = again()
		if have != nil && !a.staleLocked(have) {
			h.next = h.next.Add(10 * time.Second)
		}
		at = h.next
	}
	if v != nil {
		h.svid, h.next, h.unsaved = v, time.Time{}, err != nil
		at = renewAt(v)
	}
	a.mu.Unlock()
	if err != nil {
		a.log.Warn("svid not obtained, or not kept", "id", id.String(), "err", err)
	}
	if v != nil {
		a.publish()
	}
	return at
}

// stale: an SVID that expired, or whose signer is no longer an anchor, is of no
// use and is replaced at once.
func (a *Agent) stale(v *svid.SVID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.staleLocked(v)
}

func (a *Agent) staleLocked(v *svid.SVID) bool {
	b := a.bundles[a.td.Name()]
	if b == nil {
		return false
	}
	return identityv1.Check(v, b, v.ID, 0) != nil
}

// issue returns an SVID also where it cannot be kept, as renewNode does.
func (a *Agent) issue(ctx context.Context, id spiffeid.ID) (*svid.SVID, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := identityv1.NewCSR(key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := identityv1.NewIdentityClient(a.conn.grpc).IssueWorkload(ctx, &identityv1.IssueWorkloadRequest{SpiffeId: id.String(), Csr: csr}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	chain, err := identityv1.ParseChain(reply.GetChain())
	if err != nil {
		return nil, err
	}
	v, err := svid.New(chain, key)
	if err != nil {
		return nil, err
	}
	if err := a.check(v, id, reply.GetServerTime()); err != nil {
		return nil, err
	}
	if a.cfg.MemoryKeys {
		return v, nil
	}
	if err := a.state.saveWorkload(v); err != nil {
		return v, fmt.Errorf("keep %s: %w", id, err)
	}
	return v, nil
}
