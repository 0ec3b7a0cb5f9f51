package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hauberk-mesh/hauberk/identity/identityv1"
	"github.com/hauberk-mesh/hauberk/identity/svid"
	"github.com/hauberk-mesh/hauberk/identity/token"
	"github.com/hauberk-mesh/hauberk/identity/trust"
)

// takeTrust takes what a control plane says of bundles, control planes and this
// node's record, and keeps on disk what is in force then. Neither a bundle nor the
// record goes back: a control plane that is behind another does not bring an anchor
// back, after a restart neither. Of a message that cannot be read nothing is taken.
func (a *Agent) takeTrust(u *identityv1.TrustUpdate, save bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	offered := map[string]*trust.Bundle{}
	for _, wire := range u.GetBundles() {
		b, err := wire.Trust()
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		name := b.TrustDomain.Name()
		if offered[name] != nil {
			return fmt.Errorf("agent: two bundles of %s in one message", name)
		}
		offered[name] = b
	}
	if r := u.GetRecord(); r != nil {
		n, err := r.Node(a.td)
		if err == nil {
			err = a.setRecordLocked(n)
		}
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	// A banned node's last message names no trust domain, and its record says the rest.
	if len(offered) > 0 {
		a.setBundlesLocked(offered)
	}
	if cps := u.GetControlPlanes(); len(cps) > 0 {
		a.controlPlanes, a.addresses = cps, nil
		for _, cp := range cps {
			a.addresses = append(a.addresses, cp.GetAddresses()...)
		}
	}
	if save {
		a.status.LastContact = time.Now()
		return a.saveTrustLocked(u.GetServerTime())
	}
	// What an earlier run left is as old as the message it came in.
	if a.status.LastContact = identityv1.FromTime(u.GetServerTime()); a.status.LastContact.After(time.Now()) {
		a.status.LastContact = time.Now()
	}
	return nil
}

// setBundlesLocked takes the trust domains that are named, each by the latest bundle
// that was ever heard of it. One that is no longer named is no longer trusted, but
// remembered: a control plane that is behind may name it again.
func (a *Agent) setBundlesLocked(offered map[string]*trust.Bundle) {
	next, unnamed, refused := map[string]*trust.Bundle{}, map[string]*trust.Bundle{}, ""
	maps.Copy(unnamed, a.unnamed)
	maps.Copy(unnamed, a.bundles)
	for _, name := range slices.Sorted(maps.Keys(offered)) {
		next[name] = offered[name]
		held := unnamed[name]
		delete(unnamed, name)
		err := trust.Accept(held, offered[name])
		if err == nil {
			continue
		}
		next[name] = held
		if refused = err.Error(); errors.Is(err, trust.ErrOlder) {
			a.log.Debug("trust bundle not taken", "err", err)
		} else if refused != a.refused {
			a.log.Warn("trust bundle not taken, the one in use stays", "err", err)
		}
	}
	a.bundles, a.unnamed, a.refused = next, unnamed, refused
}

// saveTrustLocked keeps what is in force, as a message that says it.
func (a *Agent) saveTrustLocked(serverTime int64) error {
	u := &identityv1.TrustUpdate{ServerTime: serverTime, ControlPlanes: a.controlPlanes, Bundles: a.wire(a.bundles)}
	if a.said != nil {
		u.Record = identityv1.NewRecord(*a.said)
	}
	// Between any two writes a trust domain may be in both files, but none is in neither:
	// one that is named anew leaves the other file last.
	unnamed := a.wire(a.unnamed)
	returned, err := a.state.unnamed()
	if err != nil {
		return err
	}
	returned = slices.DeleteFunc(returned, func(b *identityv1.Bundle) bool { return a.unnamed[b.GetTrustDomain()] != nil })
	if err := a.state.saveUnnamed(slices.Concat(unnamed, returned)); err != nil {
		return err
	}
	if err := a.state.saveTrust(u); err != nil || len(returned) == 0 {
		return err
	}
	return a.state.saveUnnamed(unnamed)
}

// wire has the own trust domain first.
func (a *Agent) wire(bundles map[string]*trust.Bundle) []*identityv1.Bundle {
	var out []*identityv1.Bundle
	own := a.td.Name()
	if b := bundles[own]; b != nil {
		out = append(out, identityv1.NewBundle(b))
	}
	for _, name := range slices.Sorted(maps.Keys(bundles)) {
		if name != own {
			out = append(out, identityv1.NewBundle(bundles[name]))
		}
	}
	return out
}

// loadTrust takes up what an earlier run left.
func (a *Agent) loadTrust() error {
	unnamed, err := a.state.unnamed()
	if err != nil {
		return err
	}
	for _, wire := range unnamed {
		b, err := wire.Trust()
		if err != nil {
			return fmt.Errorf("agent: %s: %w", a.state.path(unnamedFile), err)
		}
		if a.unnamed == nil {
			a.unnamed = map[string]*trust.Bundle{}
		}
		a.unnamed[b.TrustDomain.Name()] = b
	}
	u, err := a.state.trust()
	if err != nil || u == nil {
		return err
	}
	return a.takeTrust(u, false)
}

// setRecordLocked takes a record that is later than the one held. A node that joined
// under another name has another record.
func (a *Agent) setRecordLocked(n token.Node) error {
	if old := a.said; old != nil && old.Role == n.Role && old.Name == n.Name {
		if later, err := token.Supersedes(n, *old); err != nil || !later {
			return err
		}
	}
	r := &Record{Node: n.Name, Revision: n.Revision, Banned: n.Banned, BanReason: n.BanReason}
	for _, p := range n.Permitted {
		r.Workloads = append(r.Workloads, Workload{ID: p.ID, Selectors: p.Selectors})
	}
	a.said, a.record, a.role = &n, r, n.Role
	return nil
}

// allAddresses are where control planes may be, configured ones first.
func (a *Agent) allAddresses() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.Clone(a.cfg.Addresses)
	add := func(list []string) {
		for _, x := range list {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
	}
	add(a.addresses)
	if t, err := token.Parse(a.cfg.Token); err == nil {
		add(t.Addresses)
	}
	return out
}

// publish makes the snapshot of what is held. An identity that is not in the
// record is not in it, whatever the disk says.
func (a *Agent) publish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &svid.Snapshot{SVIDs: map[string]*svid.SVID{}, Bundles: map[string]*svid.Anchors{}}
	banned := a.record != nil && a.record.Banned
	if a.node != nil && !banned {
		s.SVIDs[a.node.ID.String()] = a.node
		if a.role == token.RoleOperator {
			s.Default = a.node.ID.String()
		}
	}
	var only string
	for id, h := range a.workloads {
		if h.svid == nil || !a.record.Permits(id) {
			continue
		}
		s.SVIDs[id.String()] = h.svid
		only = id.String()
	}
	switch {
	case !a.cfg.Default.IsZero():
		s.Default = a.cfg.Default.String()
	case len(s.SVIDs) == 2 && only != "":
		s.Default = only
	}
	for name, b := range a.bundles {
		s.Bundles[name] = b.Anchors()
	}
	a.holder.Set(s)
}

// announce closes ready once what it promises is published.
func (a *Agent) announce() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.isReady && a.node != nil && time.Now().Before(a.node.Leaf().NotAfter) && len(a.bundles) > 0 {
		a.isReady = true
		close(a.ready)
	}
}

// watchTrust follows one control plane after another.
func (a *Agent) watchTrust(ctx context.Context) {
	retry := newBackoff()
	for {
		began := time.Now()
		err := a.followTrust(ctx)
		if ctx.Err() != nil {
			return
		}
		a.mu.Lock()
		a.status.Connected = false
		a.status.LastError = err.Error()
		a.mu.Unlock()
		a.log.Debug("trust stream ended", "err", err)
		if time.Since(began) > time.Minute {
			retry.reset()
		}
		if !retry.wait(ctx, nil) {
			return
		}
	}
}

func (a *Agent) followTrust(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := identityv1.NewIdentityClient(a.conn.grpc).WatchTrust(ctx, &identityv1.WatchTrustRequest{})
	if err != nil {
		return err
	}
	for {
		u, err := stream.Recv()
		if err != nil {
			return err
		}
		// What cannot be kept, on a full disk, is in force all the same.
		err = a.takeTrust(u, true)
		a.publish()
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.status.Connected = true
		skew := identityv1.Skew(u.GetServerTime(), time.Now())
		warn := skew.Abs() >= skewWarning && a.status.Skew.Abs() < skewWarning
		a.status.Skew = skew
		a.mu.Unlock()
		if warn {
			a.log.Warn("this host's clock differs from the control plane's: set the clock", "skew", skew.Round(time.Second).String())
		}
		a.announce()
		a.conn.setAddresses(a.allAddresses())
		a.poke()
	}
}

// skewWarning is the difference of clocks worth a warning.
const skewWarning = 30 * time.Second
