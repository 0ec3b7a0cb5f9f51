package agent

import (
	"context"
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
// node's record. A bundle never goes back: a control plane that is behind
// another does not bring an anchor back.
func (a *Agent) takeTrust(u *identityv1.TrustUpdate, save bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := u.GetRecord(); r != nil {
		n, err := r.Node(a.td)
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		a.setRecordLocked(n)
	}
	next := maps.Clone(a.bundles)
	for _, wire := range u.GetBundles() {
		b, err := wire.Trust()
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		name := b.TrustDomain.Name()
		if old := a.bundles[name]; old != nil && b.Sequence < old.Sequence {
			continue
		}
		next[name] = b
	}
	// A trust domain that is no longer named is no longer trusted. A banned
	// node's last message names none, and its record says the rest.
	if len(u.GetBundles()) > 0 {
		named := map[string]bool{}
		for _, b := range u.GetBundles() {
			named[b.GetTrustDomain()] = true
		}
		maps.DeleteFunc(next, func(name string, _ *trust.Bundle) bool { return !named[name] })
	}
	a.bundles = next
	if cps := u.GetControlPlanes(); len(cps) > 0 {
		a.addresses = nil
		for _, cp := range cps {
			a.addresses = append(a.addresses, cp.GetAddresses()...)
		}
	}
	if save {
		a.status.LastContact = time.Now()
		return a.state.saveTrust(u)
	}
	// What an earlier run left is as old as the message it came in.
	if a.status.LastContact = identityv1.FromTime(u.GetServerTime()); a.status.LastContact.After(time.Now()) {
		a.status.LastContact = time.Now()
	}
	return nil
}

func (a *Agent) setRecordLocked(n token.Node) {
	if a.record != nil && n.Revision < a.record.Revision {
		return
	}
	r := &Record{Node: n.Name, Revision: n.Revision, Banned: n.Banned, BanReason: n.BanReason}
	for _, p := range n.Permitted {
		r.Workloads = append(r.Workloads, Workload{ID: p.ID, Selectors: p.Selectors})
	}
	a.record, a.role = r, n.Role
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
		if err := a.takeTrust(u, true); err != nil {
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
		a.publish()
		a.announce()
		a.conn.setAddresses(a.allAddresses())
		a.poke()
	}
}

// skewWarning is the difference of clocks worth a warning.
const skewWarning = 30 * time.Second
